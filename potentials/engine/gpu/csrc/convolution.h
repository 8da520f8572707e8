// The spline convolution (potentials/blocks/convolution.py) and its gradients by features, harmonics
// and lengths. A group works on the edges that an atom receives, forwards, or sends, backwards, so
// that its sums stay in registers and are written once: no atomic additions, the same bits always.
#pragma once
#include "edges.h"
#include "terms.h"

namespace tesseral {

constexpr int l_max = TESSERAL_L_MAX_FEATURES, channels = TESSERAL_CHANNELS;

struct Path {
  int l1, l2, l3;
};
// Path number `wanted` of natural parity, in the order of the coefficients.
TESSERAL_DEVICE constexpr Path path(int l_in, int wanted) {
  int number = 0;
  for (int l2 = 0; l2 <= l_edge; l2++)
    for (int l1 = 0; l1 <= l_in; l1++)
      for (int l3 = l1 > l2 ? l1 - l2 : l2 - l1; l3 <= l1 + l2 && l3 <= l_max; l3 += 2)
        if (number++ == wanted) return {l1, l2, l3};
  return {-1, -1, -1};
}
TESSERAL_DEVICE constexpr int path_count(int l_in) {
  int number = 0;
  while (path(l_in, number).l1 >= 0) number++;
  return number;
}

// Calls f(path number, Coupling) for the paths of a convolution.
template <int L_IN, class F> TESSERAL_DEVICE void each_path(F&& f) {
  unroll<path_count(L_IN)>([&](auto p) {
    constexpr Path own = path(L_IN, p);
    f(p, Constant<own.l1 * own.l1>{}, Constant<own.l2 * own.l2>{}, Constant<own.l3 * own.l3>{},
      Constant<2 * own.l1 + 1>{}, Coupling<own.l1, own.l2, own.l3>{});
  });
}

// The four splines that are not zero at a position in an interval, or their derivatives by the length.
TESSERAL_DEVICE void spline_values(Real f, Real* value) {
  constexpr Real sixth = Real(1) / 6;
  const Real g = 1 - f;
  value[0] = sixth * g * g * g;
  value[1] = sixth * ((3 * f - 6) * f * f + 4);
  value[2] = sixth * ((3 * g - 6) * g * g + 4);
  value[3] = sixth * f * f * f;
}
TESSERAL_DEVICE void spline_slopes(Real f, Real* slope) {
  constexpr Real factor = Real(intervals / cutoff / 6);
  const Real g = 1 - f;
  slope[0] = factor * -3 * g * g;
  slope[1] = factor * (9 * f - 12) * f;
  slope[2] = factor * (12 - 9 * g) * g;
  slope[3] = factor * 3 * f * f;
}

// Table of coefficients: (intervals + 3, paths, channels), the last three rows zero; each path's
// coefficients contain the factor of its sum.
template <int PATHS> TESSERAL_DEVICE Lanes radial(const Real* table, const Real* weight) {
  constexpr int row = PATHS * channels;
  return weight[0] * load(table) + weight[1] * load(table + row) + weight[2] * load(table + 2 * row) +
         weight[3] * load(table + 3 * row);
}

// Messages (atoms, components(l_max), channels) from features (atoms, components(L_IN), channels).
template <int L_IN>
TESSERAL_DEVICE void convolve(int atoms, const int* first, const int* senders, const int* places, const Real* rows,
                              const Real* coefficients, const Real* features, Real* messages) {
  constexpr int m_in = components(L_IN), m_out = components(l_max), paths = path_count(L_IN);
  for (int i = first_group(); i < atoms; i += number_of_groups()) {
#pragma unroll 1
    for (int c = 0; c < channels; c += group) {
      Lanes sums[m_out];
#pragma unroll
      for (int m = 0; m < m_out; m++) sums[m] = Lanes{};
      for (int e = first[i]; e < first[i + 1]; e++) {
        const int place = places[e];
        if (place < 0) continue;
        const Real* const y = rows + e * (long long)edge_row;
        const Real* const table = coefficients + place * (paths * channels) + c;
        const Real* const own = features + senders[e] * (long long)(m_in * channels) + c;
        Real weight[4];
        spline_values(y[0], weight);
        Lanes x[m_in];
#pragma unroll
        for (int m = 0; m < m_in; m++) x[m] = load(own + m * channels);
        each_path<L_IN>([&](auto p, auto at1, auto at2, auto at3, auto n1, auto tables) {
          using C = decltype(tables);
          const Lanes r = radial<paths>(table + p * channels, weight);
          if constexpr (at2 == 0) {  // Y is 1
            unroll<n1>([&](auto m) {
              constexpr double value = C::value[m];
              sums[at3 + m] += Real(value) * (r * x[at1 + m]);
            });
          } else {
            Lanes u[n1];
#pragma unroll
            for (int m = 0; m < n1; m++) u[m] = r * x[at1 + m];
            unroll<C::pairs>([&](auto q) {
              constexpr int m1 = C::m1[q], m3 = C::m3[q];
              sums[at3 + m3] += coupled<C, q>(y + at2) * u[m1];
            });
          }
        });
      }
      Real* const out = messages + i * (long long)(m_out * channels) + c;
#pragma unroll
      for (int m = 0; m < m_out; m++) store(out + m * channels, sums[m]);
    }
  }
}

// Gradient h (n1 components) of a path by the product of its radial function and the features, from the
// gradients g by messages; h is 0 before. `also` is called for each pair of components whose coupling
// depends on the edge.
template <class C, class At2, class At3, class N1, class Also>
TESSERAL_DEVICE void pull_path(At2 at2, At3 at3, N1 n1, const Real* y, const Lanes* g, Lanes* h, Also also) {
  if constexpr (at2 == 0) {  // Y is 1
    unroll<n1>([&](auto m) {
      constexpr double value = C::value[m];
      h[m] = Real(value) * g[at3 + m];
    });
  } else {
    unroll<C::pairs>([&](auto q) {
      constexpr int m1 = C::m1[q], m3 = C::m3[q];
      h[m1] += coupled<C, q>(y + at2) * g[at3 + m3];
      also(q);
    });
  }
}

// From gradients by messages: adds those by features, unless `by_features` is null (those of the first
// layer are constant), and sets the rows of gradients of edges, or adds to them.
template <int L_IN>
TESSERAL_DEVICE void pull(int atoms, const int* sent, const int* order, const int* receivers, const int* places,
                          const Real* rows, const Real* coefficients, const Real* features, const Real* by_messages,
                          int add, Real* by_features, Real* by_rows) {
  constexpr int m_in = components(L_IN), m_out = components(l_max), paths = path_count(L_IN);
  for (int j = first_group(); j < atoms; j += number_of_groups()) {
#pragma unroll 1
    for (int c = 0; c < channels; c += group) {
      Lanes x[m_in], by_x[m_in];
#pragma unroll
      for (int m = 0; m < m_in; m++) {
        x[m] = load(features + (j * (long long)m_in + m) * channels + c);
        by_x[m] = by_features ? load(by_features + (j * (long long)m_in + m) * channels + c) : Lanes{};
      }
      for (int k = sent[j]; k < sent[j + 1]; k++) {
        const int e = order[k], place = places[e];
        if (place < 0) continue;
        const Real* const y = rows + e * (long long)edge_row;
        const Real* const table = coefficients + place * (paths * channels) + c;
        const Real* const own = by_messages + receivers[e] * (long long)(m_out * channels) + c;
        Real weight[4], slope[4];
        spline_values(y[0], weight);
        spline_slopes(y[0], slope);
        Lanes g[m_out], by_row[edge_row];
#pragma unroll
        for (int m = 0; m < m_out; m++) g[m] = load(own + m * channels);
#pragma unroll
        for (int m = 0; m < edge_row; m++) by_row[m] = Lanes{};
        each_path<L_IN>([&](auto p, auto at1, auto at2, auto at3, auto n1, auto tables) {
          using C = decltype(tables);
          const Lanes r = radial<paths>(table + p * channels, weight);
          Lanes u[n1], h[n1];  // h: gradient by u
#pragma unroll
          for (int m = 0; m < n1; m++) u[m] = r * x[at1 + m], h[m] = Lanes{};
          pull_path<C>(at2, at3, n1, y, g, h, [&](auto q) {
            constexpr int m1 = C::m1[q], m3 = C::m3[q];
            const Lanes both = u[m1] * g[at3 + m3];
            each_term<C, q>([&](int m2, Real value) { by_row[at2 + m2] += value * both; });
          });
          Lanes by_radial = Lanes{};
#pragma unroll
          for (int m = 0; m < n1; m++) {
            by_radial += x[at1 + m] * h[m];
            by_x[at1 + m] += r * h[m];
          }
          by_row[0] += by_radial * radial<paths>(table + p * channels, slope);
        });
        totals(by_row, add || c > 0, by_rows + e * (long long)edge_row);
      }
      if (by_features) {
#pragma unroll
        for (int m = 0; m < m_in; m++) store(by_features + (j * (long long)m_in + m) * channels + c, by_x[m]);
      }
    }
  }
}

#define TESSERAL_CONVOLUTION(L_IN)                                                                                    \
  TESSERAL_KERNEL convolve_##L_IN(const int* count, const int* first, const int* senders, const int* places,          \
                                  const Real* rows, const Real* coefficients, const Real* features, Real* messages) { \
    convolve<L_IN>(*count, first, senders, places, rows, coefficients, features, messages);                           \
  }                                                                                                                   \
  TESSERAL_KERNEL pull_##L_IN(const int* count, const int* sent, const int* order, const int* receivers,              \
                              const int* places, const Real* rows, const Real* coefficients, const Real* features,    \
                              const Real* by_messages, int add, Real* by_features, Real* by_rows) {                   \
    pull<L_IN>(*count, sent, order, receivers, places, rows, coefficients, features, by_messages, add, by_features,   \
               by_rows);                                                                                              \
  }

}  // namespace tesseral
