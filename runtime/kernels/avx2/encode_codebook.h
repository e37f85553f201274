// One codebook of the AVX2 encode: the best of its entries for 32 rows, and the gain of that entry.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#define LUTC_INLINE __attribute__((always_inline)) inline

namespace lutc::kernels {
namespace {

constexpr int kVectors = 4;  ///< of 8 rows

LUTC_INLINE __m256i load(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }

/// Int16 pairs (0, 2) and (1, 3) of the bytes of a lane.
LUTC_INLINE __m256i even_pair(__m256i bytes) { return _mm256_srai_epi16(_mm256_slli_epi16(bytes, 8), 8); }
LUTC_INLINE __m256i odd_pair(__m256i bytes) { return _mm256_srai_epi16(bytes, 8); }

LUTC_INLINE __m256i broadcast(const void* p) {
  int32_t v;
  std::memcpy(&v, p, 4);
  return _mm256_set1_epi32(v);
}

/// Lane i: int32 code[i] of a table of 16.
LUTC_INLINE __m256i chosen(const void* table, __m256i code) {
  const uint8_t* p = static_cast<const uint8_t*>(table);
  const __m256 low = _mm256_castsi256_ps(_mm256_permutevar8x32_epi32(load(p), code));
  const __m256 high = _mm256_castsi256_ps(_mm256_permutevar8x32_epi32(load(p + 32), code));
  const __m256i upper = _mm256_slli_epi32(code, 28);  // bit 3 of the code to the sign bit
  return _mm256_castps_si256(_mm256_blendv_ps(low, high, _mm256_castsi256_ps(upper)));
}

/// The entry that won is the complement of the last four bits.
LUTC_INLINE __m256i code_of(__m256i best) { return _mm256_andnot_si256(best, _mm256_set1_epi32(15)); }

LUTC_INLINE __m256i gain_of(__m256i score, float mul, float limit) {
  const __m256 value = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_srai_epi32(score, 4)), _mm256_set1_ps(mul));
  return _mm256_cvtps_epi32(_mm256_min_ps(_mm256_max_ps(value, _mm256_set1_ps(-limit)), _mm256_set1_ps(limit)));
}

/// int16 features 0 and 1 from pairs (0, 2) and (1, 3).
LUTC_INLINE __m256i first_two(__m256i even, __m256i odd) {
  return _mm256_blend_epi16(even, _mm256_slli_epi32(odd, 16), 0xaa);
}

/// No direction of a slot has features 2 and 3.
LUTC_INLINE bool is_pair(const uint8_t* directions) {
  const __m256i some = _mm256_or_si256(_mm256_or_si256(load(directions), load(directions + 32)),
                                       _mm256_or_si256(load(directions + 64), load(directions + 96)));
  return _mm256_testz_si256(some, _mm256_set1_epi32(static_cast<int>(0xffff0000))) != 0;
}

/// One codebook of at most two features, plain form, and 32 rows: one product an entry.
LUTC_INLINE void encode_pair(int entries, const __m256i* slots, const uint8_t* directions, const int32_t* start,
                             __m256i* code) {
  alignas(32) uint8_t pairs[64];
  for (int i = 0; i < 64; i += 32)
    _mm256_store_si256(reinterpret_cast<__m256i*>(pairs + i),
                       first_two(load(directions + i), load(directions + 64 + i)));
  __m256i q[kVectors], best[kVectors];
#pragma GCC unroll 4
  for (int g = 0; g < kVectors; ++g) {
    const __m256i bytes = _mm256_load_si256(slots + g);
    q[g] = first_two(even_pair(bytes), odd_pair(bytes));
    best[g] = _mm256_set1_epi32(INT32_MIN);
  }
  for (int k = 0; k < entries; ++k) {
    const __m256i rank = broadcast(start + k), direction = broadcast(pairs + 4 * k);
#pragma GCC unroll 4
    for (int g = 0; g < kVectors; ++g)
      best[g] = _mm256_max_epi32(best[g], _mm256_add_epi32(_mm256_madd_epi16(q[g], direction), rank));
  }
#pragma GCC unroll 4
  for (int g = 0; g < kVectors; ++g) code[g] = code_of(best[g]);
}

