// The first stage of the encode: rows, pixels or projected features -> slots, a vector of 16 rows each.
#pragma once

#include <cstring>

#include "kernels/avx512/intrinsics.h"
#include "kernels/avx512/transpose.h"
#include "kernels/lookup.h"

namespace lutc::kernels {
namespace {

#define LUTC_INLINE __attribute__((always_inline)) inline

constexpr int kRows = 16;

int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

/// Scratch: slot vectors [slots rounded up to 16, and 16][panels, 1 or 2][16 rows], then quantised rows [16][stride] or
/// projected features [features][16].
struct Scratch {
  __m512i* slots;
  int8_t* rows;
  int64_t row_stride;
  __m512i* input_slots;  ///< of the projection
  __m512i* features;     ///< of the projection: int32 [r][16 rows]
};

int64_t widest(const EncodeView& e) { return e.projected && e.inputs > e.features ? e.inputs : e.features; }

/// Slots of the projection's input; whole transposes write past the last block.
int64_t input_slots(const EncodeView& e) { return e.projected ? round_up(e.inputs / 4 + e.block_count, 16) + 16 : 0; }

Scratch carve(const EncodeView& e, void* memory) {
  Scratch s;
  char* p = static_cast<char*>(memory);
  s.slots = reinterpret_cast<__m512i*>(p);
  p += (round_up(e.slots, 16) + 16) * 128;
  s.row_stride = round_up(widest(e), 64) + 64;
  s.rows = reinterpret_cast<int8_t*>(p);
  p += kRows * s.row_stride;
  s.input_slots = reinterpret_cast<__m512i*>(p);
  p += input_slots(e) * 64;
  s.features = reinterpret_cast<__m512i*>(p);
  return s;
}

/// int32 lanes in -127 .. 127 (or, for an unordered or huge negative product, the most negative integer). min takes the
/// constant first, so that NaN passes and converts to the most negative integer.
template <bool kOffset>
LUTC_INLINE __m512i quantise(__m512 x, __m512 offset, __m512 inv_scale) {
  if constexpr (kOffset) x = _mm512_sub_ps(x, offset);
  return _mm512_cvtps_epi32(_mm512_min_ps(_mm512_set1_ps(127.0f), _mm512_mul_ps(x, inv_scale)));
}

LUTC_INLINE __mmask16 lanes(int64_t n) { return n >= 16 ? 0xffff : n <= 0 ? 0 : static_cast<__mmask16>((1u << n) - 1); }

/// What turns a signed byte of a slot into the form of the scores: the plain form's are unsigned.
LUTC_INLINE __m512i flip_of(const EncodeView& e) {
  return e.gain_limit > 0 ? _mm512_setzero_si512() : _mm512_set1_epi8(static_cast<char>(0x80));
}

/// int32 lanes of four rows to bytes: dword r of 128-bit lane l is quad l of row r. Saturation clips at 127, the
/// maximum at -127.
LUTC_INLINE __m512i pack_bytes(const __m512i (&v)[4]) {
  const __m512i bytes = _mm512_packs_epi16(_mm512_packs_epi32(v[0], v[1]), _mm512_packs_epi32(v[2], v[3]));
  return _mm512_max_epi8(bytes, _mm512_set1_epi8(-127));
}

/// Lanes of 128 bits, rows to columns.
LUTC_INLINE void transpose_lanes(__m512i a, __m512i b, __m512i c, __m512i d, __m512i (&out)[4]) {
  const __m512i ab_low = _mm512_shuffle_i32x4(a, b, 0x44), ab_high = _mm512_shuffle_i32x4(a, b, 0xee);
  const __m512i cd_low = _mm512_shuffle_i32x4(c, d, 0x44), cd_high = _mm512_shuffle_i32x4(c, d, 0xee);
  out[0] = _mm512_shuffle_i32x4(ab_low, cd_low, 0x88);
  out[1] = _mm512_shuffle_i32x4(ab_low, cd_low, 0xdd);
  out[2] = _mm512_shuffle_i32x4(ab_high, cd_high, 0x88);
  out[3] = _mm512_shuffle_i32x4(ab_high, cd_high, 0xdd);
}

/// 16 floats from a row's `first` on, the run's lanes in order.
struct RunLanes {
  __m512i order;
  __m512 scale, shift;
  __mmask16 mask;

  explicit RunLanes(const SlotRun& run)
      : order(_mm512_loadu_si512(run.order)),
        scale(_mm512_loadu_ps(run.inv_scale)),
        shift(_mm512_loadu_ps(run.offset)),
        mask(lanes(run.last_lane + 1)) {}

