// Operations on one atom's features at a time: linear maps by degree, products on the sphere.
#pragma once
#include <cstring>

#include "couplings.h"
#include "parallel.h"
#include "simd.h"

namespace tesseral {
namespace TESSERAL_ISA {

// ROWS rows of x times a matrix, N vectors of columns at a time: everything in registers. The result
// is stored, or added with ADD.
template <class T, int ROWS, int N, bool ADD>
TESSERAL_INLINE void linear_block(const T* const* x, T* const* out, const T* weight, long c_in, long c_out, long c) {
  constexpr int W = width<T>;
  Vector<T> sums[ROWS][N];
  unroll<ROWS>(TESSERAL_UNROLLED(r) {
    unroll<N>(TESSERAL_UNROLLED(v) { sums[r][v] = ADD ? load(out[r] + c + v * W) : Vector<T>{}; });
  });
  for (long k = 0; k < c_in; k++) {
    Vector<T> w[N];
    unroll<N>(TESSERAL_UNROLLED(v) { w[v] = load(weight + k * c_out + c + v * W); });
    unroll<ROWS>(TESSERAL_UNROLLED(r) {
      unroll<N>(TESSERAL_UNROLLED(v) { sums[r][v] += x[r][k] * w[v]; });
    });
  }
  unroll<ROWS>(TESSERAL_UNROLLED(r) {
    unroll<N>(TESSERAL_UNROLLED(v) { store(out[r] + c + v * W, sums[r][v]); });
  });
}

template <class T, int ROWS, bool ADD>
void linear_rows(const T* const* x, T* const* out, const T* weight, long c_in, long c_out) {
  constexpr int W = width<T>;
  long c = 0;
  for (; c + 2 * W <= c_out; c += 2 * W) linear_block<T, ROWS, 2, ADD>(x, out, weight, c_in, c_out, c);
  for (; c < c_out; c += W) linear_block<T, ROWS, 1, ADD>(x, out, weight, c_in, c_out, c);
}

// Rows of x times one matrix. The columns of the matrix that are in use stay in the nearest cache
// from row to row.
template <class T, bool ADD>
void times_matrix(const T* const* x, T* const* out, long rows, const T* weight, long c_in, long c_out) {
  constexpr int W = width<T>, most = vector_bytes == 64 ? 8 : 4;  // registers allow no more
  long c = 0;
  for (; c + 2 * W <= c_out; c += 2 * W) {
    long r = 0;
    for (; r + most <= rows; r += most) linear_block<T, most, 2, ADD>(x + r, out + r, weight, c_in, c_out, c);
    for (; r + 2 <= rows; r += 2) linear_block<T, 2, 2, ADD>(x + r, out + r, weight, c_in, c_out, c);
    for (; r < rows; r++) linear_block<T, 1, 2, ADD>(x + r, out + r, weight, c_in, c_out, c);
  }
  for (; c < c_out; c += W) {
    long r = 0;
    for (; r + most <= rows; r += most) linear_block<T, most, 1, ADD>(x + r, out + r, weight, c_in, c_out, c);
    for (; r < rows; r++) linear_block<T, 1, 1, ADD>(x + r, out + r, weight, c_in, c_out, c);
  }
}

// A matrix for each degree up to l_max, for some atoms with m_in and m_out components in the arrays.
template <class T, bool ADD>
void linear(const T* x, long m_in, long c_in, const T* weight, int l_max, int64_t atoms, T* out, long m_out,
            long c_out) {
  constexpr int rows = vector_bytes == 64 ? 8 : 4;  // registers allow no more
  for (int l = 0; l <= l_max; l++) {
    const T* w = weight + long(l) * c_in * c_out;
    const T* from[rows];
    T* to[rows];
    int n = 0;
    for (int64_t i = 0; i < atoms; i++)
      for (long m = l * l; m < (l + 1) * (l + 1); m++) {
        from[n] = x + (i * m_in + m) * c_in;
        to[n] = out + (i * m_out + m) * c_out;
        if (++n == rows) {
          linear_rows<T, rows, ADD>(from, to, w, c_in, c_out);
          n = 0;
        }
      }
    for (int r = 0; r < n; r++) linear_rows<T, 1, ADD>(from + r, to + r, w, c_in, c_out);
  }
}

template <class T>
void degree_linear(const void* x, const void* weight, int64_t atoms, int32_t l_max, int32_t c_in, int32_t c_out,
                   int32_t threads, void* out) {
  const long m = (l_max + 1) * (l_max + 1);
  parallel(threads, [&](int thread, int n_threads) {
    const auto [begin, end] = share(atoms, thread, n_threads);
    constexpr int64_t block = 64;  // atoms whose features stay in the cache from degree to degree
    for (int64_t i = begin; i < end; i += block)
      linear<T, false>(static_cast<const T*>(x) + i * m * c_in, m, c_in, static_cast<const T*>(weight), l_max,
                       std::min(block, end - i), static_cast<T*>(out) + i * m * c_out, m, c_out);
  });
}

// Adds x[:, k … k + K - 1]^T g to out for rows of one degree.
template <class T, int K, int N>
TESSERAL_INLINE void outer_block(const T* x, const T* g, long rows_apart, long m, int64_t atoms, long c_in, long c_out,
                                 long k, long c, T* out) {
  constexpr int W = width<T>;
  Vector<T> sums[K][N];
  unroll<K>(TESSERAL_UNROLLED(r) {
    unroll<N>(TESSERAL_UNROLLED(v) { sums[r][v] = load(out + (k + r) * c_out + c + v * W); });
  });
  for (int64_t i = 0; i < atoms; i++)
    for (long a = 0; a < m; a++) {
      const T* left = x + (i * rows_apart + a) * c_in + k;
      const T* right = g + (i * rows_apart + a) * c_out + c;
      Vector<T> w[N];
      unroll<N>(TESSERAL_UNROLLED(v) { w[v] = load(right + v * W); });
      unroll<K>(TESSERAL_UNROLLED(r) {
        unroll<N>(TESSERAL_UNROLLED(v) { sums[r][v] += left[r] * w[v]; });
      });
    }
  unroll<K>(TESSERAL_UNROLLED(r) {
    unroll<N>(TESSERAL_UNROLLED(v) { store(out + (k + r) * c_out + c + v * W, sums[r][v]); });
  });
}

template <class T, int K>
TESSERAL_INLINE void outer_rows(const T* x, const T* g, long rows_apart, long m, int64_t atoms, long c_in, long c_out,
                                long k, T* out) {
  constexpr int W = width<T>;
  long c = 0;
  for (; c + 2 * W <= c_out; c += 2 * W) outer_block<T, K, 2>(x, g, rows_apart, m, atoms, c_in, c_out, k, c, out);
  for (; c < c_out; c += W) outer_block<T, K, 1>(x, g, rows_apart, m, atoms, c_in, c_out, k, c, out);
}

template <class T>
void degree_outer(const void* x_, const void* g_, int64_t atoms, int32_t l_max, int32_t c_in, int32_t c_out,
                  int32_t threads, void* out_) {
  constexpr int K = vector_bytes == 64 ? 8 : 4;
  const T *x = static_cast<const T*>(x_), *g = static_cast<const T*>(g_);
  T* out = static_cast<T*>(out_);
  const long m_all = (l_max + 1) * (l_max + 1), size = long(l_max + 1) * c_in * c_out;
  Lines<T> parts(size * threads);
  std::memset(parts.data(), 0, size * threads * sizeof(T));
  parallel(threads, [&](int thread, int n_threads) {
    const auto [begin, end] = share(atoms, thread, n_threads);
    T* own = parts.data() + thread * size;
    constexpr int64_t block = 32;
    for (int64_t i = begin; i < end; i += block) {
      const int64_t n = std::min(block, end - i);
      for (int l = 0; l <= l_max; l++) {
        const T* left = x + (i * m_all + l * l) * c_in;
        const T* right = g + (i * m_all + l * l) * c_out;
        T* to = own + long(l) * c_in * c_out;
        long k = 0;
        for (; k + K <= c_in; k += K) outer_rows<T, K>(left, right, m_all, 2 * l + 1, n, c_in, c_out, k, to);
        for (; k < c_in; k++) outer_rows<T, 1>(left, right, m_all, 2 * l + 1, n, c_in, c_out, k, to);
      }
    }
  });
  for (long i = 0; i < size; i++) {
    T total = 0;
    for (int t = 0; t < threads; t++) total += parts.data()[t * size + i];
    out[i] = total;
  }
}

// Part l1, l2 → l3 of the product of two functions on the sphere, for one atom.
template <class T, int L1, int L2, int L3> struct ProductSums {
  using C = Coupling<L1, L2, L3>;
  static void add(const T* a, const T* b, long channels, T* out) {
    for (long c = 0; c < channels; c += width<T>) {
      Vector<T> sums[2 * L3 + 1];
      for (int m = 0; m <= 2 * L3; m++) sums[m] = load(out + m * channels + c);
      TESSERAL_TERMS(e, C::terms, false) {
        const int q = C::pair[e];
        sums[C::m3[q]] += T(C::gaunt * C::value[e]) *
                          (load(a + C::m1[q] * channels + c) * load(b + C::m2[e] * channels + c));
      }
      for (int m = 0; m <= 2 * L3; m++) store(out + m * channels + c, sums[m]);
    }
  }
};

template <class T> struct ProductFunctions {
  int l1, l2, l3;
  void (*add)(const T*, const T*, long, T*);
};

template <class T>
void product(const T* a, int l_a, const T* b, int l_b, int64_t atoms, long channels, T* out, int l_out) {
#define TESSERAL_PRODUCT(x, y, z) {x, y, z, ProductSums<T, x, y, z>::add},
  static const ProductFunctions<T> table[] = {TESSERAL_PATHS(TESSERAL_PRODUCT)};
  const long m_a = (l_a + 1) * (l_a + 1), m_b = (l_b + 1) * (l_b + 1), m_out = (l_out + 1) * (l_out + 1);
  std::memset(out, 0, atoms * m_out * channels * sizeof(T));
  for (const auto& path : table) {
    if (path.l1 > l_a || path.l2 > l_b || path.l3 > l_out) continue;
    for (int64_t i = 0; i < atoms; i++)
      path.add(a + (i * m_a + path.l1 * path.l1) * channels, b + (i * m_b + path.l2 * path.l2) * channels, channels,
               out + (i * m_out + path.l3 * path.l3) * channels);
  }
}

template <class T>
void sphere_product(const void* a, const void* b, int64_t atoms, int32_t l_a, int32_t l_b, int32_t l_out,
                    int32_t channels, int32_t threads, void* out) {
  const long m_a = (l_a + 1) * (l_a + 1), m_b = (l_b + 1) * (l_b + 1), m_out = (l_out + 1) * (l_out + 1);
  parallel(threads, [&](int thread, int n_threads) {
    const auto [begin, end] = share(atoms, thread, n_threads);
    constexpr int64_t block = 8;  // atoms whose features stay in the nearest cache from path to path
    for (int64_t i = begin; i < end; i += block)
      product(static_cast<const T*>(a) + i * m_a * channels, l_a, static_cast<const T*>(b) + i * m_b * channels, l_b,
              std::min(block, end - i), channels, static_cast<T*>(out) + i * m_out * channels, l_out);
  });
}

}  // namespace TESSERAL_ISA
}  // namespace tesseral
