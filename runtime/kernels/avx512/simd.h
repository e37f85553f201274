// Sixteen-lane float vectors (AVX-512 F+DQ), for the shared algorithms in ../vector_impl.h and ../dense_impl.h.
#pragma once

// gcc 12 takes the "undefined" pass-through operands of its own intrinsics for uninitialised variables (gcc bug
// 105593).
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include <immintrin.h>

#include <cstdint>

#define LUTC_INLINE static inline __attribute__((always_inline))

namespace lutc::kernels {
namespace {

struct Simd {
  static constexpr int kWidth = 16;
  static constexpr int kRegisters = 32;
  using Float = __m512;
  using Int = __m512i;
  using Mask = __mmask16;

  LUTC_INLINE Mask first(int64_t n) { return static_cast<Mask>((1u << n) - 1u); }
  LUTC_INLINE Float zero() { return _mm512_setzero_ps(); }
  LUTC_INLINE Float set1(float x) { return _mm512_set1_ps(x); }
  LUTC_INLINE Float load(const float* p) { return _mm512_loadu_ps(p); }
  LUTC_INLINE Float load_n(const float* p, int64_t n, float fill = 0.0f) {
    return _mm512_mask_loadu_ps(set1(fill), first(n), p);
  }
  /// Lanes [low, high) of p[0 .. 16), zero elsewhere; touches no other memory. Bounds outside [0, 16] count as those.
  LUTC_INLINE Float load_range(const float* p, int64_t low, int64_t high) { return load_where(p, range(low, high)); }
  /// Lanes [low, high), clamped to those there are.
  LUTC_INLINE Mask range(int64_t low, int64_t high) {
    low = low < 0 ? 0 : low;
    high = high > 16 ? 16 : high;
    return high > low ? static_cast<Mask>(first(high) & ~first(low)) : Mask{0};
  }
  LUTC_INLINE Float load_where(const float* p, Mask m) { return _mm512_maskz_loadu_ps(m, p); }
  LUTC_INLINE void store(float* p, Float v) { _mm512_storeu_ps(p, v); }
  LUTC_INLINE void store_n(float* p, Float v, int64_t n) { _mm512_mask_storeu_ps(p, first(n), v); }

