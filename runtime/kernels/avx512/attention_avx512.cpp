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

/// Lane i: join over all lanes of m[i]. Join: __m512i(__m512i, __m512i) on 32-bit lanes, in any order.
template <class Join>
LUTC_ALWAYS __m512i join_lanes(__m512i (&m)[16], const Join& join) {
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i)
    m[i] = join(_mm512_unpacklo_epi32(m[2 * i], m[2 * i + 1]), _mm512_unpackhi_epi32(m[2 * i], m[2 * i + 1]));
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i)
    m[i] = join(_mm512_unpacklo_epi64(m[2 * i], m[2 * i + 1]), _mm512_unpackhi_epi64(m[2 * i], m[2 * i + 1]));
  // the four 128-bit parts of m[g] are partial results of rows 4 g .. 4 g + 3
  const __m512i low = join(_mm512_shuffle_i32x4(m[0], m[1], 0x88), _mm512_shuffle_i32x4(m[0], m[1], 0xdd));
  const __m512i high = join(_mm512_shuffle_i32x4(m[2], m[3], 0x88), _mm512_shuffle_i32x4(m[2], m[3], 0xdd));
  return join(_mm512_shuffle_i32x4(low, high, 0x88), _mm512_shuffle_i32x4(low, high, 0xdd));
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
  quantisers(join_lanes(m, [](__m512i a, __m512i b) __attribute__((always_inline)) { return _mm512_max_epi32(a, b); }),
             factor, step);
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
  typedef int32_t Pair __attribute__((may_alias));
  const Pair* base[kBases];
#pragma GCC unroll 4
  for (int i = 0; i < kBases; ++i) base[i] = reinterpret_cast<const Pair*>(a) + 3 * i * stride;
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

/// sums[row][column] of `kVectors` vectors of a panel; rows of `a` are `a_stride` pairs apart.
template <int kVectors>
void multiply_store(const int16_t* a, int64_t a_stride, const int16_t* panel, int64_t rows, int64_t pairs,
                    int32_t* sums, int64_t stride) {
  for_row_blocks(rows, [=](auto count, int64_t row) __attribute__((always_inline)) {
    constexpr int kRows = decltype(count)::value;
    __m512i acc[kRows][kVectors];
    multiply<kRows, kVectors>(a + 2 * row * a_stride, a_stride, panel, pairs, acc);
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
    (keys - s > 16 ? multiply_store<2> : multiply_store<1>)(q, pairs, panels, rows, pairs, sums + s, stride);
}

/// 4095 * 4^x for x <= 0, to 3e-6 of its value; *largest also sees a NaN, whose weight is nonsense.
LUTC_ALWAYS __m512i exponential(__m512 x, __m512i* largest) {
  // 4^x = 4^f 2^n: f in [0, 1/2) is what is left above a multiple n / 2 of one half. Infinity leaves 0.
  constexpr int kAboveHalves = 1 << 4 | _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC;
  const __m512 f = _mm512_reduce_ps(x, kAboveHalves);
  __m512 y = _mm512_fmadd_ps(_mm512_set1_ps(886.758667f), f, _mm512_set1_ps(1703.89539f));
  y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(3954.83228f));
  y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(5675.70117f));
  y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(4095.0105f));
  *largest = _mm512_max_epu32(*largest, _mm512_castps_si512(y));
  return _mm512_cvtps_epi32(_mm512_scalef_ps(y, _mm512_add_ps(x, x)));  // which takes the whole part of 2 x
}

/// The scores of a row, as exponents of 4, in place of its sums; returns the largest of each lane.
LUTC_ALWAYS __m512i score_row(int32_t* sums, const float* key_steps, float query_step, const float* mask,
                              int64_t keys) {
  const __m512 unit = _mm512_set1_ps(attention::kLog4E);
  const __m512 by = _mm512_set1_ps(mask == nullptr ? query_step * attention::kLog4E : query_step);
  const auto score = [=](int64_t i, __mmask16 lanes) __attribute__((always_inline)) {
    __m512 a = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_loadu_si512(sums + i)), _mm512_loadu_ps(key_steps + i));
    a = mask == nullptr ? _mm512_mul_ps(a, by)
                        : _mm512_mul_ps(_mm512_fmadd_ps(a, by, _mm512_maskz_loadu_ps(lanes, mask + i)), unit);
    _mm512_storeu_ps(sums + i, a);
    return a;
  };
  __m512 m0 = _mm512_set1_ps(-__builtin_inff()), m1 = m0;
  int64_t s = 0;
  for (; s + 32 <= keys; s += 32) {
    m0 = _mm512_max_ps(score(s, 0xffff), m0);  // the running maximum second: a NaN is dropped here, and seen later
    m1 = _mm512_max_ps(score(s + 16, 0xffff), m1);
  }
  for (; s < keys; s += 16) {
    const __mmask16 lanes = first_lanes(keys - s);
    m0 = _mm512_mask_max_ps(m0, lanes, score(s, lanes), m0);
  }
  return _mm512_castps_si512(_mm512_max_ps(m0, m1));
}

