// A whole Facet potential without PyTorch: atomic energies, forces and virials.
//
// The same steps as potentials/facet.py, forwards and then backwards by hand. Atoms go through a
// layer in small blocks, so that messages, fields and their products stay in the cache; only what
// the way back needs is kept for all atoms. Equation numbers are those of docs/theory.md.
#pragma once
#include <cmath>

#include "convolution.h"
#include "edges.h"
#include "nodes.h"

namespace tesseral {
namespace TESSERAL_ISA {

constexpr int64_t atoms_per_block = 16;

inline long components(int l) { return long(l + 1) * (l + 1); }

// Pieces of one block of memory, each on its own cache lines.
class Arena {
 public:
  explicit Arena(void* start) : start_(static_cast<char*>(start)) {}
  template <class T> T* take(int64_t n) {
    T* piece = reinterpret_cast<T*>(start_ + used_);
    used_ += (n * int64_t(sizeof(T)) + 63) / 64 * 64;
    return start_ ? piece : nullptr;
  }
  int64_t used() const { return used_; }

 private:
  char* start_;
  int64_t used_ = 0;
};

// What is kept of one mixing and one layer.
template <class T> struct KeptMixing {
  T *first, *second;  // (atoms, components, grid channels): the two factors of the product
};
template <class T> struct KeptLayer {
  T* features;                         // (atoms, m_in, channels)
  T* readout;                          // (atoms, channels): gradient of the energy by the scalars
  std::vector<KeptMixing<T>> mixings;
};
template <class T> struct Kept {
  std::vector<KeptLayer<T>> layers;
  T *by_features, *by_messages, *by_next;  // gradients, (atoms, components, channels)
  // Of the edges, sorted by receiver on the way forwards, by sender on the way back: all that is
  // then read or written of them lies in a row.
  T *harmonics, *by_harmonics;                    // (edges, components)
  double *radii, *by_radii, *vectors, *gradient;  // (edges), (edges), (edges, 3), (edges, 3)
  int64_t *senders, *receivers;                   // (edges), by sender
  double* density;                                // (atoms), of neighbours; then dE/d(density)

  Kept(const tesseral_facet& f, int64_t atoms, int64_t edges, Arena& arena) {
    const long all = components(f.l_max);
    for (int n = 0; n < f.layers; n++) {
      const tesseral_layer& layer = f.layer[n];
      KeptLayer<T> kept;
      kept.features = arena.take<T>(atoms * components(layer.l_in) * f.channels);
      kept.readout = arena.take<T>(atoms * f.channels);
      for (int k = 0; k < layer.mixings; k++) {
        const int64_t size = atoms * components(layer.mixing[k].l_in) * f.grid_channels;
        T* first = arena.take<T>(size);
        kept.mixings.push_back({first, arena.take<T>(size)});
      }
      layers.push_back(kept);
    }
    by_features = arena.take<T>(atoms * all * f.channels);
    by_next = arena.take<T>(atoms * all * f.channels);
    by_messages = arena.take<T>(atoms * all * f.channels);
    harmonics = arena.take<T>(edges * components(f.l_edge));
    by_harmonics = arena.take<T>(edges * components(f.l_edge));
    radii = arena.take<double>(edges);
    by_radii = arena.take<double>(edges);
    vectors = arena.take<double>(edges * 3);
    gradient = arena.take<double>(edges * 3);
    senders = arena.take<int64_t>(edges);
    receivers = arena.take<int64_t>(edges);
    density = arena.take<double>(f.binding_energies ? atoms : 0);
  }
};

template <class T> struct FacetRun {
  const tesseral_facet& f;
  const tesseral_graph& g;
  Kept<T> kept;
  const Groups receivers, senders;
  const long all, channels, grid;
  const int64_t* species;

  FacetRun(const tesseral_facet& facet, const tesseral_graph& graph, Arena arena)
      : f(facet),
        g(graph),
        kept(facet, graph.atoms, graph.edges, arena),
        receivers(graph.receivers, graph.edges, graph.owned, true),
        senders(graph.senders, graph.edges, graph.atoms, false),
        all(components(facet.l_max)),
        channels(facet.channels),
        grid(facet.grid_channels),
        species(graph.species) {}

  tesseral_convolution convolution(int n) const {
    return {kept.layers[n].features, kept.harmonics, kept.radii, f.layer[n].coefficients, g.senders, g.receivers,
            g.atoms, g.edges, f.layer[n].l_in, f.l_edge, f.l_max, f.channels, f.intervals, g.threads, f.cutoff,
            g.owned};
  }

  template <class Body> void each_block(int64_t begin, int64_t end, Body body) const {
    for (int64_t i = begin; i < end; i += atoms_per_block) body(i, std::min(atoms_per_block, end - i));
  }

  // (6) and its gradient by the scalars, which is known as soon as they are.
  void read_out(const tesseral_layer& layer, const T* features, long m, int64_t i, int64_t n, T* hidden,
                T* readout) const {
    const T *direct = static_cast<const T*>(layer.readout_linear), *last = static_cast<const T*>(layer.readout_output);
    const T *shift = static_cast<const T*>(layer.readout_shift);
    std::memset(hidden, 0, n * channels * sizeof(T));
    linear<T, true>(features, m, channels, static_cast<const T*>(layer.readout_hidden), 0, n, hidden, 1, channels);
    for (int64_t a = 0; a < n; a++) {
      const T* s = features + a * m * channels;
      const T scale = T(f.energy_scale[species[i + a]]);
      T energy = 0;
      for (long c = 0; c < channels; c++) {
        const T h = hidden[a * channels + c] + shift[c], gate = 1 / (1 + std::exp(-h));
        energy += direct[c] * s[c] + last[c] * h * gate;
        hidden[a * channels + c] = scale * last[c] * gate * (1 + h * (1 - gate));
        readout[a * channels + c] = scale * direct[c];
      }
      g.energies[i + a] += f.energy_scale[species[i + a]] * (double(energy) + layer.readout_constant);
    }
    linear<T, true>(hidden, 1, channels, static_cast<const T*>(layer.readout_hidden_t), 0, n, readout, 1, channels);
  }

  // Layer n of all atoms; `next` are the features that come out, (atoms, m_out, channels).
  void forward(int n, T* next) {
    const tesseral_layer& layer = f.layer[n];
    const KeptLayer<T>& own = kept.layers[n];
    const tesseral_convolution c = convolution(n);
    const Plan<T> plan(c);
    const long m_in = components(layer.l_in);
    parallel(g.threads, [&](int thread, int threads) {
      const auto [begin, end] = receivers.share(thread, threads);
      Chunk<T> chunk(plan, false);
      Lines<T> messages(atoms_per_block * all * channels), field(atoms_per_block * all * channels);
      Lines<T> products(atoms_per_block * all * grid), hidden(atoms_per_block * channels);
      each_block(begin, end, [&](int64_t i, int64_t count) {
        std::memset(messages.data(), 0, count * all * channels * sizeof(T));
        convolve_edges(plan, chunk, receivers.first[i], receivers.first[i + count], i, messages.data());  // (3)
        linear<T, false>(messages.data(), all, channels, static_cast<const T*>(layer.message), f.l_max, count,
                         field.data(), all, channels);  // (4)
        linear<T, true>(own.features + i * m_in * channels, m_in, channels, static_cast<const T*>(layer.skip),
                        layer.l_in, count, field.data(), all, channels);
        T* in = field.data();
        for (int k = 0; k < layer.mixings; k++) {  // (5)
          const tesseral_mixing& mixing = layer.mixing[k];
          const long m = components(mixing.l_in), m_out = components(mixing.l_out);
          T* first = own.mixings[k].first + i * m * grid;
          T* second = own.mixings[k].second + i * m * grid;
          linear<T, false>(in, m, channels, static_cast<const T*>(mixing.enter), mixing.l_in, count, first, m, grid);
          linear<T, false>(in, m, channels, static_cast<const T*>(mixing.second), mixing.l_in, count, second, m, grid);
          for (int64_t a = 0; a < count; a++)
            for (long p = 0; p < grid; p++)
              first[a * m * grid + p] += static_cast<const T*>(mixing.bias)[species[i + a] * grid + p];
          product(first, mixing.l_in, second, mixing.l_in, count, grid, products.data(), mixing.l_out);
          T* out = k + 1 == layer.mixings ? next + i * m_out * channels : messages.data();
          for (int64_t a = 0; a < count; a++)
            std::memcpy(out + a * m_out * channels, in + a * m * channels, m_out * channels * sizeof(T));
          linear<T, true>(products.data(), m_out, grid, static_cast<const T*>(mixing.leave), mixing.l_out, count, out,
                          m_out, channels);
          if (out == messages.data()) std::swap(messages, field), in = field.data();
        }
        const long m_out = components(layer.mixing[layer.mixings - 1].l_out);
        read_out(layer, next + i * m_out * channels, m_out, i, count, hidden.data(), own.readout + i * channels);
      });
    });
  }

  // From the gradient by layer n's result (null for the last one) that by its features and edges.
  void backward(int n, const T* by_next, T* by_features) {
    const tesseral_layer& layer = f.layer[n];
    const KeptLayer<T>& own = kept.layers[n];
    tesseral_convolution c = convolution(n);
    c.senders = kept.senders, c.receivers = kept.receivers;
    const Plan<T> plan(c);
    const long m_in = components(layer.l_in);
    parallel(g.threads, [&](int thread, int threads) {
      const auto [begin, end] = receivers.share(thread, threads);
      const long widest = atoms_per_block * all * std::max(channels, grid);
      Lines<T> sums(widest), field(widest), factors(widest);
      each_block(begin, end, [&](int64_t i, int64_t count) {
        for (int k = layer.mixings - 1; k >= 0; k--) {
          const tesseral_mixing& mixing = layer.mixing[k];
          const long m = components(mixing.l_in), m_out = components(mixing.l_out);
          T* by_out = sums.data();
          if (k == layer.mixings - 1) {
            if (by_next) std::memcpy(by_out, by_next + i * m_out * channels, count * m_out * channels * sizeof(T));
            else std::memset(by_out, 0, count * m_out * channels * sizeof(T));
            for (int64_t a = 0; a < count; a++)
              for (long p = 0; p < channels; p++)
                by_out[a * m_out * channels + p] += own.readout[(i + a) * channels + p];
          }
          for (int64_t a = 0; a < count; a++) {
            std::memcpy(field.data() + a * m * channels, by_out + a * m_out * channels, m_out * channels * sizeof(T));
            std::memset(field.data() + (a * m + m_out) * channels, 0, (m - m_out) * channels * sizeof(T));
          }
          T* by_product = factors.data();
          linear<T, false>(by_out, m_out, channels, static_cast<const T*>(mixing.leave_t), mixing.l_out, count,
                           by_product, m_out, grid);
          T* by_factor = sums.data();  // `by_out` has been used up
          product(by_product, mixing.l_out, own.mixings[k].second + i * m * grid, mixing.l_in, count, grid, by_factor,
                  mixing.l_in);
          linear<T, true>(by_factor, m, grid, static_cast<const T*>(mixing.enter_t), mixing.l_in, count, field.data(),
                          m, channels);
          product(by_product, mixing.l_out, own.mixings[k].first + i * m * grid, mixing.l_in, count, grid, by_factor,
                  mixing.l_in);
          linear<T, true>(by_factor, m, grid, static_cast<const T*>(mixing.second_t), mixing.l_in, count, field.data(),
                          m, channels);
          std::swap(sums, field);
        }
        linear<T, false>(sums.data(), all, channels, static_cast<const T*>(layer.message_t), f.l_max, count,
                         kept.by_messages + i * all * channels, all, channels);
        if (by_features)
          linear<T, false>(sums.data(), all, channels, static_cast<const T*>(layer.skip_t), layer.l_in, count,
                           by_features + i * m_in * channels, m_in, channels);
      });
    });
    if (by_features)
      std::memset(by_features + g.owned * m_in * channels, 0, (g.atoms - g.owned) * m_in * channels * sizeof(T));
    parallel(g.threads, [&](int thread, int threads) {
      const auto [begin, end] = senders.share(thread, threads);
      Chunk<T> chunk(plan, false);
      pull_edges<T>(plan, chunk, senders.first[begin], senders.first[end], 0, kept.by_messages, by_features,
                    kept.by_harmonics, kept.by_radii, nullptr);
    });
  }

  int64_t row_bytes(int n) const { return components(f.layer[n].l_in) * channels * sizeof(T); }

  void run() {
    const int last = f.layers - 1;
    harmonics<T>(g.vectors, g.edges, f.l_edge, g.threads, kept.harmonics, kept.radii);
    for (int64_t i = 0; i < g.owned; i++) g.energies[i] = f.reference_energies[species[i]];
    for (int64_t i = 0; i < g.atoms; i++)
      std::memcpy(kept.layers[0].features + i * channels, static_cast<const T*>(f.embedding) + species[i] * channels,
                  channels * sizeof(T));
    if (f.binding_energies) bind();
    if (f.zbl_charge) repel();
    // The last layer's features are read out at once; the place of a gradient holds them meanwhile.
    for (int n = 0; n <= last; n++) {
      T* next = n < last ? kept.layers[n + 1].features : kept.by_next;
      forward(n, next);
      if (n < last && g.exchange) g.exchange->spread(g.exchange->context, next, row_bytes(n + 1));
    }
    turn_round();
    T *by_next = nullptr, *by_features = kept.by_features, *other = kept.by_next;
    for (int n = last; n >= 0; n--) {
      backward(n, by_next, n > 0 ? by_features : nullptr);
      if (n > 0 && g.exchange) g.exchange->gather(g.exchange->context, by_features, row_bytes(n));
      by_next = by_features;
      std::swap(by_features, other);
    }
    harmonics_backward<T>(kept.vectors, g.edges, f.l_edge, g.threads, kept.by_harmonics, kept.by_radii, kept.gradient);
    sum_gradient();
  }

  // The edges once more, sorted by sender, and nothing yet in their gradients.
  void turn_round() {
    parallel(g.threads, [&](int thread, int threads) {
      const auto [begin, end] = share(g.edges, thread, threads);
      for (int64_t k = begin; k < end; k++) {
        const int64_t e = senders.order[k];
        kept.senders[k] = g.senders[e];
        kept.receivers[k] = g.receivers[e];
        for (int a = 0; a < 3; a++) kept.vectors[k * 3 + a] = g.vectors[e * 3 + a];
      }
    });
    harmonics<T>(kept.vectors, g.edges, f.l_edge, g.threads, kept.harmonics, kept.radii);
    std::memset(kept.by_harmonics, 0, g.edges * components(f.l_edge) * sizeof(T));
    std::memset(kept.by_radii, 0, g.edges * sizeof(double));
    if (f.binding_energies)
      for (int64_t k = 0; k < g.edges; k++) {
        const double x = kept.radii[k] / f.cutoff, left = std::max(0.0, 1 - x * x);
        kept.by_radii[k] = kept.density[kept.receivers[k]] * -6 * x / f.cutoff * left * left;
      }
    if (f.zbl_charge)
      for (int64_t k = 0; k < g.edges; k++)
        kept.by_radii[k] += nuclei(kept.radii[k], kept.senders[k], kept.receivers[k]).slope;
  }

  // Screened repulsion of the nuclei of an edge, in eV, and its slope (potentials/zbl.py).
  struct Repulsion {
    double energy, slope;
  };
  Repulsion nuclei(double radius, int64_t sender, int64_t receiver) const {
    constexpr double weights[] = {0.1818, 0.5099, 0.2802, 0.02817}, decays[] = {3.2, 0.9423, 0.4029, 0.2016};
    const int64_t pair = species[sender] * f.species + species[receiver];
    const double reach = f.zbl_reach[pair], y = radius / reach;
    if (y >= 1 || radius <= 0) return {0, 0};
    double screen = 0, by_radius = 0;
    for (int n = 0; n < 4; n++) {
      const double rate = decays[n] * f.zbl_screening[pair], term = weights[n] * std::exp(-rate * radius);
      screen += term;
      by_radius -= rate * term;
    }
    const double on = 1 - y * y * y * (10 - 15 * y + 6 * y * y), by_y = -30 * y * y * (1 - y) * (1 - y);
    const double strength = 0.5 * f.zbl_charge[pair] / radius;
    return {strength * screen * on, strength * (by_radius * on + screen * (by_y / reach - on / radius))};
  }
  void repel() {
    for (int64_t e = 0; e < g.edges; e++)
      g.energies[g.receivers[e]] += nuclei(kept.radii[e], g.senders[e], g.receivers[e]).energy;
  }

  // The mean binding energy, switched on by the density of neighbours (potentials/binding.py).
  void bind() {
    constexpr double steepness = 8;
    std::memset(kept.density, 0, g.owned * sizeof(double));
    for (int64_t e = 0; e < g.edges; e++) {
      const double x = kept.radii[e] / f.cutoff, left = std::max(0.0, 1 - x * x);
      kept.density[g.receivers[e]] += left * left * left;
    }
    for (int64_t i = 0; i < g.owned; i++) {
      const double density = kept.density[i], off = std::exp(-steepness * density * density);
      const double energy = f.binding_energies[species[i]];
      g.energies[i] += energy * (1 - off);
      kept.density[i] = energy * 2 * steepness * density * off;
    }
  }

  // An edge pulls its sender by its gradient and its receiver by the opposite.
  void sum_gradient() const {
    std::memset(g.forces, 0, g.atoms * 3 * sizeof(double));
    std::memset(g.virials, 0, g.owned * 9 * sizeof(double));
    for (int64_t k = 0; k < g.edges; k++) {
      const int64_t j = kept.senders[k], i = kept.receivers[k];
      const double *v = kept.vectors + k * 3, *d = kept.gradient + k * 3;
      for (int a = 0; a < 3; a++) {
        g.forces[j * 3 + a] += d[a];
        g.forces[i * 3 + a] -= d[a];
        for (int b = 0; b < 3; b++) g.virials[i * 9 + a * 3 + b] -= v[a] * d[b];
      }
    }
  }
};

template <class T> int64_t facet_workspace(const tesseral_facet* facet, int64_t atoms, int64_t edges) {
  Arena arena(nullptr);
  Kept<T>(*facet, atoms, edges, arena);
  return arena.used() + 64;
}

template <class T> void facet(const tesseral_facet* potential, const tesseral_graph* graph, void* workspace) {
  const uintptr_t aligned = (reinterpret_cast<uintptr_t>(workspace) + 63) / 64 * 64;
  FacetRun<T>(*potential, *graph, Arena(reinterpret_cast<void*>(aligned))).run();
}

}  // namespace TESSERAL_ISA
}  // namespace tesseral
