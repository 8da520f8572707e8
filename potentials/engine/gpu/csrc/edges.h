// Edges: lengths, harmonics and spline intervals from vectors, and the gradients by vectors from
// those by harmonics and lengths; energies of pairs of atoms; forces. One thread an edge or an atom,
// in double precision. The formulas are those of potentials/ops/csrc/edges.h and
// potentials/engine/csrc/potential.h.
#pragma once
#include "lanes.h"

namespace tesseral {

constexpr double cutoff = TESSERAL_CUTOFF;
constexpr int intervals = TESSERAL_INTERVALS, n_species = TESSERAL_SPECIES, l_edge = TESSERAL_L_EDGE;

TESSERAL_DEVICE constexpr int components(int l) { return (l + 1) * (l + 1); }

// A row of an edge: its harmonics, where the one of degree 0, always 1, makes room for the position
// in the spline interval, 0 to 1. A row of gradients: by the length, and by the other harmonics.
constexpr int edge_row = components(l_edge);

struct Slope {
  double value, slope;
};

// Calls f(a, m', m, factor) for the terms of ∂_a P_l,m.
template <int L, class F> TESSERAL_DEVICE void gradient_terms(F&& f) {
  using C = Coupling<1, L - 1, L>;
  unroll<C::terms>([&](auto e) {
    constexpr int pair = C::pair[e], a = C::m1[pair], from = C::m2[e], m = C::m3[pair];
    constexpr double factor = gradient_factor[L] * C::value[e];
    f(a, from, m, factor);
  });
}

struct Direction {
  double radius, inverse, u[3];

  TESSERAL_DEVICE explicit Direction(const double* v) {
    const double squared = v[0] * v[0] + v[1] * v[1] + v[2] * v[2];
    radius = sqrt(squared);
    inverse = squared > 0 ? 1 / radius : 1.0;  // no direction, and derivatives that stay finite
    for (int a = 0; a < 3; a++) u[a] = v[a] * inverse;
  }
  // Harmonics y of degrees 0 … l_edge.
  TESSERAL_DEVICE void harmonics(double* y) const {
    y[0] = 1;
    unroll<l_edge>([&](auto l) {
      constexpr int degree = l + 1;
      for (int m = 0; m <= 2 * degree; m++) y[degree * degree + m] = 0;
      gradient_terms<degree>([&](int a, int from, int m, double factor) {
        y[degree * degree + m] += (factor / degree) * u[a] * y[(degree - 1) * (degree - 1) + from];
      });
    });
  }
};

// Half of the screened repulsion of two nuclei, in eV (potentials/blocks/zbl.py); 0 at distance 0.
TESSERAL_DEVICE Slope nuclei(double radius, double charge, double screening) {
  if (radius <= 0) return {0, 0};
  double screen = 0, by_radius = 0;
  const auto add = [&](double weight, double decay) {
    const double rate = decay * screening, term = weight * exp(-rate * radius);
    screen += term;
    by_radius -= rate * term;
  };
  add(0.1818, 3.2), add(0.5099, 0.9423), add(0.2802, 0.4029), add(0.02817, 0.2016);
  const double strength = 0.5 * charge / radius;
  return {strength * screen, strength * (by_radius - screen / radius)};
}

// The repulsion, switched off at the sum of the covalent radii.
TESSERAL_DEVICE Slope repulsion(double radius, double charge, double screening, double reach) {
  const double y = radius / reach;
  if (y >= 1) return {0, 0};
  const Slope bare = nuclei(radius, charge, screening);
  const double on = 1 - y * y * y * (10 - 15 * y + 6 * y * y), by_y = -30 * y * y * (1 - y) * (1 - y);
  return {bare.value * on, bare.slope * on + bare.value * by_y / reach};
}

// The distance at which the layers see a pair (potentials/blocks/short_range.py).
TESSERAL_DEVICE Slope seen_distance(double inner, double radius) {
  if (radius >= inner || radius == 0) return {radius, 1};
  constexpr double width = 0.1;
  const double deep = (inner - radius) / (width * inner), x = deep < 1 ? deep : 1;
  const double bend = x * x * x * x * (2.5 - 3 * x + x * x), on = x * x * x * (10 - 15 * x + 6 * x * x);
  return {inner * (1 - width * (x - bend)), 1 - on};
}

// Tables of pairs of elements, each null if the potential does not have that part.
struct PairTables {
  const double *charge, *screening, *reach, *inner;

