// What follows the lookups with AVX2: sums to floats, scaled, with a bias, an activation and a residual, into rows or
// planes.
#include <immintrin.h>

#include "kernels/avx2/lookup_avx2.h"
#include "kernels/avx2/transpose.h"

namespace lutc::kernels {
namespace {

#define LUTC_INLINE __attribute__((always_inline)) inline

constexpr int kRows = 32;  ///< of a panel

LUTC_INLINE __m256i load(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
LUTC_INLINE void store(void* p, __m256i v) { _mm256_storeu_si256(static_cast<__m256i*>(p), v); }

/// Lanes below n.
LUTC_INLINE __m256i first_lanes(int64_t n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n > 8 ? 8 : n)),
                            _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

/// read(p): eight floats, or those that exist.
template <class Read>
LUTC_INLINE __m256 finish(const FinishBlock& f, __m256 y, int64_t at, const Read& read) {
  if (f.residual != nullptr && f.residual_first) y = _mm256_add_ps(y, read(f.residual + at));
  if (f.relu) y = _mm256_max_ps(y, _mm256_setzero_ps());
  if (f.residual != nullptr && !f.residual_first) y = _mm256_add_ps(y, read(f.residual + at));
  return y;
}

/// Rows 0 .. 3 of eight columns, or of the first `columns` and repetitions.
LUTC_INLINE void load_four_rows(const int32_t* acc, int64_t stride, int64_t columns, __m256 (&rows)[4]) {
  __m256d pairs[4];
  const auto column = [&](int64_t n) { return acc + (n < columns ? n : 0) * stride; };
  const auto both = [&](int64_t n) {  // columns n and n + 4
    const __m128i low = _mm_loadu_si128(reinterpret_cast<const __m128i*>(column(n)));
    const __m128i high = _mm_loadu_si128(reinterpret_cast<const __m128i*>(column(n + 4)));
    return _mm256_castsi256_ps(_mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1));
  };
  for (int i = 0; i < 2; ++i) {
    const __m256 a = both(2 * i), b = both(2 * i + 1);
    pairs[i] = _mm256_castps_pd(_mm256_unpacklo_ps(a, b));
    pairs[2 + i] = _mm256_castps_pd(_mm256_unpackhi_ps(a, b));
  }
  for (int i = 0; i < 2; ++i) {
    rows[2 * i] = _mm256_castpd_ps(_mm256_unpacklo_pd(pairs[2 * i], pairs[2 * i + 1]));
    rows[2 * i + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(pairs[2 * i], pairs[2 * i + 1]));
  }
}

/// Up to four rows of up to eight columns from (row, column) on; kWhole: of eight.
template <bool kWhole>
LUTC_INLINE void finish_rows_part(const FinishBlock& f, int64_t row, int64_t column) {
  const int64_t rows = f.rows - row, columns = f.columns - column;
  const __m256i mask = first_lanes(columns);
  const auto read = [&](const float* p) { return kWhole ? _mm256_loadu_ps(p) : _mm256_maskload_ps(p, mask); };
  const __m256 scale = read(f.scale + column), bias = read(f.bias + column);
  __m256 v[4];
  load_four_rows(f.acc + column * f.acc_stride + row, f.acc_stride, kWhole ? 8 : columns, v);
#pragma GCC unroll 4
  for (int r = 0; r < 4; ++r) {
    if (r >= rows) break;
    const int64_t at = (row + r) * f.y_stride + column;
    const __m256 value = f.scaled ? v[r] : _mm256_fmadd_ps(_mm256_cvtepi32_ps(_mm256_castps_si256(v[r])), scale, bias);
    const __m256 y = finish(f, value, at, read);
    if constexpr (kWhole) {
      _mm256_storeu_ps(f.y + at, y);
    } else {
      _mm256_maskstore_ps(f.y + at, mask, y);
    }
  }
}

/// Eight rows of eight columns, with nothing to do but to scale.
template <bool kScaled>
LUTC_INLINE void finish_square(const FinishBlock& f, int64_t row, int64_t column) {
  __m256i v[8];
  const int32_t* acc = f.acc + column * f.acc_stride + row;
#pragma GCC unroll 8
  for (int n = 0; n < 8; ++n) v[n] = load(acc + n * f.acc_stride);
  transpose8(v);
  const __m256 scale = _mm256_loadu_ps(f.scale + column), bias = _mm256_loadu_ps(f.bias + column);
  float* y = f.y + row * f.y_stride + column;
#pragma GCC unroll 8
  for (int r = 0; r < 8; ++r, y += f.y_stride) {
    const __m256 value = kScaled ? _mm256_castsi256_ps(v[r]) : _mm256_fmadd_ps(_mm256_cvtepi32_ps(v[r]), scale, bias);
    _mm256_storeu_ps(y, value);
  }
}

}  // namespace

void finish_rows_avx2(const FinishBlock& f) {
  int64_t row = 0;
  const int64_t whole = f.columns / 8 * 8;
  if (f.residual == nullptr && !f.relu) {
    for (; row + 8 <= f.rows; row += 8) {
      for (int64_t n = 0; n < whole; n += 8)
        f.scaled ? finish_square<true>(f, row, n) : finish_square<false>(f, row, n);
      for (int64_t r = row; whole < f.columns && r < row + 8; r += 4) finish_rows_part<false>(f, r, whole);
    }
  }
  for (; row < f.rows; row += 4) {
    for (int64_t n = 0; n < whole; n += 8) finish_rows_part<true>(f, row, n);
    if (whole < f.columns) finish_rows_part<false>(f, row, whole);
  }
}

/// float(acc) * scale + bias in place.
void scale_columns_avx2(const FinishBlock& f) {
  const int64_t lanes = (f.rows + kRows - 1) / kRows * kRows;
  for (int64_t n = 0; n < f.columns; ++n) {
    int32_t* acc = const_cast<int32_t*>(f.acc) + n * f.acc_stride;
    const __m256 scale = _mm256_set1_ps(f.scale[n]), bias = _mm256_set1_ps(f.bias[n]);
    for (int64_t r = 0; r < lanes; r += 8) {
      const __m256 y = _mm256_fmadd_ps(_mm256_cvtepi32_ps(load(acc + r)), scale, bias);
      store(acc + r, _mm256_castps_si256(y));
    }
  }
}

void finish_planes_avx2(const FinishBlock& f) {
  const int64_t whole = f.rows / 8 * 8;
  for (int64_t n = 0; n < f.columns; ++n) {
    const __m256 scale = _mm256_set1_ps(f.scale[n]), bias = _mm256_set1_ps(f.bias[n]);
    const int32_t* acc = f.acc + n * f.acc_stride;
    const int64_t at = n * f.y_stride;
    for (int64_t r = 0; r < whole; r += 8) {
      const __m256 value = _mm256_fmadd_ps(_mm256_cvtepi32_ps(load(acc + r)), scale, bias);
      _mm256_storeu_ps(f.y + at + r, finish(f, value, at + r, [](const float* p) { return _mm256_loadu_ps(p); }));
    }
    if (whole == f.rows) continue;
    const __m256i mask = first_lanes(f.rows - whole);
    const __m256 sums = _mm256_cvtepi32_ps(_mm256_maskload_epi32(acc + whole, mask));
    const auto read = [&](const float* p) { return _mm256_maskload_ps(p, mask); };
    _mm256_maskstore_ps(f.y + at + whole, mask, finish(f, _mm256_fmadd_ps(sums, scale, bias), at + whole, read));
  }
}

}  // namespace lutc::kernels
