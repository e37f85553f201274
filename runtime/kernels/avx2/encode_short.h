// One codebook of at most four features, gain form: the best of its entries for 32 rows, and the gain of that entry.
//
// Scores need no more than 16 bits. vpmaddubsw multiplies the magnitudes of a direction by the features' integers, to
// whose signs it gives those of the direction: there are few of them, and a direction may as well be its negative. So
// the rows' integers are stored once with every choice of signs, and an entry reads the one it needs. Sums of two
// products lie in -32512 .. 32512; the magnitude of a sum of two such sums fits an unsigned 16-bit number, and its sign
// is that of the saturated sum.
#pragma once

#include <immintrin.h>

#include "kernels/avx2/encode_codebook.h"

namespace lutc::kernels {
namespace {

/// Entries of a codebook as ShortRows are searched by them; first pair: features 0 and 1, second pair: 2 and 3.
struct alignas(32) ShortEntries {
  uint8_t first[16][4];     ///< magnitudes of the first pair, twice
  uint8_t second[16][4];    ///< of the second pair
  int32_t first_signs[16];  ///< bytes from a ShortRows to the integers it is multiplied by
  int32_t second_signs[16];
  int8_t features[4][32];  ///< [feature][entry], twice
  int pairs;               ///< that are not zero
};

/// Pairs of integers of 32 rows, 16 a vector, in the order in which packing takes them.
struct alignas(32) ShortRows {
  int8_t first[2][64];   ///< signs: as they are; second one flipped
  int8_t second[4][64];  ///< as they are; first, second one, both flipped
};

/// Dwords with lane's low word twice, and its high word twice.
LUTC_INLINE __m256i low_words(__m256i v) {
  return _mm256_or_si256(_mm256_and_si256(v, _mm256_set1_epi32(0xffff)), _mm256_slli_epi32(v, 16));
}
LUTC_INLINE __m256i high_words(__m256i v) {
  return _mm256_or_si256(_mm256_andnot_si256(_mm256_set1_epi32(0xffff), v), _mm256_srli_epi32(v, 16));
}

LUTC_INLINE void store(void* p, __m256i v) { _mm256_store_si256(static_cast<__m256i*>(p), v); }

/// directions: of one slot, as the plan of an encode lays them out.
LUTC_INLINE void prepare_entries(const uint8_t* directions, ShortEntries& e) {
  e.pairs = is_pair(directions) ? 1 : 2;
  __m256i bytes[2];
#pragma GCC unroll 2
  for (int h = 0; h < 2; ++h) {
    const __m256i even = load(directions + 32 * h), odd = load(directions + 64 + 32 * h);
    const __m256i magnitudes =
        _mm256_or_si256(_mm256_srli_epi16(_mm256_abs_epi16(even), 4), _mm256_slli_epi16(_mm256_abs_epi16(odd), 4));
    store(e.first[8 * h], low_words(magnitudes));
    store(e.second[8 * h], high_words(magnitudes));
    // Where signs differ from that of feature 0: bits 15 (feature 1) and 31 (3) of odd, 31 (2) of even.
    const __m256i negative = _mm256_srai_epi32(_mm256_slli_epi32(even, 16), 31);
    const __m256i flips = _mm256_xor_si256(even, negative), odd_flips = _mm256_xor_si256(odd, negative);
    store(e.first_signs + 8 * h, _mm256_and_si256(_mm256_srli_epi32(odd_flips, 9), _mm256_set1_epi32(64)));
    const __m256i second = _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi32(flips, 25), _mm256_set1_epi32(64)),
                                           _mm256_and_si256(_mm256_srli_epi32(odd_flips, 24), _mm256_set1_epi32(128)));
    store(e.second_signs + 8 * h, _mm256_add_epi32(second, _mm256_set1_epi32(128)));
    // Bytes of a feature of four entries together.
    const __m256i entries = _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(even, 4), _mm256_set1_epi16(255)),
                                            _mm256_slli_epi16(odd, 4));
    bytes[h] = _mm256_shuffle_epi8(entries, _mm256_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15, 0, 4,
                                                             8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
  }
  const __m256i low = _mm256_unpacklo_epi32(bytes[0], bytes[1]), high = _mm256_unpackhi_epi32(bytes[0], bytes[1]);
  const __m256i even = _mm256_setr_epi32(0, 4, 1, 5, 0, 4, 1, 5), odd = _mm256_setr_epi32(2, 6, 3, 7, 2, 6, 3, 7);
  store(e.features[0], _mm256_permutevar8x32_epi32(low, even));
  store(e.features[1], _mm256_permutevar8x32_epi32(low, odd));
  store(e.features[2], _mm256_permutevar8x32_epi32(high, even));
  store(e.features[3], _mm256_permutevar8x32_epi32(high, odd));
}

/// kPairs: 1 or 2 pairs of features.
template <int kPairs>
LUTC_INLINE void prepare_rows(const __m256i* slots, ShortRows& rows) {
  const __m256i pairs = _mm256_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15, 0, 1, 4, 5, 8, 9, 12, 13,
                                         2, 3, 6, 7, 10, 11, 14, 15);
  const __m256i flip_first = _mm256_set1_epi16(0x01ff), flip_second = _mm256_set1_epi16(static_cast<int16_t>(0xff01));
