// Lookups with AVX2: 32 rows in the byte lanes, vpshufb looks one codebook up.
//
// Gain form: the entries of two codebooks are interleaved, vpmaddubsw multiplies them by two gains and sums. The 16-bit
// sums start at minus 128 times the window's gains, so that the entries' offset is gone at the end of the window and
// only the sum of signed entries must fit: sums may wrap on the way. Plain form: bytes are summed as even and odd
// 16-bit halves.
#include "kernels/avx2/lookup_avx2.h"

#include <immintrin.h>

#include "kernels/avx2/gain_windows.h"
#include "kernels/avx2/plain_groups.h"

namespace lutc::kernels {
namespace {

#define LUTC_INLINE __attribute__((always_inline)) inline

constexpr int kRows = 32;
constexpr int kColumns = 4;
constexpr int kCell = 32;
/// Codebooks whose bytes fit the 16-bit sums of the plain form.
constexpr int64_t kPlainUnits = 128;
/// Fewer do not pay the flush of plain_groups() (measured).
constexpr int64_t kLeastGroups = 6;

LUTC_INLINE __m256i load(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
LUTC_INLINE void store(void* p, __m256i v) { _mm256_storeu_si256(static_cast<__m256i*>(p), v); }
LUTC_INLINE __m256i entries(const uint8_t* p) {
  return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}

/// Into level 2 only: misses of level 1 are few at a time, and the codes need them. Returns the next address.
LUTC_INLINE const uint8_t* prefetch(const uint8_t* p, int lines) {
  for (int l = 0; l < lines; ++l, p += 64) _mm_prefetch(p, _MM_HINT_T1);
  return p;
}

/// Interleaving works within 128-bit lanes: the lower half of two vectors of 32 rows is rows 0 .. 7 and 16 .. 23. This
/// loads eight 16-bit values at p and eight 32 bytes (16 rows) further.
LUTC_INLINE __m256i load_halves(const uint8_t* p) {
  const __m256i low = _mm256_castsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  return _mm256_inserti128_si256(low, _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 32)), 1);
}

/// Windows whose high bytes, -128 .. 127 each, fit a 16-bit sum.
constexpr int kHighWindows = 255;

/// Sums high * 256 + the low bytes of low to int32: acc = sums, or acc += sums. kInOrder: of rows 0 .. 15, else of rows
/// 0 .. 7 and 16 .. 23.
template <bool kInOrder>
LUTC_INLINE void flush_split(int32_t* acc, __m256i low, __m256i high, bool first) {
  const __m256i bits = _mm256_or_si256(_mm256_slli_epi16(high, 8), _mm256_and_si256(low, _mm256_set1_epi16(255)));
  const __m256i upper = _mm256_srai_epi16(high, 8);
  const __m256i a = _mm256_unpacklo_epi16(bits, upper), b = _mm256_unpackhi_epi16(bits, upper);
  __m256i lower_rows = _mm256_permute2x128_si256(a, b, 0x20), upper_rows = _mm256_permute2x128_si256(a, b, 0x31);
  int32_t* upper_acc = acc + (kInOrder ? 8 : 16);
  if (!first) {
    lower_rows = _mm256_add_epi32(lower_rows, load(acc));
    upper_rows = _mm256_add_epi32(upper_rows, load(upper_acc));
  }
  store(acc, lower_rows);
  store(upper_acc, upper_rows);
}

/// Where the steps of a lookup find codes and gains: units of rows, or what a convolution lists.
template <bool kOfRows>
struct Steps {
  const LookupBlock& b;
  int64_t count() const { return kOfRows ? b.units : b.units * b.tap_count; }
  int64_t window() const { return kOfRows ? b.window_units + added_units(b.codes) : b.window_units; }
  const uint8_t* codes(int64_t i) const { return b.codes + (kOfRows ? i * b.code_unit_step : b.steps[i]); }
  const uint8_t* gains(int64_t i) const { return b.gains + (kOfRows ? i * b.gain_unit_step : b.steps[count() + i]); }
};

/// One panel times kN columns. At the end of a window the high bytes of its sums move to sums of their own; the low
/// bytes stay, for which windows leave room (kWindowSum). kWide: gains above 64, for which two products may not be
/// added before they are 16-bit sums.
template <int kN, bool kWide, bool kOfRows>
void gain_block(const LookupBlock& b) {
  const Steps<kOfRows> steps{b};
  const int64_t window = steps.window();
  const uint8_t* table = b.table;
  const uint8_t* ahead = b.prefetch;
  const uint8_t* starts = b.starts;
  const __m256i low_byte = _mm256_set1_epi16(255);
  bool first = true;
  int windows = 0;
  __m256i low[kN], high[kN];            // kOfRows: rows 0-15, 16-31; else 0-7 16-23, 8-15 24-31
  alignas(32) int16_t carried[kN][32];  // their high bytes
  const auto clear = [&] {
#pragma GCC unroll 4
    for (int n = 0; n < kN; ++n) {
      low[n] = high[n] = _mm256_setzero_si256();
      store(carried[n], low[n]);
      store(carried[n] + 16, low[n]);
    }
    windows = 0;
  };
  const auto flush_all = [&] {
#pragma GCC unroll 4
    for (int n = 0; n < kN; ++n) {
      int32_t* acc = b.acc + n * b.acc_stride;
      flush_split<kOfRows>(acc, low[n], load(carried[n]), first);
      flush_split<kOfRows>(acc + (kOfRows ? 16 : 8), high[n], load(carried[n] + 16), first);
    }
    first = false;
  };
  const auto gain_vector = [](const uint8_t* p, int half) {
    return kOfRows ? load(p + 32 * half) : load_halves(p + 16 * half);
  };
  clear();
  for (int64_t i = 0; i < steps.count(); starts += b.start_window_step) {
    if (windows == kHighWindows) {
      flush_all();
      clear();
    }
    ++windows;
    const int64_t end = i + window < steps.count() ? i + window : steps.count();
    const __m256i start_low = gain_vector(starts, 0), start_high = gain_vector(starts, 1);
#pragma GCC unroll 4
    for (int n = 0; n < kN; ++n) {
      low[n] = _mm256_add_epi16(low[n], start_low);
      high[n] = _mm256_add_epi16(high[n], start_high);
    }
    for (; i < end; ++i, table += b.table_unit_step) {
      ahead = prefetch(ahead, b.prefetch_lines);
      const uint8_t *codes = steps.codes(i), *gains = steps.gains(i);
      const __m256i even = load(codes), odd = load(codes + b.code_half_step);
      const __m256i gain_low = gain_vector(gains, 0), gain_high = gain_vector(gains, 1);
#pragma GCC unroll 4
      for (int n = 0; n < kN; ++n) {
        const __m256i e = _mm256_shuffle_epi8(entries(table + n * kCell), even),
                      o = _mm256_shuffle_epi8(entries(table + n * kCell + 16), odd);
        const __m256i lo = _mm256_unpacklo_epi8(e, o), hi = _mm256_unpackhi_epi8(e, o);
        if constexpr (kWide) {
          low[n] = _mm256_add_epi16(low[n], _mm256_maddubs_epi16(lo, _mm256_and_si256(gain_low, low_byte)));
          high[n] = _mm256_add_epi16(high[n], _mm256_maddubs_epi16(hi, _mm256_and_si256(gain_high, low_byte)));
          low[n] = _mm256_add_epi16(low[n], _mm256_maddubs_epi16(lo, _mm256_andnot_si256(low_byte, gain_low)));
          high[n] = _mm256_add_epi16(high[n], _mm256_maddubs_epi16(hi, _mm256_andnot_si256(low_byte, gain_high)));
        } else {
          low[n] = _mm256_add_epi16(low[n], _mm256_maddubs_epi16(lo, gain_low));
          high[n] = _mm256_add_epi16(high[n], _mm256_maddubs_epi16(hi, gain_high));
        }
      }
    }
#pragma GCC unroll 4
    for (int n = 0; n < kN; ++n) {
      store(carried[n], _mm256_add_epi16(load(carried[n]), _mm256_srai_epi16(low[n], 8)));
      store(carried[n] + 16, _mm256_add_epi16(load(carried[n] + 16), _mm256_srai_epi16(high[n], 8)));
      low[n] = _mm256_and_si256(low[n], low_byte);
      high[n] = _mm256_and_si256(high[n], low_byte);
    }
  }
  flush_all();
}

/// The same for positions of an image, four columns and gains up to 64.
void gain_positions(const LookupBlock& b) {
  const int64_t steps = b.units * b.tap_count, most = kHighWindows * b.window_units;
  GainSteps w;
  w.table = b.table;
  w.codes[0] = b.codes;
  w.codes[1] = b.codes + b.code_half_step;
  w.gains = b.gains;
  w.starts = b.starts;
  w.start_step = b.start_window_step;
  w.steps = b.steps;
  w.gain_steps = steps * static_cast<int64_t>(sizeof(int64_t));
  w.window = b.window_units;
  for (int64_t i = 0; i < steps; i += w.count) {
    w.count = most < steps - i ? most : steps - i;
    GainSums sums;
    for (int n = 0; n < 4; ++n) {
      for (int h = 0; h < 32; h += 16) store(sums.high[n] + h, _mm256_setzero_si256());
    }
    gain_steps(w, sums);
    for (int n = 0; n < 4; ++n) {
      for (int h = 0; h < 2; ++h)
        flush_split<false>(b.acc + n * b.acc_stride + 8 * h, load(sums.low[n] + 16 * h), load(sums.high[n] + 16 * h),
                           i == 0);
    }
    w.table += w.count * 4 * kCell;
    w.steps += w.count;
    w.starts += kHighWindows * w.start_step;
  }
}

/// The same for rows, four columns and gains up to 64.
void gain_rows(const LookupBlock& b) {
  GainWindows w;
  w.table = b.table;
  w.codes = b.codes;
  w.starts = b.starts;
  w.ahead = b.prefetch_lines > 0 ? b.prefetch : b.table;
  w.ahead_step = b.prefetch_lines > 0 ? 64 : 0;
  w.window = b.window_units + added_units(b.codes);
  if (b.prefetch_lines > 1) prefetch(b.prefetch + 64 * b.units, (b.prefetch_lines - 1) * static_cast<int>(b.units));
  for (int64_t u = 0; u < b.units; u += w.units) {
    w.units = kHighWindows * w.window < b.units - u ? kHighWindows * w.window : b.units - u;
    GainSums sums;
    for (int i = 0; i < 4; ++i) {
      for (int h = 0; h < 32; h += 16) store(sums.high[i] + h, _mm256_setzero_si256());
    }
    gain_windows(w, sums);
    for (int n = 0; n < 4; ++n) {
      for (int h = 0; h < 32; h += 16)
        flush_split<true>(b.acc + n * b.acc_stride + h, load(sums.low[n] + h), load(sums.high[n] + h), u == 0);
    }
    w.table += w.units * 4 * kCell;
    w.codes += w.units * 4 * kRows;
    w.starts += kHighWindows * 2 * kRows;
    w.ahead += w.units * w.ahead_step;
  }
}

/// all += entries; odd += entries in the odd bytes. One asm, so that the block keeps its registers (gcc would
/// reassociate the sums).
LUTC_INLINE void plain_step(__m256i& all, __m256i& odd, __m256i line, __m256i code, __m256i odd_bytes) {
  __m256i e;
  asm volatile(
      "vpshufb %[code], %[line], %[e]\n\t"
      "vpaddw %[e], %[all], %[all]\n\t"
      "vpmaddubsw %[odd_bytes], %[e], %[e]\n\t"
      "vpaddw %[e], %[odd], %[odd]"
      : [e] "=&x"(e), [all] "+x"(all), [odd] "+x"(odd)
      : [line] "x"(line), [code] "x"(code), [odd_bytes] "x"(odd_bytes));
}

/// Unsigned 16-bit sums of even and of odd rows, plus an offset, to int32: acc = sums, or acc += sums.
LUTC_INLINE void flush_pairs(int32_t* acc, __m256i even, __m256i odd, int32_t offset, bool first) {
  const __m256i rows[2] = {_mm256_unpacklo_epi16(even, odd),
                           _mm256_unpackhi_epi16(even, odd)};  // 0-7 16-23, 8-15 24-31
#pragma GCC unroll 2
  for (int half = 0; half < 2; ++half) {
#pragma GCC unroll 2
    for (int lane = 0; lane < 2; ++lane) {
      const __m128i eight = lane == 0 ? _mm256_castsi256_si128(rows[half]) : _mm256_extracti128_si256(rows[half], 1);
      __m256i sum = _mm256_add_epi32(_mm256_cvtepu16_epi32(eight), _mm256_set1_epi32(offset));
      int32_t* target = acc + lane * 16 + half * 8;
      if (!first) sum = _mm256_add_epi32(sum, load(target));
      store(target, sum);
    }
  }
}

/// kP panels times kN columns of the plain form (one tap).
template <int kP, int kN>
void plain_block(const LookupBlock& b, bool more = false) {  // more: on top of acc
  const uint8_t* table = b.table;
  const uint8_t* codes = b.codes;
  const uint8_t* ahead = b.prefetch;
  const __m256i odd_bytes = _mm256_set1_epi16(0x0100);
  for (int64_t u = 0; u < b.units;) {
    const bool first = u == 0 && !more;
    const int64_t end = u + kPlainUnits < b.units ? u + kPlainUnits : b.units;
    const int32_t offset = static_cast<int32_t>(-128 * 2 * (end - u));
    __m256i all[kP][kN], odd[kP][kN];  // all: odd bytes still in the high halves
#pragma GCC unroll 2
    for (int p = 0; p < kP; ++p) {
#pragma GCC unroll 4
      for (int n = 0; n < kN; ++n) all[p][n] = odd[p][n] = _mm256_setzero_si256();
    }
    for (; u < end; ++u) {
      ahead = prefetch(ahead, b.prefetch_lines);
#pragma GCC unroll 2
      for (int h = 0; h < 2; ++h) {
        __m256i code[kP];
#pragma GCC unroll 2
        for (int p = 0; p < kP; ++p) code[p] = load(codes + p * b.code_panel_step + h * b.code_half_step);
#pragma GCC unroll 4
        for (int n = 0; n < kN; ++n) {
          const __m256i line = entries(table + n * kCell + 16 * h);
#pragma GCC unroll 2
          for (int p = 0; p < kP; ++p) plain_step(all[p][n], odd[p][n], line, code[p], odd_bytes);
        }
      }
      table += b.table_unit_step;
      codes += b.code_unit_step;
    }
    for (int p = 0; p < kP; ++p) {
      for (int n = 0; n < kN; ++n) {
        const __m256i even = _mm256_sub_epi16(all[p][n], _mm256_slli_epi16(odd[p][n], 8));
        flush_pairs(b.acc + n * b.acc_stride + p * kRows, even, odd[p][n], offset, first);
      }
    }
  }
}

/// A part of a block: from panel p and column n. The first part does the prefetching.
LookupBlock part(const LookupBlock& b, int p, int n) {
  LookupBlock sub = b;
  if (p > 0 || n > 0) sub.prefetch_lines = 0;
  sub.codes += p * b.code_panel_step;
  if (b.gain_limit > 0) {
    sub.gains += p * b.gain_panel_step;
    sub.starts += p * b.start_panel_step;
  }
  sub.table += n * kCell;
  sub.acc += n * b.acc_stride + p * kRows;
  return sub;
}

template <bool kWide, bool kOfRows>
void gain_columns(const LookupBlock& b) {
  switch (b.columns) {
    case 4:
      if (kWide) return gain_block<4, kWide, kOfRows>(b);
      return kOfRows ? gain_rows(b) : gain_positions(b);
    case 3:
      return gain_block<3, kWide, kOfRows>(b);
    case 2:
      return gain_block<2, kWide, kOfRows>(b);
    default:
      return gain_block<1, kWide, kOfRows>(b);
  }
}

template <bool kWide>
void gain(const LookupBlock& b) {
  for (int p = 0; p < b.panels; ++p)
    b.of_rows ? gain_columns<kWide, true>(part(b, p, 0)) : gain_columns<kWide, false>(part(b, p, 0));
}

/// Sums of eight bytes each from those of their averages and from the sums modulo 256 (plain_groups.h).
LUTC_INLINE __m256i exact_sums(__m256i averages, __m256i bytes) {
  const __m256i above = _mm256_slli_epi16(averages, 3);
  return _mm256_sub_epi16(above, _mm256_and_si256(_mm256_sub_epi16(above, bytes), _mm256_set1_epi16(255)));
}

/// Two panels times all columns of a block. The sums of groups (plain_groups.h) are exact part by part: as many groups
/// as errors of averages stay known for; 16-bit sums hold a span of them, whose codes and table stay in a level 1
/// cache.
void plain_pair(const LookupBlock& b) {
  constexpr int64_t kMostSpan = kPlainUnits / kGroupUnits;
  PlainGroups g;
  g.panel_step = b.code_panel_step;
  g.table_step = b.table_unit_step;
  g.ahead = b.prefetch_lines > 0 ? b.prefetch : b.table;
  g.ahead_step = b.prefetch_lines > 0 ? 64 : 0;
  if (b.prefetch_lines > 1) prefetch(b.prefetch + 64 * b.units, (b.prefetch_lines - 1) * static_cast<int>(b.units));
  const int64_t all = b.units / kGroupUnits, spans = (all + kMostSpan - 1) / kMostSpan;
  for (int64_t s = 0; s < spans; ++s) {
    const int64_t begin = all * s / spans, groups = all * (s + 1) / spans - begin;
    const int64_t parts = (groups + kMostGroups - 1) / kMostGroups;
    const int32_t offset = static_cast<int32_t>(-128 * 2 * kGroupUnits * groups);
    for (int n = 0; n < b.columns; ++n) {
      g.table = b.table + begin * kGroupUnits * b.table_unit_step + n * kCell;
      g.codes = b.codes + begin * kGroupBytes;
      __m256i even[2] = {}, odd[2] = {};
      for (int64_t i = 0; i < parts; ++i) {
        g.groups = groups * (i + 1) / parts - groups * i / parts;
        const PlainSums sums = plain_groups(g);
#pragma GCC unroll 2
        for (int p = 0; p < 2; ++p) {
          const __m256i averages = _mm256_sub_epi16(sums.all[p], _mm256_slli_epi16(sums.odd[p], 8));
          even[p] = _mm256_add_epi16(even[p], exact_sums(averages, sums.bytes[p]));
          odd[p] = _mm256_add_epi16(odd[p], exact_sums(sums.odd[p], _mm256_srli_epi16(sums.bytes[p], 8)));
        }
        g.table += g.groups * kGroupUnits * b.table_unit_step;
        g.codes += g.groups * kGroupBytes;
        g.ahead += g.groups * g.ahead_step;
      }
#pragma GCC unroll 2
      for (int p = 0; p < 2; ++p) flush_pairs(b.acc + n * b.acc_stride + p * kRows, even[p], odd[p], offset, s == 0);
    }
  }
  const int64_t done = all * kGroupUnits;
  if (done == b.units) return;
  LookupBlock rest = b;
  rest.units -= done;
  rest.table += done * b.table_unit_step;
  rest.codes += done * b.code_unit_step;
  rest.prefetch_lines = 0;
  for (int n = 0; n < b.columns; ++n) plain_block<2, 1>(part(rest, 0, n), true);
}

/// Starts of windows of a convolution's steps. Multiples of 128 become multiples of 256 but for the first window: the
/// low bytes of the sums before a window can then take the place of its start's. What is left over goes to the window
/// before.
void window_starts(const uint8_t* gains, const int64_t* offsets, int64_t count, int64_t window, int64_t positions,
                   uint8_t* starts, int64_t window_step) {
  const __m256i offset = _mm256_set1_epi8(static_cast<char>(128)), odd = _mm256_set1_epi16(128);
  const int64_t windows = (count + window - 1) / window;
  for (int64_t p = 0; p < positions; p += 16) {
    __m256i rest = _mm256_setzero_si256();
    for (int64_t w = windows - 1; w >= 0; --w) {
      const int64_t end = (w + 1) * window < count ? (w + 1) * window : count;
      __m256i start = rest;
      for (int64_t i = w * window; i < end; ++i)
        start = _mm256_sub_epi16(start, _mm256_maddubs_epi16(offset, load(gains + offsets[i] + 2 * p)));
      rest = w > 0 ? _mm256_and_si256(start, odd) : _mm256_setzero_si256();
      store(starts + w * window_step + 2 * p, _mm256_sub_epi16(start, rest));
    }
  }
}

void plain(const LookupBlock& b) {
  for (int p = 0; p < b.panels; p += 2) {
    const bool pair = b.panels - p >= 2;
    if (pair && b.units >= kLeastGroups * kGroupUnits) {
      plain_pair(part(b, p, 0));
      continue;
    }
    int n = 0;
    for (; n + 2 <= b.columns; n += 2) pair ? plain_block<2, 2>(part(b, p, n)) : plain_block<1, 2>(part(b, p, n));
    if (n < b.columns) pair ? plain_block<2, 1>(part(b, p, n)) : plain_block<1, 1>(part(b, p, n));
  }
}

void lookup(const LookupBlock& b) {
  if (b.gain_limit == 0) return plain(b);
  b.gain_limit > 64 ? gain<true>(b) : gain<false>(b);
}

}  // namespace

