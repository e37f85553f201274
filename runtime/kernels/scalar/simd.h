// Four-lane float vectors in the compilers' own vector extension: any CPU, no intrinsics. For the shared algorithms in
// ../vector_impl.h and
// ../dense_impl.h. Multiply-adds round twice here (there may be no FMA instruction).
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#define LUTC_INLINE static inline __attribute__((always_inline))

namespace lutc::kernels {
namespace {

struct Simd {
  static constexpr int kWidth = 4;
  static constexpr int kRegisters = 16;
  typedef float Float __attribute__((vector_size(16)));
  typedef int32_t Int __attribute__((vector_size(16)));
  typedef uint32_t Bits __attribute__((vector_size(16)));
  using Mask = Int;

  LUTC_INLINE Float zero() { return Float{}; }
  LUTC_INLINE Float set1(float x) { return Float{x, x, x, x}; }
  LUTC_INLINE Float load(const float* p) {
    Float v;
    std::memcpy(&v, p, sizeof(v));
    return v;
  }
  LUTC_INLINE Float load_n(const float* p, int64_t n, float fill = 0.0f) {
    Float v = set1(fill);
    for (int64_t i = 0; i < n; ++i) v[i] = p[i];
    return v;
  }
  /// Lanes [low, high) of p[0 .. 4), zero elsewhere; touches no other memory. Bounds outside [0, 4] count as those.
  LUTC_INLINE Float load_range(const float* p, int64_t low, int64_t high) { return load_where(p, range(low, high)); }
  /// Lanes [low, high), clamped to those there are.
  LUTC_INLINE Mask range(int64_t low, int64_t high) {
    Mask m = {};
    for (int64_t i = low < 0 ? 0 : low; i < high && i < 4; ++i) m[i] = -1;
    return m;
  }
  LUTC_INLINE Float load_where(const float* p, Mask m) {
    Float v = zero();
    for (int i = 0; i < kWidth; ++i)
      if (m[i] != 0) v[i] = p[i];
    return v;
  }
  LUTC_INLINE void store(float* p, Float v) { std::memcpy(p, &v, sizeof(v)); }
  LUTC_INLINE void store_n(float* p, Float v, int64_t n) {
    for (int64_t i = 0; i < n; ++i) p[i] = v[i];
  }

  LUTC_INLINE Float add(Float a, Float b) { return a + b; }
  LUTC_INLINE Float sub(Float a, Float b) { return a - b; }
  LUTC_INLINE Float mul(Float a, Float b) { return a * b; }
  LUTC_INLINE Float div(Float a, Float b) { return a / b; }
  LUTC_INLINE Float fma(Float a, Float b, Float c) { return a * b + c; }
  LUTC_INLINE Float fnma(Float a, Float b, Float c) { return c - a * b; }
  // min and max return their second argument when either is NaN.
  LUTC_INLINE Float min(Float a, Float b) { return a < b ? a : b; }
  LUTC_INLINE Float max(Float a, Float b) { return a > b ? a : b; }
  LUTC_INLINE Float sqrt(Float a) {
    for (int i = 0; i < kWidth; ++i) a[i] = std::sqrt(a[i]);
    return a;
  }
  LUTC_INLINE Float abs(Float a) { return as_float(as_int(a) & 0x7fffffff); }
  LUTC_INLINE Float neg(Float a) { return -a; }
  LUTC_INLINE Float copysign(Float magnitude, Float sign) {
    return as_float((as_int(magnitude) & 0x7fffffff) | (as_int(sign) & INT32_MIN));
  }
  /// To nearest even, for |a| < 2^22.
  LUTC_INLINE Float round(Float a) {
    const Float magic = set1(12582912.0f);
    return (a + magic) - magic;
  }
  /// a * 2^n for integral n in [-252, 254]: in two steps, so that results may be subnormal or overflow once.
  LUTC_INLINE Float ldexp(Float a, Float n) {
    const Int whole = as_int(n + 12582912.0f) - 0x4b400000;  // the integer sits in the low bits of the sum
    const Int half = whole >> 1;
    const Int high = whole - half;
    return a * as_float(shift_left23(half + 127)) * as_float(shift_left23(high + 127));
  }

