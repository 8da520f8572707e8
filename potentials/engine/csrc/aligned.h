// The convolution of Facet and its gradient in the frames of edges.
//
// In a frame whose polar axis (y, as in e3nn) is the direction of the edge, only m2 = 0 of the
// harmonics is not zero, and a sum over paths becomes one number for each l1, l3 and |m|:
//
//   out[i] = Σ_edges D y,   y[l3 m] = Σ_l1 w[l1 l3 |m|](r) x'[l1 m],   x' = D^T x[j],
//
// with the matrices D of the rotation to the edge and with radial functions w that are sums of the
// R_p (potentials/engine/facet.py). This takes half the operations of the sums over m1, m2 and m3.
// y has no |m| above the degree of the features, so that only a part of D is needed. All is
// independent of how the frame is turned about the edge.
//
// The gradient by the direction is a torque about the two other axes of the frame: if the edge
// turns, D changes by the generators L of rotations, and with g' = D^T g and p' = ∂/∂x' the torque is
// g'·L y - p'·L x'.
#pragma once
#include <cmath>
#include <cstring>

#include "convolution.h"

namespace tesseral {
namespace TESSERAL_ISA {

constexpr int least(int a, int b) { return a < b ? a : b; }

// The part of the matrix of degree l that is used: components of the frame with |m| up to `most`.
constexpr int turn_columns(int l, int most) { return 2 * least(l, most) + 1; }
// Where it starts, in numbers of an edge.
constexpr int turn_start(int l, int most) {
  int start = 0;
  for (int k = 1; k < l; k++) start += (2 * k + 1) * turn_columns(k, most);
  return start;
}
// Where the radial functions of l1 and l3, |m| = 0 … min(l1, l3), start in a row of the table.
constexpr int weight_start(int l_in, int l3, int l1) {
  int start = 0;
  for (int to = 0; to <= l3; to++)
    for (int from = 0; from <= l_in && (to < l3 || from < l1); from++) start += least(from, to) + 1;
  return start;
}
// Coefficient of m1, m2 → m3 for l1 = 1 and l3 = l2 + 1.
template <int L> constexpr double raising(int m1, int m2, int m3) {
  using C = Coupling<1, L - 1, L>;
  for (int e = 0; e < C::terms; e++)
    if (C::m1[C::pair[e]] == m1 && C::m2[e] == m2 && C::m3[C::pair[e]] == m3) return C::value[e];
  return 0;
}

// Degrees and sizes of rows of a convolution: of features, messages and coefficients.
struct AlignedRows {
  int l_out;
  long channels, in, out, table;

