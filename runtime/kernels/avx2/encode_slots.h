// The first stage of the encode: rows, pixels or projected features -> slots, four vectors of eight rows each.
#pragma once

#include <immintrin.h>

#include <cstring>

#include "kernels/avx2/encode_codebook.h"
#include "kernels/avx2/lanes.h"
#include "kernels/avx2/lookup_avx2.h"
#include "kernels/avx2/transpose.h"

namespace lutc::kernels {
namespace {

constexpr int kRows = 32;

int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }
int64_t lesser(int64_t a, int64_t b) { return a < b ? a : b; }

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

/// See avx512/encode_slots.h: NaN passes min and becomes the most negative integer.
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
}  // namespace lutc::kernels
