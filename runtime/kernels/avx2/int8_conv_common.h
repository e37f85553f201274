// Shared by the int8 convolutions with AVX2: maxima of images, and what becomes of finished sums.
#pragma once

#include <immintrin.h>

#include "kernels/int8_conv.h"

namespace lutc::kernels {

float int8_conv_max_abs_avx2(const float* x, int64_t n);
/// Where no number of the image is negative (int8_conv_bytes_avx2.cpp).
extern const Int8ConvKernels kInt8ConvBytesAvx2;

namespace {

#define LUTC_INLINE __attribute__((always_inline)) inline

constexpr int kLanes = 8;

/// A mask of the first n lanes, 0 <= n <= 8.
LUTC_INLINE __m256i first(int64_t n) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), lane);
}

LUTC_INLINE __m256i broadcast(const uint8_t* p) {
  __m256i word;
  asm volatile("vpbroadcastd %1, %0" : "=x"(word) : "m"(*reinterpret_cast<const uint8_t (*)[4]>(p)));
  return word;
}

/// Residual and activation of finished sums; load() reads the residual.
template <class Load>
LUTC_INLINE __m256 finish(const Int8ConvBlock& b, __m256 y, const Load& load) {
  const __m256 zero = _mm256_setzero_ps();
  if (b.residual == nullptr) return b.relu ? _mm256_max_ps(zero, y) : y;
  if (b.relu && !b.residual_first) y = _mm256_max_ps(zero, y);
  y = _mm256_add_ps(y, load());
  return b.relu && b.residual_first ? _mm256_max_ps(zero, y) : y;
}

/// Stores the outputs of a vector at y + at; returns them, and zeros for the lanes that are none.
LUTC_INLINE __m256 store(const Int8ConvBlock& b, const ConvVector& v, int64_t at, __m256 y) {
  if (v.count == kLanes) {
    y = finish(b, y, [&] { return _mm256_loadu_ps(b.residual + at); });
    _mm256_storeu_ps(b.y + at, y);
  } else {
    const __m256i order = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(v.lanes)));
    const __m256i mask = first(v.count);
    y = _mm256_permutevar8x32_ps(y, order);
    y = finish(b, y, [&] { return _mm256_maskload_ps(b.residual + at, mask); });
    _mm256_maskstore_ps(b.y + at, mask, y);
    y = _mm256_and_ps(y, _mm256_castsi256_ps(mask));
  }
  return y;
}

/// Outputs of one column from its sums: scaled, stored; returns the largest magnitudes.
template <int kP>
LUTC_INLINE __m256 finish_column(const Int8ConvBlock& b, const ConvVector* vectors, int n, const __m256i (&acc)[kP],
                                 __m256 largest) {
  const __m256 scale = _mm256_set1_ps(b.unit_value * b.scale[n]), bias = _mm256_set1_ps(b.bias[n]);
#pragma GCC unroll 2
  for (int p = 0; p < kP; ++p) {
    const __m256 y = _mm256_fmadd_ps(_mm256_cvtepi32_ps(acc[p]), scale, bias);
    const __m256 stored = store(b, vectors[p], n * b.y_stride + vectors[p].output, y);
    largest = _mm256_max_ps(largest, _mm256_andnot_ps(_mm256_set1_ps(-0.0f), stored));
  }
  return largest;
}

LUTC_INLINE void note_largest(const Int8ConvBlock& b, __m256 largest) {
  if (b.largest != nullptr) _mm256_storeu_ps(b.largest, _mm256_max_ps(largest, _mm256_loadu_ps(b.largest)));
}

}  // namespace
}  // namespace lutc::kernels