  LUTC_INLINE Mask lt(Float a, Float b) { return a < b; }
  LUTC_INLINE Mask eq(Float a, Float b) { return a == b; }
  LUTC_INLINE Mask is_nan(Float a) { return a != a; }
  LUTC_INLINE Mask either(Mask a, Mask b) { return a | b; }
  LUTC_INLINE bool any(Mask a) { return (a[0] | a[1] | a[2] | a[3]) != 0; }
  LUTC_INLINE Mask none() { return Mask{}; }
  LUTC_INLINE Float select(Mask m, Float yes, Float no) { return m ? yes : no; }

  LUTC_INLINE Int as_int(Float a) { return reinterpret_cast<Int>(a); }
  LUTC_INLINE Float as_float(Int a) { return reinterpret_cast<Float>(a); }
  LUTC_INLINE Int set1_int(int32_t x) { return Int{x, x, x, x}; }
  LUTC_INLINE Int add_int(Int a, Int b) {
    return reinterpret_cast<Int>(reinterpret_cast<Bits>(a) + reinterpret_cast<Bits>(b));
  }
  LUTC_INLINE Int and_int(Int a, Int b) { return a & b; }
  template <int kBits>
  LUTC_INLINE Int shift_right(Int a) {
    return a >> kBits;
  }
  LUTC_INLINE Float to_float(Int a) { return Float{float(a[0]), float(a[1]), float(a[2]), float(a[3])}; }

  /// Rows to columns.
  LUTC_INLINE void transpose(Float (&r)[4]) {
    for (int i = 0; i < 4; ++i) {
      for (int j = 0; j < i; ++j) {
        const float x = r[i][j];
        r[i][j] = r[j][i];
        r[j][i] = x;
      }
    }
  }
  /// v moved up by a lane, the last of `before` in front.
  LUTC_INLINE Float shift_in_low(Float before, Float v) { return Float{before[3], v[0], v[1], v[2]}; }
  /// v moved down by a lane, the first of `after` behind.
  LUTC_INLINE Float shift_in_high(Float v, Float after) { return Float{v[1], v[2], v[3], after[0]}; }
  /// a, b (8 values in order) to those at even and at odd places.
  LUTC_INLINE void deinterleave(Float a, Float b, Float* even, Float* odd) {
    *even = Float{a[0], a[2], b[0], b[2]};
    *odd = Float{a[1], a[3], b[1], b[3]};
  }
  /// Three vectors (12 values in order) to the values at places 0, 3, 6 ..., 1, 4, 7 ... and 2, 5, 8 ...
  LUTC_INLINE void deinterleave3(Float (&v)[3]) {
    const Float a = v[0], b = v[1], c = v[2];
    v[0] = Float{a[0], a[3], b[2], c[1]};
    v[1] = Float{a[1], b[0], b[3], c[2]};
    v[2] = Float{a[2], b[1], c[0], c[3]};
  }
  /// The inverse of deinterleave.
  LUTC_INLINE void interleave(Float even, Float odd, Float* a, Float* b) {
    *a = Float{even[0], odd[0], even[1], odd[1]};
    *b = Float{even[2], odd[2], even[3], odd[3]};
  }

  LUTC_INLINE float sum(Float a) { return (a[0] + a[2]) + (a[1] + a[3]); }
  LUTC_INLINE float greatest(Float a) {
    float m = a[0];
    for (int i = 1; i < kWidth; ++i) m = a[i] > m ? a[i] : m;
    return m;
  }

 private:
  LUTC_INLINE Int shift_left23(Int a) { return reinterpret_cast<Int>(reinterpret_cast<Bits>(a) << 23); }
};

}  // namespace
}  // namespace lutc::kernels
