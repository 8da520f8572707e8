// The convolution with separate paths (potentials/blocks/path_convolution.py) and its gradients by
// features, harmonics and lengths. As in convolution.h, a group works on the edges that an atom
// receives, forwards, or sends, backwards. The channels of a degree meet only those of the same
// degree, so that there is a kernel for each degree of the features, with all of its paths.
//
// Arrays of features and messages hold degree after degree, each (room, 2 l + 1, channels), so that
// linear maps of a degree are products of two matrices. `room` is the number of atoms there is
// memory for.
#pragma once
#include "edges.h"
#include "terms.h"

namespace tesseral {

constexpr int l_max = TESSERAL_L_MAX_FEATURES, embedded = TESSERAL_EMBEDDED;
constexpr bool odd_paths = TESSERAL_ODD_SUMS;

TESSERAL_DEVICE constexpr int channels(int l) {
  constexpr int all[] = {TESSERAL_CHANNELS};
  return all[l];
}

struct Path {
  int l1, l2, l3;
  int function, message;  // the first of its radial functions, and of its columns in messages of l3
};

// Sizes of a layer, whose features are those of the embedding in the first one.
template <bool FIRST, int L_OUT> struct Layer {
  static constexpr int l_in = FIRST ? 0 : l_max;

  static TESSERAL_DEVICE constexpr int entering(int l) { return FIRST ? embedded : channels(l); }
  // Path number `wanted`; after the last one, what there is of functions and columns of degree `l`.
  static TESSERAL_DEVICE constexpr Path path(int wanted, int l = 0) {
    int number = 0, function = 0, message[TESSERAL_L_MAX + 1] = {};
    for (int l2 = 0; l2 <= l_edge; l2++)
      for (int l1 = 0; l1 <= l_in; l1++)
        for (int l3 = l1 > l2 ? l1 - l2 : l2 - l1; l3 <= l1 + l2 && l3 <= L_OUT; l3 += odd_paths ? 1 : 2) {
          if (number++ == wanted) return {l1, l2, l3, function, message[l3]};
          function += entering(l1), message[l3] += entering(l1);
        }
    return {-1, -1, -1, function, message[l]};
  }
  static TESSERAL_DEVICE constexpr int paths() {
    int number = 0;
    while (path(number).l1 >= 0) number++;
    return number;
  }
  static TESSERAL_DEVICE constexpr int functions() { return path(-1).function; }
  static TESSERAL_DEVICE constexpr int message_width(int l) { return path(-1, l).message; }
  // Where a degree begins, for one atom.
  static TESSERAL_DEVICE constexpr int feature_start(int l) {
    return l == 0 ? 0 : feature_start(l - 1) + (2 * l - 1) * entering(l - 1);
  }
  static TESSERAL_DEVICE constexpr int message_start(int l) {
    return l == 0 ? 0 : message_start(l - 1) + (2 * l - 1) * message_width(l - 1);
  }
  // Number of components of the messages of the paths from l1 before path number `end`.
  static TESSERAL_DEVICE constexpr int components_from(int l1, int end) {
    int number = 0;
    for (int p = 0; p < end; p++)
      if (path(p).l1 == l1) number += 2 * path(p).l3 + 1;
    return number;
  }
};

// One path, as a type.
template <class LAYER, int NUMBER> struct PathOf {
  static constexpr Path own = LAYER::path(NUMBER);
  using C = Coupling<own.l1, own.l2, own.l3>;
  static constexpr int n3 = 2 * own.l3 + 1, at2 = own.l2 * own.l2;
  static constexpr int sums = LAYER::components_from(own.l1, NUMBER);
  static constexpr int function = own.function, message_row = LAYER::message_width(own.l3);

  // Σ_m2 C Y of pair Q.
  template <int Q> static TESSERAL_DEVICE Real coupled_to(const Real* y) {
    if constexpr (at2 == 0) {  // Y is 1
      constexpr double value = C::value[Q];
      return Real(value);
    } else {
      return coupled<C, Q>(y + at2);
    }
  }
  // The first component of messages of atom i, from channel c.
  static TESSERAL_DEVICE long long message_place(int room, int i, int c) {
    constexpr int start = LAYER::message_start(own.l3), row = n3 * message_row, begin = own.message;
    return start * (long long)room + i * (long long)row + begin + c;
  }
};

// Calls f(PathOf) for the paths from degree L1.
template <class LAYER, int L1, class F> TESSERAL_DEVICE void each_path_from(F&& f) {
  unroll<LAYER::paths()>([&](auto number) {
    constexpr int p = number;
    if constexpr (LAYER::path(p).l1 == L1) f(PathOf<LAYER, p>{});
  });
}

// Number of groups of channels that are computed at once, so that few registers are needed: a divisor
// of all, with a number of values for each.
TESSERAL_DEVICE constexpr int at_once(int all, int values) {
  constexpr int most = 64;
  int number = all;
  while (number > 1 && (all % number != 0 || number * values > most)) number--;
  return number;
}

// Coefficients: (intervals, functions, 4), by powers of the position in the interval.
TESSERAL_DEVICE Lanes polynomial(const Lanes* a, Real f) { return a[0] + f * (a[1] + f * (a[2] + f * a[3])); }
TESSERAL_DEVICE Lanes polynomial_slope(const Lanes* a, Real f) { return a[1] + f * (Real(2) * a[2] + Real(3) * f * a[3]); }

template <class LAYER, int L1>
TESSERAL_DEVICE void convolve(int atoms, int room, const int* first, const int* senders, const int* places,
                              const Real* rows, const Real* coefficients, const Real* features, Real* messages) {
  constexpr int n1 = 2 * L1 + 1, own = LAYER::entering(L1), outputs = LAYER::components_from(L1, LAYER::paths());
  constexpr int blocks = at_once(own / group, outputs + n1), columns = blocks * group, parts = own / columns;
  constexpr int row = LAYER::functions() * 4, start = LAYER::feature_start(L1);
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
      const Real* const y = rows + e * (long long)edge_row;
      const Real* const table = coefficients + place * (long long)row + c * 4;
      const Real* const sent = features + start * (long long)room + senders[e] * (long long)(n1 * own) + c;
      const Real f = y[0];
      Lanes x[n1][blocks];
#pragma unroll
      for (int m = 0; m < n1; m++)
#pragma unroll
        for (int b = 0; b < blocks; b++) x[m][b] = load(sent + m * own + b * group);
      each_path_from<LAYER, L1>([&](auto path) {
        using P = decltype(path);
        using C = typename P::C;
        Lanes u[n1][blocks];
#pragma unroll
        for (int b = 0; b < blocks; b++) {
          Lanes a[4];
          load_four(table + (P::function + b * group) * 4, a);
          const Lanes r = polynomial(a, f);
#pragma unroll
          for (int m = 0; m < n1; m++) u[m][b] = r * x[m][b];
        }
        unroll<C::pairs>([&](auto q) {
          constexpr int m1 = C::m1[q], at = P::sums + C::m3[q];
          const Real t = P::template coupled_to<q>(y);
#pragma unroll
          for (int b = 0; b < blocks; b++) sums[at][b] += t * u[m1][b];
        });
      });
    }
    each_path_from<LAYER, L1>([&](auto path) {
      using P = decltype(path);
      Real* const out = messages + P::message_place(room, i, c);
#pragma unroll
      for (int m = 0; m < P::n3; m++)
#pragma unroll
        for (int b = 0; b < blocks; b++) store(out + m * P::message_row + b * group, sums[P::sums + m][b]);
    });
  }
}

