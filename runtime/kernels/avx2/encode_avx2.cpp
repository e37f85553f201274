// Encode with AVX2: 8 rows in the 32-bit lanes, four vectors a panel. A slot is two vectors of int16 pairs, (0, 2) and
// (1, 3); directions are int16 and come times 16, so that the sum of two vpmaddwd has room for the entry's index in its
// low four bits.
//
// The stages are those of encode_avx512.cpp: quantise, arrange, score.
#include <immintrin.h>

#include <cstring>

#include "kernels/avx2/encode_codebook.h"
#include "kernels/avx2/encode_row.h"
#include "kernels/avx2/encode_short.h"
#include "kernels/avx2/lookup_avx2.h"
#include "kernels/avx2/transpose.h"

namespace lutc::kernels {
namespace {

constexpr int kRows = 32;
/// Up to so many rows are encoded one by one.
constexpr int64_t kSingleRows = 4;

int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }
int64_t lesser(int64_t a, int64_t b) { return a < b ? a : b; }

/// Bytes of two codebooks in a panel.
template <bool kGain>
constexpr int64_t kUnitBytes = kGain ? 4 * kRows : 2 * kRows;

int64_t unit_count(const EncodeView& e) { return (e.codebooks + 1) / 2; }
/// Units of the shortest windows.
int64_t least_window(const EncodeView& e) { return window_units_avx2(int64_t{1} * e.gain_limit * e.entry_limit); }
int64_t start_bytes(const EncodeView& e, int64_t window) {
  return e.gain_limit > 0 ? (unit_count(e) + window - 1) / window * 2 * kRows : 0;
}

struct Scratch {
  __m256i* slots;     ///< [kEncodePanelsAvx2][slots rounded up to 16][4]
  int64_t slot_step;  ///< vectors from one panel to the next
  int8_t* rows;       ///< [32][row_stride]
  int64_t row_stride;
  __m256i* input_slots;  ///< of the projection
  __m256i* features;     ///< of the projection: int32 [r][4]
};

int64_t widest(const EncodeView& e) { return e.projected && e.inputs > e.features ? e.inputs : e.features; }
int64_t input_slots(const EncodeView& e) { return e.projected ? round_up(e.inputs / 4 + e.block_count, 8) + 8 : 0; }

Scratch carve(const EncodeView& e, void* memory) {
  Scratch s;
  char* p = static_cast<char*>(memory);
  s.slots = reinterpret_cast<__m256i*>(p);
  s.slot_step = round_up(e.slots, 16) * kVectors;
  p += kEncodePanelsAvx2 * s.slot_step * 32;
  s.row_stride = round_up(widest(e), 64) + 64;
  s.rows = reinterpret_cast<int8_t*>(p);
  p += kRows * s.row_stride;
  s.input_slots = reinterpret_cast<__m256i*>(p);
  p += input_slots(e) * 128;
  s.features = reinterpret_cast<__m256i*>(p);
  return s;
}

LUTC_INLINE __m256i first_lanes(int64_t n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n > 8 ? 8 : n)),
                            _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

/// See encode_avx512.cpp: NaN passes min and becomes the most negative integer.
LUTC_INLINE __m256i quantise(__m256 x, __m256 offset, __m256 inv_scale) {
  return _mm256_cvtps_epi32(_mm256_min_ps(_mm256_set1_ps(127.0f), _mm256_mul_ps(_mm256_sub_ps(x, offset), inv_scale)));
}

