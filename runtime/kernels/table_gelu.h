// GELU from tables: max(x, 0) - t (1 - Phi(t)), t = |x|, the second term by a short polynomial in each of a few
// intervals whose coefficients a permutation looks up. Half the instructions of one polynomial that serves all x.
//
// An ISA file includes its simd.h, defines tails and includes this. A tail's coefficients [power][interval] are
// least-maximum fits in f = scale * t - interval, |f| <= 1/2. Interval 0 has no constant and starts at f = 0, so that
// small x keep their relative accuracy; the last one ends at f = 0 with exactly 0.
#pragma once

namespace lutc::kernels {
namespace {

/// Tail: kDegree, kIntervals, kScale and coefficient(power, interval), which looks at the low bits of interval alone.
template <class Tail>
struct TableGelu {
  LUTC_INLINE Simd::Float apply(Simd::Float x) {
    using V = Simd;
    const V::Float magic = V::set1(12582912.0f);  // adding it leaves the nearest integer in the low bits
    const V::Float last = V::set1(Tail::kIntervals - 1);
    const V::Float u = V::min(last, V::mul(V::abs(x), V::set1(Tail::kScale)));  // constant first: NaN passes
    const V::Float shifted = V::add(u, magic);
    const V::Float f = V::sub(u, V::sub(shifted, magic));
    const V::Int interval = V::as_int(shifted);
    V::Float tail = Tail::coefficient(Tail::kDegree, interval);
#pragma GCC unroll 5
    for (int power = Tail::kDegree - 1; power >= 0; --power) tail = V::fma(tail, f, Tail::coefficient(power, interval));
    return V::sub(V::max(V::zero(), x), tail);
  }
};

}  // namespace
}  // namespace lutc::kernels
