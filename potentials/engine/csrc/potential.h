// Shared by the potentials of all architectures: blocks of atoms, scratch memory, energies from
// scalars, energies of pairs of atoms, and forces from the gradients of edges.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels.h"
#include "nodes.h"

namespace tesseral {
namespace TESSERAL_ISA {

constexpr int64_t atoms_per_block = 16;

inline long components(int l) { return long(l + 1) * (l + 1); }

// Calls body(first atom, number) for blocks of atoms.
template <class Body> void each_block(int64_t begin, int64_t end, Body body) {
  for (int64_t i = begin; i < end; i += atoms_per_block) body(i, std::min(atoms_per_block, end - i));
}

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

// Adds to the energies of atoms [i, i + n) what is read from their scalars, the first `channels` of
// rows of length `row`, and gives its gradient by the scalars, which is known as soon as they are.
//
//   features: of atom i and on; readout: (n, channels), the gradient; hidden: (n, 2 channels), scratch;
//   place: (atoms, rank), to which is added what the scalars contribute to `Distances`, or null.
template <class T>
void read_out(const tesseral_readout& weights, const tesseral_potential& p, const tesseral_graph& g, const T* features,
              long row, long channels, int64_t i, int64_t n, T* hidden, T* readout, T* place) {
  const T *direct = static_cast<const T*>(weights.linear), *last = static_cast<const T*>(weights.output);
  const T *shift = static_cast<const T*>(weights.shift);
  const T* scalars[atoms_per_block];
  T *inner[atoms_per_block], *active[atoms_per_block], *results[atoms_per_block], *sums[atoms_per_block];
  for (int64_t a = 0; a < n; a++) {
    scalars[a] = features + a * row, results[a] = readout + a * channels;
    inner[a] = hidden + a * channels, active[a] = hidden + (n + a) * channels;
    if (place) sums[a] = place + (i + a) * p.uncertainty->rank;
  }
  if (weights.hidden)
    times_matrix<T, false>(scalars, inner, n, static_cast<const T*>(weights.hidden), channels, channels);
  for (int64_t a = 0; a < n; a++) {
    const double unit = p.energy_scale[g.species[i + a]];
    const T scale = T(unit);
    Vector<T> energy = {};
    for (long c = 0; c < channels; c += width<T>) {
      energy += load(direct + c) * load(scalars[a] + c);
      store(results[a] + c, scale * load(direct + c));
    }
    for (long c = 0; weights.hidden && c < channels; c += width<T>) {
      const Vector<T> h = load(inner[a] + c) + load(shift + c), gate = sigmoid<T>(h), out = load(last + c);
      energy += out * h * gate;
      if (place) store(active[a] + c, h * gate);
      store(inner[a] + c, scale * out * gate * (T(1) + h * (T(1) - gate)));
    }
    g.energies[i + a] += unit * (double(sum<T>(energy)) + weights.constant);
  }
  if (weights.hidden)
    times_matrix<T, true>(inner, results, n, static_cast<const T*>(weights.hidden_t), channels, channels);
  if (!place) return;
  const long rank = p.uncertainty->rank;
  times_matrix<T, true>(scalars, sums, n, static_cast<const T*>(weights.by_scalars), channels, rank);
  if (weights.hidden) times_matrix<T, true>(active, sums, n, static_cast<const T*>(weights.by_hidden), channels, rank);
}

// Places (atoms, rank) of atoms in the space of features, and their distances to the nearest landmark
// of the training set (potentials/blocks/uncertainty.py); none if they are not wanted.
template <class T> struct Distances {
  T* place;

  static bool wanted(const tesseral_potential& p, const tesseral_graph& g) { return p.uncertainty && g.uncertainties; }

  // Before the layers, which add to the places.
  void start(const tesseral_potential& p, const tesseral_graph& g) const {
    if (place) std::fill(place, place + g.owned * p.uncertainty->rank, T(0));
  }

  // After the layers: the expected errors of the forces.
  void finish(const tesseral_potential& p, const tesseral_graph& g) const {
    if (!place) return;
    const tesseral_uncertainty& u = *p.uncertainty;
    for (int64_t i = 0; i < g.owned; i++) {
      const T* center = static_cast<const T*>(u.center) + int64_t(g.species[i]) * u.landmarks * u.rank;
      double least = INFINITY;
      for (long m = 0; m < u.landmarks; m++, center += u.rank) {
        Vector<T> squares = {};
        for (long k = 0; k < u.rank; k += width<T>) {
          const Vector<T> x = load(place + i * u.rank + k) - load(center + k);
          squares += x * x;
        }
        const double square = sum<T>(squares);
        least = square >= least ? least : square;  // keeps a NaN
      }
      const double distance = std::sqrt(least), within = std::min(distance, u.reach);
      g.uncertainties[i] = u.forces * std::pow(within, u.exponent) * std::max(1.0, distance / u.reach);
    }
  }
};

// A value and its derivative by a distance.
struct Slope {
  double value, slope;
};

// Half of the screened repulsion of two nuclei, in eV (potentials/blocks/zbl.py); 0 at distance 0.
inline Slope nuclei(const tesseral_potential& p, double radius, int64_t pair) {
  constexpr double weights[] = {0.1818, 0.5099, 0.2802, 0.02817}, decays[] = {3.2, 0.9423, 0.4029, 0.2016};
  if (radius <= 0) return {0, 0};
  double screen = 0, by_radius = 0;
  for (int n = 0; n < 4; n++) {
    const double rate = decays[n] * p.zbl_screening[pair], term = weights[n] * std::exp(-rate * radius);
    screen += term;
    by_radius -= rate * term;
  }
  const double strength = 0.5 * p.zbl_charge[pair] / radius;
  return {strength * screen, strength * (by_radius - screen / radius)};
}

// The distance at which the layers see a pair that is closer than its inner radius
// (potentials/blocks/short_range.py).
inline Slope seen_distance(double inner, double radius) {
  constexpr double width = 0.1;
  const double x = std::min(1.0, (inner - radius) / (width * inner));
  const double bend = x * x * x * x * (2.5 - 3 * x + x * x), on = x * x * x * (10 - 15 * x + 6 * x * x);
  return {inner * (1 - width * (x - bend)), 1 - on};
}

// Copies edge vectors as the layers see them. Returns whether any differs; `seen` is unused if not.
inline bool see_edges(const tesseral_potential& p, const tesseral_graph& g, double* seen) {
  bool any = false;
  for (int64_t e = 0; e < g.edges; e++) {
    const double* v = g.vectors + e * 3;
    const double inner = p.inner_radii[g.species[g.senders[e]] * p.species + g.species[g.receivers[e]]];
    const double squared = v[0] * v[0] + v[1] * v[1] + v[2] * v[2];
    if (squared >= inner * inner) continue;
    if (!any) std::memcpy(seen, g.vectors, g.edges * 3 * sizeof(double));
    any = true;
    const double radius = std::sqrt(squared);
    if (radius > 0)
      for (int a = 0; a < 3; a++) seen[e * 3 + a] = v[a] * (seen_distance(inner, radius).value / radius);
  }
  return any;
}

// The parts of a potential besides its layers.
struct Pairs {
  const tesseral_potential& p;
  const tesseral_graph& g;  // with the edge vectors that the layers see
  const double* vectors;    // the vectors themselves; the same array if no pair is too close

