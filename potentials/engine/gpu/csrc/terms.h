// The terms of a coupling (potentials/ops/csrc/couplings.h), unrolled.
#pragma once
#include "lanes.h"

namespace tesseral {

// The first of the terms of pair `wanted`, which are sorted by pair.
template <class C> TESSERAL_DEVICE constexpr int first_term(int wanted) {
  int term = 0;
  while (term < C::terms && C::pair[term] < wanted) term++;
  return term;
}

// Calls f(m2, value) for the terms of pair Q.
template <class C, int Q, class F> TESSERAL_DEVICE void each_term(F&& f) {
  constexpr int first = first_term<C>(Q);
  unroll<first_term<C>(Q + 1) - first>([&](auto n) {
    constexpr int m2 = C::m2[first + n];
    constexpr double value = C::value[first + n];
    f(m2, Real(value));
  });
}

// t of pair Q from harmonics of degree l2: Σ_m2 C Y.
template <class C, int Q> TESSERAL_DEVICE Real coupled(const Real* y) {
  Real t = 0;
  each_term<C, Q>([&](int m2, Real value) { t += value * y[m2]; });
  return t;
}

}  // namespace tesseral