/// Four vectors of int32 to 32 bytes. The order of packing: 0-3 8-11 16-19 24-27, then 4-7 12-15 20-23 28-31.
LUTC_INLINE __m256i pack(const __m256i (&v)[4]) {
  return _mm256_packs_epi16(_mm256_packs_epi32(v[0], v[1]), _mm256_packs_epi32(v[2], v[3]));
}
LUTC_INLINE __m256i to_bytes(const __m256i (&v)[4]) {
  return _mm256_permutevar8x32_epi32(pack(v), _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}
LUTC_INLINE void write(void* p, __m256i v) { _mm256_storeu_si256(static_cast<__m256i*>(p), v); }

/// offset: null where all are zero.
void quantise_rows(const float* x, int64_t stride, int64_t rows, int64_t features, const float* offset,
                   const float* inv_scale, int8_t* q, int64_t q_stride) {
  const __m256 zero = _mm256_setzero_ps();
  const auto bytes = [&](int64_t d, const auto& read) {
    __m256i v[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const int64_t at = d + 8 * i;
      v[i] =
          quantise(read(at), offset != nullptr ? _mm256_loadu_ps(offset + at) : zero, _mm256_loadu_ps(inv_scale + at));
    }
    return _mm256_max_epi8(to_bytes(v), _mm256_set1_epi8(-127));
  };
  for (int64_t r = 0; r < rows; ++r, x += stride, q += q_stride) {
    int64_t d = 0;
    for (; d + 32 <= features; d += 32) write(q + d, bytes(d, [&](int64_t at) { return _mm256_loadu_ps(x + at); }));
    if (d == features) continue;
    write(q + d, bytes(d, [&](int64_t at) { return _mm256_maskload_ps(x + at, first_lanes(features - at)); }));
  }
}

/// 32 rows of bytes -> four vectors of rows a slot, 8 slots at a time.
void arrange(const EncodeView& e, const int8_t* q, int64_t stride, __m256i* slots) {
  for (int64_t s = 0; s < e.slots; s += 8) {
    for (int g = 0; g < kVectors; ++g) {
      __m256i v[8];
      if (e.window != nullptr) {
        const __m256i index = load(e.window_index + 4 * s);
        const int64_t a = e.window[s / 4], b = e.window[s / 4 + 1];
#pragma GCC unroll 8
        for (int r = 0; r < 8; ++r) {
          const int8_t* p = q + (8 * g + r) * stride;
          const __m128i low = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + a)),
                        high = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + b));
          v[r] = _mm256_shuffle_epi8(_mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1), index);
        }
      } else {
        alignas(32) int8_t gathered[8][32];
        const int32_t* source = e.source + 4 * s;
        for (int r = 0; r < 8; ++r) {
          for (int i = 0; i < 32; ++i) gathered[r][i] = q[(8 * g + r) * stride + source[i]];
        }
        for (int r = 0; r < 8; ++r) v[r] = load(gathered[r]);
      }
      transpose8(v);
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) _mm256_store_si256(slots + (s + i) * kVectors + g, v[i]);
    }
  }
}

/// Four int32 lanes in -127 .. 127 to the bytes of one.
LUTC_INLINE __m256i pack_quad(const __m256i (&v)[4]) {
  const __m256i byte = _mm256_set1_epi32(255);
  const __m256i low = _mm256_or_si256(_mm256_and_si256(v[0], byte), _mm256_slli_epi32(_mm256_and_si256(v[1], byte), 8));
  const __m256i high =
      _mm256_or_si256(_mm256_slli_epi32(_mm256_and_si256(v[2], byte), 16), _mm256_slli_epi32(v[3], 24));
  return _mm256_or_si256(low, high);
}

LUTC_INLINE __m256i quantise_feature(__m256 x, const float* offset, const float* inv_scale, int64_t f) {
  return _mm256_max_epi32(quantise(x, _mm256_set1_ps(offset[f]), _mm256_set1_ps(inv_scale[f])),
                          _mm256_set1_epi32(-127));
}

/// feature(f, g): feature f of the rows of vector g.
template <class Feature>
LUTC_INLINE void slots_of_features(const EncodeView& e, __m256i* slots, const Feature& feature) {
  for (int64_t s = 0; s < e.slots; ++s) {
    for (int g = 0; g < kVectors; ++g) {
      __m256i v[4];
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) v[i] = feature(e.source[4 * s + i], g);
      slots[s * kVectors + g] = pack_quad(v);
    }
  }
}

template <class Load>
LUTC_INLINE void input_slots_of_features(const EncodeView& e, __m256i* slots, const Load& feature) {
  for (int64_t b = 0; b < e.block_count; ++b) {
    const int64_t row = e.blocks[4 * b], rows = e.blocks[4 * b + 1];
    for (int64_t d = 0; d < rows; d += 4) {
      for (int g = 0; g < kVectors; ++g) {
        __m256i v[4];
        for (int i = 0; i < 4; ++i) v[i] = d + i < rows ? feature(row + d + i, g) : _mm256_setzero_si256();
        *slots++ = pack_quad(v);
      }
    }
  }
}