  explicit AlignedRows(const tesseral_convolution& c)
      : l_out(c.l_out),
        channels(c.channels),
        in((c.l_in + 1) * (c.l_in + 1) * channels),
        out((c.l_out + 1) * (c.l_out + 1) * channels),
        table(weight_start(c.l_in, c.l_out + 1, 0) * channels) {}
};

// Some edges, one lane an edge.
template <class T> struct AlignedChunk {
  static constexpr int W = width<T>;
  using V = Vector<T>;
  int count = 0;
  long from[W], to[W];   // where the rows of senders and receivers start
  const T* rows[W];      // where the coefficients of the first of the four splines do
  V value[4], slope[4];
  V axes[3][3];          // x, y, z of the frame; y is the direction
  double inverse[W];     // 1 / length
  Lines<T> turns;        // matrices D from degree 1
  double torques[W][3];  // sums for the gradient: by the length, about x, about z

  AlignedChunk() : turns(W * turn_start(TESSERAL_L_MAX + 1, TESSERAL_L_MAX)) {}

  // Components up to MOST; compiled once for the passes that need the same.
  template <int MOST>
  __attribute__((noinline)) void fill(const tesseral_convolution& c, const AlignedRows& sizes, const double* vectors,
                                      int64_t begin, int64_t first_receiver) {
    const double per_width = c.intervals / c.cutoff;
    V f = {};
    V* direction = axes[1];
    for (int a = 0; a < 3; a++) direction[a] = V{};
    for (int e = 0; e < count; e++) {
      const int64_t k = begin + e;
      from[e] = c.senders[k] * sizes.in, to[e] = (c.receivers[k] - first_receiver) * sizes.out;
      inverse[e] = c.radii[k] > 0 ? 1 / c.radii[k] : 1.0;
      for (int a = 0; a < 3; a++) direction[a][e] = T(vectors[k * 3 + a] * inverse[e]);
      const double t = c.radii[k] * per_width;
      const int left = t < c.intervals ? int(t) : c.intervals;  // from the cutoff on all coefficients are zero
      f[e] = T(t - left);
      rows[e] = static_cast<const T*>(c.coefficients) + left * sizes.table;
    }
    splines(f, T(per_width));
    // Two more axes by the formulas of Duff et al., JCGT 6 (2017).
    const V sign = direction[2] < T(0) ? V{} - T(1) : V{} + T(1), a = T(-1) / (sign + direction[2]);
    const V both = direction[0] * direction[1] * a;
    axes[2][0] = T(1) + sign * direction[0] * direction[0] * a;
    axes[2][1] = sign * both, axes[2][2] = -sign * direction[0];
    axes[0][0] = both, axes[0][1] = sign + direction[1] * direction[1] * a, axes[0][2] = -direction[1];
    T* first = turns.data();
    for (int m = 0; m < 3; m++)
      for (int b = 0; b < turn_columns(1, MOST); b++)
        store(first + (m * turn_columns(1, MOST) + b) * W, axes[MOST ? b : 1][m]);
    unroll<TESSERAL_L_MAX - 1>(TESSERAL_CONSTANTS(l) {
      if (l + 2 <= c.l_out) raise<l + 2, MOST>();
    });
  }

 private:
  void splines(V f, T per_width) {
    const V g = T(1) - f;
    constexpr T sixth = T(1) / T(6);
    value[0] = sixth * g * g * g, value[3] = sixth * f * f * f;
    value[1] = sixth * ((T(3) * f - T(6)) * f * f + T(4)), value[2] = sixth * ((T(3) * g - T(6)) * g * g + T(4));
    const V half = V{} + T(0.5) * per_width;
    slope[0] = -half * g * g, slope[3] = half * f * f;
    slope[1] = half * (T(3) * f - T(4)) * f, slope[2] = half * (T(4) - T(3) * g) * g;
  }

  // D of degree L from that of degree L - 1: y times a component b is the component b, and products
  // with x and z give the two outermost.
  template <int L, int MOST> void raise() {
    using C = Coupling<1, L - 1, L>;
    constexpr int before = turn_columns(L - 1, MOST), now = turn_columns(L, MOST), inner = least(L - 1, MOST);
    const T* previous = turns.data() + turn_start(L - 1, MOST) * W;
    T* own = turns.data() + turn_start(L, MOST) * W;
    auto column = [&](const V* axis, const T* from, V factor, V* sums) __attribute__((always_inline)) {
      TESSERAL_TERMS(e, C::terms, false) {
        const int q = C::pair[e];
        sums[C::m3[q]] += (T(C::value[e]) * factor * axis[C::m1[q]]) * load(from + C::m2[e] * before * W);
      }
    };
    for (int b = -inner; b <= inner; b++) {
      static constexpr auto norm = norms<L>();
      V sums[2 * L + 1] = {};
      column(axes[1], previous + (b + inner) * W, V{} + T(norm.of[b + L - 1]), sums);
      for (int m = 0; m <= 2 * L; m++) store(own + (m * now + b + least(L, MOST)) * W, sums[m]);
    }
    if constexpr (L <= MOST)
      for (int side = -1; side <= 1; side += 2) {
        constexpr T norm = T(1 / (2 * raising<L>(2, 2 * L - 2, 2 * L)));
        V sums[2 * L + 1] = {};
        column(axes[2], previous + (side + 1) * (L - 1) * W, V{} + norm, sums);
        column(axes[0], previous + (1 - side) * (L - 1) * W, V{} - T(side) * norm, sums);
        for (int m = 0; m <= 2 * L; m++) store(own + (m * now + (side + 1) * L) * W, sums[m]);
      }
  }
  template <int L> struct Norms {
    double of[2 * L - 1];
  };
  template <int L> static constexpr Norms<L> norms() {
    Norms<L> found = {};
    for (int b = 0; b < 2 * L - 1; b++) found.of[b] = 1 / raising<L>(1, b, b + 1);
    return found;
  }
};

// One edge and one block of channels, with features up to L_IN.
template <class T, int L_IN> struct AlignedEdge {
  static constexpr int W = width<T>, N = vector_bytes == 64 ? 1 : 2;
  static constexpr int m_in = (L_IN + 1) * (L_IN + 1);
  static constexpr int reach = least(L_IN + 1, TESSERAL_L_MAX);  // of the gradient by the direction
  using B = Block<T, N>;

  // Calls f with 0 … M - 1. From L_IN 3 on the components do not stay in registers in any case, and
  // unrolling these loops would be a quarter of the time of compilation.
  template <int M, class F> static TESSERAL_INLINE void each(F&& f) {
    if constexpr (L_IN < 3) unroll<M>(f);
    else {
      _Pragma("GCC unroll 1") for (int m = 0; m < M; m++) f(m);
    }
  }

  // Components -KEEP … KEEP of degree L in the frame, of which D has -MOST … MOST.
  template <int L, int MOST, int KEEP> static TESSERAL_INLINE void turn_in(const T* d, const T* x, long row, B* out) {
    static_assert(KEEP <= MOST);
    constexpr int columns = turn_columns(L, MOST), first = least(L, MOST) - KEEP;
    if constexpr (L == 0) out[0] = B::at(x);
    else {
      const T* t = d + (turn_start(L, MOST) + first) * W;
      const B own = B::at(x);
      for (int b = 0; b <= 2 * KEEP; b++) out[b] = own.times(t[b * W]);
      each<2 * L>(TESSERAL_UNROLLED(m) {
        const B own = B::at(x + (m + 1) * row);
        for (int b = 0; b <= 2 * KEEP; b++) out[b].add(t[((m + 1) * columns + b) * W], own);
      });
    }
  }
  // Adds them to components in the common frame.
  template <int L, int MOST, int KEEP> static TESSERAL_INLINE void turn_out(const T* d, const B* x, long row, T* out) {
    constexpr int columns = turn_columns(L, MOST), first = least(L, MOST) - KEEP;
    each<2 * L + 1>(TESSERAL_UNROLLED(m) {
      B sum = B::at(out + m * row);
      if constexpr (L == 0) sum.add(T(1), x[0]);
      else {
        const T* t = d + (turn_start(L, MOST) + m * columns + first) * W;
        for (int b = 0; b <= 2 * KEEP; b++) sum.add(t[b * W], x[b]);
      }
      sum.put(out + m * row);
    });
  }

  static TESSERAL_INLINE void forward(const AlignedChunk<T>& chunk, int e, const AlignedRows& rows, const T* x,
                                      const T* table, T* out) {
    const long channels = rows.channels;
    const T *d = chunk.turns.data() + e;
    T s[4];
    for (int k = 0; k < 4; k++) s[k] = chunk.value[k][e];
    B own[m_in];
    unroll<L_IN + 1>(TESSERAL_CONSTANTS(l) { turn_in<l, L_IN, l>(d, x + l * l * channels, channels, own + l * l); });
    unroll<TESSERAL_L_MAX + 1>(TESSERAL_CONSTANTS(l3) {
      if (l3 > rows.l_out) return;
      constexpr int most = least(l3, L_IN);
      B y[2 * most + 1];
      unroll<L_IN + 1>(TESSERAL_CONSTANTS(l1) {
        each<least(l1, l3) + 1>(TESSERAL_UNROLLED(m) {
          const T* row = table + (weight_start(L_IN, l3, l1) + m) * channels;
          B w = B::at(row).times(s[0]);
          for (int k = 1; k < 4; k++) w.add(s[k], B::at(row + k * rows.table));
          const B* mine = own + l1 * l1 + l1;
          if (m == l1) y[most + m] = w.times(mine[m]);  // the first to this component
          else y[most + m].add(w, mine[m]);
          if (m > 0 && m == l1) y[most - m] = w.times(mine[-m]);
          else if (m > 0) y[most - m].add(w, mine[-m]);
        });
      });
      turn_out<l3, L_IN, most>(d, y, channels, out + l3 * l3 * channels);
    });
  }

  // Adds g·L_x y and g·L_z y, with |m| up to G in g and up to Y in y.
  template <int L, int G, int Y> static TESSERAL_INLINE void turn_about(const B* g, const B* y, B* torque, T factor) {
    each<least(L, Y + 1)>(TESSERAL_UNROLLED(k) {
      const bool both = k + 1 <= Y;
      const B *gm = g + G, *ym = y + Y;
      B x = gm[k + 1].times(ym[k]), z;
      if (both) x.take(gm[k], ym[k + 1]);
      if (k == 0) {
        z = gm[-1].times(ym[0]);
        if (both) z.take(gm[0], ym[-1]);
      } else {
        x.add(gm[-k - 1], ym[-k]);
        z = gm[-k - 1].times(ym[k]);
        z.take(gm[k + 1], ym[-k]);
        if (both) {
          x.take(gm[-k], ym[-k - 1]);
          z.add(gm[-k], ym[k + 1]);
          z.take(gm[k], ym[-k - 1]);
        }
      }
      torque[0].add(factor * T(turn_factor[L][k]), x);
      torque[1].add(-factor * T(turn_factor[L][k]), z);
    });
  }

  static TESSERAL_INLINE void backward(AlignedChunk<T>& chunk, int e, const AlignedRows& rows, const T* x,
                                       const T* table, const T* g, T* gx) {
    const long channels = rows.channels;
    const T *d = chunk.turns.data() + e;
    T s[4];
    for (int k = 0; k < 4; k++) s[k] = chunk.value[k][e];
    B own[m_in], pulled[m_in], by_spline[4], torque[2] = {B::zero(), B::zero()};
    for (int k = 0; k < 4; k++) by_spline[k] = B::zero();
    for (int m = 0; m < m_in; m++) pulled[m] = B::zero();
    unroll<L_IN + 1>(TESSERAL_CONSTANTS(l) { turn_in<l, reach, l>(d, x + l * l * channels, channels, own + l * l); });
    unroll<TESSERAL_L_MAX + 1>(TESSERAL_CONSTANTS(l3) {
      if (l3 > rows.l_out) return;
      constexpr int most = least(l3, L_IN), most_g = least(l3, reach);
      B along[2 * most_g + 1], y[2 * most + 1];
      turn_in<l3, reach, most_g>(d, g + l3 * l3 * channels, channels, along);
      unroll<L_IN + 1>(TESSERAL_CONSTANTS(l1) {
        each<least(l1, l3) + 1>(TESSERAL_UNROLLED(m) {
          const T* row = table + (weight_start(L_IN, l3, l1) + m) * channels;
          const B *mine = own + l1 * l1 + l1, *given = along + most_g;
          B* mine_pulled = pulled + l1 * l1 + l1;
          B by_w = given[m].times(mine[m]);
          if (m > 0) by_w.add(given[-m], mine[-m]);
          B w = B::zero();
          for (int k = 0; k < 4; k++) {
            const B a = B::at(row + k * rows.table);
            by_spline[k].add(a, by_w);
            w.add(s[k], a);
          }
          mine_pulled[m].add(w, given[m]);
          if (m == l1) y[most + m] = w.times(mine[m]);
          else y[most + m].add(w, mine[m]);
          if (m > 0) {
            mine_pulled[-m].add(w, given[-m]);
            if (m == l1) y[most - m] = w.times(mine[-m]);
            else y[most - m].add(w, mine[-m]);
          }
        });
      });
      turn_about<l3, most_g, most>(along, y, torque, T(1));
    });
    unroll<L_IN + 1>(TESSERAL_CONSTANTS(l) { turn_about<l, l, l>(pulled + l * l, own + l * l, torque, T(-1)); });
    B by_radius = by_spline[0].times(chunk.slope[0][e]);
    for (int k = 1; k < 4; k++) by_radius.add(chunk.slope[k][e], by_spline[k]);
    chunk.torques[e][0] += by_radius.total();
    chunk.torques[e][1] += torque[0].total();
    chunk.torques[e][2] += torque[1].total();
    if (gx)
      unroll<L_IN + 1>(TESSERAL_CONSTANTS(l) {
        turn_out<l, reach, l>(d, pulled + l * l, channels, gx + l * l * channels);
      });
  }

  // Adds the convolution of edges [begin, end) to rows of receivers, the first of which is at `out`.
  static void convolve(const tesseral_convolution& c, const double* vectors, AlignedChunk<T>& chunk, int64_t begin,
                       int64_t end, int64_t first_receiver, T* out) {
    const AlignedRows rows(c);
    for (; begin < end; begin += chunk.count) {
      chunk.count = int(std::min<int64_t>(W, end - begin));
      chunk.template fill<L_IN>(c, rows, vectors, begin, first_receiver);
      for (int e = 0; e < chunk.count; e++)
        for (long block = 0; block < c.channels; block += N * W)
          forward(chunk, e, rows, static_cast<const T*>(c.features) + chunk.from[e] + block, chunk.rows[e] + block,
                  out + chunk.to[e] + block);
    }
  }

  // Adds the gradients of edges [begin, end) by features, unless null, and by the edges' vectors.
  static void pull(const tesseral_convolution& c, const double* vectors, AlignedChunk<T>& chunk, int64_t begin,
                   int64_t end, const T* grad, T* features, double* gradient) {
    const AlignedRows rows(c);
    for (; begin < end; begin += chunk.count) {
      chunk.count = int(std::min<int64_t>(W, end - begin));
      chunk.template fill<reach>(c, rows, vectors, begin, 0);
      for (int e = 0; e < chunk.count; e++) {
        double* sums = chunk.torques[e];
        for (int k = 0; k < 3; k++) sums[k] = 0;
        for (long block = 0; block < c.channels; block += N * W)
          backward(chunk, e, rows, static_cast<const T*>(c.features) + chunk.from[e] + block,
                   chunk.rows[e] + block, grad + chunk.to[e] + block,
                   features ? features + chunk.from[e] + block : nullptr);
        // A turn about x moves the direction to z, and one about z to -x.
        for (int a = 0; a < 3; a++)
          gradient[(begin + e) * 3 + a] += sums[0] * chunk.axes[1][a][e] +
                                           (sums[1] * chunk.axes[2][a][e] - sums[2] * chunk.axes[0][a][e]) *
                                               chunk.inverse[e];
      }
    }
  }
};

template <class T> struct AlignedFunctions {
  decltype(&AlignedEdge<T, 0>::convolve) convolve;
  decltype(&AlignedEdge<T, 0>::pull) pull;
};

// For features up to degree l_in.
template <class T> const AlignedFunctions<T>& aligned_functions(int l_in) {
#define TESSERAL_ALIGNED(l) {AlignedEdge<T, l>::convolve, AlignedEdge<T, l>::pull}
  static const AlignedFunctions<T> table[] = {TESSERAL_ALIGNED(0), TESSERAL_ALIGNED(1), TESSERAL_ALIGNED(2),
                                              TESSERAL_ALIGNED(3), TESSERAL_ALIGNED(4)};
  return table[l_in];
}

}  // namespace TESSERAL_ISA
}  // namespace tesseral