  template <bool kInOrder, bool kOffset>
  LUTC_INLINE __m512i quantised(const float* p) const {
    const __m512 x = kInOrder ? _mm512_loadu_ps(p) : _mm512_permutexvar_ps(order, _mm512_maskz_loadu_ps(mask, p));
    return quantise<kOffset>(x, shift, scale);
  }
};

/// Eight slots of pairs.
template <int kR, bool kInOrder, bool kOffset>
LUTC_INLINE void pack_pairs(const SlotRun& run, const float* volatile const* row, __m512i* slots) {
  const RunLanes run_lanes(run);
  const auto load = [&](int r) { return run_lanes.quantised<kInOrder, kOffset>(row[r] + run.first); };
  const __m512i low = _mm512_set1_epi16(-127);
  __m512i even[4], odd[4], out[4];  // slots 2 l and 2 l + 1 in 128-bit lane l
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const __m512i a = _mm512_max_epi16(_mm512_packs_epi32(load(4 * i), load(4 * i + 1)), low);
    const __m512i b = _mm512_max_epi16(_mm512_packs_epi32(load(4 * i + 2), load(4 * i + 3)), low);
    const __m512 fa = _mm512_castsi512_ps(a), fb = _mm512_castsi512_ps(b);
    even[i] = _mm512_castps_si512(_mm512_shuffle_ps(fa, fb, 0x88));
    odd[i] = _mm512_castps_si512(_mm512_shuffle_ps(fa, fb, 0xdd));
  }
  transpose_lanes(even[0], even[1], even[2], even[3], out);
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) _mm512_store_si512(slots + 2 * i * kR, out[i]);
  transpose_lanes(odd[0], odd[1], odd[2], odd[3], out);
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) _mm512_store_si512(slots + (2 * i + 1) * kR, out[i]);
}

/// How a run reads a row: sixteen floats that make lanes in order; sixteen, ordered as bytes; as many as there are.
enum class Reach { kInOrder, kWhole, kPart };

/// Four slots of bytes from 16 rows. kClip: without it a product of 2^31 or more would come out negative, so the answer
/// is false, and nothing is stored, where a word is the most negative one.
template <int kR, Reach kReach, bool kOffset, bool kFlip, bool kClip>
LUTC_INLINE bool pack_quads(const SlotRun& run, const float* volatile const* row, __m512i* slots) {
  const __mmask16 mask = kReach == Reach::kPart ? lanes(run.last_lane + 1) : 0xffff;
  const __m512 scale = _mm512_loadu_ps(run.inv_scale), shift = _mm512_loadu_ps(run.offset);
  const int64_t first = run.first;
  const auto load = [&](int r) __attribute__((always_inline)) {
    const float* p = row[r] + first;
    __m512 x = kReach == Reach::kPart ? _mm512_maskz_loadu_ps(mask, p) : _mm512_loadu_ps(p);
    if constexpr (kOffset) x = _mm512_sub_ps(x, shift);
    x = _mm512_mul_ps(x, scale);
    if constexpr (kClip) x = _mm512_min_ps(_mm512_set1_ps(127.0f), x);  // NaN passes, and is the least integer
    return _mm512_cvtps_epi32(x);
  };
  const __m512i low = _mm512_set1_epi8(-127);
  __m512i quads[4], out[4], least = _mm512_setzero_si512();
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const __m512i a = _mm512_packs_epi32(load(4 * i), load(4 * i + 1));
    const __m512i b = _mm512_packs_epi32(load(4 * i + 2), load(4 * i + 3));
    if constexpr (!kClip) least = _mm512_min_epi16(least, _mm512_min_epi16(a, b));
    quads[i] = _mm512_max_epi8(_mm512_packs_epi16(a, b), low);
    if constexpr (kReach != Reach::kInOrder)
      quads[i] = _mm512_permutexvar_epi8(_mm512_loadu_si512(run.bytes), quads[i]);
    if constexpr (kFlip) quads[i] = _mm512_xor_si512(quads[i], _mm512_set1_epi8(static_cast<char>(0x80)));
  }
  if constexpr (!kClip) {
    if (_mm512_cmpeq_epi16_mask(least, _mm512_set1_epi16(-32768)) != 0) return false;
  }
  transpose_lanes(quads[0], quads[1], quads[2], quads[3], out);
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) _mm512_store_si512(slots + i * kR, out[i]);
  return true;
}

template <int kR, Reach kReach, bool kOffset, bool kFlip>
__attribute__((noinline)) void pack_clipped(const SlotRun& run, const float* volatile const* row, __m512i* slots) {
  pack_quads<kR, kReach, kOffset, kFlip, true>(run, row, slots);
}

