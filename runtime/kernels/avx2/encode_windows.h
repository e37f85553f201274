// Panels of codes in the gain form: the windows of units whose gains' sums fit 16 bits, and what each starts from
// (docs/layouts.md).
#pragma once

#include "kernels/avx2/encode_slots.h"

namespace lutc::kernels {
namespace {

/// Bytes of two codebooks in a panel.
template <bool kGain>
constexpr int64_t kUnitBytes = kGain ? 4 * kRows : 2 * kRows;

int64_t unit_count(const EncodeView& e) { return (e.codebooks + 1) / 2; }
/// Units of the shortest windows.
int64_t least_window(const EncodeView& e) { return window_units_avx2(int64_t{1} * e.gain_limit * e.entry_limit); }
int64_t start_bytes(const EncodeView& e, int64_t window) {
  return e.gain_limit > 0 ? (unit_count(e) + window - 1) / window * 2 * kRows : 0;
}

/// Sum of the magnitudes of both gains of a unit, int16 for 16 rows.
LUTC_INLINE __m256i magnitudes(const uint8_t* gains) {
  return _mm256_maddubs_epi16(_mm256_abs_epi8(load(gains)), _mm256_set1_epi8(1));
}

LUTC_INLINE int64_t largest_word(__m256i v) {
  const __m128i words = _mm_max_epu16(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  return 65535 - _mm_extract_epi16(_mm_minpos_epu16(_mm_xor_si128(words, _mm_set1_epi16(-1))), 0);
}

/// No window of so many units has a larger sum of magnitudes of gains.
bool window_fits(const __m256i* sums, int64_t units, int64_t window, int64_t largest) {
  __m256i most = _mm256_setzero_si256();
  for (int64_t u = 0; u < units;) {
    const int64_t end = lesser(u + window, units);
    __m256i low = sums[2 * u], high = sums[2 * u + 1];
    while (++u < end) {
      low = _mm256_add_epi16(low, sums[2 * u]);
      high = _mm256_add_epi16(high, sums[2 * u + 1]);
    }
    most = _mm256_max_epi16(most, _mm256_max_epi16(low, high));
  }
  return _mm256_movemask_epi8(_mm256_cmpgt_epi16(most, _mm256_set1_epi16(static_cast<int16_t>(largest)))) == 0;
}

/// Units of the longest windows that the gains of a panel of rows allow, nearly. Memory: two vectors a unit.
int64_t longest_window(const EncodeView& e, const uint8_t* gains, __m256i* sums) {
  const int64_t units = unit_count(e), least = least_window(e), largest = kWindowSum / e.entry_limit;
  __m256i totals[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
  for (int64_t u = 0; u < 2 * units; ++u) {
    sums[u] = magnitudes(gains + u / 2 * 4 * kRows + u % 2 * kRows);
    totals[u % 2] = _mm256_adds_epu16(totals[u % 2], sums[u]);
  }
  const int64_t most = largest_word(_mm256_max_epu16(totals[0], totals[1]));
  // Even gains would make full windows of this many units, in the row that has most of them; others make less.
  int64_t window = lesser(lesser(units, least + kMostAddedUnits), most > 0 ? largest * units / most : units);
  while (window > least && !window_fits(sums, units, window, largest)) window -= 1 + window / 16;
  return window > least ? window : least;
}

/// Starts of windows: minus 128 times the sums of their gains.
void write_starts(const uint8_t* gains, int64_t units, int64_t window, uint8_t* starts) {
  const __m256i offset = _mm256_set1_epi8(static_cast<char>(128));
  for (int64_t u = 0; u < units; starts += 2 * kRows) {
    __m256i low = _mm256_setzero_si256(), high = low;
    for (const int64_t end = lesser(u + window, units); u < end; ++u) {
      low = _mm256_sub_epi16(low, _mm256_maddubs_epi16(offset, load(gains + u * 4 * kRows)));
      high = _mm256_sub_epi16(high, _mm256_maddubs_epi16(offset, load(gains + u * 4 * kRows + kRows)));
    }
    write(starts, low);
    write(starts + kRows, high);
  }
}

/// Starts, multiples of 128, become multiples of 256 but for the first: the low bytes of the sums before a window can
/// then take the place of its start's. What is left over goes to the window before.
void even_starts(uint8_t* starts, int64_t windows) {
  const __m256i odd = _mm256_set1_epi16(128);
  for (int64_t i = 0; i < 2; ++i, starts += kRows) {
    __m256i left = _mm256_setzero_si256();
    for (int64_t w = windows - 1; w >= 0; --w) {
      __m256i* p = reinterpret_cast<__m256i*>(starts + w * 2 * kRows);
      const __m256i start = _mm256_add_epi16(_mm256_loadu_si256(p), left);
      left = w > 0 ? _mm256_and_si256(start, odd) : _mm256_setzero_si256();
      _mm256_storeu_si256(p, _mm256_sub_epi16(start, left));
    }
  }
}

/// The windows of a panel. Convolutions gather those of pixels from many panels; a single row may be a pixel. Memory:
/// two vectors a unit.
void make_windows(const EncodeView& e, bool of_rows, uint8_t* panel, __m256i* memory) {
  const int64_t units = unit_count(e), least = least_window(e);
  uint8_t* codes = panel + start_bytes(e, least);
  const uint8_t* gains = codes + 2 * kRows;
  const int64_t window = of_rows ? longest_window(e, gains, memory) : least;
  store_added_units(codes, window - least);
  write_starts(gains, units, window, panel);
  even_starts(panel, (units + window - 1) / window);
}

}  // namespace
}  // namespace lutc::kernels
