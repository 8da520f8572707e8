// Operations on the features of one atom: linear maps by degree, products on the sphere, readouts,
// and their gradients. A group works on an atom, whose features are in its scratch memory.
#pragma once
#include "convolution.h"

namespace tesseral {

constexpr int grid = TESSERAL_GRID;

// Copies (M, IN) to the scratch of a group.
template <int SIZE> TESSERAL_DEVICE void copy_to_scratch(const Real* from, Real* scratch) {
#pragma unroll 4
  for (int k = 0; k < SIZE; k += group) store(scratch + k, load(from + k));
}

// Adds to out (components(L)) the columns c … c + group - 1 of a matrix for each degree times x,
// rows of ROW numbers in the scratch, IN of which count. weight: (L + 1, rows, columns), from the
// first row that counts.
template <int L, int ROW, int IN>
TESSERAL_DEVICE void linear(const Real* x, const Real* weight, int rows, int columns, int c, Lanes* out) {
  unroll<L + 1>([&](auto l) {
    constexpr int first = l * l, n = 2 * l + 1;
    const Real* const matrix = weight + l * rows * columns + c;
#pragma unroll 4
    for (int k = 0; k < IN; k++) {
      const Lanes w = load(matrix + k * columns);
#pragma unroll
      for (int m = first; m < first + n; m++) out[m] += x[m * ROW + k] * w;
    }
  });
}

// Adds part l1, l2 → l3 of the product of two functions on the sphere to out.
template <int L1, int L2, int L3> TESSERAL_DEVICE void part_of_product(const Lanes* a, const Lanes* b, Lanes* out) {
  using C = Coupling<L1, L2, L3>;
  unroll<C::terms>([&](auto t) {
    constexpr int pair = C::pair[t], m1 = C::m1[pair], m3 = C::m3[pair], m2 = C::m2[t];
    constexpr double value = C::gaunt * C::value[t];
    out[L3 * L3 + m3] += Real(value) * (a[L1 * L1 + m1] * b[L2 * L2 + m2]);
  });
}

// Adds the product of two functions on the sphere to out.
template <int L_A, int L_B, int L_OUT> TESSERAL_DEVICE void product(const Lanes* a, const Lanes* b, Lanes* out) {
  unroll<(L_A + 1) * (L_B + 1)>([&](auto degrees) {
    constexpr int l1 = degrees / (L_B + 1), l2 = degrees % (L_B + 1);
    constexpr int least = l1 > l2 ? l1 - l2 : l2 - l1, most = l1 + l2 < L_OUT ? l1 + l2 : L_OUT;
    if constexpr (least <= most)
      unroll<(most - least) / 2 + 1>([&](auto step) { part_of_product<l1, l2, least + 2 * step>(a, b, out); });
  });
}

template <int N> TESSERAL_DEVICE void clear(Lanes* v) {
#pragma unroll
  for (int m = 0; m < N; m++) v[m] = Lanes{};
}

// Features of the first layer, from a table by element.
TESSERAL_KERNEL embed(const int* count, const int* species, const Real* table, Real* features) {
  for (int i = first_group(); i < *count; i += number_of_groups())
#pragma unroll 1
    for (int c = 0; c < channels; c += group)
      store(features + i * (long long)channels + c, load(table + species[i] * channels + c));
}

// Field (atoms, components(l_max), channels) = messages and features, each times a matrix by degree.
template <int L_IN>
TESSERAL_DEVICE void enter_field(int atoms, const Real* messages, const Real* features, const Real* message,
                                 const Real* skip, Real* field) {
  constexpr int m_all = components(l_max), m_in = components(L_IN);
  TESSERAL_SCRATCH(x, (m_all + m_in) * channels);
  for (int i = first_group(); i < atoms; i += number_of_groups()) {
    meet();
    copy_to_scratch<m_all * channels>(messages + i * (long long)(m_all * channels), x);
    copy_to_scratch<m_in * channels>(features + i * (long long)(m_in * channels), x + m_all * channels);
    meet();
#pragma unroll 1
    for (int c = 0; c < channels; c += group) {
      Lanes out[m_all];
      clear<m_all>(out);
      linear<l_max, channels, channels>(x, message, channels, channels, c, out);
      linear<L_IN, channels, channels>(x + m_all * channels, skip, channels, channels, c, out);
#pragma unroll
      for (int m = 0; m < m_all; m++) store(field + (i * (long long)m_all + m) * channels + c, out[m]);
    }
  }
}

// Gradients by messages and, unless it is null, by features from that by the field.
// `_t`: transposed matrices.
template <int L_IN>
TESSERAL_DEVICE void leave_field(int atoms, const Real* by_field, const Real* message_t, const Real* skip_t,
                                 Real* by_messages, Real* by_features) {
  constexpr int m_all = components(l_max), m_in = components(L_IN);
  TESSERAL_SCRATCH(x, m_all * channels);
  for (int i = first_group(); i < atoms; i += number_of_groups()) {
    meet();
    copy_to_scratch<m_all * channels>(by_field + i * (long long)(m_all * channels), x);
    meet();
#pragma unroll 1
    for (int c = 0; c < channels; c += group) {
      Lanes out[m_all];
      clear<m_all>(out);
      linear<l_max, channels, channels>(x, message_t, channels, channels, c, out);
#pragma unroll
      for (int m = 0; m < m_all; m++) store(by_messages + (i * (long long)m_all + m) * channels + c, out[m]);
      if (by_features) {
        clear<m_in>(out);
        linear<L_IN, channels, channels>(x, skip_t, channels, channels, c, out);
#pragma unroll
        for (int m = 0; m < m_in; m++) store(by_features + (i * (long long)m_in + m) * channels + c, out[m]);
      }
    }
  }
}

// Mixing: out (atoms, components(L_OUT), channels) = field + leave [(enter field + bias) (second field)].
template <int L_IN, int L_OUT>
TESSERAL_DEVICE void mix(int atoms, const int* species, const Real* field, const Real* enter, const Real* second,
                         const Real* bias, const Real* leave, Real* out) {
  constexpr int m_in = components(L_IN), m_out = components(L_OUT);
  TESSERAL_SCRATCH(x, m_in * channels);
  TESSERAL_SCRATCH(products, m_out * group);
  for (int i = first_group(); i < atoms; i += number_of_groups()) {
    meet();
    copy_to_scratch<m_in * channels>(field + i * (long long)(m_in * channels), x);
    meet();
#pragma unroll 1
    for (int g = 0; g < grid; g += group) {
      Lanes a[m_in], b[m_in], mixed[m_out];
      clear<m_in>(a), clear<m_in>(b), clear<m_out>(mixed);
      linear<L_IN, channels, channels>(x, enter, channels, grid, g, a);
      linear<L_IN, channels, channels>(x, second, channels, grid, g, b);
      a[0] += load(bias + species[i] * grid + g);
      product<L_IN, L_IN, L_OUT>(a, b, mixed);
#pragma unroll
      for (int m = 0; m < m_out; m++) store(products + m * group, mixed[m]);
      meet();
#pragma unroll 1
      for (int c = 0; c < channels; c += group) {
        Real* const own = out + i * (long long)(m_out * channels) + c;
        Lanes sums[m_out];
#pragma unroll
        for (int m = 0; m < m_out; m++) sums[m] = g ? load(own + m * channels) : load(x + m * channels + c);
        linear<L_OUT, group, group>(products, leave + g * channels, grid, channels, c, sums);
#pragma unroll
        for (int m = 0; m < m_out; m++) store(own + m * channels, sums[m]);
      }
      meet();
    }
  }
}

// Gradient by the field from that by the result of the mixing. The factors are computed again, which
// takes less memory than to keep them. `readout`: gradient by the scalars to add, or null; by_out
// may be null instead.
template <int L_IN, int L_OUT>
TESSERAL_DEVICE void mix_back(int atoms, const int* species, const Real* field, const Real* by_out,
                              const Real* readout, const Real* enter, const Real* second, const Real* bias,
                              const Real* enter_t, const Real* second_t, const Real* leave_t, Real* by_field) {
  constexpr int m_in = components(L_IN), m_out = components(L_OUT);
  TESSERAL_SCRATCH(x, (m_in + m_out) * channels);
  TESSERAL_SCRATCH(factors, 2 * m_in * group);
  Real* const by_x = x + m_in * channels;
  for (int i = first_group(); i < atoms; i += number_of_groups()) {
    meet();
    copy_to_scratch<m_in * channels>(field + i * (long long)(m_in * channels), x);
#pragma unroll 1
    for (int c = 0; c < channels; c += group) {
#pragma unroll
      for (int m = 0; m < m_out; m++) {
        Lanes v = by_out ? load(by_out + (i * (long long)m_out + m) * channels + c) : Lanes{};
        if (m == 0 && readout) v += load(readout + i * (long long)channels + c);
        store(by_x + m * channels + c, v);
      }
    }
    meet();
#pragma unroll 1
    for (int g = 0; g < grid; g += group) {
      Lanes a[m_in], b[m_in], by_product[m_out], by_factor[m_in];
      clear<m_in>(a), clear<m_in>(b), clear<m_out>(by_product);
      linear<L_OUT, channels, channels>(by_x, leave_t, channels, grid, g, by_product);
      linear<L_IN, channels, channels>(x, second, channels, grid, g, b);
      clear<m_in>(by_factor);
      product<L_OUT, L_IN, L_IN>(by_product, b, by_factor);
#pragma unroll
      for (int m = 0; m < m_in; m++) store(factors + m * group, by_factor[m]);
      linear<L_IN, channels, channels>(x, enter, channels, grid, g, a);
      a[0] += load(bias + species[i] * grid + g);
      clear<m_in>(by_factor);
      product<L_OUT, L_IN, L_IN>(by_product, a, by_factor);
#pragma unroll
      for (int m = 0; m < m_in; m++) store(factors + (m_in + m) * group, by_factor[m]);
      meet();
#pragma unroll 1
      for (int c = 0; c < channels; c += group) {
        Real* const own = by_field + i * (long long)(m_in * channels) + c;
        Lanes sums[m_in];
#pragma unroll
        for (int m = 0; m < m_in; m++)
          sums[m] = g ? load(own + m * channels) : m < m_out ? load(by_x + m * channels + c) : Lanes{};
        linear<L_IN, group, group>(factors, enter_t + g * channels, grid, channels, c, sums);
        linear<L_IN, group, group>(factors + m_in * group, second_t + g * channels, grid, channels, c, sums);
#pragma unroll
        for (int m = 0; m < m_in; m++) store(own + m * channels, sums[m]);
      }
      meet();
    }
  }
}

// Adds to the energies what is read from the scalars, the first `channels` of rows of features, and
// gives its gradient by them.
TESSERAL_KERNEL read_out(const int* count, const int* species, const double* scale, const Real* features, int row,
                         const Real* direct, double constant, const Real* hidden, const Real* hidden_t,
                         const Real* shift, const Real* output, double* energies, Real* by_scalars) {
  TESSERAL_SCRATCH(x, channels);
  TESSERAL_SCRATCH(by_inner, channels);
  for (int i = first_group(); i < *count; i += number_of_groups()) {
    meet();
    copy_to_scratch<channels>(features + i * (long long)row, x);
    meet();
    const double unit = scale[species[i]];
    Lanes energy = Lanes{};
#pragma unroll 1
    for (int c = 0; c < channels; c += group) {
      energy += load(direct + c) * load(x + c);
      Lanes inner[1] = {load(shift + c)};
      linear<0, channels, channels>(x, hidden, channels, channels, c, inner);
      const Lanes gate = Real(1) / (Real(1) + exponential(-inner[0])), out = load(output + c);
      energy += out * inner[0] * gate;
      store(by_inner + c, Real(unit) * out * gate * (Real(1) + inner[0] * (Real(1) - gate)));
    }
    const double total = any(sum(energy));
    if (is_first_lane()) energies[i] += unit * (total + constant);
    meet();
#pragma unroll 1
    for (int c = 0; c < channels; c += group) {
      Lanes by_x[1] = {Real(unit) * load(direct + c)};
      linear<0, channels, channels>(by_inner, hidden_t, channels, channels, c, by_x);
      store(by_scalars + i * (long long)channels + c, by_x[0]);
    }
  }
}

// Adds to places (atoms, rank) in the space of features (potentials/blocks/uncertainty.py), or sets them to, what
// the scalars of a layer and their hidden values contribute by `factor`, (2 channels, rank).
TESSERAL_KERNEL add_places(const int* count, const Real* features, int row, const Real* hidden, const Real* shift,
                           const Real* factor, int rank, int add, Real* places) {
  TESSERAL_SCRATCH(x, 2 * channels);
  for (int i = first_group(); i < *count; i += number_of_groups()) {
    meet();
    copy_to_scratch<channels>(features + i * (long long)row, x);
    meet();
#pragma unroll 1
    for (int c = 0; c < channels; c += group) {
      Lanes inner[1] = {load(shift + c)};
      linear<0, channels, channels>(x, hidden, channels, channels, c, inner);
      store(x + channels + c, inner[0] / (Real(1) + exponential(-inner[0])));
    }
    meet();
#pragma unroll 1
    for (int k = 0; k < rank; k += group) {
      Real* const own = places + i * (long long)rank + k;
      Lanes total[1] = {add ? load(own) : Lanes{}};
      linear<0, 2 * channels, 2 * channels>(x, factor, 2 * channels, rank, k, total);
      store(own, total[0]);
    }
  }
}

// Expected force errors by the distances of places to the nearest landmark of the element.
TESSERAL_KERNEL expected_errors(const int* count, const int* species, const Real* places, const Real* centers,
                                int landmarks, int rank, double forces, double exponent, double reach,
                                double* errors) {
  for (int i = first_group(); i < *count; i += number_of_groups()) {
    const Real* center = centers + species[i] * (long long)landmarks * rank;
    double least = 1e300;
    for (int m = 0; m < landmarks; m++, center += rank) {
      Lanes squares = Lanes{};
      for (int k = 0; k < rank; k += group) {
        const Lanes x = load(places + i * (long long)rank + k) - load(center + k);
        squares += x * x;
      }
      const double square = any(sum(squares));
      least = square >= least ? least : square;  // keeps a NaN
    }
    const double distance = sqrt(least), within = distance < reach ? distance : reach;
    if (is_first_lane()) errors[i] = forces * pow(within, exponent) * (distance > reach ? distance / reach : 1.0);
  }
}

#define TESSERAL_LAYER(L_IN)                                                                                      \
  TESSERAL_KERNEL enter_field_##L_IN(const int* count, const Real* messages, const Real* features,                \
                                     const Real* message, const Real* skip, Real* field) {                        \
    enter_field<L_IN>(*count, messages, features, message, skip, field);                                          \
  }                                                                                                               \
  TESSERAL_KERNEL leave_field_##L_IN(const int* count, const Real* by_field, const Real* message_t,               \
                                     const Real* skip_t, Real* by_messages, Real* by_features) {                  \
    leave_field<L_IN>(*count, by_field, message_t, skip_t, by_messages, by_features);                             \
  }
#define TESSERAL_MIXING(L_IN, L_OUT)                                                                              \
  TESSERAL_KERNEL mix_##L_IN##_##L_OUT(const int* count, const int* species, const Real* field, const Real* enter, \
                                       const Real* second, const Real* bias, const Real* leave, Real* out) {      \
    mix<L_IN, L_OUT>(*count, species, field, enter, second, bias, leave, out);                                    \
  }                                                                                                               \
  TESSERAL_KERNEL mix_back_##L_IN##_##L_OUT(                                                                      \
      const int* count, const int* species, const Real* field, const Real* by_out, const Real* readout,           \
      const Real* enter, const Real* second, const Real* bias, const Real* enter_t, const Real* second_t,         \
      const Real* leave_t, Real* by_field) {                                                                      \
    mix_back<L_IN, L_OUT>(*count, species, field, by_out, readout, enter, second, bias, enter_t, second_t,        \
                          leave_t, by_field);                                                                     \
  }

}  // namespace tesseral
