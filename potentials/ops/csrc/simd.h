// Vectors of the widest registers that this file is compiled for, by the compiler's vector
// extensions (GCC, Clang): plain arithmetic operators, any processor.
#pragma once
#include <cstdint>
#include <type_traits>
#include <utility>

#define TESSERAL_INLINE inline __attribute__((always_inline))

namespace tesseral {
namespace TESSERAL_ISA {

#if defined(__AVX512F__)
constexpr int vector_bytes = 64;
#elif defined(__AVX2__)
constexpr int vector_bytes = 32;
#else
constexpr int vector_bytes = 16;
#endif

// unroll<N>(f) calls f with the constants 0 … N - 1: as types for template arguments with
// TESSERAL_CONSTANTS, otherwise as numbers, which takes less time to compile.
template <class F, int... I>
TESSERAL_INLINE void unroll_constants(F&& f, std::integer_sequence<int, I...>) {
  (f(std::integral_constant<int, I>{}), ...);
}
template <int N, class F> TESSERAL_INLINE void unroll(F&& f) {
  unroll_constants(f, std::make_integer_sequence<int, N>{});
}
#define TESSERAL_CONSTANTS(i) [&](auto i) __attribute__((always_inline))
#define TESSERAL_UNROLLED(i) [&](int i) __attribute__((always_inline))

// A loop over a table, without loops inside, that is unrolled after inlining, which takes still less;
// or that stays a loop, which takes the least to compile and about twice the time.
#ifdef TESSERAL_SMALL
constexpr bool small = true;
#else
constexpr bool small = false;
#endif
#define TESSERAL_TERMS(i, n, loop)                                                                  \
  _Pragma("GCC unroll 1") for (int i##_ = 0; i##_ < ((small || (loop)) ? int(n) : 1); i##_++)       \
      _Pragma("GCC unroll 128") for (int i = (small || (loop)) ? i##_ : 0;                          \
                                     i < ((small || (loop)) ? i##_ + 1 : int(n)); i++)

template <class T> constexpr int width = vector_bytes / int(sizeof(T));

template <class T> struct VectorOf;
template <> struct VectorOf<float> {
  typedef float type __attribute__((vector_size(vector_bytes)));
  typedef float loose __attribute__((vector_size(vector_bytes), aligned(4), may_alias));
};
template <> struct VectorOf<double> {
  typedef double type __attribute__((vector_size(vector_bytes)));
  typedef double loose __attribute__((vector_size(vector_bytes), aligned(8), may_alias));
};
template <class T> using Vector = typename VectorOf<T>::type;

template <class T> TESSERAL_INLINE Vector<T> load(const T* p) {
  return *reinterpret_cast<const typename VectorOf<T>::loose*>(p);
}
template <class T> TESSERAL_INLINE void store(T* p, Vector<T> v) {
  *reinterpret_cast<typename VectorOf<T>::loose*>(p) = v;
}

// 1 / (1 + exp(-x)), to a few units of the last digit.
template <class T> TESSERAL_INLINE Vector<T> sigmoid(Vector<T> x) {
  using Whole = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;
  typedef Whole Wholes __attribute__((vector_size(vector_bytes)));
  constexpr bool single = sizeof(T) == 4;
  // exp(-x) = 2^n exp(r), |r| < 0.35: n by adding a number whose last digit is 1, exp(r) by its series.
  constexpr T most = single ? T(80) : T(700), shift = single ? T(12582912) : T(6755399441055744);
  constexpr T high = single ? T(0.693145751953125) : T(0.693147180369123816490);
  constexpr T low = single ? T(1.42860682030941723212e-6) : T(1.90821492927058770002e-10);
  Vector<T> y = -x;
  y = y > most ? Vector<T>{} + most : y;
  y = y < -most ? Vector<T>{} - most : y;
  const Vector<T> n = (y * T(1.44269504088896340736) + shift) - shift;
  const Vector<T> r = (y - n * high) - n * low;
  constexpr int terms = single ? 7 : 13;
  Vector<T> power = Vector<T>{} + T(1);
  unroll<terms>(TESSERAL_UNROLLED(k) { power = T(1) + power * r * (T(1) / T(terms - k)); });
  const Wholes bits = (__builtin_convertvector(n, Wholes) + (single ? 127 : 1023)) << (single ? 23 : 52);
  Vector<T> scale;
  __builtin_memcpy(&scale, &bits, vector_bytes);
  return T(1) / (T(1) + scale * power);
}

// Sum of a vector's lanes: halves are added until one lane is left.
template <class T, int BYTES> struct Halves {
  typedef T type __attribute__((vector_size(BYTES)));
  static TESSERAL_INLINE T sum(type v) {
    typename Halves<T, BYTES / 2>::type half[2];
    __builtin_memcpy(half, &v, BYTES);
    return Halves<T, BYTES / 2>::sum(half[0] + half[1]);
  }
};
template <class T> struct Halves<T, 16> {
  typedef T type __attribute__((vector_size(16)));
  static TESSERAL_INLINE T sum(type v) {
    if constexpr (sizeof(T) == 8) return v[0] + v[1];
    else return (v[0] + v[1]) + (v[2] + v[3]);
  }
};
template <class T> TESSERAL_INLINE T sum(Vector<T> v) { return Halves<T, vector_bytes>::sum(v); }

// N vectors of neighbouring channels, 1 or 2.
template <class T, int N> struct Block;

template <class T> struct Block<T, 1> {
  Vector<T> a;
  static TESSERAL_INLINE Block at(const T* p) { return {load(p)}; }
  static TESSERAL_INLINE Block zero() { return {Vector<T>{}}; }
  TESSERAL_INLINE void put(T* p) const { store(p, a); }
  TESSERAL_INLINE void add(T s, const Block& x) { a += s * x.a; }
  TESSERAL_INLINE void add(const Block& x, const Block& y) { a += x.a * y.a; }
  TESSERAL_INLINE void take(const Block& x, const Block& y) { a -= x.a * y.a; }
  TESSERAL_INLINE Block times(T s) const { return {s * a}; }
  TESSERAL_INLINE Block times(const Block& x) const { return {a * x.a}; }
  TESSERAL_INLINE Vector<T> dot(const Block& x) const { return a * x.a; }
  TESSERAL_INLINE T total() const { return sum<T>(a); }
};

template <class T> struct Block<T, 2> {
  Vector<T> a, b;
  static TESSERAL_INLINE Block at(const T* p) { return {load(p), load(p + width<T>)}; }
  static TESSERAL_INLINE Block zero() { return {Vector<T>{}, Vector<T>{}}; }
  TESSERAL_INLINE void put(T* p) const { store(p, a), store(p + width<T>, b); }
  TESSERAL_INLINE void add(T s, const Block& x) { a += s * x.a, b += s * x.b; }
  TESSERAL_INLINE void add(const Block& x, const Block& y) { a += x.a * y.a, b += x.b * y.b; }
  TESSERAL_INLINE void take(const Block& x, const Block& y) { a -= x.a * y.a, b -= x.b * y.b; }
  TESSERAL_INLINE Block times(T s) const { return {s * a, s * b}; }
  TESSERAL_INLINE Block times(const Block& x) const { return {a * x.a, b * x.b}; }
  TESSERAL_INLINE Vector<T> dot(const Block& x) const { return a * x.a + b * x.b; }
  TESSERAL_INLINE T total() const { return sum<T>(a + b); }
};

}  // namespace TESSERAL_ISA
}  // namespace tesseral
