// The sums over components of one path (l1, l2, l3) of the spline convolution, for one edge and all
// channels: forwards, backwards, and the gradient of backwards. Unrolled from the coupling tables.
#pragma once
#include "couplings.h"
#include "simd.h"

namespace tesseral {
namespace TESSERAL_ISA {

// The four splines that are not zero at an edge's length, and their derivatives by it.
template <class T> struct Splines {
  long row[4];  // of the coefficients, in elements
  T value[4], slope[4], bend[4];
};

template <class T> struct EdgeGradient {
  Vector<T> harmonics[2 * TESSERAL_L_MAX + 1];  // of one degree
  Vector<T> radius;
};

// What a path's second gradient needs of its edge besides the coupling and the splines.
template <class T> struct Twice {
  const T* x;             // of the sender
  const T* by_x;          // gradient of the features' gradient, of the sender
  const T* coefficients;  // of this path
  const T* by_coefficients;
  T by_radius;
};

// The sums of one path (l1, l2, l3) over its components; `t` points to this edge's lane.
template <class T, int L1, int L2, int L3> struct PathSums {
  using C = Coupling<L1, L2, L3>;
  using V = Vector<T>;
  static constexpr int W = width<T>;
  static constexpr int n1 = 2 * L1 + 1, n2 = 2 * L2 + 1, n3 = 2 * L3 + 1;

  // t of the chunk's edges from their harmonics of degree l2.
  static void couple(const T* y, T scale, T* t) {
    V sums[C::pairs];
    unroll<C::terms>(TESSERAL_UNROLLED(e) {
      const V term = (scale * T(C::value[e])) * load(y + C::m2[e] * W);
      if constexpr (C::starts[e]) sums[C::pair[e]] = term;
      else sums[C::pair[e]] += term;
    });
    for (int q = 0; q < C::pairs; q++) store(t + q * W, sums[q]);
  }

  template <int N>
  static TESSERAL_INLINE Block<T, N> radial(const T* table, const Splines<T>& s, const T* weight) {
    Block<T, N> out = Block<T, N>::at(table + s.row[0]).times(weight[0]);
    out.add(weight[1], Block<T, N>::at(table + s.row[1]));
    out.add(weight[2], Block<T, N>::at(table + s.row[2]));
    out.add(weight[3], Block<T, N>::at(table + s.row[3]));
    return out;
  }

  // Adds Σ_m1 t x to sums[m3].
  template <int N>
  static TESSERAL_INLINE void contract(const T* t, const T* x, long channels, Block<T, N>* sums) {
    unroll<C::pairs>(TESSERAL_UNROLLED(q) {
      sums[C::m3[q]].add(t[q * W], Block<T, N>::at(x + C::m1[q] * channels));
    });
  }

  // Adds the gradient by the harmonics of degree l2: u (of m1) and g (of m3) are what t stands between.
  template <int N>
  static TESSERAL_INLINE void by_harmonics(T scale, const Block<T, N>* u, const T* g, long channels,
                                           EdgeGradient<T>& edge) {
    V sums[n2];
    for (int m = 0; m < n2; m++) sums[m] = edge.harmonics[m];
    V both;
    unroll<C::terms>(TESSERAL_UNROLLED(e) {
      constexpr int q = C::pair[e];
      if constexpr (C::starts[e]) both = u[C::m1[q]].dot(Block<T, N>::at(g + C::m3[q] * channels));
      sums[C::m2[e]] += (scale * T(C::value[e])) * both;
    });
    for (int m = 0; m < n2; m++) edge.harmonics[m] = sums[m];
  }

  template <int N>
  static TESSERAL_INLINE void forward_block(const T* t, const Splines<T>& s, const T* table, const T* x, T* out,
                                            long channels) {
    using B = Block<T, N>;
    const B r = radial<N>(table, s, s.value);
    B sums[n3];
    for (int m = 0; m < n3; m++) sums[m] = B::zero();
    contract<N>(t, x, channels, sums);
    for (int m = 0; m < n3; m++) {
      B row = B::at(out + m * channels);
      row.add(r, sums[m]);
      row.put(out + m * channels);
    }
  }

  static void forward(const T* t, const Splines<T>& s, const T* table, const T* x, T* out, long channels) {
    long c = 0;
    for (; c + 2 * W <= channels; c += 2 * W) forward_block<2>(t, s, table + c, x + c, out + c, channels);
    for (; c < channels; c += W) forward_block<1>(t, s, table + c, x + c, out + c, channels);
  }

  template <int N>
  static TESSERAL_INLINE void backward_block(const T* t, T scale, const Splines<T>& s, const T* table, const T* x,
                                             const T* g, T* gx, T* by_table, EdgeGradient<T>* edge, long channels) {
    using B = Block<T, N>;
    const B r = radial<N>(table, s, s.value);
    B pulled[n1], by_r = B::zero();
    for (int m = 0; m < n1; m++) pulled[m] = B::zero();
    unroll<C::pairs>(TESSERAL_UNROLLED(q) {
      pulled[C::m1[q]].add(t[q * W], B::at(g + C::m3[q] * channels));
    });
    B u[n1];
    if (gx)
      for (int m = 0; m < n1; m++) {
        B row = B::at(gx + m * channels);
        row.add(r, pulled[m]);
        row.put(gx + m * channels);
      }
    for (int m = 0; m < n1; m++) {
      u[m] = B::at(x + m * channels);
      by_r.add(u[m], pulled[m]);
      u[m] = u[m].times(r);
    }
    if (by_table)
      for (int k = 0; k < 4; k++) {
        B row = B::at(by_table + s.row[k]);
        row.add(s.value[k], by_r);
        row.put(by_table + s.row[k]);
      }
    if (edge) {
      edge->radius += radial<N>(table, s, s.slope).dot(by_r);
      by_harmonics<N>(scale, u, g, channels, *edge);
    }
  }

  static void backward(const T* t, T scale, const Splines<T>& s, const T* table, const T* x, const T* g, T* gx,
                       T* by_table, EdgeGradient<T>* edge, long channels) {
    long c = 0;
    for (; c + 2 * W <= channels; c += 2 * W)
      backward_block<2>(t, scale, s, table + c, x + c, g + c, gx ? gx + c : nullptr, by_table ? by_table + c : nullptr, edge,
                        channels);
    for (; c < channels; c += W)
      backward_block<1>(t, scale, s, table + c, x + c, g + c, gx ? gx + c : nullptr, by_table ? by_table + c : nullptr, edge,
                        channels);
  }

  // What the radial functions become when the radius and the coefficients move.
  template <int N>
  static TESSERAL_INLINE Block<T, N> moved_radial(const Splines<T>& s, const Twice<T>& in, long c) {
    Block<T, N> out = radial<N>(in.coefficients + c, s, s.slope).times(in.by_radius);
    if (in.by_coefficients)
      for (int k = 0; k < 4; k++) out.add(s.value[k], Block<T, N>::at(in.by_coefficients + c + s.row[k]));
    return out;
  }

  // Gradient of the gradient's scalar product with its own gradients, by `grad` (receiver's sum).
  template <int N>
  static TESSERAL_INLINE void tangent_block(const T* t, const T* by_t, const Splines<T>& s, const Twice<T>& in, T* out,
                                            long c, long channels) {
    using B = Block<T, N>;
    const B r = radial<N>(in.coefficients + c, s, s.value), moved = moved_radial<N>(s, in, c);
    B sums[n3];
    for (int m = 0; m < n3; m++) sums[m] = B::zero();
    contract<N>(t, in.by_x + c, channels, sums);
    contract<N>(by_t, in.x + c, channels, sums);
    B plain[n3];
    for (int m = 0; m < n3; m++) plain[m] = B::zero();
    contract<N>(t, in.x + c, channels, plain);
    for (int m = 0; m < n3; m++) {
      B row = B::at(out + c + m * channels);
      row.add(moved, plain[m]);
      row.add(r, sums[m]);
      row.put(out + c + m * channels);
    }
  }

  static void tangent(const T* t, const T* by_t, const Splines<T>& s, const Twice<T>& in, T* out, long channels) {
    long c = 0;
    for (; c + 2 * W <= channels; c += 2 * W) tangent_block<2>(t, by_t, s, in, out, c, channels);
    for (; c < channels; c += W) tangent_block<1>(t, by_t, s, in, out, c, channels);
  }

  // The same by the features, harmonics, radii and coefficients (sender's sum).
  static TESSERAL_INLINE void twice_block(const T* t, const T* by_t, T scale, const Splines<T>& s, const Twice<T>& in,
                                          const T* g, T* gx, T* by_table, EdgeGradient<T>* edge, long c,
                                          long channels) {
    using B = Block<T, 1>;
    const B r = radial<1>(in.coefficients + c, s, s.value), moved = moved_radial<1>(s, in, c);
    B pulled[n1], by_pulled[n1], u[n1], by_r = B::zero(), by_moved = B::zero();
    for (int m = 0; m < n1; m++) pulled[m] = by_pulled[m] = B::zero();
    unroll<C::pairs>(TESSERAL_UNROLLED(q) {
      const B at = B::at(g + C::m3[q] * channels);
      pulled[C::m1[q]].add(t[q * W], at);
      by_pulled[C::m1[q]].add(by_t[q * W], at);
    });
    for (int m = 0; m < n1; m++) {
      const B own = B::at(in.x + c + m * channels), by_own = B::at(in.by_x + c + m * channels);
      B row = B::at(gx + m * channels);
      row.add(r, by_pulled[m]);
      row.add(moved, pulled[m]);
      row.put(gx + m * channels);
      by_r.add(by_own, pulled[m]);
      by_r.add(own, by_pulled[m]);
      by_moved.add(own, pulled[m]);
      u[m] = by_own.times(r);
      u[m].add(moved, own);
    }
    if (by_table)
      for (int k = 0; k < 4; k++) {
        B row = B::at(by_table + s.row[k]);
        row.add(s.value[k], by_r);
        row.add(in.by_radius * s.slope[k], by_moved);
        row.put(by_table + s.row[k]);
      }
    if (edge) {
      B bent = radial<1>(in.coefficients + c, s, s.bend).times(in.by_radius);
      if (in.by_coefficients)
        for (int k = 0; k < 4; k++) bent.add(s.slope[k], B::at(in.by_coefficients + c + s.row[k]));
      edge->radius += radial<1>(in.coefficients + c, s, s.slope).dot(by_r) + bent.dot(by_moved);
      by_harmonics<1>(scale, u, g, channels, *edge);
    }
  }

  static void twice(const T* t, const T* by_t, T scale, const Splines<T>& s, const Twice<T>& in, const T* g, T* gx,
                    T* by_table, EdgeGradient<T>* edge, long channels) {
    for (long c = 0; c < channels; c += W)
      twice_block(t, by_t, scale, s, in, g + c, gx + c, by_table ? by_table + c : nullptr, edge, c, channels);
  }
};

// The functions of one path as a row of a table.
template <class T> struct PathFunctions {
  int l1, l2, l3, pairs;
  void (*couple)(const T*, T, T*);
  void (*forward)(const T*, const Splines<T>&, const T*, const T*, T*, long);
  void (*backward)(const T*, T, const Splines<T>&, const T*, const T*, const T*, T*, T*, EdgeGradient<T>*, long);
  void (*tangent)(const T*, const T*, const Splines<T>&, const Twice<T>&, T*, long);
  void (*twice)(const T*, const T*, T, const Splines<T>&, const Twice<T>&, const T*, T*, T*, EdgeGradient<T>*, long);
};

template <class T> const PathFunctions<T>* path_functions(int l1, int l2, int l3) {
#define TESSERAL_PATH(a, b, c)                                                                            \
  {a, b, c, Coupling<a, b, c>::pairs, PathSums<T, a, b, c>::couple, PathSums<T, a, b, c>::forward, \
   PathSums<T, a, b, c>::backward, PathSums<T, a, b, c>::tangent, PathSums<T, a, b, c>::twice},
#define TESSERAL_COMMA_PATH(a, b, c) TESSERAL_PATH(a, b, c)
  static const PathFunctions<T> table[] = {TESSERAL_PATHS(TESSERAL_COMMA_PATH)};
  for (const auto& row : table)
    if (row.l1 == l1 && row.l2 == l2 && row.l3 == l3) return &row;
  return nullptr;
}

}  // namespace TESSERAL_ISA
}  // namespace tesseral
