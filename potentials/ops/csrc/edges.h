// Real spherical harmonics of edge directions, their gradient, and the gradient of that.
//
// Solid harmonics P_l, homogeneous polynomials of degree l, obey
//   ∂_a P_l,m = f_l Σ_m' CG(1 a, l-1 m' | l m) P_l-1,m'   and   P_l = 1/l Σ_a u_a ∂_a P_l,
// so that one table gives values, gradients and, applied twice, second derivatives. With u = v/|v|,
// Y(v) = P(u) and ∂Y/∂v = (∂P(u) - u (u·∂P(u))) / |v|. Lanes are edges, in double precision.
#pragma once
#include <cmath>

#include "couplings.h"
#include "parallel.h"
#include "simd.h"

namespace tesseral {
namespace TESSERAL_ISA {

constexpr int lanes = vector_bytes / 8;
typedef Vector<double> Lane;

struct Vector3 {
  Lane x[3];
};

TESSERAL_INLINE Lane dot(const Vector3& a, const Vector3& b) {
  return a.x[0] * b.x[0] + a.x[1] * b.x[1] + a.x[2] * b.x[2];
}

// Calls f(a, m', m, factor) for the terms of ∂_a P_l,m.
template <int L, class F> TESSERAL_INLINE void gradient_terms(F&& f) {
  using C = Coupling<1, L - 1, L>;
  TESSERAL_TERMS(e, C::terms, false) {
    const int q = C::pair[e];
    f(C::m1[q], C::m2[e], C::m3[q], gradient_factor[L] * C::value[e]);
  }
}

// Calls f(degree as a constant) for degrees 1 … l_max.
template <class F> TESSERAL_INLINE void each_degree(int l_max, F&& f) {
  unroll<TESSERAL_L_MAX>(TESSERAL_CONSTANTS(l) {
    if (l < l_max) f(std::integral_constant<int, l + 1>{});
  });
}

constexpr int most_harmonics = (TESSERAL_L_MAX + 1) * (TESSERAL_L_MAX + 1);

// A few edges: lengths, directions and harmonics up to l_max.
struct Directions {
  const int l_max;
  Lane radius, inverse, y[most_harmonics];
  Vector3 u;

  TESSERAL_INLINE Directions(int degree, const Vector3& v) : l_max(degree) {
    const Lane squared = dot(v, v);
    for (int i = 0; i < lanes; i++) {
      const bool zero = squared[i] == 0;  // no direction, and derivatives that stay finite
      radius[i] = zero ? 0.0 : std::sqrt(squared[i]);
      inverse[i] = zero ? 1.0 : 1.0 / radius[i];
    }
    for (int a = 0; a < 3; a++) u.x[a] = v.x[a] * inverse;
    y[0] = Lane{} + 1.0;
    each_degree(l_max, TESSERAL_CONSTANTS(degree) {
      for (int m = 0; m <= 2 * degree; m++) y[degree * degree + m] = Lane{};
      gradient_terms<degree>([&](int a, int from, int m, double factor) __attribute__((always_inline)) {
        y[degree * degree + m] += (factor / degree) * u.x[a] * y[(degree - 1) * (degree - 1) + from];
      });
    });
  }

  // Σ_m g_m ∂P_m(u)
  TESSERAL_INLINE Vector3 pull(const Lane* g) const {
    Vector3 out = {};
    each_degree(l_max, TESSERAL_CONSTANTS(degree) {
      gradient_terms<degree>([&](int a, int from, int m, double factor) __attribute__((always_inline)) {
        out.x[a] += factor * g[degree * degree + m] * y[(degree - 1) * (degree - 1) + from];
      });
    });
    return out;
  }
};

struct EdgeHarmonics {
  const int l_max, M = (l_max + 1) * (l_max + 1);

  template <class Body> static void each(int64_t edges, int threads, Body body) {
    parallel(threads, [&](int thread, int n_threads) {
      const int64_t groups = (edges + lanes - 1) / lanes;
      const auto [begin, end] = share(groups, thread, n_threads);
      for (int64_t g = begin; g < end; g++)
        body(g * lanes, int(std::min<int64_t>(lanes, edges - g * lanes)));
    });
  }
  static TESSERAL_INLINE Vector3 read(const double* v, int64_t e, int count) {
    Vector3 out = {};
    for (int i = 0; i < count; i++)
      for (int a = 0; a < 3; a++) out.x[a][i] = v[(e + i) * 3 + a];
    return out;
  }
  static TESSERAL_INLINE void write(double* v, int64_t e, int count, const Vector3& in) {
    for (int i = 0; i < count; i++)
      for (int a = 0; a < 3; a++) v[(e + i) * 3 + a] = in.x[a][i];
  }
  template <class T> TESSERAL_INLINE void read(const T* y, int64_t e, int count, Lane* out) const {
    for (int m = 0; m < M; m++) out[m] = Lane{};
    for (int i = 0; i < count; i++)
      for (int m = 0; m < M; m++) out[m][i] = y[(e + i) * M + m];
  }
  template <class T> TESSERAL_INLINE void write(T* y, int64_t e, int count, const Lane* in) const {
    for (int i = 0; i < count; i++)
      for (int m = 0; m < M; m++) y[(e + i) * M + m] = T(in[m][i]);
  }

  template <class T> void forward(const double* vectors, int64_t edges, int threads, T* y, double* radii) const {
    each(edges, threads, [&](int64_t e, int count) {
      const Directions d(l_max, read(vectors, e, count));
      write(y, e, count, d.y);
      for (int i = 0; i < count; i++) radii[e + i] = d.radius[i];
    });
  }