template <int kR, Reach kReach, bool kOffset, bool kFlip>
LUTC_INLINE void pack_quads_of(const SlotRun& run, const float* volatile const* row, __m512i* slots) {
  if (!pack_quads<kR, kReach, kOffset, kFlip, false>(run, row, slots))
    pack_clipped<kR, kReach, kOffset, kFlip>(run, row, slots);
}

template <int kR, bool kOffset, bool kFlip>
void pack_runs(const EncodeView& e, const float* x, int64_t stride, int64_t rows, __m512i* slots) {
  // Missing rows repeat the first. Volatile, or gcc keeps the pointers in lanes of vectors.
  const float* volatile row[kRows];
  for (int r = 0; r < kRows; ++r) row[r] = x + (r < rows ? r * stride : 0);
  for (int64_t i = 0; i < e.run_count; ++i) {
    const SlotRun& run = e.runs[i];
    if (run.pairs) {
      run.in_order ? pack_pairs<kR, true, kOffset>(run, row, slots) : pack_pairs<kR, false, kOffset>(run, row, slots);
      slots += 8 * kR;
      continue;
    }
    if (run.in_order) {
      pack_quads_of<kR, Reach::kInOrder, kOffset, kFlip>(run, row, slots);
    } else if (run.last_lane == 15) {
      pack_quads_of<kR, Reach::kWhole, kOffset, kFlip>(run, row, slots);
    } else {
      pack_quads_of<kR, Reach::kPart, kOffset, kFlip>(run, row, slots);
    }
    slots += 4 * kR;
  }
}

template <int kR>
void pack_any(const EncodeView& e, const float* x, int64_t stride, int64_t rows, __m512i* slots) {
  if (e.gain_limit > 0) {
    e.has_offset ? pack_runs<kR, true, false>(e, x, stride, rows, slots)
                 : pack_runs<kR, false, false>(e, x, stride, rows, slots);
  } else {
    e.has_offset ? pack_runs<kR, true, true>(e, x, stride, rows, slots)
                 : pack_runs<kR, false, true>(e, x, stride, rows, slots);
  }
}

/// rows x features floats -> int8 rows of the scratch. offset and inv_scale are padded to a multiple of 64.
template <bool kOffset>
void quantise_rows(const float* x, int64_t stride, int64_t rows, int64_t features, const float* offset,
                   const float* inv_scale, int8_t* q, int64_t q_stride) {
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  const __m512i low = _mm512_set1_epi8(-127);
  for (int64_t d = 0; d < features; d += 64) {
    __m512 scale[4], shift[4];
    for (int i = 0; i < 4; ++i) {
      scale[i] = _mm512_loadu_ps(inv_scale + d + 16 * i);
      shift[i] = _mm512_loadu_ps(offset + d + 16 * i);
    }
    const bool whole = features - d >= 64;
    __mmask16 mask[4];
    for (int i = 0; i < 4; ++i) mask[i] = lanes(features - d - 16 * i);
    for (int64_t r = 0; r < rows; ++r) {
      const float* p = x + r * stride + d;
      __m512i v[4];
      if (whole) {
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) v[i] = quantise<kOffset>(_mm512_loadu_ps(p + 16 * i), shift[i], scale[i]);
      } else {
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i)
          v[i] = quantise<kOffset>(_mm512_maskz_loadu_ps(mask[i], p + 16 * i), shift[i], scale[i]);
      }
      const __m512i bytes = _mm512_packs_epi16(_mm512_packs_epi32(v[0], v[1]), _mm512_packs_epi32(v[2], v[3]));
      _mm512_storeu_si512(q + r * q_stride + d, _mm512_max_epi8(_mm512_permutexvar_epi32(order, bytes), low));
    }
  }
}

/// 16 rows of bytes -> a vector of rows for each slot, kR vectors apart.
template <int kR>
void arrange(const EncodeView& e, const int8_t* q, int64_t stride, int64_t rows, __m512i* slots) {
  const int64_t blocks = (e.slots + 15) / 16;
  const __m512i flip = flip_of(e);
  for (int64_t b = 0; b < blocks; ++b) {
    __m512i v[16];
    if (e.window != nullptr) {
      const int8_t* p = q + e.window[b];
      const __m512i index = _mm512_loadu_si512(e.window_index + 64 * b);
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) v[r] = _mm512_permutexvar_epi8(index, _mm512_loadu_si512(p + r * stride));
    } else {
      alignas(64) int8_t gathered[kRows][64];
      const int32_t* source = e.source + 64 * b;
      for (int64_t r = 0; r < rows; ++r) {
        for (int i = 0; i < 64; ++i) gathered[r][i] = q[r * stride + source[i]];
      }
      for (int64_t r = rows; r < kRows; ++r) std::memset(gathered[r], 0, 64);
      for (int r = 0; r < kRows; ++r) v[r] = _mm512_load_si512(gathered[r]);
    }
    transpose16(v);
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) _mm512_store_si512(slots + (16 * b + i) * kR, _mm512_xor_si512(v[i], flip));
  }
}

