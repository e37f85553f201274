// Quantised attention with vpdpwssd: sixteen columns a vector, two summed values a lane.
#include <type_traits>

#include "kernels/attention.h"
#include "kernels/avx512/transpose.h"

namespace lutc::kernels {
extern const AttentionKernels kAttentionAvx512;
namespace {

#define LUTC_ALWAYS static inline __attribute__((always_inline))

constexpr int kPanel = 32;  ///< two vectors
constexpr int kBlockRows = 12;
constexpr int kGroup = 16;  ///< rows quantised together

LUTC_ALWAYS __mmask16 first_lanes(int64_t n) {
  return n >= 16 ? __mmask16{0xffff} : n <= 0 ? __mmask16{0} : static_cast<__mmask16>((1u << n) - 1u);
}

// Bits of magnitudes are compared as integers: those of NaN are above infinity's, so that both are found.
LUTC_ALWAYS __m512i magnitude(__m512 x) {
  return _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7fffffff));
}

/// Sixteen largest magnitudes to what quantises (0 for zero, NaN and infinity) and to steps (NaN for the latter two).
LUTC_ALWAYS void quantisers(__m512i largest, __m512* factor, __m512* step) {
  const __m512 a = _mm512_castsi512_ps(largest), levels = _mm512_set1_ps(attention::kLevels);
  const __mmask16 finite = _mm512_cmplt_epi32_mask(largest, _mm512_set1_epi32(0x7f800000));
  const __mmask16 useful = _mm512_mask_test_epi32_mask(finite, largest, largest);
  *factor = _mm512_maskz_min_ps(useful, _mm512_div_ps(levels, a), _mm512_set1_ps(attention::kLargest));
  *step = _mm512_mask_blend_ps(finite, _mm512_set1_ps(__builtin_nanf("")), _mm512_div_ps(a, levels));
}

/// Lane i: the largest of all lanes of m[i], as signed integers.
LUTC_ALWAYS __m512i largest_lanes(__m512i (&m)[16]) {
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    m[i] =
        _mm512_max_epi32(_mm512_unpacklo_epi32(m[2 * i], m[2 * i + 1]), _mm512_unpackhi_epi32(m[2 * i], m[2 * i + 1]));
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    m[i] =
        _mm512_max_epi32(_mm512_unpacklo_epi64(m[2 * i], m[2 * i + 1]), _mm512_unpackhi_epi64(m[2 * i], m[2 * i + 1]));
  }
  // 128 bits of m[g] are four partial results of rows 4 g .. 4 g + 3
  const __m512i low = _mm512_max_epi32(_mm512_shuffle_i32x4(m[0], m[1], 0x88), _mm512_shuffle_i32x4(m[0], m[1], 0xdd));
  const __m512i high = _mm512_max_epi32(_mm512_shuffle_i32x4(m[2], m[3], 0x88), _mm512_shuffle_i32x4(m[2], m[3], 0xdd));
  return _mm512_max_epi32(_mm512_shuffle_i32x4(low, high, 0x88), _mm512_shuffle_i32x4(low, high, 0xdd));
}

/// Quantisers of up to sixteen rows.
LUTC_ALWAYS void row_quantisers(const float* x, int64_t stride, int64_t rows, int64_t d, __m512* factor, __m512* step) {
  __m512i m[16];
  for (int r = 0; r < kGroup; ++r) {
    __m512i most = _mm512_setzero_si512();
    const float* row = x + r * stride;
    if (r < rows) {
      int64_t i = 0;
      for (; i + 16 <= d; i += 16) most = _mm512_max_epi32(most, magnitude(_mm512_loadu_ps(row + i)));
      if (i < d) most = _mm512_max_epi32(most, magnitude(_mm512_maskz_loadu_ps(first_lanes(d - i), row + i)));
    }
    m[r] = most;
  }
  quantisers(largest_lanes(m), factor, step);
}

