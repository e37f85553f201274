// Quantised attention with vpmaddwd: eight columns a vector, two summed values a lane.
#include <type_traits>

#include "kernels/attention.h"
#include "kernels/avx2/transpose.h"

namespace lutc::kernels {
extern const AttentionKernels kAttentionAvx2;
namespace {

#define LUTC_ALWAYS static inline __attribute__((always_inline))

constexpr int kPanel = 16;  ///< two vectors
constexpr int kBlockRows = 12;

LUTC_ALWAYS __m256i first_lanes(int64_t n) {
  const int most = n > 8 ? 8 : n < 0 ? 0 : static_cast<int>(n);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(most), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

LUTC_ALWAYS __m256 load8(const float* x, int64_t left) {
  return left >= 8 ? _mm256_loadu_ps(x) : _mm256_maskload_ps(x, first_lanes(left));
}

// Bits of magnitudes are compared as integers: those of NaN are above infinity's, so that both are found.
LUTC_ALWAYS __m256i magnitude(__m256 x) {
  return _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(0x7fffffff));
}

/// Largest magnitudes to what quantises (0 for zero, NaN and infinity) and to steps (NaN for the latter two).
LUTC_ALWAYS void quantisers(__m256i largest, __m256* factor, __m256* step) {
  const __m256 a = _mm256_castsi256_ps(largest), levels = _mm256_set1_ps(attention::kLevels);
  const __m256i infinite = _mm256_cmpgt_epi32(largest, _mm256_set1_epi32(0x7f7fffff));
  const __m256i useless = _mm256_or_si256(infinite, _mm256_cmpeq_epi32(largest, _mm256_setzero_si256()));
  *factor = _mm256_andnot_ps(_mm256_castsi256_ps(useless),
                             _mm256_min_ps(_mm256_div_ps(levels, a), _mm256_set1_ps(attention::kLargest)));
  *step = _mm256_or_ps(_mm256_div_ps(a, levels), _mm256_castsi256_ps(infinite));  // all bits set: NaN
}

LUTC_ALWAYS int32_t greatest(__m256i v) {
  __m128i m = _mm_max_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4e));
  m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0xb1));
  return _mm_cvtsi128_si32(m);
}

/// Quantisers of up to eight rows.
LUTC_ALWAYS void row_quantisers(const float* x, int64_t stride, int64_t rows, int64_t d, float* factors, __m256* step) {
  alignas(32) int32_t largest[8] = {};
  for (int64_t r = 0; r < rows; ++r) {
    __m256i most = _mm256_setzero_si256();
    for (int64_t i = 0; i < d; i += 8) most = _mm256_max_epi32(most, magnitude(load8(x + r * stride + i, d - i)));
    largest[r] = greatest(most);
  }
  __m256 factor;
  quantisers(_mm256_load_si256(reinterpret_cast<const __m256i*>(largest)), &factor, step);
  _mm256_store_ps(factors, factor);
}

/// Int32 lanes of a, then of b, as int16.
LUTC_ALWAYS __m256i narrow(__m256i a, __m256i b) { return _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xd8); }

/// 16 values of a row, of which `left` exist, as int16 in order.
LUTC_ALWAYS __m256i quantise16(const float* x, int64_t left, __m256 factor) {
  const __m256 a = load8(x, left), b = left > 8 ? load8(x + 8, left - 8) : _mm256_setzero_ps();
  const __m256 least = _mm256_set1_ps(-attention::kLevels);  // second operand: NaN (0 * infinity) becomes this
  return narrow(_mm256_cvtps_epi32(_mm256_max_ps(_mm256_mul_ps(a, factor), least)),
                _mm256_cvtps_epi32(_mm256_max_ps(_mm256_mul_ps(b, factor), least)));
}

LUTC_ALWAYS void store8(int16_t* to, __m256i v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), v); }

void quantise_rows(const float* x, int64_t stride, int64_t rows, int64_t d, int16_t* q, float* steps) {
  const int64_t pairs = (d + 1) / 2;
  for (int64_t first = 0; first < rows; first += 8) {
    const int64_t some = rows - first < 8 ? rows - first : 8;
    alignas(32) float factors[8];
    __m256 step;
    row_quantisers(x + first * stride, stride, some, d, factors, &step);
    _mm256_maskstore_ps(steps + first, first_lanes(some), step);
    for (int64_t r = 0; r < some; ++r) {
      const float* row = x + (first + r) * stride;
      int16_t* to = q + (first + r) * 2 * pairs;
      for (int64_t i = 0; i < d; i += 16) {
        const __m256i v = quantise16(row + i, d - i, _mm256_set1_ps(factors[r]));
        if (pairs - i / 2 >= 8) {
          store8(to + i, v);
        } else {  // some CPUs are slow at this
          _mm256_maskstore_epi32(reinterpret_cast<int*>(to + i), first_lanes(pairs - i / 2), v);
        }
      }
    }
  }
}