  LUTC_INLINE Float add(Float a, Float b) { return _mm512_add_ps(a, b); }
  LUTC_INLINE Float sub(Float a, Float b) { return _mm512_sub_ps(a, b); }
  LUTC_INLINE Float mul(Float a, Float b) { return _mm512_mul_ps(a, b); }
  LUTC_INLINE Float div(Float a, Float b) { return _mm512_div_ps(a, b); }
  LUTC_INLINE Float fma(Float a, Float b, Float c) { return _mm512_fmadd_ps(a, b, c); }
  LUTC_INLINE Float fnma(Float a, Float b, Float c) { return _mm512_fnmadd_ps(a, b, c); }
  // min and max return their second argument when either is NaN.
  LUTC_INLINE Float min(Float a, Float b) { return _mm512_min_ps(a, b); }
  LUTC_INLINE Float max(Float a, Float b) { return _mm512_max_ps(a, b); }
  LUTC_INLINE Float sqrt(Float a) { return _mm512_sqrt_ps(a); }
  LUTC_INLINE Float abs(Float a) { return _mm512_abs_ps(a); }
  LUTC_INLINE Float neg(Float a) { return _mm512_xor_ps(a, set1(-0.0f)); }
  LUTC_INLINE Float copysign(Float magnitude, Float sign) {
    const Int bit = _mm512_set1_epi32(static_cast<int>(0x80000000u));
    return as_float(_mm512_ternarylogic_epi32(bit, as_int(sign), as_int(magnitude), 0xca));
  }
  LUTC_INLINE Float round(Float a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  /// a * 2^n for integral n in [-252, 254].
  LUTC_INLINE Float ldexp(Float a, Float n) { return _mm512_scalef_ps(a, n); }

  LUTC_INLINE Mask lt(Float a, Float b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
  LUTC_INLINE Mask eq(Float a, Float b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
  LUTC_INLINE Mask is_nan(Float a) { return _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q); }
  LUTC_INLINE Mask either(Mask a, Mask b) { return static_cast<Mask>(a | b); }
  LUTC_INLINE bool any(Mask a) { return a != 0; }
  LUTC_INLINE Mask none() { return 0; }
  LUTC_INLINE Float select(Mask m, Float yes, Float no) { return _mm512_mask_blend_ps(m, no, yes); }

  LUTC_INLINE Int as_int(Float a) { return _mm512_castps_si512(a); }
  LUTC_INLINE Float as_float(Int a) { return _mm512_castsi512_ps(a); }
  LUTC_INLINE Int set1_int(int32_t x) { return _mm512_set1_epi32(x); }
  LUTC_INLINE Int add_int(Int a, Int b) { return _mm512_add_epi32(a, b); }
  LUTC_INLINE Int and_int(Int a, Int b) { return _mm512_and_si512(a, b); }
  template <int kBits>
  LUTC_INLINE Int shift_right(Int a) {
    return _mm512_srai_epi32(a, kBits);
  }
  LUTC_INLINE Float to_float(Int a) { return _mm512_cvtepi32_ps(a); }

  /// Rows to columns.
  LUTC_INLINE void transpose(Float (&r)[16]) {
    Float t[16];
    for (int i = 0; i < 16; i += 2) {
      t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
      t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
      r[i] = unpack_low(t[i], t[i + 2]);
      r[i + 1] = unpack_high(t[i], t[i + 2]);
      r[i + 2] = unpack_low(t[i + 1], t[i + 3]);
      r[i + 3] = unpack_high(t[i + 1], t[i + 3]);
    }
    // Lane l of r[4 g + c] holds column 4 l + c of rows 4 g .. 4 g + 3.
    for (int c = 0; c < 4; ++c) {
      const Float even_a = _mm512_shuffle_f32x4(r[c], r[4 + c], 0x88),
                  odd_a = _mm512_shuffle_f32x4(r[c], r[4 + c], 0xdd);
      const Float even_b = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0x88),
                  odd_b = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0xdd);
      t[c] = _mm512_shuffle_f32x4(even_a, even_b, 0x88);
      t[4 + c] = _mm512_shuffle_f32x4(odd_a, odd_b, 0x88);
      t[8 + c] = _mm512_shuffle_f32x4(even_a, even_b, 0xdd);
      t[12 + c] = _mm512_shuffle_f32x4(odd_a, odd_b, 0xdd);
    }
    for (int i = 0; i < 16; ++i) r[i] = t[i];
  }
  /// v moved up by a lane, the last of `before` in front.
  LUTC_INLINE Float shift_in_low(Float before, Float v) {
    return as_float(_mm512_alignr_epi32(as_int(v), as_int(before), 15));
  }
  /// v moved down by a lane, the first of `after` behind.
  LUTC_INLINE Float shift_in_high(Float v, Float after) {
    return as_float(_mm512_alignr_epi32(as_int(after), as_int(v), 1));
  }
  /// a, b (32 values in order) to those at even and at odd places.
  LUTC_INLINE void deinterleave(Float a, Float b, Float* even, Float* odd) {
    const Int e = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    *even = _mm512_permutex2var_ps(a, e, b);
    *odd = _mm512_permutex2var_ps(a, _mm512_or_si512(e, set1_int(1)), b);
  }
  /// Three vectors (48 values in order) to the values at places 0, 3, 6 ..., 1, 4, 7 ... and 2, 5, 8 ...
  LUTC_INLINE void deinterleave3(Float (&v)[3]) {
    // No two values of a part have the same lane, since 3 does not divide 16.
    const Int order = _mm512_setr_epi32(0, 3, 6, 9, 12, 15, 2, 5, 8, 11, 14, 1, 4, 7, 10, 13);  // four bits count
    const Float a = v[0], b = v[1], c = v[2];
    v[0] = _mm512_permutexvar_ps(order, pick(a, b, c));
    v[1] = _mm512_permutexvar_ps(add_int(order, set1_int(1)), pick(b, c, a));
    v[2] = _mm512_permutexvar_ps(add_int(order, set1_int(2)), pick(c, a, b));
  }
  /// The inverse of deinterleave.
  LUTC_INLINE void interleave(Float even, Float odd, Float* a, Float* b) {
    const Int low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    *a = _mm512_permutex2var_ps(even, low, odd);
    *b = _mm512_permutex2var_ps(even, add_int(low, set1_int(8)), odd);
  }

  LUTC_INLINE float sum(Float a) { return _mm512_reduce_add_ps(a); }
  LUTC_INLINE float greatest(Float a) { return _mm512_reduce_max_ps(a); }

 private:
  /// Lanes 0, 3, 6 ... of a, 2, 5, 8 ... of b, 1, 4, 7 ... of c.
  LUTC_INLINE Float pick(Float a, Float b, Float c) {
    return _mm512_mask_blend_ps(0x2492, _mm512_mask_blend_ps(0x4924, a, b), c);
  }
  LUTC_INLINE Float unpack_low(Float a, Float b) {
    return _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
  }
  LUTC_INLINE Float unpack_high(Float a, Float b) {
    return _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
  }
};

}  // namespace
}  // namespace lutc::kernels