#pragma GCC unroll 2
  for (int h = 0; h < 2; ++h) {
    const __m256i a = _mm256_shuffle_epi8(_mm256_load_si256(slots + 2 * h), pairs),
                  b = _mm256_shuffle_epi8(_mm256_load_si256(slots + 2 * h + 1), pairs);
    const __m256i first = _mm256_unpacklo_epi64(a, b);
    store(rows.first[0] + 32 * h, first);
    store(rows.first[1] + 32 * h, _mm256_sign_epi8(first, flip_second));
    if constexpr (kPairs == 2) {
      const __m256i second = _mm256_unpackhi_epi64(a, b), flipped = _mm256_sign_epi8(second, flip_first);
      store(rows.second[0] + 32 * h, second);
      store(rows.second[1] + 32 * h, flipped);
      store(rows.second[2] + 32 * h, _mm256_sign_epi8(second, flip_second));
      store(rows.second[3] + 32 * h, _mm256_sign_epi8(flipped, flip_second));
    }
  }
}

/// Magnitudes of the scores of entry k, vector h of rows.
template <int kPairs>
LUTC_INLINE __m256i magnitude(const ShortEntries& e, const ShortRows& rows, int k, int h) {
  const int8_t* base = rows.first[0] + 32 * h;
  const __m256i sum = _mm256_maddubs_epi16(
      broadcast(e.first[k]), _mm256_load_si256(reinterpret_cast<const __m256i*>(base + e.first_signs[k])));
  if constexpr (kPairs == 1) return _mm256_abs_epi16(sum);
  const __m256i more = _mm256_maddubs_epi16(
      broadcast(e.second[k]), _mm256_load_si256(reinterpret_cast<const __m256i*>(base + e.second_signs[k])));
  return _mm256_sign_epi16(_mm256_add_epi16(sum, more), _mm256_adds_epi16(sum, more));
}

/// Products of pairs of signed bytes, added.
LUTC_INLINE __m256i signed_product(__m256i a, __m256i b) {
  return _mm256_maddubs_epi16(_mm256_abs_epi8(a), _mm256_sign_epi8(b, a));
}

/// Codes of 32 rows, bytes in the order of packing.
template <int kPairs>
LUTC_INLINE __m256i search(int entries, const ShortEntries& e, const ShortRows& rows) {
  __m256i best[2], code[2], number = _mm256_setzero_si256();
#pragma GCC unroll 2
  for (int h = 0; h < 2; ++h) best[h] = code[h] = number;
#pragma GCC unroll 2
  for (int k = 0; k < entries; ++k) {
#pragma GCC unroll 2
    for (int h = 0; h < 2; ++h) {
      const __m256i most = _mm256_max_epu16(best[h], magnitude<kPairs>(e, rows, k, h));
      code[h] = _mm256_blendv_epi8(number, code[h], _mm256_cmpeq_epi16(best[h], most));
      best[h] = most;
    }
    number = _mm256_add_epi16(number, _mm256_set1_epi16(1));
  }
  return _mm256_packus_epi16(code[0], code[1]);
}

/// Gains of 32 rows: the winners' scores once more, with their signs.
template <int kPairs>
LUTC_INLINE __m256i gains(const ShortEntries& e, const ShortRows& rows, __m256i codes, float mul, int limit) {
  __m256i direction[2 * kPairs], gain[4];
#pragma GCC unroll 4
  for (int f = 0; f < 2 * kPairs; ++f) direction[f] = _mm256_shuffle_epi8(load(e.features[f]), codes);
#pragma GCC unroll 2
  for (int h = 0; h < 2; ++h) {
    const auto pairs = [&](int f) {
      return h == 0 ? _mm256_unpacklo_epi8(direction[f], direction[f + 1])
                    : _mm256_unpackhi_epi8(direction[f], direction[f + 1]);
    };
    const __m256i first = signed_product(pairs(0), load(rows.first[0] + 32 * h));
    __m256i second = _mm256_setzero_si256();
    if constexpr (kPairs == 2) second = signed_product(pairs(2), load(rows.second[0] + 32 * h));
    const __m256i sums[2] = {_mm256_unpacklo_epi16(first, second), _mm256_unpackhi_epi16(first, second)};
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      const __m256 score = _mm256_cvtepi32_ps(_mm256_madd_epi16(sums[i], _mm256_set1_epi16(1)));
      const __m256 gain_value = _mm256_mul_ps(score, _mm256_set1_ps(mul));
      gain[2 * h + i] = _mm256_cvtps_epi32(_mm256_min_ps(gain_value, _mm256_set1_ps(static_cast<float>(limit))));
    }
  }
  // Far below the limit conversion gives the least integer, and packing saturates.
  const __m256i packed = _mm256_packs_epi16(_mm256_packs_epi32(gain[0], gain[1]), _mm256_packs_epi32(gain[2], gain[3]));
  return _mm256_max_epi8(packed, _mm256_set1_epi8(static_cast<char>(-limit)));
}

}  // namespace
}  // namespace lutc::kernels