/// Weights of one row's scores; returns their sum, lane by lane.
LUTC_ALWAYS __m512i weigh_row(const int32_t* scores, float greatest, int64_t keys, int16_t* weights, bool* nan) {
  const __m512 top = _mm512_set1_ps(greatest);
  __m512i largest = _mm512_setzero_si512();
  const __m512i ones = _mm512_set1_epi16(1);
  __m512i total = _mm512_setzero_si512();
  const auto weight = [&](int64_t i, __mmask16 lanes) __attribute__((always_inline)) {
    return exponential(_mm512_sub_ps(_mm512_mask_loadu_ps(top, lanes, scores + i), top), &largest);
  };
  const auto store = [&](int64_t i, __m512i a, __m512i b) __attribute__((always_inline)) {
    const __m512i both = low_halves(a, b);
    total = _mm512_dpwssd_epi32(total, both, ones);
    _mm512_storeu_si512(weights + i, both);
  };
  int64_t s = 0;
  for (; s + 32 <= keys; s += 32) {
    const __m512i a = weight(s, 0xffff), b = weight(s + 16, 0xffff);
    store(s, a, b);
  }
  if (s < keys) {
    const __mmask16 first = first_lanes(keys - s), second = first_lanes(keys - s - 16);
    const __m512i a = weight(s, first), b = weight(s + 16, second);
    store(s, _mm512_maskz_mov_epi32(first, a), _mm512_maskz_mov_epi32(second, b));
  }
  *nan = _mm512_cmpge_epu32_mask(largest, _mm512_set1_epi32(0x7f800000)) != 0;
  return total;
}

void weigh(int32_t* sums, int64_t stride, const float* key_steps, const float* query_steps, const float* const* masks,
           int64_t rows, int64_t keys, int16_t* weights, int64_t weight_stride, float* inverses) {
  // Two sweeps, the lanes of sixteen rows brought together at once: no row waits for its own largest score or sum, nor
  // for its scores to reach the cache.
  alignas(64) float top[attention::kMostRows];
  __m512i lanes[16];
  for (int64_t first = 0; first < rows; first += 16) {
    for (int64_t r = first; r < first + 16; ++r) {
      lanes[r - first] =
          r >= rows ? _mm512_setzero_si512() : score_row(sums + r * stride, key_steps, query_steps[r], masks[r], keys);
    }
    _mm512_store_si512(top + first, join_lanes(lanes, [](__m512i a, __m512i b) __attribute__((always_inline)) {
                         return _mm512_castps_si512(_mm512_max_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b)));
                       }));
  }
  for (int64_t first = 0; first < rows; first += 16) {
    uint32_t nans = 0;
    for (int64_t r = first; r < first + 16; ++r) {
      lanes[r - first] = _mm512_setzero_si512();
      if (r >= rows) continue;
      bool nan = false;
      lanes[r - first] = weigh_row(sums + r * stride, top[r], keys, weights + r * weight_stride, &nan);
      nans |= nan ? 1u << (r - first) : 0u;
    }
    const __m512i totals =
        join_lanes(lanes, [](__m512i a, __m512i b) __attribute__((always_inline)) { return _mm512_add_epi32(a, b); });
    const __m512 inverse = _mm512_div_ps(_mm512_set1_ps(1.0f), _mm512_cvtepi32_ps(totals));
    _mm512_mask_storeu_ps(
        inverses + first, first_lanes(rows - first),
        _mm512_mask_blend_ps(static_cast<__mmask16>(nans), inverse, _mm512_set1_ps(__builtin_nanf(""))));
  }
}

template <int kVectors>
void mix_panel(const int16_t* weights, int64_t weight_stride, const int16_t* panel, int64_t rows, int64_t pairs,
               int64_t d, const float* steps, const float* inverses, float* y, int64_t y_stride) {
  constexpr int64_t kBlock = attention::kBlockKeys / 2;
  const __mmask16 lanes = first_lanes(d - 16 * (kVectors - 1));  // of the last vector
  alignas(64) int32_t sums[attention::kMostRows * kPanel];
  for (int64_t p = 0; p < pairs; p += kBlock) {
    const int64_t some = pairs - p < kBlock ? pairs - p : kBlock;
    multiply_store<kVectors>(weights + 2 * p, weight_stride / 2, panel + 2 * kPanel * p, rows, some, sums, kPanel);
    for (int64_t r = 0; r < rows; ++r) {
      const __m512 inverse = _mm512_set1_ps(inverses[r]);
      for (int c = 0; c < kVectors; ++c) {
        const __mmask16 m = c + 1 < kVectors ? __mmask16{0xffff} : lanes;
        float* to = y + r * y_stride + 16 * c;
        __m512 sum = _mm512_cvtepi32_ps(_mm512_load_si512(sums + r * kPanel + 16 * c));
        if (p != 0) sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(m, to));
        if (p + kBlock >= pairs) sum = _mm512_mul_ps(sum, _mm512_mul_ps(_mm512_loadu_ps(steps + 16 * c), inverse));
        _mm512_mask_storeu_ps(to, m, sum);
      }
    }
  }
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
