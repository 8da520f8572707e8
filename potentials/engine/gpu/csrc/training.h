// Training: the operators of the four passes in potentials/engine/training.py that inference has
// not. As there, nothing is added atomically. Gradients by spline coefficients are products of two
// matrices: the splines of each edge, and for each edge the gradients by its radial functions.
#pragma once
#include "along.h"
#include "nodes.h"

namespace tesseral {

// The derivative of `coupled` along a direction of the harmonics is the same sum of that direction,
// since t is linear in them. Rows along which edges move are as rows of gradients: the change of
// the length, and of the other harmonics.

// Change of the messages as features move by `change` and edges along `along`.
template <int L_IN>
TESSERAL_DEVICE void move(int atoms, const int* first, const int* senders, const int* places, const Real* rows,
                          const Real* along, const Real* coefficients, const Real* features, const Real* change,
                          Real* moved) {
  constexpr int m_in = components(L_IN), m_out = components(l_max), paths = path_count(L_IN);
  for (int i = first_group(); i < atoms; i += number_of_groups()) {
#pragma unroll 1
    for (int c = 0; c < channels; c += group) {
      Lanes sums[m_out];
      clear<m_out>(sums);
      for (int e = first[i]; e < first[i + 1]; e++) {
        const int place = places[e];
        if (place < 0) continue;
        const Real *const y = rows + e * (long long)edge_row, *const dy = along + e * (long long)edge_row;
        const Real* const table = coefficients + place * (paths * channels) + c;
        const long long sender = senders[e] * (long long)(m_in * channels) + c;
        Real weight[4], slope[4];
        spline_values(y[0], weight);
        spline_slopes(y[0], slope);
        Lanes x[m_in], dx[m_in];
#pragma unroll
        for (int m = 0; m < m_in; m++) {
          x[m] = load(features + sender + m * channels);
          dx[m] = load(change + sender + m * channels);
        }
        each_path<L_IN>([&](auto p, auto at1, auto at2, auto at3, auto n1, auto tables) {
          using C = decltype(tables);
          const Lanes r = radial<paths>(table + p * channels, weight);
          const Lanes dr = dy[0] * radial<paths>(table + p * channels, slope);
          Lanes u[n1], du[n1];
#pragma unroll
          for (int m = 0; m < n1; m++) u[m] = r * x[at1 + m], du[m] = r * dx[at1 + m] + dr * x[at1 + m];
          if constexpr (at2 == 0) {
            unroll<n1>([&](auto m) {
              constexpr double value = C::value[m];
              sums[at3 + m] += Real(value) * du[m];
            });
          } else {
            unroll<C::pairs>([&](auto q) {
              constexpr int m1 = C::m1[q], m3 = C::m3[q];
              sums[at3 + m3] += coupled<C, q>(y + at2) * du[m1] + coupled<C, q>(dy + at2) * u[m1];
            });
          }
        });
      }
#pragma unroll
      for (int m = 0; m < m_out; m++) store(moved + (i * (long long)m_out + m) * channels + c, sums[m]);
    }
  }
}

// From gradients by messages those by features and, for each edge, by its radial functions
// (edges, paths, channels). With `along`, instead the derivatives of the gradients by edges, times
// that direction, as features also move by `change`: by features, by radial functions, and by their
// slopes times the change of the length. Rows of edges beyond the cutoff are not set.
template <int L_IN, bool MOVED>
TESSERAL_DEVICE void derive(int atoms, const int* sent, const int* order, const int* receivers, const int* places,
                            const Real* rows, const Real* along, const Real* coefficients, const Real* features,
                            const Real* change, const Real* by_messages, Real* by_features, Real* by_radial,
                            Real* by_slopes) {
  constexpr int m_in = components(L_IN), m_out = components(l_max), paths = path_count(L_IN);
  for (int j = first_group(); j < atoms; j += number_of_groups()) {
#pragma unroll 1
    for (int c = 0; c < channels; c += group) {
      const long long own = j * (long long)(m_in * channels) + c;
      Lanes x[m_in], dx[m_in], by_x[m_in];
      clear<m_in>(by_x);
#pragma unroll
      for (int m = 0; m < m_in; m++) {
        x[m] = load(features + own + m * channels);
        if constexpr (MOVED) dx[m] = load(change + own + m * channels);
      }
      for (int k = sent[j]; k < sent[j + 1]; k++) {
        const int e = order[k], place = places[e];
        if (place < 0) continue;
        const long long row = e * (long long)(paths * channels) + c;
        const Real *const y = rows + e * (long long)edge_row, *dy = nullptr;
        if constexpr (MOVED) dy = along + e * (long long)edge_row;
        const Real* const table = coefficients + place * (paths * channels) + c;
        const Real* const given = by_messages + receivers[e] * (long long)(m_out * channels) + c;
        Real weight[4], slope[4];
        spline_values(y[0], weight);
        if constexpr (MOVED) spline_slopes(y[0], slope);
        Lanes g[m_out];
#pragma unroll
        for (int m = 0; m < m_out; m++) g[m] = load(given + m * channels);
        each_path<L_IN>([&](auto p, auto at1, auto at2, auto at3, auto n1, auto tables) {
          using C = decltype(tables);
          const Lanes r = radial<paths>(table + p * channels, weight);
          Lanes h[n1], dh[n1];  // gradient by the product of the radial function and the features
          clear<n1>(h), clear<n1>(dh);
          pull_path<C>(at2, at3, n1, y, g, h, [&](auto q) {
            constexpr int m1 = C::m1[q], m3 = C::m3[q];
            if constexpr (MOVED) dh[m1] += coupled<C, q>(dy + at2) * g[at3 + m3];
          });
          Lanes by_r = Lanes{}, by_slope = Lanes{};
          if constexpr (MOVED) {
            const Lanes dr = dy[0] * radial<paths>(table + p * channels, slope);
#pragma unroll
            for (int m = 0; m < n1; m++) {
              by_r += dx[at1 + m] * h[m] + x[at1 + m] * dh[m];
              by_slope += x[at1 + m] * h[m];
              by_x[at1 + m] += r * dh[m] + dr * h[m];
            }
            store(by_slopes + row + p * channels, by_slope);
          } else {
#pragma unroll
            for (int m = 0; m < n1; m++) {
              by_r += x[at1 + m] * h[m];
              by_x[at1 + m] += r * h[m];
            }
          }
          store(by_radial + row + p * channels, by_r);
        });
      }
#pragma unroll
      for (int m = 0; m < m_in; m++) store(by_features + own + m * channels, by_x[m]);
    }
  }
}

// Splines that are not zero of every edge, (edges, intervals); with `along`, their slopes times the
// change of the length.
TESSERAL_KERNEL splines(const int* count, const int* places, const Real* rows, const Real* along, Real* out) {
  for (int e = first_thread(); e < *count; e += number_of_threads()) {
    const int place = places[e];
    if (place < 0) continue;
    const Real f = rows[e * (long long)edge_row], factor = along ? along[e * (long long)edge_row] : Real(1);
    Real value[4];
    if (along) spline_slopes(f, value);
    else spline_values(f, value);
    for (int k = 0; k < 4 && place + k < intervals; k++) out[e * (long long)intervals + place + k] = factor * value[k];
  }
}

// x (atoms, components(L), c_in) times a matrix (c_in, c_out) for each degree.
template <int L>
TESSERAL_DEVICE void linear_map(int atoms, int c_in, int c_out, const Real* x, const Real* weight, Real* out) {
  constexpr int m_all = components(L);
  TESSERAL_SCRATCH(part, m_all * group);
  for (int i = first_group(); i < atoms; i += number_of_groups()) {
    const Real* const own = x + i * (long long)(m_all * c_in);
#pragma unroll 1
    for (int c = 0; c < c_out; c += group) {
      Lanes sums[m_all];
      clear<m_all>(sums);
#pragma unroll 1
      for (int k = 0; k < c_in; k += group) {
        meet();
#pragma unroll
        for (int m = 0; m < m_all; m++) store(part + m * group, load(own + m * c_in + k));
        meet();
        linear<L, group, group>(part, weight + k * c_out, c_in, c_out, c, sums);
      }
#pragma unroll
      for (int m = 0; m < m_all; m++) store(out + (i * (long long)m_all + m) * c_out + c, sums[m]);
    }
  }
}

// Product (atoms, components(L_OUT), width) of two functions on the sphere for each channel.
template <int L_A, int L_B, int L_OUT>
TESSERAL_DEVICE void product_of(int atoms, int width, const Real* left, const Real* right, Real* out) {
  constexpr int m_a = components(L_A), m_b = components(L_B), m_out = components(L_OUT);
  for (int i = first_group(); i < atoms; i += number_of_groups()) {
#pragma unroll 1
    for (int c = 0; c < width; c += group) {
      Lanes a[m_a], b[m_b], sums[m_out];
      clear<m_out>(sums);
#pragma unroll
      for (int m = 0; m < m_a; m++) a[m] = load(left + (i * (long long)m_a + m) * width + c);
#pragma unroll
      for (int m = 0; m < m_b; m++) b[m] = load(right + (i * (long long)m_b + m) * width + c);
      product<L_A, L_B, L_OUT>(a, b, sums);
#pragma unroll
      for (int m = 0; m < m_out; m++) store(out + (i * (long long)m_out + m) * width + c, sums[m]);
    }
  }
}

#define TESSERAL_TRAINING(L_IN)                                                                                   \
  TESSERAL_KERNEL move_##L_IN(const int* count, const int* first, const int* senders, const int* places,          \
                              const Real* rows, const Real* along, const Real* coefficients,                      \
                              const Real* features, const Real* change, Real* moved) {                            \
    move<L_IN>(*count, first, senders, places, rows, along, coefficients, features, change, moved);               \
  }                                                                                                               \
  TESSERAL_KERNEL derive_##L_IN(const int* count, const int* sent, const int* order, const int* receivers,        \
                                const int* places, const Real* rows, const Real* coefficients,                    \
                                const Real* features, const Real* by_messages, Real* by_features,                 \
                                Real* by_radial) {                                                                \
    derive<L_IN, false>(*count, sent, order, receivers, places, rows, nullptr, coefficients, features, nullptr,   \
                        by_messages, by_features, by_radial, nullptr);                                            \
  }                                                                                                               \
  TESSERAL_KERNEL derive_moved_##L_IN(const int* count, const int* sent, const int* order, const int* receivers,  \
                                      const int* places, const Real* rows, const Real* along,                     \
                                      const Real* coefficients, const Real* features, const Real* change,         \
                                      const Real* by_messages, Real* by_features, Real* by_radial,                \
                                      Real* by_slopes) {                                                          \
    derive<L_IN, true>(*count, sent, order, receivers, places, rows, along, coefficients, features, change,       \
                       by_messages, by_features, by_radial, by_slopes);                                           \
  }
#define TESSERAL_LINEAR(L)                                                                                        \
  TESSERAL_KERNEL linear_##L(const int* count, int c_in, int c_out, const Real* x, const Real* weight, Real* out) { \
    linear_map<L>(*count, c_in, c_out, x, weight, out);                                                           \
  }
#define TESSERAL_PRODUCT(L_A, L_B, L_OUT)                                                                         \
  TESSERAL_KERNEL product_##L_A##_##L_B##_##L_OUT(const int* count, int width, const Real* left, const Real* right, \
                                                  Real* out) {                                                    \
    product_of<L_A, L_B, L_OUT>(*count, width, left, right, out);                                                 \
  }

}  // namespace tesseral
