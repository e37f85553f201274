// Eight-lane float vectors (AVX2 + FMA), for the shared algorithms in ../vector_impl.h and ../dense_impl.h.
#pragma once

#include <immintrin.h>

#include <cstdint>

#define LUTC_INLINE static inline __attribute__((always_inline))

namespace lutc::kernels {
namespace {

struct Simd {
  static constexpr int kWidth = 8;
  static constexpr int kRegisters = 16;
  using Float = __m256;
  using Int = __m256i;
  using Mask = __m256;

  LUTC_INLINE Int first(int64_t n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  LUTC_INLINE Float zero() { return _mm256_setzero_ps(); }
  LUTC_INLINE Float set1(float x) { return _mm256_set1_ps(x); }
  LUTC_INLINE Float load(const float* p) { return _mm256_loadu_ps(p); }
  LUTC_INLINE Float load_n(const float* p, int64_t n, float fill = 0.0f) {
    const Int m = first(n);
    return _mm256_blendv_ps(set1(fill), _mm256_maskload_ps(p, m), as_float(m));
  }
  /// Lanes [low, high) of p[0 .. 8), zero elsewhere; touches no other memory. Bounds outside [0, 8] count as those.
  LUTC_INLINE Float load_range(const float* p, int64_t low, int64_t high) { return load_where(p, range(low, high)); }
  /// Lanes [low, high), clamped to those there are.
  LUTC_INLINE Mask range(int64_t low, int64_t high) {
    low = low < 0 ? 0 : low > 8 ? 8 : low;
    high = high > 8 ? 8 : high < 0 ? 0 : high;
    return as_float(_mm256_andnot_si256(first(low), first(high)));
  }
  LUTC_INLINE Float load_where(const float* p, Mask m) { return _mm256_maskload_ps(p, as_int(m)); }
  LUTC_INLINE void store(float* p, Float v) { _mm256_storeu_ps(p, v); }
  LUTC_INLINE void store_n(float* p, Float v, int64_t n) { _mm256_maskstore_ps(p, first(n), v); }

  LUTC_INLINE Float add(Float a, Float b) { return _mm256_add_ps(a, b); }
  LUTC_INLINE Float sub(Float a, Float b) { return _mm256_sub_ps(a, b); }
  LUTC_INLINE Float mul(Float a, Float b) { return _mm256_mul_ps(a, b); }
  LUTC_INLINE Float div(Float a, Float b) { return _mm256_div_ps(a, b); }
  LUTC_INLINE Float fma(Float a, Float b, Float c) { return _mm256_fmadd_ps(a, b, c); }
  LUTC_INLINE Float fnma(Float a, Float b, Float c) { return _mm256_fnmadd_ps(a, b, c); }
  // min and max return their second argument when either is NaN.
  LUTC_INLINE Float min(Float a, Float b) { return _mm256_min_ps(a, b); }
  LUTC_INLINE Float max(Float a, Float b) { return _mm256_max_ps(a, b); }
  LUTC_INLINE Float sqrt(Float a) { return _mm256_sqrt_ps(a); }
  LUTC_INLINE Float abs(Float a) { return _mm256_andnot_ps(set1(-0.0f), a); }
  LUTC_INLINE Float neg(Float a) { return _mm256_xor_ps(a, set1(-0.0f)); }
  LUTC_INLINE Float copysign(Float magnitude, Float sign) {
    const Float bit = set1(-0.0f);
    return _mm256_or_ps(_mm256_and_ps(bit, sign), _mm256_andnot_ps(bit, magnitude));
  }
  LUTC_INLINE Float round(Float a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  /// a * 2^n for integral n in [-252, 254]: in two steps, so that results may be subnormal or overflow once.
  LUTC_INLINE Float ldexp(Float a, Float n) {
    const Int whole = _mm256_cvtps_epi32(n);
    const Int half = _mm256_srai_epi32(whole, 1);
    const Int bias = _mm256_set1_epi32(127);
    const Float low = as_float(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23));
    const Float high = as_float(_mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(whole, half), bias), 23));
    return mul(mul(a, low), high);
  }

