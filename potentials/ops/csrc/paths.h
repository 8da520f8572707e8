// The sums over components of one path (l1, l2, l3) of the spline convolution, for a chunk of edges
// and a block of channels: forwards, backwards, and the gradient of backwards. Unrolled from the
// coupling tables.
#pragma once
#include "couplings.h"
#include "parallel.h"
#include "simd.h"

namespace tesseral {
namespace TESSERAL_ISA {

// The four splines that are not zero at an edge's length, and their derivatives by it.
template <class T> struct Splines {
  long row[4];  // of the coefficients, in elements
  T value[4], slope[4], bend[4];
};

template <class T> struct Plan;  // of a convolution, see plan.h
template <class T> struct Chunk;
template <class T> struct Path;

// Arrays that a path's second gradient reads besides the chunk.
template <class T> struct Twice {
  const T* x;             // features
  const T* by_x;          // gradient of the features' gradient
  const T* coefficients;
  const T* by_coefficients;  // or null
};

// The functions of one path as a row of a table. They take the rows of atoms and the table of
// coefficients from their start, and add to the last arguments; null ones are left out.
template <class T> struct PathFunctions {
  int l1, l2, l3, pairs;
  void (*couple)(const T* harmonics, T scale, T* couplings);
  void (*forward)(const Chunk<T>&, const Path<T>&, const T* table, const T* x, T* out);
  void (*backward)(const Chunk<T>&, const Path<T>&, const T* table, const T* x, const T* g, T* gx, T* by_table);
  void (*twice)(const Chunk<T>&, const Path<T>&, const Twice<T>&, const T* g, T* out, T* gx, T* by_table);
};

// One path in a given convolution, or one or two vectors of its channels: its factor, where its
// couplings, coefficients and components stand, and from component to component how far it is.
template <class T> struct Path {
  const PathFunctions<T>* run;
  T scale;
  long coupling, table, in, out, in_stride, out_stride, channels;
};

// Some edges: what the paths read of them, and the sums for their gradients.
template <class T> struct Chunk {
  static constexpr int W = width<T>, vectors = 2, capacity = vectors * W;
  int count = 0;
  long from[capacity], to[capacity];  // where the rows of senders and receivers start
  long lane[capacity];                // where the couplings do
  T by_radius[capacity];
  Splines<T> splines[capacity];
  // For each vector of edges all couplings, and those of moved harmonics, with one lane an edge.
  Lines<T> couplings, by_couplings;
  // For each edge the vectors of channels that sum up to its gradient: by radius, then by harmonics.
  const long gradient_size;
  mutable Lines<T> gradient;
  bool wanted = false;  // whether the gradient is used

  Chunk(const Plan<T>& plan, bool second);
  TESSERAL_INLINE T* gradient_of(int e) const { return gradient.data() + e * gradient_size; }
};

// The sums of one path (l1, l2, l3) over its components; `t` points to an edge's lane.
template <class T, int L1, int L2, int L3> struct PathSums {
  using C = Coupling<L1, L2, L3>;
  using V = Vector<T>;
  static constexpr int W = width<T>;
  static constexpr int n1 = 2 * L1 + 1, n2 = 2 * L2 + 1, n3 = 2 * L3 + 1;
  // No architecture has features of degree 4 by default, and their sums are the longest.
  static constexpr bool rare = L1 == 4;

  // t of a vector of edges from their harmonics of degree l2.
  static void couple(const T* y, T scale, T* t) {
    V sums[C::pairs];
    TESSERAL_TERMS(e, C::terms, rare) {
      const V term = T(C::value[e]) * load(y + C::m2[e] * W);
      if (C::starts[e]) sums[C::pair[e]] = term;
      else sums[C::pair[e]] += term;
    }
    TESSERAL_TERMS(q, C::pairs, rare) store(t + q * W, scale * sums[q]);
  }

  template <int N>
  static TESSERAL_INLINE Block<T, N> radial(const T* table, const Splines<T>& s, const T* weight) {
    Block<T, N> out = Block<T, N>::at(table + s.row[0]).times(weight[0]);
    out.add(weight[1], Block<T, N>::at(table + s.row[1]));
    out.add(weight[2], Block<T, N>::at(table + s.row[2]));
    out.add(weight[3], Block<T, N>::at(table + s.row[3]));
    return out;
  }

  // Adds Σ_m1 t u to sums[m3].
  template <int N>
  static TESSERAL_INLINE void contract(const T* t, const Block<T, N>* u, Block<T, N>* sums) {
    TESSERAL_TERMS(q, C::pairs, rare) { sums[C::m3[q]].add(t[q * W], u[C::m1[q]]); }
  }

  // Adds the gradient by the harmonics of degree l2 of the product u^T t g, with u (m1) and g (m3).
  template <int N>
  static TESSERAL_INLINE void by_harmonics(T scale, const Block<T, N>* u, const Block<T, N>* g, T* gradient) {
    T* place = gradient + (1 + L2 * L2) * W;
    V sums[n2] = {}, both = {};
    TESSERAL_TERMS(e, C::terms, rare) {
      const int q = C::pair[e];
      if (C::starts[e]) both = u[C::m1[q]].dot(g[C::m3[q]]);
      sums[C::m2[e]] += T(C::value[e]) * both;
    }
    TESSERAL_TERMS(m, n2, rare) store(place + m * W, load(place + m * W) + scale * sums[m]);
  }

  static TESSERAL_INLINE void by_radius(V slope, T* gradient) { store(gradient, load(gradient) + slope); }

  // Calls f(constant N, first channel) for the path's channels, N vectors at a time: two, unless
  // there are so many components that they would not stay in registers. Rows of channels have whole
  // cache lines, of one vector or of a multiple of two.
  template <class F> static TESSERAL_INLINE void blocks(const Path<T>& p, F&& f) {
    constexpr bool pairs = n1 + n3 <= 12, single = !pairs || vector_bytes == 64;
    long c = 0;
    if constexpr (pairs)
      for (; c + 2 * W <= p.channels; c += 2 * W) f(std::integral_constant<int, 2>{}, c);
    if constexpr (single)
      for (; c < p.channels; c += W) f(std::integral_constant<int, 1>{}, c);
  }

  // The sums of a receiver's edges stay in registers.
  template <int N>
  static TESSERAL_INLINE void forward_block(const Chunk<T>& chunk, const Path<T>& p, const T* table, const T* x,
                                            T* out) {
    using B = Block<T, N>;
    for (int e = 0; e < chunk.count;) {
      T* row = out + chunk.to[e];
      B sums[n3];
      TESSERAL_TERMS(m, n3, rare) sums[m] = B::at(row + m * p.out_stride);
      do {
        const B r = radial<N>(table, chunk.splines[e], chunk.splines[e].value);
        const T* own = x + chunk.from[e];
        B u[n1];
        TESSERAL_TERMS(m, n1, rare) u[m] = B::at(own + m * p.in_stride).times(r);
        contract<N>(chunk.couplings.data() + chunk.lane[e] + p.coupling, u, sums);
      } while (++e < chunk.count && chunk.to[e] == chunk.to[e - 1]);
      TESSERAL_TERMS(m, n3, rare) sums[m].put(row + m * p.out_stride);
    }
  }

  static void forward(const Chunk<T>& chunk, const Path<T>& p, const T* table, const T* x, T* out) {
    blocks(p, [&](auto n, long c) __attribute__((always_inline)) {
      forward_block<n>(chunk, p, table + p.table + c, x + p.in + c, out + p.out + c);
    });
  }

  template <int N>
  static TESSERAL_INLINE void backward_block(const Chunk<T>& chunk, const Path<T>& p, const T* table, const T* x,
                                             const T* g, T* gx, T* by_table) {
    using B = Block<T, N>;
    for (int e = 0; e < chunk.count; e++) {
      const Splines<T>& s = chunk.splines[e];
      const T* t = chunk.couplings.data() + chunk.lane[e] + p.coupling;
      const T *own = x + chunk.from[e], *at = g + chunk.to[e];
      // Rows that are used twice are kept: after a store the compiler would have to read them again.
      B r = B::zero(), slope = B::zero();
      for (int k = 0; k < 4; k++) {
        const B row = B::at(table + s.row[k]);
        r.add(s.value[k], row);
        slope.add(s.slope[k], row);
      }
      B given[n3], pulled[n1], u[n1], by_r = B::zero();
      TESSERAL_TERMS(m, n3, rare) given[m] = B::at(at + m * p.out_stride);
      TESSERAL_TERMS(m, n1, rare) pulled[m] = B::zero(), u[m] = B::at(own + m * p.in_stride);
      TESSERAL_TERMS(q, C::pairs, rare) pulled[C::m1[q]].add(t[q * W], given[C::m3[q]]);
      if (gx)
        TESSERAL_TERMS(m, n1, rare) {
          T* to = gx + chunk.from[e] + m * p.in_stride;
          B row = B::at(to);
          row.add(r, pulled[m]);
          row.put(to);
        }
      TESSERAL_TERMS(m, n1, rare) {
        by_r.add(u[m], pulled[m]);
        u[m] = u[m].times(r);
      }
      if (by_table)
        for (int k = 0; k < 4; k++) {
          B row = B::at(by_table + s.row[k]);
          row.add(s.value[k], by_r);
          row.put(by_table + s.row[k]);
        }
      if (chunk.wanted) {
        T* gradient = chunk.gradient_of(e);
        by_radius(slope.dot(by_r), gradient);
        by_harmonics<N>(p.scale, u, given, gradient);
      }
    }
  }

  static void backward(const Chunk<T>& chunk, const Path<T>& p, const T* table, const T* x, const T* g, T* gx,
                       T* by_table) {
    blocks(p, [&](auto n, long c) __attribute__((always_inline)) {
      backward_block<n>(chunk, p, table + p.table + c, x + p.in + c, g + p.out + c, gx ? gx + p.in + c : nullptr,
                        by_table ? by_table + p.table + c : nullptr);
    });
  }

  // Gradient of the gradient's scalar product with its own gradients: by `grad` (receiver's sum), and by
  // the features, harmonics, radii and coefficients (sender's sum).
  static void twice(const Chunk<T>& chunk, const Path<T>& p, const Twice<T>& in, const T* g, T* out, T* gx,
                    T* by_table) {
    for (long c = 0; c < p.channels; c += W)
      for (int e = 0; e < chunk.count; e++) twice_edge(chunk, p, in, g, out, gx, by_table, c, e);
  }

  static TESSERAL_INLINE void twice_edge(const Chunk<T>& chunk, const Path<T>& p, const Twice<T>& in, const T* g,
                                         T* out, T* gx, T* by_table, long c, int e) {
    using B = Block<T, 1>;
    const Splines<T>& s = chunk.splines[e];
    const T by_radius_in = chunk.by_radius[e];
    const T *t = chunk.couplings.data() + chunk.lane[e] + p.coupling;
    const T *by_t = chunk.by_couplings.data() + chunk.lane[e] + p.coupling;
    const T *table = in.coefficients + p.table + c, *at = g + chunk.to[e] + p.out + c;
    const long sender = chunk.from[e] + p.in + c;
    T* to = out + chunk.to[e] + p.out + c;
    // The radial functions and their slopes, and what both become when the radius and the coefficients move.
    B r = B::zero(), slope = B::zero(), bend = B::zero(), moved = B::zero(), bent = B::zero();
    for (int k = 0; k < 4; k++) {
      const B row = B::at(table + s.row[k]);
      r.add(s.value[k], row);
      slope.add(s.slope[k], row);
      bend.add(s.bend[k], row);
    }
    if (in.by_coefficients)
      for (int k = 0; k < 4; k++) {
        const B row = B::at(in.by_coefficients + p.table + c + s.row[k]);
        moved.add(s.value[k], row);
        bent.add(s.slope[k], row);
      }
    moved.add(by_radius_in, slope);
    bent.add(by_radius_in, bend);
    B given[n3], sums[n3], pulled[n1], by_pulled[n1], u[n1], plain[n1], by_r = B::zero(), by_moved = B::zero();
    TESSERAL_TERMS(m, n3, rare) given[m] = B::at(at + m * p.out_stride), sums[m] = B::at(to + m * p.out_stride);
    TESSERAL_TERMS(m, n1, rare) pulled[m] = by_pulled[m] = B::zero();
    TESSERAL_TERMS(q, C::pairs, rare) {
      pulled[C::m1[q]].add(t[q * W], given[C::m3[q]]);
      by_pulled[C::m1[q]].add(by_t[q * W], given[C::m3[q]]);
    }
    TESSERAL_TERMS(m, n1, rare) {
      const B own = B::at(in.x + sender + m * p.in_stride), by_own = B::at(in.by_x + sender + m * p.in_stride);
      B row = B::at(gx + sender + m * p.in_stride);
      row.add(r, by_pulled[m]);
      row.add(moved, pulled[m]);
      row.put(gx + sender + m * p.in_stride);
      by_r.add(by_own, pulled[m]);
      by_r.add(own, by_pulled[m]);
      by_moved.add(own, pulled[m]);
      plain[m] = own.times(r);
      u[m] = by_own.times(r);
      u[m].add(moved, own);
    }
    contract<1>(t, u, sums);
    contract<1>(by_t, plain, sums);
    TESSERAL_TERMS(m, n3, rare) sums[m].put(to + m * p.out_stride);
    if (by_table)
      for (int k = 0; k < 4; k++) {
        T* place = by_table + p.table + c + s.row[k];
        B row = B::at(place);
        row.add(s.value[k], by_r);
        row.add(by_radius_in * s.slope[k], by_moved);
        row.put(place);
      }
    if (chunk.wanted) {
      T* gradient = chunk.gradient_of(e);
      by_radius(slope.dot(by_r) + bent.dot(by_moved), gradient);
      by_harmonics<1>(p.scale, u, given, gradient);
    }
  }
};

// Null where a path has not been compiled.
template <class T> const PathFunctions<T>* path_functions(int l1, int l2, int l3) {
#define TESSERAL_PATH(a, b, c)                                                                     \
  {a, b, c, Coupling<a, b, c>::pairs, PathSums<T, a, b, c>::couple, PathSums<T, a, b, c>::forward, \
   PathSums<T, a, b, c>::backward, PathSums<T, a, b, c>::twice},
  static const PathFunctions<T> table[] = {TESSERAL_PATHS(TESSERAL_PATH) TESSERAL_ODD_PATHS(TESSERAL_PATH)};
  for (const auto& row : table)
    if (row.l1 == l1 && row.l2 == l2 && row.l3 == l3) return &row;
  return nullptr;
}

}  // namespace TESSERAL_ISA
}  // namespace tesseral
