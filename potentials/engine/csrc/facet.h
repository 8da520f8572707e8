// The layers of Facet without PyTorch, and with them atomic energies, forces and virials.
//
// The same steps as potentials/architectures/facet.py, forwards and then backwards by hand. Atoms go through a
// layer in small blocks, so that messages, fields and their products stay in the cache; only data for
// the backward pass are kept for all atoms. Equation numbers are those of docs/understand/theory.md.
#pragma once
#include "aligned.h"
#include "potential.h"

namespace tesseral {
namespace TESSERAL_ISA {

// Data kept for the backward pass of one mixing, one layer and all layers.
template <class T> struct MixingActivations {
  T *first, *second;  // (atoms, components, grid channels): the two factors of the product
};
template <class T> struct LayerActivations {
  T* features;                         // (atoms, m_in, channels)
  T* readout;                          // (atoms, channels): gradient of the energy by the scalars
  std::vector<MixingActivations<T>> mixings;
};
template <class T> struct FacetActivations {
  std::vector<LayerActivations<T>> layers;
  T *by_features, *by_messages, *by_next;  // gradients, (atoms, components, channels)
  // Edges, sorted by receiver in the forward pass and by sender in the backward pass, so that they
  // are read and written in order.
  double *radii, *by_radii, *vectors, *gradient;  // (edges), (edges), (edges, 3), (edges, 3)
  int64_t *senders, *receivers;                   // (edges), by sender
  double* density;                                // (atoms), of neighbours; then dE/d(density)
  T* place;                                       // see Distances

  FacetActivations(const tesseral_potential& p, int64_t atoms, int64_t edges, Arena& arena) {
    const tesseral_facet& f = *p.facet;
    const long all = components(f.l_max);
    for (int n = 0; n < p.layers; n++) {
      const tesseral_facet_layer& layer = f.layer[n];
      LayerActivations<T> kept;
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
    radii = arena.take<double>(edges);
    by_radii = arena.take<double>(edges);
    vectors = arena.take<double>(edges * 3);
    gradient = arena.take<double>(edges * 3);
    senders = arena.take<int64_t>(edges);
    receivers = arena.take<int64_t>(edges);
    density = arena.take<double>(p.binding_energies ? atoms : 0);
    place = arena.take<T>(p.uncertainty ? atoms * p.uncertainty->rank : 0);
  }
};

template <class T> struct FacetRun {
  const tesseral_potential& p;
  const tesseral_facet& f;
  const tesseral_graph& g;
  const Pairs pairs;
  FacetActivations<T> kept;
  const Distances<T> distances;
  const Groups receivers, senders;
  const long all, channels, grid;
  const int64_t* species;

  FacetRun(const Pairs& own, Arena arena)
      : p(own.p),
        f(*p.facet),
        g(own.g),
        pairs(own),
        kept(p, g.atoms, g.edges, arena),
        distances{Distances<T>::wanted(p, g) ? kept.place : nullptr},
        receivers(g.receivers, g.edges, g.owned, true),
        senders(g.senders, g.edges, g.atoms, false),
        all(components(f.l_max)),
        channels(f.channels),
        grid(f.grid_channels),
        species(g.species) {}

  tesseral_convolution convolution(int n) const {
    return {kept.layers[n].features, nullptr, kept.radii, f.layer[n].coefficients, g.senders, g.receivers,
            g.atoms, g.edges, f.layer[n].l_in, p.l_edge, f.l_max, f.channels, p.intervals, g.threads, p.cutoff,
            g.owned};
  }

  // Layer n of all atoms; `next` are the features that come out, (atoms, m_out, channels).
  void forward(int n, T* next) {
    const tesseral_facet_layer& layer = f.layer[n];
    const LayerActivations<T>& own = kept.layers[n];
    const tesseral_convolution c = convolution(n);
    const auto& functions = aligned_functions<T>(layer.l_in);
    const long m_in = components(layer.l_in);
    parallel(g.threads, [&](int thread, int threads) {
      const auto [begin, end] = receivers.share(thread, threads);
      AlignedChunk<T> chunk;
      Lines<T> messages(atoms_per_block * all * channels), field(atoms_per_block * all * channels);
      Lines<T> products(atoms_per_block * all * grid), hidden(2 * atoms_per_block * channels);
      each_block(begin, end, [&](int64_t i, int64_t count) {
        std::memset(messages.data(), 0, count * all * channels * sizeof(T));
        functions.convolve(c, g.vectors, chunk, receivers.first[i], receivers.first[i + count], i,
                           messages.data());  // (3)
        linear<T, false>(messages.data(), all, channels, static_cast<const T*>(layer.message), f.l_max, count,
                         field.data(), all, channels);  // (4)
        linear<T, true>(own.features + i * m_in * channels, m_in, channels, static_cast<const T*>(layer.skip),
                        layer.l_in, count, field.data(), all, channels);
        T* in = field.data();
        for (int k = 0; k < layer.mixings; k++) {  // (5)
          const tesseral_facet_mixing& mixing = layer.mixing[k];
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
        read_out<T>(*layer.readout, p, g, next + i * m_out * channels, m_out * channels, channels, i, count, hidden.data(),
                    own.readout + i * channels, distances.place);
      });
    });
  }

  // From the gradient by layer n's result (null for the last one) that by its features and edges.
  void backward(int n, const T* by_next, T* by_features) {
    const tesseral_facet_layer& layer = f.layer[n];
    const LayerActivations<T>& own = kept.layers[n];
    tesseral_convolution c = convolution(n);
    c.senders = kept.senders, c.receivers = kept.receivers;
    const long m_in = components(layer.l_in);
    parallel(g.threads, [&](int thread, int threads) {
      const auto [begin, end] = receivers.share(thread, threads);
      const long widest = atoms_per_block * all * std::max(channels, grid);
      Lines<T> sums(widest), field(widest), factors(widest);
      each_block(begin, end, [&](int64_t i, int64_t count) {
        for (int k = layer.mixings - 1; k >= 0; k--) {
          const tesseral_facet_mixing& mixing = layer.mixing[k];
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
      AlignedChunk<T> chunk;
      aligned_functions<T>(layer.l_in).pull(c, kept.vectors, chunk, senders.first[begin], senders.first[end],
                                            kept.by_messages, by_features, kept.gradient);
    });
  }

  int64_t row_bytes(int n) const { return components(f.layer[n].l_in) * channels * sizeof(T); }

  void run() {
    const int last = p.layers - 1;
    set_lengths(g.vectors, g.edges, kept.radii);
    pairs.energies(kept.radii, kept.density);
    distances.start(p, g);
    for (int64_t i = 0; i < g.atoms; i++)
      std::memcpy(kept.layers[0].features + i * channels, static_cast<const T*>(f.embedding) + species[i] * channels,
                  channels * sizeof(T));
    // The last layer's features are read out at once; the place of a gradient holds them meanwhile.
    for (int n = 0; n <= last; n++) {
      T* next = n < last ? kept.layers[n + 1].features : kept.by_next;
      forward(n, next);
      if (n < last && g.exchange) g.exchange->spread(g.exchange->context, next, row_bytes(n + 1));
    }
    distances.finish(p, g);
    turn_round();
    T *by_next = nullptr, *by_features = kept.by_features, *other = kept.by_next;
    for (int n = last; n >= 0; n--) {
      backward(n, by_next, n > 0 ? by_features : nullptr);
      if (n > 0 && g.exchange) g.exchange->gather(g.exchange->context, by_features, row_bytes(n));
      by_next = by_features;
      std::swap(by_features, other);
    }
    pairs.forces(senders.order.data(), kept.gradient);
  }

  // The edges once more, sorted by sender, and in their gradients that of what the layers leave out.
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
    set_lengths(kept.vectors, g.edges, kept.radii);
    pairs.slopes(kept.senders, kept.receivers, kept.radii, kept.density, kept.by_radii);
    for (int64_t k = 0; k < g.edges; k++) {
      const double along = kept.radii[k] > 0 ? kept.by_radii[k] / kept.radii[k] : 0;
      for (int a = 0; a < 3; a++) kept.gradient[k * 3 + a] = along * kept.vectors[k * 3 + a];
    }
  }

  static void set_lengths(const double* v, int64_t edges, double* lengths) {
    for (int64_t e = 0; e < edges; e++, v += 3) lengths[e] = std::sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]);
  }
};

}  // namespace TESSERAL_ISA
}  // namespace tesseral
