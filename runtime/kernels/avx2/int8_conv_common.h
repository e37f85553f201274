// Shared by the int8 convolutions with 256-bit vectors: maxima and words of images, sums, what becomes of them.
#pragma once

#include "kernels/avx2/lanes.h"
#include "kernels/int8_conv.h"

namespace lutc::kernels {

float int8_conv_max_abs_avx2(const float* x, int64_t n);
/// Where no number of the image is negative (int8_conv_bytes_avx2.cpp).
extern const Int8ConvKernels kInt8ConvBytesAvx2;

namespace {

constexpr int kLanes = 8;
/// Vectors and output channels of a block.
constexpr int kVectors = 2;
constexpr int kColumns = 6;

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
    const __m256i mask = first_lanes(v.count);
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

/// Integers of eight pixels.
LUTC_INLINE __m256i quantise_channel(__m256 x, __m256 inv) {
  const __m256 scaled = _mm256_mul_ps(x, inv);
  const __m256 clipped = _mm256_min_ps(_mm256_max_ps(scaled, _mm256_set1_ps(-127.0f)), _mm256_set1_ps(127.0f));
  return _mm256_cvtps_epi32(clipped);
}

/// Words of n pixels; word(read) makes eight, read(c) gives their numbers of channel c, `stride` behind those before.
template <class Word>
LUTC_INLINE void quantise_words(const float* x, int64_t stride, int64_t n, uint32_t* words, const Word& word) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const auto read = [&](int c) { return _mm256_loadu_ps(x + c * stride + i); };
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(words + i), word(read));
  }
  if (i == n) return;
  const __m256i mask = first_lanes(n - i);  // masked stores are slow, but there is one at most
  const auto read = [&](int c) { return _mm256_maskload_ps(x + c * stride + i, mask); };
  _mm256_maskstore_epi32(reinterpret_cast<int*>(words + i), mask, word(read));
}

/// Words of up to four channels: Words::of<channels>(inv, read) makes eight.
template <class Words>
void quantise_four(const float* x, int64_t stride, int channels, float inv, int64_t n, uint32_t* words) {
  const __m256 scale = _mm256_set1_ps(inv);
  switch (channels) {
    case 1:
      return quantise_words(x, stride, n, words, [&](const auto& read) { return Words::template of<1>(scale, read); });
    case 2:
      return quantise_words(x, stride, n, words, [&](const auto& read) { return Words::template of<2>(scale, read); });
    case 3:
      return quantise_words(x, stride, n, words, [&](const auto& read) { return Words::template of<3>(scale, read); });
    default:
      return quantise_words(x, stride, n, words, [&](const auto& read) { return Words::template of<4>(scale, read); });
  }
}

/// Kernel: `sum<vectors, columns>(block, vectors)` makes the outputs of that many.
template <class Kernel, int kN>
void block_columns(const Int8ConvBlock& b) {
  int i = 0;
  for (; i + kVectors <= b.vector_count; i += kVectors) Kernel::template sum<kVectors, kN>(b, b.vectors + i);
  if (i < b.vector_count) Kernel::template sum<1, kN>(b, b.vectors + i);
}

template <class Kernel>
void block(const Int8ConvBlock& b) {
  switch (b.columns) {
    case 1:
      return block_columns<Kernel, 1>(b);
    case 2:
      return block_columns<Kernel, 2>(b);
    case 3:
      return block_columns<Kernel, 3>(b);
    case 4:
      return block_columns<Kernel, 4>(b);
    case 5:
      return block_columns<Kernel, 5>(b);
    default:
      return block_columns<Kernel, 6>(b);
  }
}

/// Sums of steps one by one, in 32 bits. Multiply: `add(sum, pixels, weights)`.
template <class Multiply>
struct SumOfSteps {
  template <int kP, int kN>
  static void sum(const Int8ConvBlock& b, const ConvVector* vectors) {
    __m256i acc[kN][kP];
    const uint8_t* at[kP];
#pragma GCC unroll 2
    for (int p = 0; p < kP; ++p) at[p] = b.pixels + 4 * vectors[p].position;
#pragma GCC unroll 6
    for (int n = 0; n < kN; ++n) {
      const __m256i start = _mm256_set1_epi32(b.starts[n]);
#pragma GCC unroll 2
      for (int p = 0; p < kP; ++p) acc[n][p] = start;
    }
    const uint8_t* weights = b.weights;
    for (int64_t i = 0; i < b.step_count; ++i, weights += 4 * kN) {
      const int64_t step = b.steps[i];
      __m256i pixels[kP];
#pragma GCC unroll 2
      for (int p = 0; p < kP; ++p) pixels[p] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at[p] + step));
#pragma GCC unroll 6
      for (int n = 0; n < kN; ++n) {
        const __m256i weight = broadcast(weights + 4 * n);
#pragma GCC unroll 2
        for (int p = 0; p < kP; ++p) Multiply::add(acc[n][p], pixels[p], weight);
      }
    }
    __m256 largest = _mm256_setzero_ps();
#pragma GCC unroll 6
    for (int n = 0; n < kN; ++n) largest = finish_column<kP>(b, vectors, n, acc[n], largest);
    note_largest(b, largest);
  }
};

}  // namespace
}  // namespace lutc::kernels
