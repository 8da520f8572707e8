// What NequIP does on an atom besides its linear maps by degree: the norm of a field, the gates, and
// linear maps with a matrix for each element; and the gradients. A group works on an atom. A field holds
// degree after degree like features; in degree 0 it has the scalars, and behind them the gates.
#pragma once
#include "paths.h"

namespace tesseral {

constexpr bool silu_gates = TESSERAL_SILU_GATES;
constexpr double norm_floor = 1e-12;  // of potentials/blocks/flat.py

// Sizes of the field of a layer whose result has degrees up to L.
template <int L> struct Field {
  static TESSERAL_DEVICE constexpr int width(int l) {
    int number = channels(l);
    for (int other = 1; l == 0 && other <= L; other++) number += channels(other);
    return number;
  }
  static TESSERAL_DEVICE constexpr int start(int l) {  // of a degree, for one atom
    return l == 0 ? 0 : start(l - 1) + (2 * l - 1) * width(l - 1);
  }
  static TESSERAL_DEVICE constexpr int gate(int l) {  // the first gate of a degree
    return l == 1 ? channels(0) : gate(l - 1) + channels(l - 1);
  }
  static TESSERAL_DEVICE constexpr int factor(int l) {  // the first factor of a degree in the norm
    return l == 0 ? 0 : factor(l - 1) + width(l - 1);
  }
  static TESSERAL_DEVICE constexpr double share(int l) { return 1.0 / ((L + 1) * (2 * l + 1) * (2 * l + 1)); }
  // The first number of degree l of atom i. Degrees are constants, as `unroll` gives them.
  template <class Degree> static TESSERAL_DEVICE long long place(int room, int i, Degree l) {
    constexpr int begin = start(l), row = (2 * l + 1) * width(l);
    return begin * (long long)room + i * (long long)row;
  }
};

struct Opening {
  Lanes value, slope;
  TESSERAL_DEVICE Opening(Lanes x, bool silu) {
    const Lanes s = Real(1) / (Real(1) + exponential(-x));
    value = silu ? x * s : s;
    slope = silu ? s * (Real(1) + x * (Real(1) - s)) : s * (Real(1) - s);
  }
};

// A field as the gates see it: divided by its size and times the factors of the channels, unless
// `factors` is null.
template <int L> struct Normed {
  using F = Field<L>;
  const Real *field, *factors;
  const int room, i;
  Real inverse = 1;

  TESSERAL_DEVICE Normed(const Real* of, const Real* by, int most, int atom) : field(of), factors(by), room(most), i(atom) {
    if (!factors) return;
    Lanes squared = Lanes{};
    unroll<L + 1>([&](auto l) {
      constexpr int size = (2 * l + 1) * F::width(l);
      constexpr double share = F::share(l);
      const Real* const own = field + F::place(room, i, l);
      Lanes total = Lanes{};
      for (int k = 0; k < size; k += group) total += load(own + k) * load(own + k);
      squared += Real(share) * total;
    });
    inverse = Real(1) / sqrt(any(sum(squared)) + Real(norm_floor));
  }
  // Channels c … of component m of degree l, and the factor that they have.
  template <class Degree> TESSERAL_DEVICE Lanes bare(Degree l, int m, int c) const {
    constexpr int width = F::width(l);
    return load(field + F::place(room, i, l) + m * width + c);
  }
  template <class Degree> TESSERAL_DEVICE Lanes scale(Degree l, int c) const {
    constexpr int first = F::factor(l);
    return inverse * load(factors + first + c);
  }
  template <class Degree> TESSERAL_DEVICE Lanes operator()(Degree l, int m, int c) const {
    const Lanes x = bare(l, m, c);
    return factors ? scale(l, c) * x : x;
  }
};

// Features (those of `channels`) from a field.
template <int L>
TESSERAL_DEVICE void open_gates(int atoms, int room, const Real* field, const Real* factors, Real* features) {
  for (int i = first_group(); i < atoms; i += number_of_groups()) {
    const Normed<L> x(field, factors, room, i);
#pragma unroll 1
    for (int c = 0; c < channels(0); c += group)
      store(features + i * (long long)channels(0) + c, Opening(x(Constant<0>{}, 0, c), true).value);
    unroll<L>([&](auto below) {
      constexpr Constant<below + 1> l{};
      constexpr int gate = Field<L>::gate(l), own = channels(l), start = Layer<false, L>::feature_start(l);
      Real* const out = features + start * (long long)room + i * (long long)((2 * l + 1) * own);
#pragma unroll 1
      for (int c = 0; c < own; c += group) {
        const Lanes opening = Opening(x(Constant<0>{}, 0, gate + c), silu_gates).value;
#pragma unroll
        for (int m = 0; m <= 2 * l; m++) store(out + m * own + c, opening * x(l, m, c));
      }
    });
  }
}

// The gradient by the field from that by the features.
template <int L>
TESSERAL_DEVICE void pull_gates(int atoms, int room, const Real* field, const Real* factors, const Real* by_features,
                                Real* by_field) {
  using F = Field<L>;
  for (int i = first_group(); i < atoms; i += number_of_groups()) {
    const Normed<L> x(field, factors, room, i);
    Lanes along = Lanes{};  // Σ of gradients by the divided field, times the field
    const auto put = [&](auto l, int m, int c, Lanes by) {
      constexpr int width = F::width(l);
      if (factors) {
        by *= x.scale(l, c);
        along += by * x.bare(l, m, c);
      }
      store(by_field + F::place(room, i, l) + m * width + c, by);
    };
#pragma unroll 1
    for (int c = 0; c < channels(0); c += group)
      put(Constant<0>{}, 0, c, load(by_features + i * (long long)channels(0) + c) * Opening(x(Constant<0>{}, 0, c), true).slope);
    unroll<L>([&](auto below) {
      constexpr Constant<below + 1> l{};
      constexpr int gate = Field<L>::gate(l), own = channels(l), start = Layer<false, L>::feature_start(l);
      const Real* const by_out = by_features + start * (long long)room + i * (long long)((2 * l + 1) * own);
#pragma unroll 1
      for (int c = 0; c < own; c += group) {
        const Opening opening(x(Constant<0>{}, 0, gate + c), silu_gates);
        Lanes by_opening = Lanes{};
#pragma unroll
        for (int m = 0; m <= 2 * l; m++) {
          const Lanes by = load(by_out + m * own + c);
          by_opening += by * x(l, m, c);
          put(l, m, c, by * opening.value);
        }
        put(Constant<0>{}, 0, gate + c, by_opening * opening.slope);
      }
    });
    if (!factors) continue;
    const Lanes back = sum(along) * (x.inverse * x.inverse);
    unroll<L + 1>([&](auto l) {
      constexpr int size = (2 * l + 1) * F::width(l);
      constexpr double share = F::share(l);
      const long long at = F::place(room, i, l);
      for (int k = 0; k < size; k += group)
        store(by_field + at + k, load(by_field + at + k) - Real(share) * back * load(field + at + k));
    });
  }
}

// Adds to rows (room, 2 L + 1, columns) those of x (room, 2 L + 1, width) times the matrix of each
// atom's element, (species, width, columns).
template <int L>
TESSERAL_DEVICE void own_linear(int atoms, const int* species, const Real* x, const Real* weight, int width, int columns,
                                Real* rows) {
  constexpr int n = 2 * L + 1;
  const int parts = columns / group;
  for (int item = first_group(); item < atoms * parts; item += number_of_groups()) {
    const int i = item / parts, c = item % parts * group;
    const Real* const own = x + i * (long long)(n * width);
    const Real* const matrix = weight + species[i] * (long long)(width * columns) + c;
    Real* const out = rows + i * (long long)(n * columns) + c;
    Lanes sums[n];
#pragma unroll
    for (int m = 0; m < n; m++) sums[m] = load(out + m * columns);
#pragma unroll 4
    for (int k = 0; k < width; k++) {
      const Lanes w = load(matrix + k * columns);
#pragma unroll
      for (int m = 0; m < n; m++) sums[m] += own[m * width + k] * w;
    }
#pragma unroll
    for (int m = 0; m < n; m++) store(out + m * columns, sums[m]);
  }
}

#define TESSERAL_GATES(L)                                                                                        \
  TESSERAL_KERNEL open_gates_##L(const int* count, int room, const Real* field, const Real* factors,             \
                                 Real* features) {                                                               \
    open_gates<L>(*count, room, field, factors, features);                                                       \
  }                                                                                                              \
  TESSERAL_KERNEL pull_gates_##L(const int* count, int room, const Real* field, const Real* factors,             \
                                 const Real* by_features, Real* by_field) {                                      \
    pull_gates<L>(*count, room, field, factors, by_features, by_field);                                          \
  }
#define TESSERAL_OWN_LINEAR(L)                                                                                   \
  TESSERAL_KERNEL own_linear_##L(const int* count, const int* species, const Real* x, const Real* weight,        \
                                 int width, int columns, Real* rows) {                                           \
    own_linear<L>(*count, species, x, weight, width, columns, rows);                                             \
  }

}  // namespace tesseral