/// Four vectors of int32 to the bytes of one, clipped.
LUTC_INLINE __m512i pack_quad(const __m512i (&v)[4]) {
  const __m512i order = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
  return _mm512_shuffle_epi8(pack_bytes(v), order);
}

/// Two vectors of int32 to pairs of int16, clipped.
LUTC_INLINE __m512i pack_pair(__m512i a, __m512i b) {
  const __m512i order = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15));
  return _mm512_shuffle_epi8(_mm512_max_epi16(_mm512_packs_epi32(a, b), _mm512_set1_epi16(-127)), order);
}

/// Pixels contiguous, features apart: lanes are pixels from the start. feature(f) loads and quantises.
template <int kR, class Feature>
LUTC_INLINE void slots_of_features(const EncodeView& e, __m512i* slots, const Feature& feature) {
  const __m512i flip = flip_of(e);
  for (int64_t s = 0; s < e.slots; ++s) {
    const int32_t* source = e.source + 4 * s;
    const int count = e.slot_features[s];
    if (count == kPairSlot) {
      slots[s * kR] = pack_pair(feature(source[0]), feature(source[1]));
      continue;
    }
    __m512i v[4];
    v[0] = feature(source[0]);
    v[1] = count > 1 ? feature(source[1]) : _mm512_setzero_si512();
    v[2] = count > 2 ? feature(source[2]) : _mm512_setzero_si512();
    v[3] = count > 3 ? feature(source[3]) : _mm512_setzero_si512();
    slots[s * kR] = _mm512_xor_si512(pack_quad(v), flip);
  }
}

/// One feature of 16 rows; the packing clips at -127.
template <bool kOffset = true>
LUTC_INLINE __m512i quantise_feature(__m512 x, const float* offset, const float* inv_scale, int64_t f) {
  return quantise<kOffset>(x, _mm512_set1_ps(offset[f]), _mm512_set1_ps(inv_scale[f]));
}

/// Slots of kR times 16 pixels of an image, features `stride` apart. Not clipped: false, as pack_quads(). Panels go
/// together, since loads are scarce: a feature's multiplier is as wide a load as its pixels.
template <int kR, bool kOffset, bool kFlip>
bool pack_pixels(const EncodeView& e, const float* x, int64_t stride, __m512i* slots) {
  const __m512i order = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
  const __m512i low = _mm512_set1_epi8(-127);
  __m512i least = _mm512_setzero_si512();
  const int32_t* source = e.source;
  for (int64_t s = 0; s < e.slots; ++s, source += 4, slots += kR) {
    if (e.slot_features[s] == kPairSlot) {
      for (int r = 0; r < kR; ++r) {
        const auto feature = [&](int64_t f) {
          return quantise_feature<kOffset>(_mm512_loadu_ps(x + f * stride + r * kRows), e.offset, e.inv_scale, f);
        };
        slots[r] = pack_pair(feature(source[0]), feature(source[1]));
      }
      continue;
    }
    __m512i v[4][kR];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const float* p = x + source[i] * stride;
      const __m512 scale = _mm512_set1_ps(e.inv_scale[source[i]]);
#pragma GCC unroll 2
      for (int r = 0; r < kR; ++r) {
        __m512 pixels = _mm512_loadu_ps(p + r * kRows);
        if constexpr (kOffset) pixels = _mm512_sub_ps(pixels, _mm512_set1_ps(e.offset[source[i]]));
        v[i][r] = _mm512_cvtps_epi32(_mm512_mul_ps(pixels, scale));
      }
    }
#pragma GCC unroll 2
    for (int r = 0; r < kR; ++r) {
      const __m512i a = _mm512_packs_epi32(v[0][r], v[1][r]), b = _mm512_packs_epi32(v[2][r], v[3][r]);
      least = _mm512_min_epi16(least, _mm512_min_epi16(a, b));
      const __m512i bytes = _mm512_shuffle_epi8(_mm512_max_epi8(_mm512_packs_epi16(a, b), low), order);
      slots[r] = kFlip ? _mm512_xor_si512(bytes, _mm512_set1_epi8(static_cast<char>(0x80))) : bytes;
    }
  }
  return _mm512_cmpeq_epi16_mask(least, _mm512_set1_epi16(-32768)) == 0;
}

