// Encode with AVX-512 VNNI: 16 rows in the 32-bit lanes, one vpdpbusd a slot and direction.
//
// A panel goes through three stages: quantise (rows of int8), arrange (a vector of 16 rows a slot), score. Images
// arrive with rows contiguous, so their quantise makes the slots at once; a projection is an int8 matrix product
// between two quantise stages.
#include <cstring>

#include "kernels/avx512/intrinsics.h"
#include "kernels/avx512/lookup_avx512.h"
#include "kernels/avx512/transpose.h"

namespace lutc::kernels {
namespace {

#define LUTC_INLINE __attribute__((always_inline)) inline

constexpr int kRows = 16;

int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

/// Scratch: slot vectors [slots rounded up to 16][panels, 1 or 2][16 rows], then quantised rows [16][stride] or
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
  p += round_up(e.slots, 16) * 128;
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
    for (int i = 0; i < 16; ++i) _mm512_store_si512(slots + (16 * b + i) * kR, v[i]);
  }
}

/// Four int32 lanes in -127 .. 127 to the bytes of one.
LUTC_INLINE __m512i pack_quad(const __m512i (&v)[4]) {
  const __m512i byte = _mm512_set1_epi32(255);
  const __m512i a =
      _mm512_ternarylogic_epi32(_mm512_and_si512(v[0], byte), _mm512_slli_epi32(_mm512_and_si512(v[1], byte), 8),
                                _mm512_slli_epi32(_mm512_and_si512(v[2], byte), 16), 0xfe);
  return _mm512_or_si512(a, _mm512_slli_epi32(v[3], 24));
}

/// Pixels contiguous, features apart: lanes are pixels from the start. feature(f) loads and quantises.
template <int kR, class Feature>
LUTC_INLINE void slots_of_features(const EncodeView& e, __m512i* slots, const Feature& feature) {
  for (int64_t s = 0; s < e.slots; ++s) {
    __m512i v[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) v[i] = feature(e.source[4 * s + i]);
    slots[s * kR] = pack_quad(v);
  }
}

LUTC_INLINE __m512i quantise_feature(__m512 x, const float* offset, const float* inv_scale, int64_t f) {
  const __m512i q = quantise<true>(x, _mm512_set1_ps(offset[f]), _mm512_set1_ps(inv_scale[f]));
  return _mm512_max_epi32(q, _mm512_set1_epi32(-127));
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

// The inner loop is volatile asm for the same reason as in lookup_avx512.cpp: left alone, gcc hoists the loads of all
// directions at once and then spills them, and makes constants from general registers.
LUTC_INLINE __m512i broadcast(const void* p) {
  __m512i v;
  asm volatile("vpbroadcastd %1, %0" : "=v"(v) : "m"(*static_cast<const int32_t*>(p)));
  return v;
}

LUTC_INLINE void dot(__m512i& sum, __m512i unsigned_bytes, __m512i signed_bytes) {
  asm volatile("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(unsigned_bytes), "v"(signed_bytes));
}

struct Reversed {
  alignas(64) int32_t low[16];   ///< 15 - k
  alignas(64) int32_t high[16];  ///< in the highest bits
};
constexpr Reversed make_reversed() {
  Reversed t{};
  for (int k = 0; k < 16; ++k) {
    t.low[k] = 15 - k;
    t.high[k] = static_cast<int32_t>(static_cast<uint32_t>(15 - k) << 28);
  }
  return t;
}
constexpr Reversed kReversed = make_reversed();

/// The entry's place is attached to its score, so that one maximum finds both and the lowest of equal scores wins.
/// Plain form: score << 4 | 15 - k. Gain form: float(score) | 15 - k, and vrangeps keeps the larger magnitude: scores
/// stay below 32 * 127^2 < 2^19, so the low bits of their mantissas are free. (On Zen 4 vpabsd and shifts would queue
/// for vpdpbusd's two ports; conversion and vrangeps do not.)
template <bool kGain>
LUTC_INLINE __m512i key_of(__m512i score, int k) {
  __m512i key;
  if constexpr (kGain) {
    asm volatile("vpord %2%{1to16%}, %1, %0"
                 : "=v"(key)
                 : "v"(_mm512_castps_si512(_mm512_cvtepi32_ps(score))), "m"(kReversed.low[k]));
  } else {
    asm volatile("vpshldd $4, %2%{1to16%}, %1, %0" : "=v"(key) : "v"(score), "m"(kReversed.high[k]));
  }
  return key;
}

template <bool kGain>
LUTC_INLINE __m512i larger(__m512i a, __m512i b) {
  if constexpr (kGain)
    return _mm512_castps_si512(_mm512_range_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), 0xb));  // magnitudes
  return _mm512_max_epi32(a, b);
}