  LUTC_INLINE Mask lt(Float a, Float b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
  LUTC_INLINE Mask eq(Float a, Float b) { return _mm256_cmp_ps(a, b, _CMP_EQ_OQ); }
  LUTC_INLINE Mask is_nan(Float a) { return _mm256_cmp_ps(a, a, _CMP_UNORD_Q); }
  LUTC_INLINE Mask either(Mask a, Mask b) { return _mm256_or_ps(a, b); }
  LUTC_INLINE bool any(Mask a) { return _mm256_movemask_ps(a) != 0; }
  LUTC_INLINE Mask none() { return zero(); }
  LUTC_INLINE Float select(Mask m, Float yes, Float no) { return _mm256_blendv_ps(no, yes, m); }

  LUTC_INLINE Int as_int(Float a) { return _mm256_castps_si256(a); }
  LUTC_INLINE Float as_float(Int a) { return _mm256_castsi256_ps(a); }
  LUTC_INLINE Int set1_int(int32_t x) { return _mm256_set1_epi32(x); }
  LUTC_INLINE Int add_int(Int a, Int b) { return _mm256_add_epi32(a, b); }
  LUTC_INLINE Int and_int(Int a, Int b) { return _mm256_and_si256(a, b); }
  template <int kBits>
  LUTC_INLINE Int shift_right(Int a) {
    return _mm256_srai_epi32(a, kBits);
  }
  LUTC_INLINE Float to_float(Int a) { return _mm256_cvtepi32_ps(a); }

  /// Rows to columns.
  LUTC_INLINE void transpose(Float (&r)[8]) {
    Float t[8];
    for (int i = 0; i < 8; i += 2) {
      t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
      t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
      r[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
      r[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
      r[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
      r[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
    for (int c = 0; c < 4; ++c) {
      const Float low = _mm256_permute2f128_ps(r[c], r[4 + c], 0x20);
      r[4 + c] = _mm256_permute2f128_ps(r[c], r[4 + c], 0x31);
      r[c] = low;
    }
  }
  /// v moved up by a lane, the last of `before` in front.
  LUTC_INLINE Float shift_in_low(Float before, Float v) {
    const Int middle = as_int(_mm256_permute2f128_ps(before, v, 0x21));
    return as_float(_mm256_alignr_epi8(as_int(v), middle, 12));
  }
  /// v moved down by a lane, the first of `after` behind.
  LUTC_INLINE Float shift_in_high(Float v, Float after) {
    const Int middle = as_int(_mm256_permute2f128_ps(v, after, 0x21));
    return as_float(_mm256_alignr_epi8(middle, as_int(v), 4));
  }
  /// a, b (16 values in order) to those at even and at odd places.
  LUTC_INLINE void deinterleave(Float a, Float b, Float* even, Float* odd) {
    const Float low = _mm256_permute2f128_ps(a, b, 0x20), high = _mm256_permute2f128_ps(a, b, 0x31);
    *even = _mm256_shuffle_ps(low, high, 0x88);
    *odd = _mm256_shuffle_ps(low, high, 0xdd);
  }
  /// Three vectors (24 values in order) to the values at places 0, 3, 6 ..., 1, 4, 7 ... and 2, 5, 8 ...
  LUTC_INLINE void deinterleave3(Float (&v)[3]) {
    // No two values of a part have the same lane, since 3 does not divide 8.
    const Int order = _mm256_setr_epi32(0, 3, 6, 1, 4, 7, 2, 5);  // three bits count
    const Float a = v[0], b = v[1], c = v[2];
    v[0] = _mm256_permutevar8x32_ps(pick(a, b, c), order);
    v[1] = _mm256_permutevar8x32_ps(pick(c, a, b), add_int(order, set1_int(1)));
    v[2] = _mm256_permutevar8x32_ps(pick(b, c, a), add_int(order, set1_int(2)));
  }
  /// The inverse of deinterleave.
  LUTC_INLINE void interleave(Float even, Float odd, Float* a, Float* b) {
    const Float low = _mm256_unpacklo_ps(even, odd), high = _mm256_unpackhi_ps(even, odd);
    *a = _mm256_permute2f128_ps(low, high, 0x20);
    *b = _mm256_permute2f128_ps(low, high, 0x31);
  }

  LUTC_INLINE float sum(Float a) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
  }
  LUTC_INLINE float greatest(Float a) {
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
  }

 private:
  /// Lanes 0, 3, 6 of a, 1, 4, 7 of b, 2, 5 of c.
  LUTC_INLINE Float pick(Float a, Float b, Float c) { return _mm256_blend_ps(_mm256_blend_ps(a, b, 0x92), c, 0x24); }
};

}  // namespace
}  // namespace lutc::kernels