/// The low halves of a's lanes, then of b's.
LUTC_ALWAYS __m512i low_halves(__m512i a, __m512i b) {
  alignas(64) static constexpr int16_t kEven[32] = {0,  2,  4,  6,  8,  10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30,
                                                    32, 34, 36, 38, 40, 42, 44, 46, 48, 50, 52, 54, 56, 58, 60, 62};
  return _mm512_permutex2var_epi16(a, _mm512_load_si512(kEven), b);
}

/// 32 values of a row, of which `left` exist, as int16 in order.
LUTC_ALWAYS __m512i quantise32(const float* x, int64_t left, __m512 factor) {
  const __m512 a = left >= 16 ? _mm512_loadu_ps(x) : _mm512_maskz_loadu_ps(first_lanes(left), x);
  const __m512 b = left >= 32   ? _mm512_loadu_ps(x + 16)
                   : left <= 16 ? _mm512_setzero_ps()
                                : _mm512_maskz_loadu_ps(first_lanes(left - 16), x + 16);
  // NaN (0 * infinity) becomes INT_MIN, whose low half is zero
  return low_halves(_mm512_cvtps_epi32(_mm512_mul_ps(a, factor)), _mm512_cvtps_epi32(_mm512_mul_ps(b, factor)));
}

void quantise_rows(const float* x, int64_t stride, int64_t rows, int64_t d, int16_t* q, float* steps) {
  const int64_t pairs = (d + 1) / 2;
  for (int64_t first = 0; first < rows; first += kGroup) {
    const int64_t some = rows - first < kGroup ? rows - first : kGroup;
    __m512 factor, step;
    row_quantisers(x + first * stride, stride, some, d, &factor, &step);
    _mm512_mask_storeu_ps(steps + first, first_lanes(some), step);
    alignas(64) float factors[kGroup];
    _mm512_store_ps(factors, factor);
    for (int64_t r = 0; r < some; ++r) {
      const float* row = x + (first + r) * stride;
      int16_t* to = q + (first + r) * 2 * pairs;
      const __m512 by = _mm512_set1_ps(factors[r]);
      for (int64_t i = 0; i < d; i += 32)
        _mm512_mask_storeu_epi32(to + i, first_lanes(pairs - i / 2), quantise32(row + i, d - i, by));
    }
  }
}

void pack_keys(const float* k, int64_t stride, int64_t keys, int64_t d, float scale, int16_t* panels, float* steps) {
  const int64_t pairs = (d + 1) / 2, padded = (keys + kPanel - 1) / kPanel * kPanel;
  for (int64_t first = 0; first < padded; first += kGroup) {
    const int64_t some = keys - first < kGroup ? keys - first : kGroup;
    const float* rows = k + first * stride;
    __m512 factor, step;
    row_quantisers(rows, stride, some, d, &factor, &step);
    _mm512_storeu_ps(steps + first, _mm512_mul_ps(step, _mm512_set1_ps(scale)));
    alignas(64) float factors[kGroup];
    _mm512_store_ps(factors, factor);
    int16_t* to = panels + (first / kPanel * kPanel * pairs + first % kPanel) * 2;
    for (int64_t i = 0; i < d; i += 32) {
      __m512i v[16];
      for (int r = 0; r < kGroup; ++r) {
        v[r] = r < some ? quantise32(rows + r * stride + i, d - i, _mm512_set1_ps(factors[r])) : _mm512_setzero_si512();
      }
      transpose16(v);
      const int64_t left = pairs - i / 2 < 16 ? pairs - i / 2 : 16;
      for (int64_t p = 0; p < left; ++p, to += 2 * kPanel) _mm512_storeu_si512(to, v[p]);
    }
  }
}

