// The layers of NequIP without PyTorch, and with them atomic energies, forces and virials.
//
// The same steps as potentials/architectures/nequip.py, forwards and then backwards by hand. Atoms go through a
// layer in small blocks, so that messages, by far the longest rows, never leave the cache: in the
// backward pass their gradients are computed block by block and applied to the edges immediately.
// Processes exchange the features that are sent. Equation numbers are those of
// docs/understand/systems.md.
#pragma once
#include "convolution.h"
#include "edges.h"
#include "potential.h"

namespace tesseral {
namespace TESSERAL_ISA {

// Length of flat rows with these channels.
inline long flat_row(const int32_t* channels, int l_max) {
  long length = 0;
  for (int l = 0; l <= l_max; l++) length += (2 * l + 1) * channels[l];
  return length;
}

// Flat rows times a matrix for each degree that both have; of its own for each element where the
// atoms' species are given.
template <class T, bool ADD>
void flat_linear(const T* x, const int32_t* c_in, int l_in, const void* weights, T* out, const int32_t* c_out,
                 int l_out, int64_t atoms, const int64_t* species = nullptr) {
  constexpr int most = 2 * TESSERAL_L_MAX + 1;
  const long in_row = flat_row(c_in, l_in), out_row = flat_row(c_out, l_out);
  const int l_max = std::min(l_in, l_out);
  long set = 0, from_start = 0, to_start = 0, weight_start = 0;
  for (int l = 0; l <= l_max; l++) set += long(c_in[l]) * c_out[l];
  const T* from[atoms_per_block * most];
  T* to[atoms_per_block * most];
  for (int l = 0; l <= l_max; l++) {
    const T* weight = static_cast<const T*>(weights) + weight_start;
    const long rows = 2 * l + 1;
    for (int64_t a = 0; a < atoms; a++)
      for (long m = 0; m < rows; m++) {
        from[a * rows + m] = x + a * in_row + from_start + m * c_in[l];
        to[a * rows + m] = out + a * out_row + to_start + m * c_out[l];
      }
    if (!species) times_matrix<T, ADD>(from, to, atoms * rows, weight, c_in[l], c_out[l]);
    for (int64_t a = 0; species && a < atoms; a++)
      times_matrix<T, ADD>(from + a * rows, to + a * rows, rows, weight + species[a] * set, c_in[l], c_out[l]);
    from_start += rows * c_in[l], to_start += rows * c_out[l], weight_start += long(c_in[l]) * c_out[l];
  }
}

template <class T> void add_bias(const void* bias, T* rows, long row, long channels, int64_t atoms) {
  if (!bias) return;
  for (int64_t a = 0; a < atoms; a++)
    for (long c = 0; c < channels; c++) rows[a * row + c] += static_cast<const T*>(bias)[c];
}

constexpr double norm_floor = 1e-12;
template <class T> T norm_share(long l, int l_max) { return T(1) / T((l_max + 1) * (2 * l + 1) * (2 * l + 1)); }

// Sizes of one layer's rows. The field holds the scalars, the gates beside them, and the degrees that
// these open; without the gates it has the channels that come out.
struct NequipSizes {
  const tesseral_nequip_layer& layer;
  const long in, message, field;
  long gates = 0, out;
  int32_t channels_out[TESSERAL_L_MAX + 1];