  template <class T>
  void backward(const double* vectors, int64_t edges, int threads, const T* by_y, const double* by_radii,
                double* out) const {
    each(edges, threads, [&](int64_t e, int count) {
      const Directions d(l_max, read(vectors, e, count));
      Lane g[most_harmonics], by_radius = {};
      read(by_y, e, count, g);
      for (int i = 0; i < count; i++) by_radius[i] = d.radius[i] > 0 ? by_radii[e + i] : 0;
      Vector3 pulled = d.pull(g);
      const Lane along = dot(d.u, pulled);
      for (int a = 0; a < 3; a++) pulled.x[a] = (pulled.x[a] - d.u.x[a] * along) * d.inverse + by_radius * d.u.x[a];
      write(out, e, count, pulled);
    });
  }

  // Gradient of h·backward(v, g, g_r) by g, g_r and v. With p = h - u (u·h), A = pull(g) and
  // H = ∂A/∂u: that scalar is p·A / |v| + g_r u·h; its gradient by u is
  // q = (H p - h (u·A) - (h·u) A) / |v| + g_r h, and by v (q - u (u·q)) / |v| - u (p·A) / |v|².
  template <class T>
  void twice(const double* vectors, int64_t edges, int threads, const T* by_y, const double* by_radii,
             const double* by_vectors, T* out_y, double* out_radii, double* out_vectors) const {
    each(edges, threads, [&](int64_t e, int count) {
      const Directions d(l_max, read(vectors, e, count));
      const Vector3 h = read(by_vectors, e, count);
      Lane g[most_harmonics], by_radius = {}, moved[most_harmonics];
      read(by_y, e, count, g);
      for (int i = 0; i < count; i++) by_radius[i] = d.radius[i] > 0 ? by_radii[e + i] : 0;
      const Lane along = dot(d.u, h);
      Vector3 p, bent = {};
      for (int a = 0; a < 3; a++) p.x[a] = h.x[a] - d.u.x[a] * along;
      for (int m = 0; m < M; m++) moved[m] = Lane{};  // p·∂P_m
      each_degree(l_max, TESSERAL_CONSTANTS(degree) {
        gradient_terms<degree>([&](int a, int from, int m, double factor) __attribute__((always_inline)) {
          moved[degree * degree + m] += factor * p.x[a] * d.y[(degree - 1) * (degree - 1) + from];
          bent.x[a] += factor * g[degree * degree + m] * moved[(degree - 1) * (degree - 1) + from];
        });
      });
      const Vector3 pulled = d.pull(g);
      const Lane u_pulled = dot(d.u, pulled), p_pulled = dot(p, pulled);
      Vector3 q, result;
      for (int a = 0; a < 3; a++)
        q.x[a] = (bent.x[a] - h.x[a] * u_pulled - along * pulled.x[a]) * d.inverse + by_radius * h.x[a];
      const Lane u_q = dot(d.u, q);
      for (int a = 0; a < 3; a++)
        result.x[a] = (q.x[a] - d.u.x[a] * u_q) * d.inverse - d.u.x[a] * p_pulled * d.inverse * d.inverse;
      for (int m = 0; m < M; m++) moved[m] *= d.inverse;
      write(out_y, e, count, moved);
      for (int i = 0; i < count; i++) out_radii[e + i] = along[i];
      write(out_vectors, e, count, result);
    });
  }
};

template <class T>
void harmonics(const double* vectors, int64_t edges, int32_t l_max, int32_t threads, void* y, double* radii) {
  EdgeHarmonics{l_max}.forward(vectors, edges, threads, static_cast<T*>(y), radii);
}
template <class T>
void harmonics_backward(const double* vectors, int64_t edges, int32_t l_max, int32_t threads, const void* y,
                        const double* radii, double* out) {
  EdgeHarmonics{l_max}.backward(vectors, edges, threads, static_cast<const T*>(y), radii, out);
}
template <class T>
void harmonics_twice(const double* vectors, int64_t edges, int32_t l_max, int32_t threads, const void* y,
                     const double* radii, const double* by_vectors, void* out_y, double* out_radii,
                     double* out_vectors) {
  EdgeHarmonics{l_max}.twice(vectors, edges, threads, static_cast<const T*>(y), radii, by_vectors,
                             static_cast<T*>(out_y), out_radii, out_vectors);
}

inline int64_t near_edges(const double* positions, const double* cells, const int64_t* structure,
                          const int64_t* senders, const int64_t* receivers, const double* shifts, int64_t edges,
                          double cutoff, int64_t* near_senders, int64_t* near_receivers, double* vectors,
                          int64_t* closest) {
  int64_t n = 0;
  double shortest = INFINITY;
  *closest = -1;
  for (int64_t e = 0; e < edges; e++) {
    const int64_t j = senders[e], i = receivers[e];
    const double* cell = cells + 9 * structure[i];
    double v[3], squared = 0;
    for (int a = 0; a < 3; a++) {
      v[a] = positions[3 * i + a] - positions[3 * j + a];
      for (int b = 0; b < 3; b++) v[a] += shifts[3 * e + b] * cell[3 * b + a];
      squared += v[a] * v[a];
    }
    if (squared < shortest) shortest = squared, *closest = e;
    if (squared >= cutoff * cutoff) continue;
    for (int a = 0; a < 3; a++) vectors[3 * n + a] = v[a];
    near_senders[n] = j;
    near_receivers[n++] = i;
  }
  return n;
}

}  // namespace TESSERAL_ISA
}  // namespace tesseral