void pack_values(const float* v, int64_t stride, int64_t keys, int64_t d, int16_t* panels, float* steps) {
  const int64_t pairs = (keys + 1) / 2, padded = (d + kPanel - 1) / kPanel * kPanel;
  for (int64_t first = 0; first < padded; first += 16) {
    const __mmask16 lanes = first_lanes(d - first);
    const float* column = v + first;
    int16_t* to = panels + (first / kPanel * kPanel * pairs + first % kPanel) * 2;
    __m512i m0 = _mm512_setzero_si512(), m1 = m0;
    int64_t s = 0;
    for (; s + 2 <= keys; s += 2) {
      m0 = _mm512_max_epi32(m0, magnitude(_mm512_maskz_loadu_ps(lanes, column + s * stride)));
      m1 = _mm512_max_epi32(m1, magnitude(_mm512_maskz_loadu_ps(lanes, column + (s + 1) * stride)));
    }
    if (s < keys) m0 = _mm512_max_epi32(m0, magnitude(_mm512_maskz_loadu_ps(lanes, column + s * stride)));
    __m512 factor, step;
    quantisers(_mm512_max_epi32(m0, m1), &factor, &step);
    _mm512_storeu_ps(steps + first, step);
    const auto quantise = [=](int64_t row) __attribute__((always_inline)) {
      return _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_maskz_loadu_ps(lanes, column + row * stride), factor));
    };
    constexpr __mmask32 kOdd = 0xaaaaaaaau;
    for (s = 0; s + 2 <= keys; s += 2, to += 2 * kPanel)
      _mm512_storeu_si512(to, _mm512_mask_blend_epi16(kOdd, quantise(s), _mm512_slli_epi32(quantise(s + 1), 16)));
    if (s < keys) _mm512_storeu_si512(to, _mm512_mask_blend_epi16(kOdd, quantise(s), _mm512_setzero_si512()));
  }
}

/// acc[r][c] = rows of pairs (stride in pairs) times `kVectors` vectors of a panel.
template <int kRows, int kVectors>
LUTC_ALWAYS void multiply(const int16_t* a, int64_t stride, const int16_t* panel, int64_t pairs,
                          __m512i (&acc)[kRows][kVectors]) {
  // Rows are reached from every third one: base, base + stride, base + 2 stride are addresses of one instruction.
  constexpr int kBases = (kRows + 2) / 3;
  const int32_t* base[kBases];
#pragma GCC unroll 4
  for (int i = 0; i < kBases; ++i) base[i] = reinterpret_cast<const int32_t*>(a) + 3 * i * stride;
#pragma GCC unroll 12
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int c = 0; c < kVectors; ++c) acc[r][c] = _mm512_setzero_si512();
  }
  for (int64_t p = 0; p < pairs; ++p, panel += 2 * kPanel) {
    __m512i b[kVectors];
#pragma GCC unroll 2
    for (int c = 0; c < kVectors; ++c) b[c] = _mm512_loadu_si512(panel + 32 * c);
#pragma GCC unroll 12
    for (int r = 0; r < kRows; ++r) {
      const __m512i x = _mm512_set1_epi32(base[r / 3][r % 3 * stride]);
#pragma GCC unroll 2
      for (int c = 0; c < kVectors; ++c) acc[r][c] = _mm512_dpwssd_epi32(acc[r][c], x, b[c]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < kBases; ++i) ++base[i];
  }
}

/// fn(std::integral_constant<int, rows>, first row) for rows in register blocks.
template <class Fn>
LUTC_ALWAYS void for_row_blocks(int64_t rows, const Fn& fn) {
  int64_t r = 0;
  for (; r + 12 <= rows; r += 12) fn(std::integral_constant<int, 12>{}, r);
  if (r + 8 <= rows) fn(std::integral_constant<int, 8>{}, r), r += 8;
  if (r + 4 <= rows) fn(std::integral_constant<int, 4>{}, r), r += 4;
  for (; r < rows; ++r) fn(std::integral_constant<int, 1>{}, r);
}

