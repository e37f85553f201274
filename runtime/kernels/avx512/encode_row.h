// The encode of one row: the sixteen entries of a codebook in the lanes, sixteen codebooks reduced at a time. A panel
// of one row would score fifteen rows that nobody reads.
#pragma once

#include "kernels/avx512/encode_slots.h"

namespace lutc::kernels {
namespace {

/// Sixteen vectors to the greatest lane of each, in order.
LUTC_INLINE __m512i greatest_of_each(__m512i (&v)[16]) {
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i)
    v[i] =
        _mm512_max_epi32(_mm512_unpacklo_epi32(v[2 * i], v[2 * i + 1]), _mm512_unpackhi_epi32(v[2 * i], v[2 * i + 1]));
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i)
    v[i] =
        _mm512_max_epi32(_mm512_unpacklo_epi64(v[2 * i], v[2 * i + 1]), _mm512_unpackhi_epi64(v[2 * i], v[2 * i + 1]));
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i)
    v[i] = _mm512_max_epi32(_mm512_shuffle_i32x4(v[2 * i], v[2 * i + 1], 0x44),
                            _mm512_shuffle_i32x4(v[2 * i], v[2 * i + 1], 0xee));
  return _mm512_max_epi32(_mm512_shuffle_i32x4(v[0], v[1], 0x88), _mm512_shuffle_i32x4(v[0], v[1], 0xdd));
}

/// Codes of quantised row q at row `row` of a panel. Lanes hold entry 15 - lane, so that of equal scores the lowest
/// entry's key is greatest.
template <bool kGain>
void score_row(const EncodeView& e, const int8_t* q, int64_t row, uint8_t* panel) {
  const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i flip = _mm512_set1_epi8(static_cast<char>(0x80)), fifteen = _mm512_set1_epi32(15);
  const __m512i places = _mm512_slli_epi32(_mm512_and_si512(lane, _mm512_set1_epi32(3)), 4);
  const __m512 limit = _mm512_set1_ps(static_cast<float>(e.gain_limit));
  const uint8_t* directions = e.directions;
  const int32_t* source = e.source;
  __m512i sum = _mm512_setzero_si512();
  uint8_t* out = panel + (kGain ? 64 : 0) + 4 * row;
  for (int64_t c0 = 0; c0 < e.codebooks; c0 += 16) {
    const int64_t count = e.codebooks - c0 < 16 ? e.codebooks - c0 : 16;
    __m512i key[16];
    for (int64_t j = 0; j < count; ++j) {
      const int slots = e.slot_count[c0 + j];
      __m512i score = kGain ? _mm512_setzero_si512() : _mm512_loadu_si512(e.start + 16 * (c0 + j));
      __m512i offset = _mm512_setzero_si512();
      for (int s = 0; s < slots; ++s, directions += 64, source += 4) {
        int32_t quad;
        std::memcpy(&quad, q + source[0], 4);  // past the slot's features directions are zero
        const __m512i z = _mm512_set1_epi32(quad), d = _mm512_loadu_si512(directions);
        if constexpr (kGain) {
          score = _mm512_dpbusd_epi32(score, d, z);
          offset = _mm512_dpbusd_epi32(offset, flip, z);
        } else {
          score = _mm512_dpbusd_epi32(score, _mm512_xor_si512(z, flip), d);
        }
      }
      if constexpr (kGain) {  // magnitude, entry, sign
        score = _mm512_sub_epi32(score, offset);
        const __m512i low = _mm512_or_si512(_mm512_add_epi32(lane, lane), _mm512_srli_epi32(score, 31));
        key[j] = _mm512_or_si512(_mm512_slli_epi32(_mm512_abs_epi32(score), 5), low);
      } else {
        key[j] = _mm512_or_si512(_mm512_slli_epi32(score, 4), lane);
      }
    }
    for (int64_t j = count; j < 16; ++j) key[j] = kGain ? _mm512_set1_epi32(30) : fifteen;  // code 0, gain 0
    const __m512i best = greatest_of_each(key);
    const __m512i entry = kGain ? _mm512_srli_epi32(best, 1) : best;
    alignas(16) uint8_t codes[16], gains[16];
    // (~entry & 15) | places
    _mm_store_si128(reinterpret_cast<__m128i*>(codes),
                    _mm512_cvtepi32_epi8(_mm512_ternarylogic_epi32(entry, fifteen, places, 0xae)));
    if constexpr (kGain) {
      const __m512i magnitude = _mm512_srli_epi32(best, 5);
      const __mmask16 negative = _mm512_test_epi32_mask(best, _mm512_set1_epi32(1));
      const __m512i score = _mm512_mask_sub_epi32(magnitude, negative, _mm512_setzero_si512(), magnitude);
      __m512 g = _mm512_mul_ps(_mm512_cvtepi32_ps(score), _mm512_maskz_loadu_ps(lanes(count), e.gain_mul + c0));
      g = _mm512_min_ps(_mm512_max_ps(g, _mm512_sub_ps(_mm512_setzero_ps(), limit)), limit);
      const __m512i gain = _mm512_cvtps_epi32(g);
      sum = _mm512_add_epi32(sum, gain);
      _mm_store_si128(reinterpret_cast<__m128i*>(gains), _mm512_cvtepi32_epi8(gain));
    }
    for (int64_t j = 0; j < count; j += 4, out += kGain ? 128 : 64) {
      std::memcpy(out, codes + j, 4);
      if constexpr (kGain) std::memcpy(out + 64, gains + j, 4);
    }
  }
  if constexpr (kGain) {
    const int32_t start = -128 * _mm512_reduce_add_epi32(sum);
    std::memcpy(panel + 4 * row, &start, 4);
  }
}

}  // namespace
}  // namespace lutc::kernels
