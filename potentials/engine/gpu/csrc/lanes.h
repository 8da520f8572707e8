// Groups of lanes: the same source for a GPU and, in tests, for a CPU.
//
// A kernel works on atoms or edges. Where an atom has many channels, a group of `group` lanes works
// on it, one channel a lane: on a GPU the lanes are threads of one warp and `Lanes` is a number; on
// a CPU a group is one thread and `Lanes` is a vector. Lanes of a group take the same branches.
#pragma once
#ifndef __CUDACC__
#include <cmath>
#endif
#include "couplings.h"

namespace tesseral {

typedef TESSERAL_REAL Real;
constexpr int group = TESSERAL_GROUP;    // 16 or 32
constexpr int groups = TESSERAL_GROUPS;  // of a block

#ifdef __CUDACC__
#define TESSERAL_DEVICE __device__ __forceinline__
#define TESSERAL_KERNEL extern "C" __global__ void __launch_bounds__(group * groups)

typedef Real Lanes;

TESSERAL_DEVICE int lane() { return threadIdx.x % group; }
TESSERAL_DEVICE bool is_first_lane() { return lane() == 0; }
TESSERAL_DEVICE unsigned together() {  // the lanes of this group in its warp
  return group == 32 ? 0xffffffffu : 0xffffu << (threadIdx.x & 16);
}
TESSERAL_DEVICE int first_group() { return blockIdx.x * groups + threadIdx.x / group; }
TESSERAL_DEVICE int number_of_groups() { return gridDim.x * groups; }
TESSERAL_DEVICE int first_thread() { return blockIdx.x * blockDim.x + threadIdx.x; }
TESSERAL_DEVICE int number_of_threads() { return gridDim.x * blockDim.x; }

TESSERAL_DEVICE Lanes load(const Real* p) { return p[lane()]; }
TESSERAL_DEVICE void load_four(const Real* p, Lanes* v) {  // (group, 4), each lane's in one access
  struct alignas(4 * sizeof(Real)) Four {
    Real part[4];
  };
  const Four own = reinterpret_cast<const Four*>(p)[lane()];
#pragma unroll
  for (int k = 0; k < 4; k++) v[k] = own.part[k];
}
TESSERAL_DEVICE void store(Real* p, Lanes v) { p[lane()] = v; }
TESSERAL_DEVICE void store_first(Real* p, Lanes v, int n) {
  if (lane() < n) p[lane()] = v;
}
TESSERAL_DEVICE Lanes load_first(const Real* p, int n) { return lane() < n ? p[lane()] : Real(0); }
TESSERAL_DEVICE Lanes from_other(Lanes v, int bit) { return __shfl_xor_sync(together(), v, bit); }
TESSERAL_DEVICE Lanes choose(int bit, Lanes set, Lanes unset) { return lane() & bit ? set : unset; }
TESSERAL_DEVICE Lanes exponential(Lanes v) { return exp(v); }
TESSERAL_DEVICE Real any(Lanes v) { return v; }  // of a value that all lanes share
// Makes what lanes have written to their group's scratch visible to the others.
TESSERAL_DEVICE void meet() { __syncwarp(together()); }
// Scratch memory of each group.
#define TESSERAL_SCRATCH(name, size)                        \
  __shared__ __align__(16) Real name##_all[groups][(size)]; \
  Real* const name = name##_all[threadIdx.x / group]
#else
#define TESSERAL_DEVICE inline __attribute__((always_inline))
#define TESSERAL_KERNEL extern "C" void

typedef Real Lanes __attribute__((vector_size(group * sizeof(Real))));
typedef Real Loose __attribute__((vector_size(group * sizeof(Real)), aligned(sizeof(Real)), may_alias));

TESSERAL_DEVICE bool is_first_lane() { return true; }
TESSERAL_DEVICE int first_group() { return 0; }
TESSERAL_DEVICE int number_of_groups() { return 1; }
TESSERAL_DEVICE int first_thread() { return 0; }
TESSERAL_DEVICE int number_of_threads() { return 1; }

TESSERAL_DEVICE Lanes load(const Real* p) { return *reinterpret_cast<const Loose*>(p); }
TESSERAL_DEVICE void load_four(const Real* p, Lanes* v) {
  for (int i = 0; i < group; i++)
    for (int k = 0; k < 4; k++) v[k][i] = p[4 * i + k];
}
TESSERAL_DEVICE void store(Real* p, Lanes v) { *reinterpret_cast<Loose*>(p) = v; }
TESSERAL_DEVICE void store_first(Real* p, Lanes v, int n) {
  for (int i = 0; i < group && i < n; i++) p[i] = v[i];
}
TESSERAL_DEVICE Lanes load_first(const Real* p, int n) {
  Lanes v = {};
  for (int i = 0; i < group && i < n; i++) v[i] = p[i];
  return v;
}
TESSERAL_DEVICE Lanes from_other(Lanes v, int bit) {
  Lanes out;
  for (int i = 0; i < group; i++) out[i] = v[i ^ bit];
  return out;
}
TESSERAL_DEVICE Lanes choose(int bit, Lanes set, Lanes unset) {
  Lanes out;
  for (int i = 0; i < group; i++) out[i] = i & bit ? set[i] : unset[i];
  return out;
}
TESSERAL_DEVICE Lanes exponential(Lanes v) {
  for (int i = 0; i < group; i++) v[i] = __builtin_exp(v[i]);
  return v;
}
TESSERAL_DEVICE Real any(Lanes v) { return v[0]; }
TESSERAL_DEVICE void meet() {}
#define TESSERAL_SCRATCH(name, size) Real name[(size)]
using std::exp;
using std::floor;
using std::pow;
using std::sqrt;
#endif

// unroll<N>(f) calls f with constants of the values 0 … N - 1.
template <int I> struct Constant {
  static constexpr int value = I;
  TESSERAL_DEVICE constexpr operator int() const { return I; }
};
template <int BEGIN, int END, class F> TESSERAL_DEVICE void unroll_between(F& f) {
  if constexpr (END - BEGIN == 1) {
    f(Constant<BEGIN>{});
  } else if constexpr (END > BEGIN) {
    unroll_between<BEGIN, (BEGIN + END) / 2>(f);
    unroll_between<(BEGIN + END) / 2, END>(f);
  }
}
template <int N, class F> TESSERAL_DEVICE void unroll(F&& f) { unroll_between<0, N>(f); }

// Sum over the lanes, the same in all of them.
TESSERAL_DEVICE Lanes sum(Lanes v) {
#pragma unroll
  for (int bit = group / 2; bit > 0; bit /= 2) v += from_other(v, bit);
  return v;
}

// One step of `totals`: half of the values remain, each summed over pairs of lanes.
template <int BIT> TESSERAL_DEVICE void halve(Lanes* v) {
  if constexpr (BIT > 0) {
#pragma unroll
    for (int i = 0; i < BIT; i++) {
      const Lanes kept = choose(BIT, v[i + BIT], v[i]), sent = choose(BIT, v[i], v[i + BIT]);
      v[i] = kept + from_other(sent, BIT);
    }
    halve<BIT / 2>(v);
  }
}

// Writes the sums over the lanes of N values to out[0 … N - 1], or adds them. It exchanges one
// number a value instead of one for each value and each of log2(group) steps.
template <int N> TESSERAL_DEVICE void totals(const Lanes (&values)[N], bool add, Real* out) {
  unroll<(N + group - 1) / group>([&](auto chunk) {
    constexpr int first = chunk * group, count = N - first < group ? N - first : group;
    Lanes v[group];
#pragma unroll
    for (int i = 0; i < group; i++) v[i] = i < count ? values[first + (i < count ? i : 0)] : Lanes{};
    halve<group / 2>(v);
    store_first(out + first, add ? v[0] + load_first(out + first, count) : v[0], count);
  });
}

}  // namespace tesseral