// From gradients by messages: those by features, unless `by_features` is null (the embedding is
// constant), and sets the rows of gradients of edges, or adds to them.
template <class LAYER, int L1>
TESSERAL_DEVICE void pull(int atoms, int room, const int* sent, const int* order, const int* receivers,
                          const int* places, const Real* rows, const Real* coefficients, const Real* features,
                          const Real* by_messages, int add, Real* by_features, Real* by_rows) {
  constexpr int n1 = 2 * L1 + 1, own = LAYER::entering(L1);
  constexpr int blocks = at_once(own / group, 4 * n1 + 2 * l_max + 3), columns = blocks * group;
  constexpr int row = LAYER::functions() * 4, start = LAYER::feature_start(L1);
  constexpr Real by_length = Real(intervals / cutoff);
  for (int j = first_group(); j < atoms; j += number_of_groups()) {
    const long long at = start * (long long)room + j * (long long)(n1 * own);
#pragma unroll 1
    for (int c = 0; c < own; c += columns) {
      Lanes x[n1][blocks], by_x[n1][blocks];
#pragma unroll
      for (int m = 0; m < n1; m++)
#pragma unroll
        for (int b = 0; b < blocks; b++) {
          x[m][b] = load(features + at + m * own + c + b * group);
          by_x[m][b] = Lanes{};
        }
      for (int k = sent[j]; k < sent[j + 1]; k++) {
        const int e = order[k], place = places[e];
        if (place < 0) continue;
        const Real* const y = rows + e * (long long)edge_row;
        const Real* const table = coefficients + place * (long long)row + c * 4;
        const Real f = y[0];
        Lanes by_row[edge_row];
#pragma unroll
        for (int m = 0; m < edge_row; m++) by_row[m] = Lanes{};
        each_path_from<LAYER, L1>([&](auto path) {
          using P = decltype(path);
          using C = typename P::C;
          const Real* const by = by_messages + P::message_place(room, receivers[e], c);
          Lanes r[blocks], slope[blocks], u[n1][blocks], h[n1][blocks], g[P::n3][blocks];  // h: gradient by u
#pragma unroll
          for (int b = 0; b < blocks; b++) {
            Lanes a[4];
            load_four(table + (P::function + b * group) * 4, a);
            r[b] = polynomial(a, f), slope[b] = polynomial_slope(a, f);
#pragma unroll
            for (int m = 0; m < n1; m++) u[m][b] = r[b] * x[m][b], h[m][b] = Lanes{};
#pragma unroll
            for (int m = 0; m < P::n3; m++) g[m][b] = load(by + m * P::message_row + b * group);
          }
          unroll<C::pairs>([&](auto q) {
            constexpr int m1 = C::m1[q], m3 = C::m3[q];
            const Real t = P::template coupled_to<q>(y);
            Lanes both = Lanes{};
#pragma unroll
            for (int b = 0; b < blocks; b++) {
              h[m1][b] += t * g[m3][b];
              both += u[m1][b] * g[m3][b];
            }
            if constexpr (P::at2 > 0)
              each_term<C, q>([&](int m2, Real value) { by_row[P::at2 + m2] += value * both; });
          });
#pragma unroll
          for (int b = 0; b < blocks; b++) {
            Lanes by_radial = Lanes{};
#pragma unroll
            for (int m = 0; m < n1; m++) {
              by_radial += x[m][b] * h[m][b];
              by_x[m][b] += r[b] * h[m][b];
            }
            by_row[0] += slope[b] * by_radial;
          }
        });
        by_row[0] *= by_length;
        totals(by_row, add || c > 0, by_rows + e * (long long)edge_row);
      }
      if (by_features) {
#pragma unroll
        for (int m = 0; m < n1; m++)
#pragma unroll
          for (int b = 0; b < blocks; b++) store(by_features + at + m * own + c + b * group, by_x[m][b]);
      }
    }
  }
}

// FIRST: 1 for the first layer, 0 for the others.
#define TESSERAL_PATHS_FROM(FIRST, L_OUT, L1)                                                                        \
  TESSERAL_KERNEL convolve_##FIRST##_##L_OUT##_##L1(                                                                 \
      const int* count, int room, const int* first, const int* senders, const int* places, const Real* rows,         \
      const Real* coefficients, const Real* features, Real* messages) {                                              \
    convolve<Layer<FIRST, L_OUT>, L1>(*count, room, first, senders, places, rows, coefficients, features, messages); \
  }                                                                                                                  \
  TESSERAL_KERNEL pull_##FIRST##_##L_OUT##_##L1(                                                                     \
      const int* count, int room, const int* sent, const int* order, const int* receivers, const int* places,        \
      const Real* rows, const Real* coefficients, const Real* features, const Real* by_messages, int add,            \
      Real* by_features, Real* by_rows) {                                                                            \
    pull<Layer<FIRST, L_OUT>, L1>(*count, room, sent, order, receivers, places, rows, coefficients, features,        \
                                  by_messages, add, by_features, by_rows);                                           \
  }

}  // namespace tesseral
