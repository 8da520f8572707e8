// The direction along which a loss of forces and virials moves the edges, for training.
#pragma once
#include "edges.h"

namespace tesseral {

// The direction along which a loss moves every edge, from the loss's gradients by forces and virials:
// first of the vector, by the transpose of `atoms_backward`, then of length and harmonics, by the
// transpose of `edges_backward`.
TESSERAL_KERNEL edges_along(const int* count, const double* vectors, const int* species, const int* senders,
                            const int* receivers, const double* inner, const int* places, const double* by_forces,
                            const double* by_virials, Real* along) {
  const PairTables tables = {nullptr, nullptr, nullptr, inner};
  for (int e = first_thread(); e < *count; e += number_of_threads()) {
    if (places[e] < 0) continue;
    const long long j = senders[e], i = receivers[e];
    const double* const v = vectors + e * 3ll;
    const Direction d(v);
    double w[3], y[edge_row], moved[edge_row];
    for (int b = 0; b < 3; b++) {
      w[b] = by_forces[j * 3 + b] - by_forces[i * 3 + b];
      for (int a = 0; a < 3; a++) w[b] -= v[a] * by_virials[i * 9 + a * 3 + b];
    }
    const double change = d.u[0] * w[0] + d.u[1] * w[1] + d.u[2] * w[2];
    moved[0] = tables.seen(species[j] * n_species + species[i], d.radius).slope * change;
    for (int m = 1; m < edge_row; m++) moved[m] = 0;
    d.harmonics(y);
    unroll<l_edge>([&](auto l) {
      constexpr int degree = l + 1;
      gradient_terms<degree>([&](int a, int from, int m, double factor) {
        moved[degree * degree + m] +=
            factor * (w[a] - d.u[a] * change) * d.inverse * y[(degree - 1) * (degree - 1) + from];
      });
    });
    for (int m = 0; m < edge_row; m++) along[e * (long long)edge_row + m] = Real(moved[m]);
  }
}

}  // namespace tesseral
