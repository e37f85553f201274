// What kernels with 256-bit vectors read at the ends of rows, and the largest magnitudes of rows.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace lutc::kernels {
namespace {

#define LUTC_INLINE __attribute__((always_inline)) inline

/// A mask of the first n lanes; more than eight are eight.
LUTC_INLINE __m256i first_lanes(int64_t n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n < 8 ? n : 8)),
                            _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

LUTC_INLINE __m256 load_n(const float* x, int64_t n) {
  return n >= 8 ? _mm256_loadu_ps(x) : _mm256_maskload_ps(x, first_lanes(n));
}

/// The largest |x[d]| of every eighth number.
LUTC_INLINE __m256 largest_lanes(const float* x, int64_t n) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  __m256 a = _mm256_setzero_ps(), b = a, c = a, d = a;
  int64_t i = 0;
  for (; i + 32 <= n; i += 32) {
    a = _mm256_max_ps(a, _mm256_andnot_ps(sign, _mm256_loadu_ps(x + i)));
    b = _mm256_max_ps(b, _mm256_andnot_ps(sign, _mm256_loadu_ps(x + i + 8)));
    c = _mm256_max_ps(c, _mm256_andnot_ps(sign, _mm256_loadu_ps(x + i + 16)));
    d = _mm256_max_ps(d, _mm256_andnot_ps(sign, _mm256_loadu_ps(x + i + 24)));
  }
  for (; i < n; i += 8) a = _mm256_max_ps(a, _mm256_andnot_ps(sign, load_n(x + i, n - i)));
  return _mm256_max_ps(_mm256_max_ps(a, b), _mm256_max_ps(c, d));
}

}  // namespace
}  // namespace lutc::kernels