/// One codebook of kR panels: the code, and in the gain form the gain, as int32 lanes.
template <int K, int kSlots, bool kGain, int kR>
LUTC_INLINE void encode_codebook(const __m512i* slots, const uint8_t* directions, const int32_t* start, float mul,
                                 float limit, __m512i (&code)[kR], __m512i (&gain)[kR]) {
  __m512i z[kR][kSlots], init[kR], best[kR][2];
#pragma GCC unroll 2
  for (int r = 0; r < kR; ++r) {
    init[r] = _mm512_setzero_si512();
#pragma GCC unroll 8
    for (int s = 0; s < kSlots; ++s) {
      z[r][s] = _mm512_load_si512(slots + s * kR + r);
      if constexpr (kGain) {
        init[r] = _mm512_dpbusd_epi32(init[r], _mm512_set1_epi8(static_cast<char>(128)), z[r][s]);
      } else {
        z[r][s] = _mm512_xor_si512(z[r][s], _mm512_set1_epi8(static_cast<char>(0x80)));
      }
    }
    if constexpr (kGain) init[r] = _mm512_sub_epi32(_mm512_setzero_si512(), init[r]);
  }
#pragma GCC unroll 16
  for (int k = 0; k < K; ++k) {
    __m512i score[kR];
    const __m512i first = kGain ? _mm512_setzero_si512() : broadcast(start + k);
#pragma GCC unroll 2
    for (int r = 0; r < kR; ++r) score[r] = kGain ? init[r] : first;
#pragma GCC unroll 8
    for (int s = 0; s < kSlots; ++s) {
      const __m512i direction = broadcast(directions + 64 * s + 4 * k);
#pragma GCC unroll 2
      for (int r = 0; r < kR; ++r) kGain ? dot(score[r], direction, z[r][s]) : dot(score[r], z[r][s], direction);
    }
#pragma GCC unroll 2
    for (int r = 0; r < kR; ++r) {
      const __m512i key = key_of<kGain>(score[r], k);
      best[r][k % 2] = k < 2 ? key : larger<kGain>(best[r][k % 2], key);
    }
  }
#pragma GCC unroll 2
  for (int r = 0; r < kR; ++r) {
    code[r] = _mm512_andnot_si512(larger<kGain>(best[r][0], best[r][1]), _mm512_set1_epi32(15));
    if constexpr (kGain) {
      // The winner's score once more, with its sign.
      __m512i score = init[r];
#pragma GCC unroll 8
      for (int s = 0; s < kSlots; ++s) {
        score = _mm512_dpbusd_epi32(score, _mm512_permutexvar_epi32(code[r], _mm512_loadu_si512(directions + 64 * s)),
                                    z[r][s]);
      }
      __m512 g = _mm512_mul_ps(_mm512_cvtepi32_ps(score), _mm512_set1_ps(mul));
      g = _mm512_min_ps(_mm512_max_ps(g, _mm512_set1_ps(-limit)), _mm512_set1_ps(limit));
      gain[r] = _mm512_cvtps_epi32(g);
    }
  }
}

template <int K, bool kGain, int kR>
void score(const EncodeView& e, const __m512i* slots, uint8_t* panel, int64_t panel_bytes) {
  const uint8_t* directions = e.directions;
  const float limit = static_cast<float>(e.gain_limit);
  const __m512i places = _mm512_set1_epi32(K * 0x03020100), byte = _mm512_set1_epi32(255);
  __m512i sum[kR];
  for (int r = 0; r < kR; ++r) sum[r] = _mm512_setzero_si512();
  uint8_t* out = panel + (kGain ? 64 : 0);
  for (int64_t c0 = 0; c0 < e.codebooks; c0 += 4) {
    const int count = static_cast<int>(e.codebooks - c0 < 4 ? e.codebooks - c0 : 4);
    __m512i codes[kR], gains[kR];
    for (int r = 0; r < kR; ++r) {
      codes[r] = places;
      gains[r] = _mm512_setzero_si512();
    }
    for (int j = 0; j < count; ++j) {
      const int64_t c = c0 + j;
      const int used = e.slot_count[c];
      __m512i code[kR], gain[kR];
      const int32_t* start = e.start + 16 * c;
      const float mul = e.gain_mul[c];
      switch (used) {
        case 1:
          encode_codebook<K, 1, kGain, kR>(slots, directions, start, mul, limit, code, gain);
          break;
        case 2:
          encode_codebook<K, 2, kGain, kR>(slots, directions, start, mul, limit, code, gain);
          break;
        case 3:
          encode_codebook<K, 3, kGain, kR>(slots, directions, start, mul, limit, code, gain);
          break;
        case 4:
          encode_codebook<K, 4, kGain, kR>(slots, directions, start, mul, limit, code, gain);
          break;
        default:
          encode_codebook<K, 8, kGain, kR>(slots, directions, start, mul, limit, code, gain);
          break;
      }
      slots += used * kR;
      directions += 64 * used;
      const __m128i shift = _mm_cvtsi32_si128(8 * j);
#pragma GCC unroll 2
      for (int r = 0; r < kR; ++r) {
        codes[r] = _mm512_or_si512(codes[r], _mm512_sll_epi32(code[r], shift));
        if constexpr (kGain) {
          sum[r] = _mm512_add_epi32(sum[r], gain[r]);
          gains[r] = _mm512_or_si512(gains[r], _mm512_sll_epi32(_mm512_and_si512(gain[r], byte), shift));
        }
      }
    }
#pragma GCC unroll 2
    for (int r = 0; r < kR; ++r) {
      _mm512_store_si512(out + r * panel_bytes, codes[r]);
      if constexpr (kGain) _mm512_store_si512(out + r * panel_bytes + 64, gains[r]);
    }
    out += kGain ? 128 : 64;
  }
  if constexpr (kGain) {
    for (int r = 0; r < kR; ++r)
      _mm512_store_si512(panel + r * panel_bytes, _mm512_mullo_epi32(sum[r], _mm512_set1_epi32(-128)));
  }
}