/// One codebook of kG vectors of rows: codes, and in the gain form gains, as int32 lanes.
template <int kSlots, bool kGain, int kG>
LUTC_INLINE void encode_codebook(int entries, const __m256i* slots, const uint8_t* directions, const int32_t* start,
                                 float mul, float limit, __m256i* code, __m256i* gain) {
  __m256i even[kG][kSlots], odd[kG][kSlots], best[kG];
#pragma GCC unroll 4
  for (int g = 0; g < kG; ++g) {
#pragma GCC unroll 8
    for (int s = 0; s < kSlots; ++s) {
      const __m256i q = _mm256_load_si256(slots + s * kVectors + g);
      even[g][s] = even_pair(q);
      odd[g][s] = odd_pair(q);
    }
    best[g] = _mm256_set1_epi32(INT32_MIN);
  }
  for (int k = 0; k < entries; ++k) {
    const __m256i rank = broadcast(start + k);
    __m256i score[kG];
#pragma GCC unroll 8
    for (int s = 0; s < kSlots; ++s) {
      const __m256i e = broadcast(directions + 128 * s + 4 * k), o = broadcast(directions + 128 * s + 64 + 4 * k);
#pragma GCC unroll 4
      for (int g = 0; g < kG; ++g) {
        const __m256i sum = _mm256_add_epi32(_mm256_madd_epi16(even[g][s], e), _mm256_madd_epi16(odd[g][s], o));
        score[g] = s == 0 ? sum : _mm256_add_epi32(score[g], sum);
      }
    }
#pragma GCC unroll 4
    for (int g = 0; g < kG; ++g) {
      if constexpr (kGain) score[g] = _mm256_abs_epi32(score[g]);
      best[g] = _mm256_max_epi32(best[g], _mm256_add_epi32(score[g], rank));
    }
  }
#pragma GCC unroll 4
  for (int g = 0; g < kG; ++g) {
    code[g] = code_of(best[g]);
    if constexpr (kGain) {
      // The winner's score once more, with its sign.
      __m256i score = _mm256_setzero_si256();
#pragma GCC unroll 8
      for (int s = 0; s < kSlots; ++s) {
        const uint8_t* slot = directions + 128 * s;
        score = _mm256_add_epi32(score, _mm256_madd_epi16(even[g][s], chosen(slot, code[g])));
        score = _mm256_add_epi32(score, _mm256_madd_epi16(odd[g][s], chosen(slot + 64, code[g])));
      }
      gain[g] = gain_of(score, mul, limit);
    }
  }
}

/// One codebook of several slots and 32 rows. A function of its own, so that its registers are allocated for it.
template <bool kGain>
__attribute__((noinline)) void encode_long(int used, int entries, const __m256i* slots, const uint8_t* directions,
                                           const int32_t* start, float mul, float limit, __m256i* code, __m256i* gain) {
  for (int g = 0; g < kVectors; g += 2) {
    switch (used) {
      case 2:
        encode_codebook<2, kGain, 2>(entries, slots + g, directions, start, mul, limit, code + g, gain + g);
        break;
      case 3:
        encode_codebook<3, kGain, 2>(entries, slots + g, directions, start, mul, limit, code + g, gain + g);
        break;
      case 4:
        encode_codebook<4, kGain, 2>(entries, slots + g, directions, start, mul, limit, code + g, gain + g);
        break;
      default:
        encode_codebook<8, kGain, 2>(entries, slots + g, directions, start, mul, limit, code + g, gain + g);
        break;
    }
  }
}

}  // namespace
}  // namespace lutc::kernels