  TESSERAL_DEVICE Slope seen(int pair, double radius) const {
    return inner ? seen_distance(inner[pair], radius) : Slope{radius, 1};
  }
};

// Vectors of edges between positions; `places`: of the senders, which may be images of atoms.
TESSERAL_KERNEL edge_vectors(const int* count, const int* places, const int* receivers, const double* positions,
                             double* vectors) {
  for (int e = first_thread(); e < *count; e += number_of_threads())
    for (int a = 0; a < 3; a++)
      vectors[e * 3ll + a] = positions[receivers[e] * 3ll + a] - positions[places[e] * 3ll + a];
}

// Harmonics and place in the splines of every edge; -1 as interval beyond the cutoff.
TESSERAL_KERNEL edges_forward(const int* count, const double* vectors, const int* species, const int* senders,
                              const int* receivers, const double* inner, Real* rows, int* places) {
  const PairTables tables = {nullptr, nullptr, nullptr, inner};
  for (int e = first_thread(); e < *count; e += number_of_threads()) {
    const Direction d(vectors + e * 3ll);
    const double radius = tables.seen(species[senders[e]] * n_species + species[receivers[e]], d.radius).value;
    const double t = radius * (intervals / cutoff);
    const bool inside = radius < cutoff;
    const int place = inside ? (int(t) < intervals ? int(t) : intervals - 1) : -1;
    places[e] = place;
    if (!inside) continue;
    double y[edge_row];
    d.harmonics(y);
    Real* row = rows + e * (long long)edge_row;
    row[0] = Real(t - place);
    for (int m = 1; m < edge_row; m++) row[m] = Real(y[m]);
  }
}

// Gradient of the energy by the vector of every edge, from the rows of `totals` and from the
// energies of pairs. `density`: dE/d(density of neighbours) of each atom, or null.
TESSERAL_KERNEL edges_backward(const int* count, const double* vectors, const int* species, const int* senders,
                               const int* receivers, const double* charge, const double* screening,
                               const double* reach, const double* inner, const double* density, const int* places,
                               const Real* by_rows, double* gradient) {
  const PairTables tables = {charge, screening, reach, inner};
  for (int e = first_thread(); e < *count; e += number_of_threads()) {
    double* out = gradient + e * 3ll;
    if (places[e] < 0) {
      out[0] = out[1] = out[2] = 0;
      continue;
    }
    const Direction d(vectors + e * 3ll);
    const int pair = species[senders[e]] * n_species + species[receivers[e]];
    const Slope seen = tables.seen(pair, d.radius);
    const Real* by_row = by_rows + e * (long long)edge_row;
    double y[edge_row], pulled[3] = {0, 0, 0};
    d.harmonics(y);
    unroll<l_edge>([&](auto l) {
      constexpr int degree = l + 1;
      gradient_terms<degree>([&](int a, int from, int m, double factor) {
        pulled[a] += factor * double(by_row[degree * degree + m]) * y[(degree - 1) * (degree - 1) + from];
      });
    });
    double by_radius = double(by_row[0]);
    if (density) {
      const double x = seen.value / cutoff, left = 1 - x * x;
      by_radius += density[receivers[e]] * -6 * x / cutoff * left * left;
    }
    if (reach) by_radius += repulsion(seen.value, charge[pair], screening[pair], reach[pair]).slope;
    by_radius *= seen.slope;
    if (inner && d.radius < inner[pair])
      by_radius += nuclei(d.radius, charge[pair], screening[pair]).slope -
                   seen.slope * nuclei(seen.value, charge[pair], screening[pair]).slope;
    const double along = d.u[0] * pulled[0] + d.u[1] * pulled[1] + d.u[2] * pulled[2];
    for (int a = 0; a < 3; a++) out[a] = (pulled[a] - d.u[a] * along) * d.inverse + by_radius * d.u[a];
  }
}

// Energies of atoms without the layers: E0, the energies of pairs, and the binding energy switched
// on by the density of neighbours (potentials/blocks/binding.py), whose derivative by the density
// is left in `density`. `first`: of the edges that each atom receives.
TESSERAL_KERNEL atoms_forward(const int* count, const int* first, const int* senders, const double* vectors,
                              const int* species, const double* references, const double* binding,
                              const double* charge, const double* screening, const double* reach,
                              const double* inner, double* density, double* energies) {
  const PairTables tables = {charge, screening, reach, inner};
  for (int i = first_thread(); i < *count; i += number_of_threads()) {
    double energy = references[species[i]], near = 0;
    if (binding || reach || inner)
      for (int e = first[i]; e < first[i + 1]; e++) {
        const Direction d(vectors + e * 3ll);
        const int pair = species[senders[e]] * n_species + species[i];
        const double radius = tables.seen(pair, d.radius).value;
        if (radius >= cutoff) continue;
        const double x = radius / cutoff, left = 1 - x * x;
        near += left * left * left;
        if (reach) energy += repulsion(radius, charge[pair], screening[pair], reach[pair]).value;
        if (inner && d.radius < inner[pair])
          energy += nuclei(d.radius, charge[pair], screening[pair]).value -
                    nuclei(seen_distance(inner[pair], d.radius).value, charge[pair], screening[pair]).value;
      }
    if (binding) {
      constexpr double steepness = 8;
      const double off = exp(-steepness * near * near);
      energy += binding[species[i]] * (1 - off);
      density[i] = binding[species[i]] * 2 * steepness * near * off;
    }
    energies[i] = energy;
  }
}

// Forces and virials from the gradients of edges: an edge pulls its sender by its gradient and its
// receiver by the opposite. `sent`, `order`: the edges that each atom sends.
TESSERAL_KERNEL atoms_backward(const int* count, const int* first, const int* sent, const int* order,
                               const double* vectors, const double* gradient, double* forces, double* virials) {
  for (int i = first_thread(); i < *count; i += number_of_threads()) {
    double force[3] = {0, 0, 0}, virial[9] = {0, 0, 0, 0, 0, 0, 0, 0, 0};
    for (int e = first[i]; e < first[i + 1]; e++)
      for (int a = 0; a < 3; a++) {
        force[a] -= gradient[e * 3ll + a];
        for (int b = 0; b < 3; b++) virial[a * 3 + b] -= vectors[e * 3ll + a] * gradient[e * 3ll + b];
      }
    for (int k = sent[i]; k < sent[i + 1]; k++)
      for (int a = 0; a < 3; a++) force[a] += gradient[order[k] * 3ll + a];
    for (int a = 0; a < 3; a++) forces[i * 3ll + a] = force[a];
    for (int a = 0; a < 9; a++) virials[i * 9ll + a] = virial[a];
  }
}

}  // namespace tesseral