  int64_t pair(int64_t sender, int64_t receiver) const {
    return g.species[sender] * p.species + g.species[receiver];
  }

  // The repulsion of an edge, switched off at the sum of the covalent radii.
  Slope repulsion(double radius, int64_t sender, int64_t receiver) const {
    const int64_t kind = pair(sender, receiver);
    const double reach = p.zbl_reach[kind], y = radius / reach;
    if (y >= 1) return {0, 0};
    const Slope bare = nuclei(p, radius, kind);
    const double on = 1 - y * y * y * (10 - 15 * y + 6 * y * y), by_y = -30 * y * y * (1 - y) * (1 - y);
    return {bare.value * on, bare.slope * on + bare.value * by_y / reach};
  }

  // Calls body(distance, inner radius, pair of elements) for edge e if it is too close.
  template <class Body> void if_close(int64_t e, Body body) const {
    const double* v = vectors + e * 3;
    const int64_t kind = pair(g.senders[e], g.receivers[e]);
    const double inner = p.inner_radii[kind], squared = v[0] * v[0] + v[1] * v[1] + v[2] * v[2];
    if (squared < inner * inner) body(std::sqrt(squared), inner, kind);
  }

  // Sets the energies of atoms to what they are without the layers: E0, the repulsion, and the mean
  // binding energy, switched on by the density of neighbours (potentials/blocks/binding.py). Leaves in
  // `density` (owned) the derivative of the latter by the density.
  void energies(const double* radii, double* density) const {
    for (int64_t i = 0; i < g.owned; i++) g.energies[i] = p.reference_energies[g.species[i]];
    if (p.binding_energies) bind(radii, density);
    if (p.zbl_reach)
      for (int64_t e = 0; e < g.edges; e++)
        g.energies[g.receivers[e]] += repulsion(radii[e], g.senders[e], g.receivers[e]).value;
    if (vectors != g.vectors)
      for (int64_t e = 0; e < g.edges; e++)
        if_close(e, [&](double radius, double inner, int64_t kind) {
          const double seen = seen_distance(inner, radius).value;
          g.energies[g.receivers[e]] += nuclei(p, radius, kind).value - nuclei(p, seen, kind).value;
        });
  }

