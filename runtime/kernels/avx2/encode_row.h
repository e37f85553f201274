// The encode of one row: the sixteen entries of a codebook in two vectors, eight codebooks reduced at a time. A panel
// of one row would score 31 rows that nobody reads.
#pragma once

#include "kernels/avx2/encode_codebook.h"
#include "kernels/avx2/lookup_avx2.h"

namespace lutc::kernels {
namespace {

/// Eight vectors to the greatest lane of each, in order.
LUTC_INLINE __m256i greatest_of_each(__m256i (&v)[8]) {
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i)
    v[i] =
        _mm256_max_epi32(_mm256_unpacklo_epi32(v[2 * i], v[2 * i + 1]), _mm256_unpackhi_epi32(v[2 * i], v[2 * i + 1]));
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i)
    v[i] =
        _mm256_max_epi32(_mm256_unpacklo_epi64(v[2 * i], v[2 * i + 1]), _mm256_unpackhi_epi64(v[2 * i], v[2 * i + 1]));
  return _mm256_max_epi32(_mm256_permute2x128_si256(v[0], v[1], 0x20), _mm256_permute2x128_si256(v[0], v[1], 0x31));
}

/// Two features as a pair of int16 in every lane.
LUTC_INLINE __m256i pair_of(int8_t a, int8_t b) {
  return _mm256_set1_epi32(static_cast<int32_t>(static_cast<uint16_t>(a) | static_cast<uint32_t>(b) << 16));
}

/// Scores times 16 of the entries of a codebook, eight a vector.
LUTC_INLINE void score_entries(const int8_t* q, const int32_t* source, const uint8_t* directions, int slots,
                               __m256i (&score)[2]) {
  for (int s = 0; s < slots; ++s, source += 4, directions += 128) {
    const __m256i even = pair_of(q[source[0]], q[source[2]]), odd = pair_of(q[source[1]], q[source[3]]);
#pragma GCC unroll 2
    for (int h = 0; h < 2; ++h) {
      const __m256i sum = _mm256_add_epi32(_mm256_madd_epi16(even, load(directions + 32 * h)),
                                           _mm256_madd_epi16(odd, load(directions + 64 + 32 * h)));
      score[h] = _mm256_add_epi32(score[h], sum);
    }
  }
}

/// Codes of quantised row q (16 entries) at row `row`, below 8, of a panel of zeros.
template <bool kGain>
void score_row(const EncodeView& e, const int8_t* q, int64_t row, uint8_t* units) {
  uint8_t* out = units + row;
  const uint8_t* directions = e.directions;
  const int32_t* source = e.source;
  const __m256 limit = _mm256_set1_ps(static_cast<float>(e.gain_limit));
  const __m256i one = _mm256_set1_epi32(1), zero = _mm256_setzero_si256();
  for (int64_t c0 = 0; c0 < e.codebooks; c0 += 8) {
    const int64_t count = e.codebooks - c0 < 8 ? e.codebooks - c0 : 8;
    __m256i key[8];
    for (int64_t j = 0; j < count; ++j) {
      const int slots = e.slot_count[c0 + j];
      const __m256i rank[2] = {load(e.start + 16 * (c0 + j)), load(e.start + 16 * (c0 + j) + 8)};
      __m256i score[2] = {zero, zero};
      score_entries(q, source, directions, slots, score);
      source += 4 * slots;
      directions += 128 * slots;
#pragma GCC unroll 2
      for (int h = 0; h < 2; ++h) {
        if constexpr (kGain) {  // magnitude, entry, sign
          const __m256i magnitude = _mm256_add_epi32(_mm256_abs_epi32(score[h]), rank[h]);
          score[h] = _mm256_or_si256(_mm256_slli_epi32(magnitude, 1), _mm256_srli_epi32(score[h], 31));
        } else {
          score[h] = _mm256_add_epi32(score[h], rank[h]);
        }
      }
      key[j] = _mm256_max_epi32(score[0], score[1]);
    }
    for (int64_t j = count; j < 8; ++j) key[j] = zero;
    const __m256i best = greatest_of_each(key);
    alignas(32) int32_t codes[8], gains[8];
    _mm256_store_si256(reinterpret_cast<__m256i*>(codes), code_of(kGain ? _mm256_srli_epi32(best, 1) : best));
    if constexpr (kGain) {
      const __m256i negative = _mm256_sub_epi32(zero, _mm256_and_si256(best, one));
      const __m256i score = _mm256_sub_epi32(_mm256_xor_si256(_mm256_srli_epi32(best, 5), negative), negative);
      alignas(32) float mul[8] = {};
      std::memcpy(mul, e.gain_mul + c0, static_cast<size_t>(count) * sizeof(float));
      __m256 gain = _mm256_mul_ps(_mm256_cvtepi32_ps(score), _mm256_load_ps(mul));
      gain = _mm256_min_ps(_mm256_max_ps(gain, _mm256_sub_ps(_mm256_setzero_ps(), limit)), limit);
      _mm256_store_si256(reinterpret_cast<__m256i*>(gains), _mm256_cvtps_epi32(gain));
    }
    for (int64_t j = 0; j < count; ++j) {
      out[32 * (j & 1)] = static_cast<uint8_t>(codes[j]);
      if constexpr (kGain) out[64 + row + (j & 1)] = static_cast<uint8_t>(gains[j]);
      if ((j & 1) == 1) out += kGain ? 128 : 64;
    }
  }
}

}  // namespace
}  // namespace lutc::kernels