template <int kVectors>
void score_panel(const int16_t* q, const int16_t* panel, int64_t rows, int64_t pairs, int32_t* sums, int64_t stride) {
  for_row_blocks(rows, [=](auto count, int64_t row) __attribute__((always_inline)) {
    constexpr int kRows = decltype(count)::value;
    __m512i acc[kRows][kVectors];
    multiply<kRows, kVectors>(q + 2 * row * pairs, pairs, panel, pairs, acc);
#pragma GCC unroll 12
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
      for (int c = 0; c < kVectors; ++c) _mm512_storeu_si512(sums + (row + r) * stride + 16 * c, acc[r][c]);
    }
  });
}

void scores(const int16_t* q, const int16_t* panels, int64_t rows, int64_t keys, int64_t pairs, int32_t* sums,
            int64_t stride) {
  for (int64_t s = 0; s < keys; s += kPanel, panels += 2 * kPanel * pairs)
    (keys - s > 16 ? score_panel<2> : score_panel<1>)(q, panels, rows, pairs, sums + s, stride);
}

/// 4095 * 2^x for x <= 0; *largest also sees a NaN, whose weight is nonsense.
LUTC_ALWAYS __m512i weights16(__m512 x, __m512i* largest) {
  const __m512 magic = _mm512_set1_ps(12582912.0f);
  x = _mm512_max_ps(_mm512_set1_ps(-20.0f), x);  // constant first: NaN passes
  const __m512 shifted = _mm512_add_ps(x, magic);
  const __m512 f = _mm512_sub_ps(x, _mm512_sub_ps(shifted, magic));
  constexpr float kScale = attention::kWeightLevels;
  __m512 y = _mm512_set1_ps(kScale * attention::kExp2[4]);
  y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(kScale * attention::kExp2[3]));
  y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(kScale * attention::kExp2[2]));
  y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(kScale * attention::kExp2[1]));
  y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(kScale * attention::kExp2[0]));
  *largest = _mm512_max_epu32(*largest, _mm512_castps_si512(y));
  // the whole part sits in the low bits of `shifted`: into y's exponent
  return _mm512_cvtps_epi32(_mm512_castsi512_ps(
      _mm512_add_epi32(_mm512_castps_si512(y), _mm512_slli_epi32(_mm512_castps_si512(shifted), 23))));
}

float weigh(int32_t* sums, const float* key_steps, float query_step, const float* mask, int64_t keys,
            int16_t* weights) {
  // Without a mask the query's step waits until the largest score is subtracted.
  const __m512 by = _mm512_set1_ps(query_step), lowest = _mm512_set1_ps(-__builtin_inff());
  __m512 m0 = lowest, m1 = lowest;
  const auto score = [=](int64_t i) __attribute__((always_inline)) {
    return _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_loadu_si512(sums + i)), _mm512_loadu_ps(key_steps + i));
  };
  int64_t s = 0;
  for (; s + 32 <= keys; s += 32) {
    __m512 a = score(s), b = score(s + 16);
    if (mask != nullptr) {
      a = _mm512_fmadd_ps(a, by, _mm512_loadu_ps(mask + s));
      b = _mm512_fmadd_ps(b, by, _mm512_loadu_ps(mask + s + 16));
    }
    m0 = _mm512_max_ps(a, m0);  // the running maximum second: a NaN is dropped here, and seen below
    m1 = _mm512_max_ps(b, m1);
    _mm512_storeu_ps(sums + s, a);
    _mm512_storeu_ps(sums + s + 16, b);
  }
  for (; s < keys; s += 16) {
    const __mmask16 lanes = first_lanes(keys - s);
    __m512 a = score(s);
    if (mask != nullptr) a = _mm512_fmadd_ps(a, by, _mm512_maskz_loadu_ps(lanes, mask + s));
    m0 = _mm512_mask_max_ps(m0, lanes, a, m0);
    _mm512_storeu_ps(sums + s, a);
  }
  const __m512 top = _mm512_set1_ps(_mm512_reduce_max_ps(_mm512_max_ps(m0, m1)));
  const __m512 factor = _mm512_set1_ps(1.44269504f * (mask == nullptr ? query_step : 1.0f));
  const __m512i ones = _mm512_set1_epi16(1);
  __m512i total = _mm512_setzero_si512(), largest = total;
  const auto exponent = [=](int64_t i) __attribute__((always_inline)) {
    return _mm512_mul_ps(_mm512_sub_ps(_mm512_loadu_ps(sums + i), top), factor);
  };
  for (s = 0; s + 32 <= keys; s += 32) {
    const __m512i w = low_halves(weights16(exponent(s), &largest), weights16(exponent(s + 16), &largest));
    total = _mm512_dpwssd_epi32(total, w, ones);
    _mm512_storeu_si512(weights + s, w);
  }
  if (s < keys) {
    const __mmask16 first = first_lanes(keys - s), second = first_lanes(keys - s - 16);
    const __m512i a = _mm512_maskz_mov_epi32(first, weights16(_mm512_maskz_mov_ps(first, exponent(s)), &largest));
    __m512i b = _mm512_setzero_si512();
    if (second != 0) {
      b = _mm512_maskz_mov_epi32(second, weights16(_mm512_maskz_mov_ps(second, exponent(s + 16)), &largest));
    }
    const __m512i w = low_halves(a, b);
    total = _mm512_dpwssd_epi32(total, w, ones);
    _mm512_storeu_si512(weights + s, w);
  }
  if (_mm512_cmpge_epu32_mask(largest, _mm512_set1_epi32(0x7f800000)) != 0) return __builtin_nanf("");
  return 1.0f / static_cast<float>(_mm512_reduce_add_epi32(total));
}