  // Sets the derivatives of these energies by the lengths of edges, which may have any order.
  void slopes(const int64_t* senders, const int64_t* receivers, const double* radii, const double* density,
              double* by_radii) const {
    std::memset(by_radii, 0, g.edges * sizeof(double));
    if (p.binding_energies)
      for (int64_t k = 0; k < g.edges; k++) {
        const double x = radii[k] / p.cutoff, left = std::max(0.0, 1 - x * x);
        by_radii[k] = density[receivers[k]] * -6 * x / p.cutoff * left * left;
      }
    if (p.zbl_reach)
      for (int64_t k = 0; k < g.edges; k++) by_radii[k] += repulsion(radii[k], senders[k], receivers[k]).slope;
  }

  // An edge pulls its sender by its gradient and its receiver by the opposite. `gradient` is that by
  // the vectors that the layers see, of edges in the given order, or in that of the graph if null.
  void forces(const int64_t* order, double* gradient) const {
    std::memset(g.forces, 0, g.atoms * 3 * sizeof(double));
    std::memset(g.virials, 0, g.owned * 9 * sizeof(double));
    for (int64_t k = 0; k < g.edges; k++) {
      const int64_t e = order ? order[k] : k;
      if (vectors != g.vectors) pull_join(e, gradient + k * 3);
      // Copies, which stores to the sums cannot change.
      const double v[3] = {vectors[e * 3], vectors[e * 3 + 1], vectors[e * 3 + 2]};
      const double d[3] = {gradient[k * 3], gradient[k * 3 + 1], gradient[k * 3 + 2]};
      double *sender = g.forces + g.senders[e] * 3, *receiver = g.forces + g.receivers[e] * 3;
      double* virial = g.virials + g.receivers[e] * 9;
      for (int a = 0; a < 3; a++) sender[a] += d[a];
      for (int a = 0; a < 3; a++) receiver[a] -= d[a];
      for (int a = 0; a < 3; a++)
        for (int b = 0; b < 3; b++) virial[a * 3 + b] -= v[a] * d[b];
    }
  }

 private:
  // The gradient by the vector of an edge from that by the vector that the layers see, in place.
  void pull_join(int64_t e, double* d) const {
    if_close(e, [&](double radius, double inner, int64_t kind) {
      const double* v = vectors + e * 3;
      const Slope seen = seen_distance(inner, radius);
      if (radius == 0) return;
      const double across = seen.value / radius;
      double along = 0;
      for (int a = 0; a < 3; a++) along += d[a] * v[a] / radius;
      along *= seen.slope - across;
      along += nuclei(p, radius, kind).slope - seen.slope * nuclei(p, seen.value, kind).slope;
      for (int a = 0; a < 3; a++) d[a] = across * d[a] + along * v[a] / radius;
    });
  }

  void bind(const double* radii, double* density) const {
    constexpr double steepness = 8;
    std::memset(density, 0, g.owned * sizeof(double));
    for (int64_t e = 0; e < g.edges; e++) {
      const double x = radii[e] / p.cutoff, left = std::max(0.0, 1 - x * x);
      density[g.receivers[e]] += left * left * left;
    }
    for (int64_t i = 0; i < g.owned; i++) {
      const double off = std::exp(-steepness * density[i] * density[i]), energy = p.binding_energies[g.species[i]];
      g.energies[i] += energy * (1 - off);
      density[i] = energy * 2 * steepness * density[i] * off;
    }
  }
};

}  // namespace TESSERAL_ISA
}  // namespace tesseral