void pack_keys(const float* k, int64_t stride, int64_t keys, int64_t d, float scale, int16_t* panels, float* steps) {
  const int64_t pairs = (d + 1) / 2, padded = (keys + kPanel - 1) / kPanel * kPanel;
  for (int64_t first = 0; first < padded; first += 8) {
    const int64_t some = keys - first < 8 ? keys - first : 8;
    const float* rows = k + first * stride;
    alignas(32) float factors[8];
    __m256 step;
    row_quantisers(rows, stride, some, d, factors, &step);
    _mm256_storeu_ps(steps + first, _mm256_mul_ps(step, _mm256_set1_ps(scale)));
    int16_t* to = panels + (first / kPanel * kPanel * pairs + first % kPanel) * 2;
    for (int64_t i = 0; i < d; i += 16) {
      __m256i v[8];
      for (int r = 0; r < 8; ++r) {
        v[r] = r < some ? quantise16(rows + r * stride + i, d - i, _mm256_set1_ps(factors[r])) : _mm256_setzero_si256();
      }
      transpose8(v);
      const int64_t left = pairs - i / 2 < 8 ? pairs - i / 2 : 8;
      for (int64_t p = 0; p < left; ++p, to += 2 * kPanel) store8(to, v[p]);
    }
  }
}

void pack_values(const float* v, int64_t stride, int64_t keys, int64_t d, int16_t* panels, float* steps) {
  const int64_t pairs = (keys + 1) / 2, padded = (d + kPanel - 1) / kPanel * kPanel;
  for (int64_t first = 0; first < padded; first += 8) {
    const float* column = v + first;
    const int64_t left = d - first;
    int16_t* to = panels + (first / kPanel * kPanel * pairs + first % kPanel) * 2;
    __m256i most = _mm256_setzero_si256();
    for (int64_t s = 0; s < keys; ++s) most = _mm256_max_epi32(most, magnitude(load8(column + s * stride, left)));
    __m256 factor, step;
    quantisers(most, &factor, &step);
    _mm256_storeu_ps(steps + first, step);
    const auto quantise = [=](int64_t row) __attribute__((always_inline)) {
      return _mm256_cvtps_epi32(_mm256_mul_ps(load8(column + row * stride, left), factor));
    };
    // NaN (0 * infinity) becomes INT_MIN, whose low half is zero
    int64_t s = 0;
    for (; s + 2 <= keys; s += 2, to += 2 * kPanel)
      store8(to, _mm256_blend_epi16(quantise(s), _mm256_slli_epi32(quantise(s + 1), 16), 0xaa));
    if (s < keys) store8(to, _mm256_blend_epi16(quantise(s), _mm256_setzero_si256(), 0xaa));
  }
}

/// acc[r][c] = rows of pairs (stride in pairs) times `kVectors` vectors of a panel.
template <int kRows, int kVectors>
LUTC_ALWAYS void multiply(const int16_t* a, int64_t stride, const int16_t* panel, int64_t pairs,
                          __m256i (&acc)[kRows][kVectors]) {
  // Rows are reached from every third one: base, base + stride, base + 2 stride are addresses of one instruction.
  constexpr int kBases = (kRows + 2) / 3;
  typedef int32_t Pair __attribute__((may_alias));
  const Pair* base[kBases];
#pragma GCC unroll 2
  for (int i = 0; i < kBases; ++i) base[i] = reinterpret_cast<const Pair*>(a) + 3 * i * stride;
#pragma GCC unroll 6
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int c = 0; c < kVectors; ++c) acc[r][c] = _mm256_setzero_si256();
  }
  for (int64_t p = 0; p < pairs; ++p, panel += 2 * kPanel) {
    __m256i b[kVectors];
#pragma GCC unroll 2
    for (int c = 0; c < kVectors; ++c) b[c] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(panel + 16 * c));
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r) {
      const __m256i x = _mm256_set1_epi32(base[r / 3][r % 3 * stride]);
#pragma GCC unroll 2
      for (int c = 0; c < kVectors; ++c) acc[r][c] = _mm256_add_epi32(acc[r][c], _mm256_madd_epi16(x, b[c]));
    }
#pragma GCC unroll 2
    for (int i = 0; i < kBases; ++i) ++base[i];
  }
}

/// fn(std::integral_constant<int, rows>, first row) for rows in register blocks.
template <class Fn>
LUTC_ALWAYS void for_row_blocks(int64_t rows, const Fn& fn) {
  int64_t r = 0;
  for (; r + 6 <= rows; r += 6) fn(std::integral_constant<int, 6>{}, r);
  if (r + 4 <= rows) fn(std::integral_constant<int, 4>{}, r), r += 4;
  for (; r < rows; ++r) fn(std::integral_constant<int, 1>{}, r);
}