void input_slots_of_rows(const EncodeView& e, const int8_t* q, int64_t stride, __m256i* slots) {
  for (int64_t b = 0; b < e.block_count; ++b) {
    const int64_t row = e.blocks[4 * b], count = (e.blocks[4 * b + 1] + 3) / 4;
    for (int64_t s = 0; s < count; s += 8) {
      for (int g = 0; g < kVectors; ++g) {
        __m256i v[8];
#pragma GCC unroll 8
        for (int r = 0; r < 8; ++r) v[r] = load(q + (8 * g + r) * stride + row + 4 * s);
        transpose8(v);
        for (int i = 0; i < 8; ++i) _mm256_store_si256(slots + (s + i) * kVectors + g, v[i]);
      }
    }
    slots += count * kVectors;
  }
}

/// kN columns of a block: p = q * matrix for 32 rows.
template <int kN>
LUTC_INLINE void product(const __m256i* slots, int64_t count, const int8_t* matrix, __m256i (&acc)[kN][kVectors]) {
  for (int n = 0; n < kN; ++n) {
    for (int g = 0; g < kVectors; ++g) acc[n][g] = _mm256_setzero_si256();
  }
  for (int64_t s = 0; s < count; ++s) {
    __m256i even[kN], odd[kN];
    for (int n = 0; n < kN; ++n) {
      const __m256i bytes = broadcast(matrix + (n * count + s) * 4);
      even[n] = even_pair(bytes);
      odd[n] = odd_pair(bytes);
    }
#pragma GCC unroll 4
    for (int g = 0; g < kVectors; ++g) {
      const __m256i q = _mm256_load_si256(slots + s * kVectors + g), qe = even_pair(q), qo = odd_pair(q);
#pragma GCC unroll 2
      for (int n = 0; n < kN; ++n) {
        acc[n][g] = _mm256_add_epi32(acc[n][g],
                                     _mm256_add_epi32(_mm256_madd_epi16(qe, even[n]), _mm256_madd_epi16(qo, odd[n])));
      }
    }
  }
}

void project(const EncodeView& e, const __m256i* slots, __m256i* features) {
  for (int64_t b = 0; b < e.block_count; ++b) {
    const int64_t count = (e.blocks[4 * b + 1] + 3) / 4, column = e.blocks[4 * b + 2], columns = e.blocks[4 * b + 3];
    const int8_t* matrix = e.block_matrix[b];
    const auto emit = [&](int64_t j, const __m256i(&sum)[kVectors]) {
      const int64_t f = column + j;
      for (int g = 0; g < kVectors; ++g) {
        const __m256 z = _mm256_mul_ps(_mm256_cvtepi32_ps(sum[g]), _mm256_set1_ps(e.mul[f]));
        features[f * kVectors + g] = quantise_feature(z, e.offset, e.inv_scale, f);
      }
    };
    int64_t j = 0;
    for (; j + 2 <= columns; j += 2) {
      __m256i acc[2][kVectors];
      product<2>(slots, count, matrix + j * count * 4, acc);
      emit(j, acc[0]);
      emit(j + 1, acc[1]);
    }
    if (j < columns) {
      __m256i acc[1][kVectors];
      product<1>(slots, count, matrix + j * count * 4, acc);
      emit(j, acc[0]);
    }
    slots += count * kVectors;
  }
}

/// Codebooks of one slot, gain form, that are encoded stage by stage, so that the stages of several overlap.
constexpr int kBatch = 8;

bool is_short(const EncodeView& e, int64_t c) { return e.gain_limit > 0 && e.slot_count[c] == 1; }

/// Bytes of codes and gains of some codebooks and 32 rows, in the order of packing.
struct Encoded {
  __m256i codes[kBatch], gains[kBatch];
};

/// The codebooks from c on that are short.
__attribute__((noinline)) void encode_short(const EncodeView& e, int64_t c, int count, const __m256i* slots,
                                            const ShortEntries* entries, Encoded& out) {
  ShortRows rows[kBatch];
  const __m256i* slot = slots;
  for (int i = 0; i < count; slot += e.slot_count[c + i++] * kVectors) {
    if (!is_short(e, c + i)) continue;
    entries[i].pairs == 1 ? prepare_rows<1>(slot, rows[i]) : prepare_rows<2>(slot, rows[i]);
  }
  for (int i = 0; i < count; ++i) {
    if (!is_short(e, c + i)) continue;
    out.codes[i] =
        entries[i].pairs == 1 ? search<1>(e.entries, entries[i], rows[i]) : search<2>(e.entries, entries[i], rows[i]);
  }
  for (int i = 0; i < count; ++i) {
    if (!is_short(e, c + i)) continue;
    out.gains[i] = entries[i].pairs == 1 ? gains<1>(entries[i], rows[i], out.codes[i], e.gain_mul[c + i], e.gain_limit)
                                         : gains<2>(entries[i], rows[i], out.codes[i], e.gain_mul[c + i], e.gain_limit);
  }
}