template <int kVectors>
void mix_panel(const int16_t* weights, int64_t weight_stride, const int16_t* panel, int64_t rows, int64_t pairs,
               int64_t d, const float* steps, const float* inverses, float* y, int64_t y_stride) {
  const __mmask16 lanes = first_lanes(d - 16 * (kVectors - 1));  // of the last vector
  for_row_blocks(rows, [=](auto count, int64_t row) __attribute__((always_inline)) {
    constexpr int kRows = decltype(count)::value;
    constexpr int64_t kBlock = attention::kBlockKeys / 2;
    for (int64_t p = 0; p < pairs; p += kBlock) {
      __m512i acc[kRows][kVectors];
      multiply<kRows, kVectors>(weights + row * weight_stride + 2 * p, weight_stride / 2, panel + 2 * kPanel * p,
                                pairs - p < kBlock ? pairs - p : kBlock, acc);
#pragma GCC unroll 12
      for (int r = 0; r < kRows; ++r) {
        const __m512 inverse = _mm512_set1_ps(inverses[row + r]);
#pragma GCC unroll 2
        for (int c = 0; c < kVectors; ++c) {
          const __mmask16 m = c + 1 < kVectors ? __mmask16{0xffff} : lanes;
          float* to = y + (row + r) * y_stride + 16 * c;
          __m512 sum = _mm512_cvtepi32_ps(acc[r][c]);
          if (p != 0) sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(m, to));
          if (p + kBlock >= pairs) sum = _mm512_mul_ps(sum, _mm512_mul_ps(_mm512_loadu_ps(steps + 16 * c), inverse));
          _mm512_mask_storeu_ps(to, m, sum);
        }
      }
    }
  });
}

void mix(const int16_t* weights, int64_t weight_stride, const int16_t* panels, int64_t rows, int64_t keys, int64_t d,
         const float* steps, const float* inverses, float* y, int64_t y_stride) {
  const int64_t pairs = (keys + 1) / 2;
  for (int64_t j = 0; j < d; j += kPanel, panels += 2 * kPanel * pairs) {
    (d - j > 16 ? mix_panel<2> : mix_panel<1>)(weights, weight_stride, panels, rows, pairs, d - j, steps + j, inverses,
                                               y + j, y_stride);
  }
}

}  // namespace

const AttentionKernels kAttentionAvx512 = {kPanel,      kBlockRows, quantise_rows, pack_keys,
                                           pack_values, scores,     weigh,         mix};

}  // namespace lutc::kernels