  explicit NequipSizes(const tesseral_nequip_layer& own)
      : layer(own),
        in(flat_row(own.channels_in, own.l_in)),
        message(flat_row(own.channels_message, own.l_out)),
        field(flat_row(own.channels_field, own.l_out)) {
    for (int l = 1; l <= own.l_out; l++) gates += channels_out[l] = own.channels_field[l];
    channels_out[0] = own.channels_field[0] - int32_t(gates);
    out = field - gates;
  }
};

// The function that opens a gate, and its slope.
template <class T> struct Gate {
  Vector<T> value, slope;
  Gate(Vector<T> x, bool silu) {
    const Vector<T> s = sigmoid<T>(x);
    value = silu ? x * s : s;
    slope = silu ? s * (T(1) + x * (T(1) - s)) : s * (T(1) - s);
  }
};

// (4): rows of a field to rows of features.
template <class T>
void open_gates(const NequipSizes& sizes, bool silu, const T* field, T* out, int64_t atoms) {
  constexpr int W = width<T>;
  const long scalars = sizes.channels_out[0];
  for (int64_t a = 0; a < atoms; a++, field += sizes.field, out += sizes.out) {
    for (long c = 0; c < scalars; c += W) store(out + c, Gate<T>(load(field + c), true).value);
    long gate = scalars, from = scalars + sizes.gates, to = scalars;
    for (int l = 1; l <= sizes.layer.l_out; l++) {
      const long channels = sizes.channels_out[l];
      for (long c = 0; c < channels; c += W) {
        const Vector<T> opening = Gate<T>(load(field + gate + c), silu).value;
        for (long m = c; m < (2 * l + 1) * channels; m += channels)
          store(out + to + m, opening * load(field + from + m));
      }
      gate += channels, from += (2 * l + 1) * channels, to += (2 * l + 1) * channels;
    }
  }
}

// The gradient by the field from that by the features.
template <class T>
void pull_gates(const NequipSizes& sizes, bool silu, const T* field, const T* by_out, T* by_field, int64_t atoms) {
  constexpr int W = width<T>;
  const long scalars = sizes.channels_out[0];
  for (int64_t a = 0; a < atoms; a++, field += sizes.field, by_field += sizes.field, by_out += sizes.out) {
    for (long c = 0; c < scalars; c += W)
      store(by_field + c, load(by_out + c) * Gate<T>(load(field + c), true).slope);
    long gate = scalars, from = scalars + sizes.gates, to = scalars;
    for (int l = 1; l <= sizes.layer.l_out; l++) {
      const long channels = sizes.channels_out[l];
      for (long c = 0; c < channels; c += W) {
        const Gate<T> opening(load(field + gate + c), silu);
        Vector<T> along = {};
        for (long m = c; m < (2 * l + 1) * channels; m += channels) {
          const Vector<T> by = load(by_out + to + m);
          along += by * load(field + from + m);
          store(by_field + from + m, by * opening.value);
        }
        store(by_field + gate + c, along * opening.slope);
      }
      gate += channels, from += (2 * l + 1) * channels, to += (2 * l + 1) * channels;
    }
  }
}

// The norm of potentials/blocks/flat.py: 1 / size of each row of a field, and the rows times this and
// the factors of the channels.
template <class T>
void normalise(const NequipSizes& sizes, const T* field, T* out, T* inverse, int64_t atoms) {
  constexpr int W = width<T>;
  const int32_t* channels = sizes.layer.channels_field;
  const int l_max = sizes.layer.l_out;
  for (int64_t a = 0; a < atoms; a++, field += sizes.field, out += sizes.field) {
    T squared = T(norm_floor);
    for (long l = 0, at = 0; l <= l_max; l++) {
      const long end = at + (2 * l + 1) * channels[l];
      Vector<T> total = {};
      for (; at < end; at += W) total += load(field + at) * load(field + at);
      squared += sum<T>(total) * norm_share<T>(l, l_max);
    }
    inverse[a] = T(1) / std::sqrt(squared);
    const T* factors = static_cast<const T*>(sizes.layer.norm);
    for (long l = 0, at = 0; l <= l_max; factors += channels[l], l++)
      for (long m = 0; m <= 2 * l; m++)
        for (long c = 0; c < channels[l]; c += W, at += W)
          store(out + at, inverse[a] * (load(factors + c) * load(field + at)));
  }
}

// The gradient by the field from that by the result of `normalise`, in place.
template <class T>
void pull_norm(const NequipSizes& sizes, const T* field, const T* inverse, T* by, int64_t atoms) {
  constexpr int W = width<T>;
  const int32_t* channels = sizes.layer.channels_field;
  const int l_max = sizes.layer.l_out;
  for (int64_t a = 0; a < atoms; a++, field += sizes.field, by += sizes.field) {
    Vector<T> along = {};
    const T* factors = static_cast<const T*>(sizes.layer.norm);
    for (long l = 0, at = 0; l <= l_max; factors += channels[l], l++)
      for (long m = 0; m <= 2 * l; m++)
        for (long c = 0; c < channels[l]; c += W, at += W) {
          const Vector<T> scaled = inverse[a] * (load(factors + c) * load(by + at));
          along += scaled * load(field + at);
          store(by + at, scaled);
        }
    const T back = sum<T>(along) * inverse[a] * inverse[a];
    for (long l = 0, at = 0; l <= l_max; l++) {
      const long end = at + (2 * l + 1) * channels[l];
      const T share = back * norm_share<T>(l, l_max);
      for (; at < end; at += W) store(by + at, load(by + at) - share * load(field + at));
    }
  }
}

template <class T> struct NequipActivations {
  struct Layer {
    T *sent, *field, *readout;  // (atoms, in), (owned, field), (owned, scalars) where there is one
  };
  std::vector<Layer> layers;
  T *features, *by_features, *by_sent;  // (owned, widest row), the last one (atoms, widest row)
  T *harmonics, *by_harmonics;          // (edges, components)
  EdgeSplines<T>* splines;              // (edges)
  double *radii, *by_radii, *gradient, *density;  // (edges), (edges), (edges, 3), (owned)
  T* place;                                       // see Distances

  NequipActivations(const tesseral_potential& p, int64_t atoms, int64_t owned, int64_t edges, Arena& arena) {
    long widest = 0;
    for (int n = 0; n < p.layers; n++) {
      const NequipSizes sizes(p.nequip->layer[n]);
      widest = std::max({widest, sizes.in, sizes.out});
      Layer kept = {arena.take<T>(atoms * sizes.in), arena.take<T>(owned * sizes.field), nullptr};
      if (sizes.layer.readout) kept.readout = arena.take<T>(owned * sizes.channels_out[0]);
      layers.push_back(kept);
    }
    features = arena.take<T>(owned * widest);
    by_features = arena.take<T>(owned * widest);
    by_sent = arena.take<T>(atoms * widest);
    harmonics = arena.take<T>(edges * components(p.l_edge));
    by_harmonics = arena.take<T>(edges * components(p.l_edge));
    splines = arena.take<EdgeSplines<T>>(edges);
    radii = arena.take<double>(edges);
    by_radii = arena.take<double>(edges);
    gradient = arena.take<double>(edges * 3);
    density = arena.take<double>(owned);
    place = arena.take<T>(p.uncertainty ? owned * p.uncertainty->rank : 0);
  }
};

template <class T> struct NequipRun {
  const tesseral_potential& p;
  const tesseral_nequip& f;
  const tesseral_graph& g;
  const Pairs pairs;
  NequipActivations<T> kept;
  const Distances<T> distances;
  const Groups receivers;

  NequipRun(const Pairs& own, Arena arena)
      : p(own.p),
        f(*p.nequip),
        g(own.g),
        pairs(own),
        kept(p, g.atoms, g.owned, g.edges, arena),
        distances{Distances<T>::wanted(p, g) ? kept.place : nullptr},
        receivers(g.receivers, g.edges, g.owned, true) {}

  tesseral_convolution convolution(int n) const {
    const tesseral_nequip_layer& layer = f.layer[n];
    return {kept.layers[n].sent, kept.harmonics, kept.radii, layer.coefficients, g.senders, g.receivers, g.atoms,
            g.edges, layer.l_in, p.l_edge, layer.l_out, 0, p.intervals, g.threads, p.cutoff, g.owned, layer.paths,
            layer.channels_in, layer.n_paths, f.splines, f.pieces, f.first};
  }

  const int64_t* own_species(const tesseral_nequip_layer& layer, int64_t i) const {
    return layer.keep_species ? g.species + i : nullptr;
  }

  // What atoms keep and send in the first layer depends on their element only.
  void begin() {
    const long channels = f.layer[0].channels_in[0];
    for (int64_t i = 0; i < g.atoms; i++)
      std::memcpy(kept.layers[0].sent + i * channels, static_cast<const T*>(f.first_sent) + g.species[i] * channels,
                  channels * sizeof(T));
  }

  // The splines of all edges, which differ from layer to layer in the length of their rows only.
  void place_edges() {
    const tesseral_convolution c = convolution(0);
    const Plan<T> plan(c);
    parallel(g.threads, [&](int thread, int threads) {
      const auto [begin, end] = share(g.edges, thread, threads);
      for (int64_t e = begin; e < end; e++) {
        Splines<T> own;
        set_splines(plan, kept.radii[e], own);
        for (int k = 0; k < 4; k++) {
          kept.splines[e].row[k] = int32_t(own.row[k] / plan.table_row);
          kept.splines[e].value[k] = own.value[k], kept.splines[e].slope[k] = own.slope[k];
        }
      }
    });
  }

  // (2) to (4) of layer n, (1) of the next one, and the readout.
  void forward(int n) {
    const NequipSizes sizes(f.layer[n]);
    const tesseral_nequip_layer& layer = sizes.layer;
    const tesseral_convolution c = convolution(n);
    const Plan<T> plan(c, kept.splines);
    parallel(g.threads, [&](int thread, int threads) {
      const auto [begin, end] = receivers.share(thread, threads);
      Chunk<T> chunk(plan, false);
      Lines<T> messages(atoms_per_block * sizes.message), results(atoms_per_block * sizes.out);
      Lines<T> hidden(2 * atoms_per_block * sizes.channels_out[0]), normal(atoms_per_block * sizes.field);
      each_block(begin, end, [&](int64_t i, int64_t count) {
        std::memset(messages.data(), 0, count * sizes.message * sizeof(T));
        convolve_edges(plan, chunk, receivers.first[i], receivers.first[i + count], i, messages.data());
        T* field = kept.layers[n].field + i * sizes.field;
        flat_linear<T, false>(messages.data(), layer.channels_message, layer.l_out, layer.leave, field,
                              layer.channels_field, layer.l_out, count);
        add_bias<T>(layer.leave_bias, field, sizes.field, layer.channels_field[0], count);
        if (n > 0)
          flat_linear<T, true>(kept.features + i * sizes.in, layer.channels_in, layer.l_in, layer.keep, field, layer.channels_field,
                               layer.l_out, count, own_species(layer, i));
        else
          for (int64_t a = 0; a < count; a++)
            for (long k = 0; k < layer.channels_field[0]; k++)
              field[a * sizes.field + k] +=
                  static_cast<const T*>(f.first_field)[g.species[i + a] * layer.channels_field[0] + k];
        T *out = results.data(), inverse[atoms_per_block];
        if (layer.norm) normalise<T>(sizes, field, normal.data(), inverse, count);
        open_gates(sizes, f.silu_gates, layer.norm ? normal.data() : field, out, count);
        if (layer.readout)
          read_out<T>(*layer.readout, p, g, out, sizes.out, sizes.channels_out[0], i, count, hidden.data(),
                      kept.layers[n].readout + i * sizes.channels_out[0], distances.place);
        if (n + 1 == p.layers) return;
        const tesseral_nequip_layer& next = f.layer[n + 1];
        T* sent = kept.layers[n + 1].sent + i * sizes.out;
        flat_linear<T, false>(out, next.channels_in, next.l_in, next.enter, sent, next.channels_in, next.l_in, count);
        add_bias<T>(next.enter_bias, sent, sizes.out, next.channels_in[0], count);
        std::memcpy(kept.features + i * sizes.out, out, count * sizes.out * sizeof(T));
      });
    });
  }

  // From the gradient by layer n's result, which stands in by_features unless n is the last layer,
  // that by its features and by what was sent, and of the edges.
  void backward(int n) {
    const NequipSizes sizes(f.layer[n]);
    const tesseral_nequip_layer& layer = sizes.layer;
    const tesseral_convolution c = convolution(n);
    const Plan<T> plan(c, kept.splines);
    const long scalars = sizes.channels_out[0];
    ThreadSums<T> by_sent(n > 0 ? kept.by_sent : nullptr, g.atoms * sizes.in, g.threads);
    parallel(g.threads, [&](int thread, int threads) {
      const auto [begin, end] = receivers.share(thread, threads);
      Chunk<T> chunk(plan, false);
      Lines<T> by_messages(atoms_per_block * sizes.message), by_field(atoms_per_block * sizes.field);
      Lines<T> by_out(atoms_per_block * sizes.out), normal(atoms_per_block * sizes.field);
      each_block(begin, end, [&](int64_t i, int64_t count) {
        if (n + 1 < p.layers)
          std::memcpy(by_out.data(), kept.by_features + i * sizes.out, count * sizes.out * sizeof(T));
        else
          std::memset(by_out.data(), 0, count * sizes.out * sizeof(T));
        for (int64_t a = 0; layer.readout && a < count; a++)
          for (long k = 0; k < scalars; k++)
            by_out.data()[a * sizes.out + k] += kept.layers[n].readout[(i + a) * scalars + k];
        const T* field = kept.layers[n].field + i * sizes.field;
        T inverse[atoms_per_block];
        if (layer.norm) normalise<T>(sizes, field, normal.data(), inverse, count);
        pull_gates(sizes, f.silu_gates, layer.norm ? normal.data() : field, by_out.data(), by_field.data(), count);
        if (layer.norm) pull_norm<T>(sizes, field, inverse, by_field.data(), count);
        flat_linear<T, false>(by_field.data(), layer.channels_field, layer.l_out, layer.leave_t, by_messages.data(),
                              layer.channels_message, layer.l_out, count);
        if (n > 0) {
          T* by_features = kept.by_features + i * sizes.in;
          std::memset(by_features, 0, count * sizes.in * sizeof(T));
          flat_linear<T, true>(by_field.data(), layer.channels_field, layer.l_out, layer.keep_t, by_features,
                               layer.channels_in, layer.l_in, count, own_species(layer, i));
        }
        pull_edges<T>(plan, chunk, receivers.first[i], receivers.first[i + count], i, by_messages.data(),
                      by_sent.of(thread), kept.by_harmonics, kept.by_radii, nullptr);
      });
    });
    by_sent.add_up();
    if (n == 0) return;
    if (g.exchange) g.exchange->gather(g.exchange->context, kept.by_sent, sizes.in * sizeof(T));
    parallel(g.threads, [&](int thread, int threads) {
      const auto [begin, end] = share(g.owned, thread, threads);
      each_block(begin, end, [&](int64_t i, int64_t count) {
        flat_linear<T, true>(kept.by_sent + i * sizes.in, layer.channels_in, layer.l_in, layer.enter_t,
                             kept.by_features + i * sizes.in, layer.channels_in, layer.l_in, count);
      });
    });
  }

  void run() {
    harmonics<T>(g.vectors, g.edges, p.l_edge, g.threads, kept.harmonics, kept.radii);
    pairs.energies(kept.radii, kept.density);
    distances.start(p, g);
    begin();
    place_edges();
    for (int n = 0; n < p.layers; n++) {
      forward(n);
      if (n + 1 < p.layers && g.exchange)
        g.exchange->spread(g.exchange->context, kept.layers[n + 1].sent, NequipSizes(f.layer[n]).out * sizeof(T));
    }
    distances.finish(p, g);
    std::memset(kept.by_harmonics, 0, g.edges * components(p.l_edge) * sizeof(T));
    pairs.slopes(g.senders, g.receivers, kept.radii, kept.density, kept.by_radii);
    for (int n = p.layers - 1; n >= 0; n--) backward(n);
    harmonics_backward<T>(g.vectors, g.edges, p.l_edge, g.threads, kept.by_harmonics, kept.by_radii, kept.gradient);
    pairs.forces(nullptr, kept.gradient);
  }
};

}  // namespace TESSERAL_ISA
}  // namespace tesseral