/// The other codebooks.
template <bool kGain>
void encode_others(const EncodeView& e, int64_t c, int count, const __m256i* slots, const uint8_t* directions,
                   Encoded& out) {
  const float limit = static_cast<float>(e.gain_limit);
  for (int i = 0; i < count; ++i) {
    const int used = e.slot_count[c + i];
    if (!is_short(e, c + i)) {
      __m256i code[kVectors], gain[kVectors];
      const int32_t* start = e.start + 16 * (c + i);
      const float mul = e.gain_mul[c + i];
      if (used > 1) {
        encode_long<kGain>(used, e.entries, slots, directions, start, mul, limit, code, gain);
      } else if (is_pair(directions)) {
        encode_pair(e.entries, slots, directions, start, code);
      } else {
        encode_codebook<1, false, 4>(e.entries, slots, directions, start, mul, limit, code, gain);
      }
      out.codes[i] = pack(code);
      if constexpr (kGain) out.gains[i] = pack(gain);
    }
    slots += used * kVectors;
    directions += 128 * used;
  }
}

/// Some panels; kOfRows: rows 8 .. 15 change places with rows 16 .. 23 (LookupKernels::row_places).
template <bool kGain, bool kOfRows>
__attribute__((noinline)) void score(const EncodeView& e, const __m256i* slots, int64_t slot_step, uint8_t* panel,
                                     int64_t panel_bytes, int panels) {
  const __m256i in_order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  const __m256i code_order = kOfRows ? _mm256_setr_epi32(0, 4, 2, 6, 1, 5, 3, 7) : in_order;
  const uint8_t* directions = e.directions;
  uint8_t* units = panel + start_bytes(e, least_window(e));
  for (int64_t c = 0; c < e.codebooks; c += kBatch, units += kBatch * kUnitBytes<kGain> / 2) {
    const int count = static_cast<int>(lesser(kBatch, e.codebooks - c));
    ShortEntries entries[kBatch];
    int used = 0, others = 0;
    for (int i = 0; i < count; used += e.slot_count[c + i++]) {
      if (is_short(e, c + i)) {
        prepare_entries(directions + 128 * used, entries[i]);
      } else {
        ++others;
      }
    }
    for (int p = 0; p < panels; ++p) {
      Encoded encoded;
      if (others < count) encode_short(e, c, count, slots + p * slot_step, entries, encoded);
      if (others > 0) encode_others<kGain>(e, c, count, slots + p * slot_step, directions, encoded);
      if (count % 2 != 0) encoded.codes[count] = encoded.gains[count] = _mm256_setzero_si256();
      uint8_t* out = units + p * panel_bytes;
      for (int i = 0; i < count; i += 2, out += kUnitBytes<kGain>) {
        write(out, _mm256_permutevar8x32_epi32(encoded.codes[i], code_order));
        write(out + 32, _mm256_permutevar8x32_epi32(encoded.codes[i + 1], code_order));
        if constexpr (kGain) {
          const __m256i a = _mm256_permutevar8x32_epi32(encoded.gains[i], in_order);
          const __m256i b = _mm256_permutevar8x32_epi32(encoded.gains[i + 1], in_order);
          const __m256i low = _mm256_unpacklo_epi8(a, b), high = _mm256_unpackhi_epi8(a, b);
          write(out + 64, _mm256_permute2x128_si256(low, high, 0x20));
          write(out + 96, _mm256_permute2x128_si256(low, high, 0x31));
        }
      }
    }
    slots += used * kVectors;
    directions += 128 * used;
  }
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

void encode_row_by_row(const EncodeView& e, const EncodeInput& in, bool of_rows, uint8_t* panel, const Scratch& s) {
  const int64_t unit_bytes = e.gain_limit > 0 ? kUnitBytes<true> : kUnitBytes<false>;
  uint8_t* units = panel + start_bytes(e, least_window(e));
  std::memset(units, 0, static_cast<size_t>(unit_count(e) * unit_bytes));
  for (int64_t r = 0; r < in.rows; ++r) {
    quantise_rows(in.x + r * in.row_stride, in.row_stride, 1, e.features, e.has_offset ? e.offset : nullptr,
                  e.inv_scale, s.rows, s.row_stride);
    e.gain_limit > 0 ? score_row<true>(e, s.rows, r, units) : score_row<false>(e, s.rows, r, units);
  }
  if (e.gain_limit > 0) make_windows(e, of_rows, panel, s.slots);
}

/// Quantises up to 32 rows or pixels and arranges them in slots.
void fill_slots(const EncodeView& e, const EncodeInput& in, const Scratch& s, __m256i* slots) {
  const bool by_rows = in.feature_stride == 1;
  __m256i mask[kVectors];
  for (int g = 0; g < kVectors; ++g) mask[g] = first_lanes(in.rows - 8 * g);
  const auto pixels = [&](int64_t f, int g) {
    return _mm256_maskload_ps(in.x + f * in.feature_stride + 8 * g, mask[g]);
  };
  if (by_rows) {
    const int64_t features = e.projected ? e.inputs : e.features;
    const float* offset = e.projected ? e.proj_offset : e.offset;
    const bool has_offset = e.projected ? e.has_proj_offset : e.has_offset;
    // Rows that do not exist are zeros: their codes must be in range.
    for (int64_t r = in.rows; r < kRows; ++r)
      std::memset(s.rows + r * s.row_stride, 0, static_cast<size_t>(s.row_stride));
    quantise_rows(in.x, in.row_stride, in.rows, features, has_offset ? offset : nullptr,
                  e.projected ? e.proj_inv_scale : e.inv_scale, s.rows, s.row_stride);
  }
  if (e.projected) {
    if (by_rows) {
      input_slots_of_rows(e, s.rows, s.row_stride, s.input_slots);
    } else {
      input_slots_of_features(e, s.input_slots, [&](int64_t d, int g) {
        return quantise_feature(pixels(d, g), e.proj_offset, e.proj_inv_scale, d);
      });
    }
    project(e, s.input_slots, s.features);
    slots_of_features(e, slots, [&](int64_t f, int g) { return s.features[f * kVectors + g]; });
  } else if (by_rows) {
    arrange(e, s.rows, s.row_stride, slots);
  } else {
    slots_of_features(e, slots,
                      [&](int64_t f, int g) { return quantise_feature(pixels(f, g), e.offset, e.inv_scale, f); });
  }
}

}  // namespace