template <int kR>
void score_any(const EncodeView& e, const __m512i* slots, uint8_t* panel, int64_t panel_bytes) {
  const bool gain = e.gain_limit > 0;
  switch (e.entries) {
    case 16:
      return gain ? score<16, true, kR>(e, slots, panel, panel_bytes)
                  : score<16, false, kR>(e, slots, panel, panel_bytes);
    case 8:
      return gain ? score<8, true, kR>(e, slots, panel, panel_bytes)
                  : score<8, false, kR>(e, slots, panel, panel_bytes);
    default:
      return gain ? score<4, true, kR>(e, slots, panel, panel_bytes)
                  : score<4, false, kR>(e, slots, panel, panel_bytes);
  }
}

void quantise_any(bool has_offset, const float* x, int64_t stride, int64_t rows, int64_t features, const float* offset,
                  const float* inv_scale, int8_t* q, int64_t q_stride) {
  if (has_offset) {
    quantise_rows<true>(x, stride, rows, features, offset, inv_scale, q, q_stride);
  } else {
    quantise_rows<false>(x, stride, rows, features, offset, inv_scale, q, q_stride);
  }
}

/// Codes of kR panels (the last may be short).
template <int kR>
void encode_panels(const EncodeView& e, const EncodeInput& in, uint8_t* panel, int64_t panel_bytes, void* memory) {
  const Scratch s = carve(e, memory);
  const bool by_rows = in.feature_stride == 1;
  for (int r = 0; r < kR; ++r) {
    const int64_t rows = in.rows - r * kRows < kRows ? in.rows - r * kRows : kRows;
    const float* x = in.x + r * kRows * in.row_stride;
    const __mmask16 mask = lanes(rows);
    const auto load = [&](int64_t f) { return _mm512_maskz_loadu_ps(mask, x + f * in.feature_stride); };
    if (e.projected) {
      if (by_rows) {
        quantise_any(e.has_proj_offset, x, in.row_stride, rows, e.inputs, e.proj_offset, e.proj_inv_scale, s.rows,
                     s.row_stride);
        input_slots_of_rows(e, s.rows, s.row_stride, s.input_slots);
      } else {
        input_slots_of_features(
            e, s.input_slots, [&](int64_t d) { return quantise_feature(load(d), e.proj_offset, e.proj_inv_scale, d); });
      }
      project(e, s.input_slots, s.features);
      slots_of_features<kR>(e, s.slots + r, [&](int64_t f) { return s.features[f]; });
    } else if (by_rows) {
      quantise_any(e.has_offset, x, in.row_stride, rows, e.features, e.offset, e.inv_scale, s.rows, s.row_stride);
      arrange<kR>(e, s.rows, s.row_stride, rows, s.slots + r);
    } else {
      slots_of_features<kR>(e, s.slots + r,
                            [&](int64_t f) { return quantise_feature(load(f), e.offset, e.inv_scale, f); });
    }
  }
  score_any<kR>(e, s.slots, panel, panel_bytes);
}

}  // namespace

size_t encode_scratch_avx512(const EncodeView& e) {
  const int64_t projection = e.projected ? input_slots(e) + e.features : 0;
  return static_cast<size_t>(round_up(e.slots, 16) * 128 + kRows * (round_up(widest(e), 64) + 64) + projection * 64);
}

void encode_avx512(const EncodeView& e, const EncodeInput& in, uint8_t* panels, int64_t panel_bytes, void* scratch) {
  in.rows > kRows ? encode_panels<2>(e, in, panels, panel_bytes, scratch)
                  : encode_panels<1>(e, in, panels, panel_bytes, scratch);
}

}  // namespace lutc::kernels