/// sums[row][column] of `kVectors` vectors of a panel; rows of `a` are `a_stride` pairs apart.
template <int kVectors>
void multiply_store(const int16_t* a, int64_t a_stride, const int16_t* panel, int64_t rows, int64_t pairs,
                    int32_t* sums, int64_t stride) {
  for_row_blocks(rows, [=](auto count, int64_t row) __attribute__((always_inline)) {
    constexpr int kRows = decltype(count)::value;
    __m256i acc[kRows][kVectors];
    multiply<kRows, kVectors>(a + 2 * row * a_stride, a_stride, panel, pairs, acc);
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
      for (int c = 0; c < kVectors; ++c)
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums + (row + r) * stride + 8 * c), acc[r][c]);
    }
  });
}

void scores(const int16_t* q, const int16_t* panels, int64_t rows, int64_t keys, int64_t pairs, int32_t* sums,
            int64_t stride) {
  for (int64_t s = 0; s < keys; s += kPanel, panels += 2 * kPanel * pairs)
    (keys - s > 8 ? multiply_store<2> : multiply_store<1>)(q, pairs, panels, rows, pairs, sums + s, stride);
}

/// 4095 * 4^x for x <= 0; *largest also sees a NaN, whose weight is nonsense.
LUTC_ALWAYS __m256i exponential(__m256 x, __m256i* largest) {
  const __m256 magic = _mm256_set1_ps(6291456.0f);  // where halves are the unit
  x = _mm256_max_ps(_mm256_set1_ps(-10.0f), x);     // NaN passes
  const __m256 shifted = _mm256_add_ps(x, magic);
  const __m256 f = _mm256_sub_ps(x, _mm256_sub_ps(shifted, magic));
  __m256 y = _mm256_set1_ps(attention::kExp4[attention::kExpDegree]);
#pragma GCC unroll 4
  for (int degree = attention::kExpDegree - 1; degree >= 0; --degree)
    y = _mm256_fmadd_ps(y, f, _mm256_set1_ps(attention::kExp4[degree]));
  *largest = _mm256_max_epu32(*largest, _mm256_castps_si256(y));
  // the number of halves sits in the low bits of `shifted`: into y's exponent
  return _mm256_cvtps_epi32(_mm256_castsi256_ps(
      _mm256_add_epi32(_mm256_castps_si256(y), _mm256_slli_epi32(_mm256_castps_si256(shifted), 23))));
}

/// The scores of a row, as exponents of 4, in place of its sums; returns the largest.
LUTC_ALWAYS float score_row(int32_t* sums, const float* key_steps, float query_step, const float* mask, int64_t keys) {
  const __m256 unit = _mm256_set1_ps(attention::kLog4E);
  const __m256 by = _mm256_set1_ps(mask == nullptr ? query_step * attention::kLog4E : query_step);
  float* scores = reinterpret_cast<float*>(sums);
  const auto score = [=](int64_t i) __attribute__((always_inline)) {
    const __m256i sum = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(sums + i));
    __m256 a = _mm256_mul_ps(_mm256_cvtepi32_ps(sum), _mm256_loadu_ps(key_steps + i));
    a = mask == nullptr ? _mm256_mul_ps(a, by) : _mm256_mul_ps(_mm256_fmadd_ps(a, by, load8(mask + i, keys - i)), unit);
    _mm256_storeu_ps(scores + i, a);
    return a;
  };
  __m256 m = _mm256_set1_ps(-__builtin_inff());
  int64_t s = 0;
  for (; s + 8 <= keys; s += 8) m = _mm256_max_ps(score(s), m);  // a NaN is dropped here, and seen later
  if (s < keys) m = _mm256_blendv_ps(m, _mm256_max_ps(score(s), m), _mm256_castsi256_ps(first_lanes(keys - s)));
  __m128 most = _mm_max_ps(_mm256_castps256_ps128(m), _mm256_extractf128_ps(m, 1));
  most = _mm_max_ps(most, _mm_movehl_ps(most, most));
  most = _mm_max_ps(most, _mm_shuffle_ps(most, most, 0xb1));
  return _mm_cvtss_f32(most);
}