size_t encode_scratch_avx2(const EncodeView& e) {
  const int64_t projection = e.projected ? input_slots(e) + e.features : 0;
  return static_cast<size_t>((kEncodePanelsAvx2 * round_up(e.slots, 16) + projection) * 128 +
                             kRows * (round_up(widest(e), 64) + 64));
}

void encode_avx2(const EncodeView& e, const EncodeInput& in, uint8_t* panel, int64_t panel_bytes, void* memory) {
  const Scratch s = carve(e, memory);
  const bool by_rows = in.feature_stride == 1, of_rows = by_rows && in.rows > 1;
  int panels = 0;  // that are encoded together
  for (int64_t row = 0; row < in.rows; row += kRows) {
    EncodeInput part = in;
    part.x += row * in.row_stride;
    part.rows = lesser(kRows, in.rows - row);
    if (by_rows && !e.projected && e.entries == 16 && part.rows <= kSingleRows) {
      // The last panel: the memory of its slots is free.
      Scratch own = s;
      own.slots += panels * s.slot_step;
      encode_row_by_row(e, part, of_rows, panel + panels * panel_bytes, own);
      break;
    }
    fill_slots(e, part, s, s.slots + panels++ * s.slot_step);
  }
  if (e.gain_limit == 0) return score<false, false>(e, s.slots, s.slot_step, panel, panel_bytes, panels);
  of_rows ? score<true, true>(e, s.slots, s.slot_step, panel, panel_bytes, panels)
          : score<true, false>(e, s.slots, s.slot_step, panel, panel_bytes, panels);
  for (int p = 0; p < panels; ++p) make_windows(e, of_rows, panel + p * panel_bytes, s.slots + p * s.slot_step);
}

}  // namespace lutc::kernels