/// So that interleaving codes of rows puts the rows in order (encode_avx2.cpp).
constexpr uint8_t kRowPlaces[kRows] = {0, 1, 2,  3,  4,  5,  6,  7,  16, 17, 18, 19, 20, 21, 22, 23,
                                       8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31};

static constexpr LookupKernels make_kernels() {
  LookupKernels k = {
      "pair16x4",
      DirectionForm::kPairs,
      kRows,
      /*unit=*/2,
      /*encode_panels=*/kEncodePanelsAvx2,
      /*code_planes=*/2,
      /*code_bytes=*/1,
      /*gain_bytes=*/2,
      /*start_element=*/2,
      /*block_panels=*/2,
      kColumns,
      /*gather_rows=*/14,
      [](int64_t units, int reach) -> int64_t {
        const int64_t window = window_units_avx2(reach);
        return reach > 0 ? (units + window - 1) / window * 2 * kRows : 0;
      },
      [](int64_t, int reach) -> int64_t { return window_units_avx2(reach); },
      encode_scratch_avx2,
      encode_avx2,
      lookup,
      finish_rows_avx2,
      finish_planes_avx2,
      gather_row_avx2,
      scale_columns_avx2,
      /*plane_lines=*/false,
      kRowPlaces,
  };
  k.window_starts = window_starts;
  return k;
}

extern const LookupKernels kLookupAvx2;
const LookupKernels kLookupAvx2 = make_kernels();

}  // namespace lutc::kernels
