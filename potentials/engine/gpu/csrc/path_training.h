// Training with the convolution of paths.h: the change of its messages as features and edges move,
// and its derivatives by features and radial functions. As in training.h, nothing is added atomically,
// and gradients by spline coefficients are products of the splines of each edge with its gradients
// by radial functions. Lengths are in Angstrom in rows along which edges move.
#pragma once
#include "along.h"
#include "paths.h"

namespace tesseral {

// Σ_m2 C dY of pair Q, zero for the constant harmonic.
template <class P, int Q> TESSERAL_DEVICE Real moved_to(const Real* dy) {
  if constexpr (P::at2 == 0) return Real(0);
  else return coupled<typename P::C, Q>(dy + P::at2);
}

// Change of the messages as features move by `change` and edges along `along`.
template <class LAYER, int L1>
TESSERAL_DEVICE void move(int atoms, int room, const int* first, const int* senders, const int* places,
                          const Real* rows, const Real* along, const Real* coefficients, const Real* features,
                          const Real* change, Real* moved) {
  constexpr int n1 = 2 * L1 + 1, own = LAYER::entering(L1), outputs = LAYER::components_from(L1, LAYER::paths());
  constexpr int blocks = at_once(own / group, outputs + 4 * n1), columns = blocks * group, parts = own / columns;
  constexpr int row = LAYER::functions() * 4, start = LAYER::feature_start(L1);
  constexpr Real by_length = Real(intervals / cutoff);
  for (int item = first_group(); item < atoms * parts; item += number_of_groups()) {
    const int i = item / parts, c = item % parts * columns;
    Lanes sums[outputs][blocks];
#pragma unroll
    for (int m = 0; m < outputs; m++)
#pragma unroll
      for (int b = 0; b < blocks; b++) sums[m][b] = Lanes{};
    for (int e = first[i]; e < first[i + 1]; e++) {
      const int place = places[e];
      if (place < 0) continue;
      const Real *const y = rows + e * (long long)edge_row, *const dy = along + e * (long long)edge_row;
      const Real* const table = coefficients + place * (long long)row + c * 4;
      const long long sent = start * (long long)room + senders[e] * (long long)(n1 * own) + c;
      const Real f = y[0], dr = dy[0] * by_length;
      Lanes x[n1][blocks], dx[n1][blocks];
#pragma unroll
      for (int m = 0; m < n1; m++)
#pragma unroll
        for (int b = 0; b < blocks; b++) {
          x[m][b] = load(features + sent + m * own + b * group);
          dx[m][b] = load(change + sent + m * own + b * group);
        }
      each_path_from<LAYER, L1>([&](auto path) {
        using P = decltype(path);
        using C = typename P::C;
        Lanes u[n1][blocks], du[n1][blocks];
#pragma unroll
        for (int b = 0; b < blocks; b++) {
          Lanes a[4];
          load_four(table + (P::function + b * group) * 4, a);
          const Lanes r = polynomial(a, f), slope = dr * polynomial_slope(a, f);
#pragma unroll
          for (int m = 0; m < n1; m++) u[m][b] = r * x[m][b], du[m][b] = r * dx[m][b] + slope * x[m][b];
        }
        unroll<C::pairs>([&](auto q) {
          constexpr int m1 = C::m1[q], at = P::sums + C::m3[q];
          const Real t = P::template coupled_to<q>(y), dt = moved_to<P, q>(dy);
#pragma unroll
          for (int b = 0; b < blocks; b++) sums[at][b] += t * du[m1][b] + dt * u[m1][b];
        });
      });
    }
    each_path_from<LAYER, L1>([&](auto path) {
      using P = decltype(path);
      Real* const out = moved + P::message_place(room, i, c);
#pragma unroll
      for (int m = 0; m < P::n3; m++)
#pragma unroll
        for (int b = 0; b < blocks; b++) store(out + m * P::message_row + b * group, sums[P::sums + m][b]);
    });
  }
}

// From gradients by messages those by features and, unless `by_radial` is null, for each edge by its
// radial functions (edges, functions). With MOVED, instead the derivatives of the gradients by features
// and edges, times `change` and `along`: by features, by radial functions, and by their slopes times
// the change of the length.
template <class LAYER, int L1, bool MOVED>
TESSERAL_DEVICE void derive(int atoms, int room, const int* sent, const int* order, const int* receivers,
                            const int* places, const Real* rows, const Real* along, const Real* coefficients,
                            const Real* features, const Real* change, const Real* by_messages, Real* by_features,
                            Real* by_radial, Real* by_slopes) {
  constexpr int n1 = 2 * L1 + 1, own = LAYER::entering(L1), functions = LAYER::functions();
  constexpr int blocks = at_once(own / group, (MOVED ? 6 : 4) * n1 + 2 * l_max + 3), columns = blocks * group;
  constexpr int parts = own / columns, row = functions * 4, start = LAYER::feature_start(L1);
  constexpr Real by_length = Real(intervals / cutoff);
  for (int item = first_group(); item < atoms * parts; item += number_of_groups()) {
    const int j = item / parts, c = item % parts * columns;
    const long long at = start * (long long)room + j * (long long)(n1 * own) + c;
    Lanes x[n1][blocks], dx[n1][blocks], by_x[n1][blocks];
#pragma unroll
    for (int m = 0; m < n1; m++)
#pragma unroll
      for (int b = 0; b < blocks; b++) {
        x[m][b] = load(features + at + m * own + b * group);
        if constexpr (MOVED) dx[m][b] = load(change + at + m * own + b * group);
        by_x[m][b] = Lanes{};
      }
    for (int k = sent[j]; k < sent[j + 1]; k++) {
      const int e = order[k], place = places[e];
      if (place < 0) continue;
      const Real *const y = rows + e * (long long)edge_row, *dy = nullptr;
      Real dr = 0;
      if constexpr (MOVED) dy = along + e * (long long)edge_row, dr = dy[0] * by_length;
      const Real* const table = coefficients + place * (long long)row + c * 4;
      const long long radial = e * (long long)functions + c;
      const Real f = y[0];
      each_path_from<LAYER, L1>([&](auto path) {
        using P = decltype(path);
        using C = typename P::C;
        const Real* const by = by_messages + P::message_place(room, receivers[e], c);
        Lanes h[n1][blocks], dh[n1][blocks], g[P::n3][blocks];  // h: gradient by radial function times features
#pragma unroll
        for (int b = 0; b < blocks; b++) {
#pragma unroll
          for (int m = 0; m < n1; m++) h[m][b] = dh[m][b] = Lanes{};
#pragma unroll
          for (int m = 0; m < P::n3; m++) g[m][b] = load(by + m * P::message_row + b * group);
        }
        unroll<C::pairs>([&](auto q) {
          constexpr int m1 = C::m1[q], m3 = C::m3[q];
          const Real t = P::template coupled_to<q>(y);
#pragma unroll
          for (int b = 0; b < blocks; b++) h[m1][b] += t * g[m3][b];
          if constexpr (MOVED && P::at2 > 0) {
            const Real dt = moved_to<P, q>(dy);
#pragma unroll
            for (int b = 0; b < blocks; b++) dh[m1][b] += dt * g[m3][b];
          }
        });
#pragma unroll
        for (int b = 0; b < blocks; b++) {
          Lanes a[4], by_r = Lanes{}, by_slope = Lanes{};
          load_four(table + (P::function + b * group) * 4, a);
          const Lanes r = polynomial(a, f), slope = dr * polynomial_slope(a, f);
#pragma unroll
          for (int m = 0; m < n1; m++) {
            if constexpr (MOVED) {
              by_r += dx[m][b] * h[m][b] + x[m][b] * dh[m][b];
              by_slope += x[m][b] * h[m][b];
              by_x[m][b] += r * dh[m][b] + slope * h[m][b];
            } else {
              by_r += x[m][b] * h[m][b];
              by_x[m][b] += r * h[m][b];
            }
          }
          if (by_radial) {
            store(by_radial + radial + P::function + b * group, by_r);
            if constexpr (MOVED) store(by_slopes + radial + P::function + b * group, by_slope);
          }
        }
      });
    }
#pragma unroll
    for (int m = 0; m < n1; m++)
#pragma unroll
      for (int b = 0; b < blocks; b++) store(by_features + at + m * own + b * group, by_x[m][b]);
  }
}

#define TESSERAL_TRAIN_FROM(FIRST, L_OUT, L1)                                                                       \
  TESSERAL_KERNEL move_##FIRST##_##L_OUT##_##L1(                                                                    \
      const int* count, int room, const int* first, const int* senders, const int* places, const Real* rows,        \
      const Real* along, const Real* coefficients, const Real* features, const Real* change, Real* moved) {         \
    move<Layer<FIRST, L_OUT>, L1>(*count, room, first, senders, places, rows, along, coefficients, features,        \
                                  change, moved);                                                                   \
  }                                                                                                                 \
  TESSERAL_KERNEL derive_##FIRST##_##L_OUT##_##L1(                                                                  \
      const int* count, int room, const int* sent, const int* order, const int* receivers, const int* places,       \
      const Real* rows, const Real* coefficients, const Real* features, const Real* by_messages,                    \
      Real* by_features, Real* by_radial) {                                                                         \
    derive<Layer<FIRST, L_OUT>, L1, false>(*count, room, sent, order, receivers, places, rows, nullptr,             \
                                           coefficients, features, nullptr, by_messages, by_features, by_radial,    \
                                           nullptr);                                                                \
  }                                                                                                                 \
  TESSERAL_KERNEL derive_moved_##FIRST##_##L_OUT##_##L1(                                                            \
      const int* count, int room, const int* sent, const int* order, const int* receivers, const int* places,       \
      const Real* rows, const Real* along, const Real* coefficients, const Real* features, const Real* change,      \
      const Real* by_messages, Real* by_features, Real* by_radial, Real* by_slopes) {                               \
    derive<Layer<FIRST, L_OUT>, L1, true>(*count, room, sent, order, receivers, places, rows, along, coefficients,  \
                                          features, change, by_messages, by_features, by_radial, by_slopes);        \
  }

}  // namespace tesseral