/// Weights of one row's scores; returns 1 / their sum.
LUTC_ALWAYS float weigh_row(const float* scores, float greatest, int64_t keys, int16_t* weights) {
  const __m256 top = _mm256_set1_ps(greatest);
  const __m256i ones = _mm256_set1_epi16(1);
  __m256i total = _mm256_setzero_si256(), largest = total;
  const auto distance = [=](int64_t i)
                            __attribute__((always_inline)) { return _mm256_sub_ps(_mm256_loadu_ps(scores + i), top); };
  int64_t s = 0;
  for (; s + 16 <= keys; s += 16) {
    const __m256i w = narrow(exponential(distance(s), &largest), exponential(distance(s + 8), &largest));
    total = _mm256_add_epi32(total, _mm256_madd_epi16(w, ones));
    store8(weights + s, w);
  }
  if (s < keys) {
    __m256i part[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
    for (int i = 0; i < 2 && s + 8 * i < keys; ++i) {
      const __m256i lanes = first_lanes(keys - s - 8 * i);
      const __m256 x = _mm256_and_ps(distance(s + 8 * i), _mm256_castsi256_ps(lanes));
      part[i] = _mm256_and_si256(exponential(x, &largest), lanes);
    }
    const __m256i w = narrow(part[0], part[1]);
    total = _mm256_add_epi32(total, _mm256_madd_epi16(w, ones));
    store8(weights + s, w);
    s += 16;
  }
  if (s % 32 != 0) store8(weights + s, _mm256_setzero_si256());
  const __m256i infinity = _mm256_set1_epi32(0x7f800000);
  if (_mm256_movemask_epi8(_mm256_cmpeq_epi32(_mm256_max_epu32(largest, infinity), largest)) != 0)
    return __builtin_nanf("");
  __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(total), _mm256_extracti128_si256(total, 1));
  sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4e));
  sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xb1));
  return 1.0f / static_cast<float>(_mm_cvtsi128_si32(sum));
}

void weigh(int32_t* sums, int64_t stride, const float* key_steps, const float* query_steps, const float* const* masks,
           int64_t rows, int64_t keys, int16_t* weights, int64_t weight_stride, float* inverses) {
  // Two sweeps: no row waits for its own largest score, nor for its scores to reach the cache.
  float top[attention::kMostRows];
  for (int64_t r = 0; r < rows; ++r) top[r] = score_row(sums + r * stride, key_steps, query_steps[r], masks[r], keys);
  for (int64_t r = 0; r < rows; ++r) {
    inverses[r] =
        weigh_row(reinterpret_cast<const float*>(sums + r * stride), top[r], keys, weights + r * weight_stride);
  }
}

template <int kVectors>
void mix_panel(const int16_t* weights, int64_t weight_stride, const int16_t* panel, int64_t rows, int64_t pairs,
               int64_t d, const float* steps, const float* inverses, float* y, int64_t y_stride) {
  constexpr int64_t kBlock = attention::kBlockKeys / 2;
  const __m256i lanes = first_lanes(d - 8 * (kVectors - 1));  // of the last vector
  alignas(32) int32_t sums[attention::kMostRows * kPanel];
  for (int64_t p = 0; p < pairs; p += kBlock) {
    const int64_t some = pairs - p < kBlock ? pairs - p : kBlock;
    multiply_store<kVectors>(weights + 2 * p, weight_stride / 2, panel + 2 * kPanel * p, rows, some, sums, kPanel);
    for (int64_t r = 0; r < rows; ++r) {
      const __m256 inverse = _mm256_set1_ps(inverses[r]);
      for (int c = 0; c < kVectors; ++c) {
        const bool full = c + 1 < kVectors || d >= 8 * kVectors;
        float* to = y + r * y_stride + 8 * c;
        __m256 sum = _mm256_cvtepi32_ps(_mm256_load_si256(reinterpret_cast<const __m256i*>(sums + r * kPanel + 8 * c)));
        if (p != 0) sum = _mm256_add_ps(sum, load8(to, d - 8 * c));
        if (p + kBlock >= pairs) sum = _mm256_mul_ps(sum, _mm256_mul_ps(_mm256_loadu_ps(steps + 8 * c), inverse));
        if (full) {
          _mm256_storeu_ps(to, sum);
        } else {
          _mm256_maskstore_ps(to, lanes, sum);
        }
      }
    }
  }
}

void mix(const int16_t* weights, int64_t weight_stride, const int16_t* panels, int64_t rows, int64_t keys, int64_t d,
         const float* steps, const float* inverses, float* y, int64_t y_stride) {
  const int64_t pairs = (keys + 1) / 2;
  for (int64_t j = 0; j < d; j += kPanel, panels += 2 * kPanel * pairs) {
    (d - j > 8 ? mix_panel<2> : mix_panel<1>)(weights, weight_stride, panels, rows, pairs, d - j, steps + j, inverses,
                                              y + j, y_stride);
  }
}

}  // namespace

const AttentionKernels kAttentionAvx2 = {kPanel, kBlockRows, quantise_rows, pack_keys, pack_values, scores, weigh, mix};

}  // namespace lutc::kernels