/// The same of `rows` pixels and of any values.
template <int kR, bool kOffset>
void slots_of_pixels(const EncodeView& e, const float* x, int64_t stride, int64_t rows, __m512i* slots) {
  if (rows >= kR * kRows && (e.gain_limit > 0 ? pack_pixels<kR, kOffset, false>(e, x, stride, slots)
                                              : pack_pixels<kR, kOffset, true>(e, x, stride, slots)))
    return;
  for (int r = 0; r < kR; ++r) {
    const __mmask16 mask = lanes(rows - r * kRows);
    slots_of_features<kR>(e, slots + r, [&](int64_t f) {
      const __m512 pixels = _mm512_maskz_loadu_ps(mask, x + f * stride + r * kRows);
      return quantise_feature<kOffset>(pixels, e.offset, e.inv_scale, f);
    });
  }
}

/// Rows of the projection's input as slots: block b starts at a slot of its own. `load(d)` gives feature d of 16 rows.
template <class Load>
LUTC_INLINE void input_slots_of_features(const EncodeView& e, __m512i* slots, const Load& load) {
  for (int64_t b = 0; b < e.block_count; ++b) {
    const int64_t row = e.blocks[4 * b], rows = e.blocks[4 * b + 1];
    for (int64_t d = 0; d < rows; d += 4) {
      __m512i v[4];
      for (int i = 0; i < 4; ++i) v[i] = d + i < rows ? load(row + d + i) : _mm512_setzero_si512();
      *slots++ = pack_quad(v);
    }
  }
}

/// Byte rows -> slots of four consecutive features, every block from its own start (bytes past a block meet zero rows
/// of its matrix).
void input_slots_of_rows(const EncodeView& e, const int8_t* q, int64_t stride, __m512i* slots) {
  for (int64_t b = 0; b < e.block_count; ++b) {
    const int64_t row = e.blocks[4 * b], count = (e.blocks[4 * b + 1] + 3) / 4;
    for (int64_t s = 0; s < count; s += 16) {
      __m512i v[16];
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) v[r] = _mm512_loadu_si512(q + r * stride + row + 4 * s);
      transpose16(v);
      for (int i = 0; i < 16; ++i) _mm512_store_si512(slots + s + i, v[i]);
    }
    slots += count;
  }
}

/// kN columns of a block: p = q * matrix for 16 rows.
template <int kN>
LUTC_INLINE void product(const __m512i* slots, int64_t count, const int8_t* matrix, const int32_t* start,
                         __m512i (&acc)[kN]) {
  const __m512i flip = _mm512_set1_epi8(static_cast<char>(0x80));
  for (int n = 0; n < kN; ++n) acc[n] = _mm512_set1_epi32(start[n]);
  for (int64_t s = 0; s < count; ++s) {
    const __m512i q = _mm512_xor_si512(_mm512_load_si512(slots + s), flip);
#pragma GCC unroll 8
    for (int n = 0; n < kN; ++n) {
      int32_t quad;
      std::memcpy(&quad, matrix + (n * count + s) * 4, 4);
      acc[n] = _mm512_dpbusd_epi32(acc[n], q, _mm512_set1_epi32(quad));
    }
  }
}

void project(const EncodeView& e, const __m512i* slots, __m512i* features) {
  for (int64_t b = 0; b < e.block_count; ++b) {
    const int64_t count = (e.blocks[4 * b + 1] + 3) / 4, column = e.blocks[4 * b + 2], columns = e.blocks[4 * b + 3];
    const int8_t* matrix = e.block_matrix[b];
    const auto emit = [&](int64_t j, __m512i sum) {
      const int64_t f = column + j;
      const __m512 z = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), _mm512_set1_ps(e.mul[f]));
      features[f] = quantise_feature(z, e.offset, e.inv_scale, f);
    };
    int64_t j = 0;
    for (; j + 8 <= columns; j += 8) {
      __m512i acc[8];
      product<8>(slots, count, matrix + j * count * 4, e.block_start[b] + j, acc);
      for (int n = 0; n < 8; ++n) emit(j + n, acc[n]);
    }
    for (; j < columns; ++j) {
      __m512i acc[1];
      product<1>(slots, count, matrix + j * count * 4, e.block_start[b] + j, acc);
      emit(j, acc[0]);
    }
    slots += count;
  }
}

}  // namespace
}  // namespace lutc::kernels
