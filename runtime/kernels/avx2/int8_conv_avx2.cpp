// Int8 convolution with AVX2: vpmaddwd multiplies two int16 pixels by two int16 weights in each lane; nothing
// saturates.
//
// The multiply-adds are volatile asm: gcc would otherwise reorder the unrolled block until it spills.
#include <immintrin.h>

#include "kernels/avx2/int8_conv_common.h"

namespace lutc::kernels {
namespace {

constexpr int kUnit = 2;
constexpr int kVectors = 2;
constexpr int kColumns = 6;

LUTC_INLINE __m256i quantise_channel(__m256 x, __m256 inv) {
  const __m256 scaled = _mm256_mul_ps(x, inv);
  const __m256 clipped = _mm256_min_ps(_mm256_max_ps(scaled, _mm256_set1_ps(-127.0f)), _mm256_set1_ps(127.0f));
  return _mm256_cvtps_epi32(clipped);
}

/// Words of eight pixels: low halves from `even`, high halves from `odd`.
LUTC_INLINE __m256i words_of(__m256 even, __m256 odd, __m256 inv) {
  return _mm256_blend_epi16(quantise_channel(even, inv), _mm256_slli_epi32(quantise_channel(odd, inv), 16), 0xaa);
}

template <bool kPair>
void quantise_channels(const float* x, int64_t stride, float inv, int64_t n, uint32_t* words) {
  const __m256 scale = _mm256_set1_ps(inv), zero = _mm256_setzero_ps();
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const __m256 odd = kPair ? _mm256_loadu_ps(x + stride + i) : zero;
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(words + i), words_of(_mm256_loadu_ps(x + i), odd, scale));
  }
  if (i == n) return;
  const __m256i mask = first(n - i);  // masked stores are slow, but there is one at most
  const __m256 odd = kPair ? _mm256_maskload_ps(x + stride + i, mask) : zero;
  _mm256_maskstore_epi32(reinterpret_cast<int*>(words + i), mask,
                         words_of(_mm256_maskload_ps(x + i, mask), odd, scale));
}

void quantise(const float* x, int64_t channel_stride, int channels, float inv, int64_t n, uint32_t* words) {
  channels == kUnit ? quantise_channels<true>(x, channel_stride, inv, n, words)
                    : quantise_channels<false>(x, channel_stride, inv, n, words);
}

LUTC_INLINE void multiply_add(__m256i& acc, __m256i pixels, __m256i weights) {
  __m256i product;
  asm volatile(
      "vpmaddwd %3, %2, %1\n\t"
      "vpaddd %1, %0, %0"
      : "+x"(acc), "=&x"(product)
      : "x"(pixels), "x"(weights));
}

template <int kP, int kN>
void sum(const Int8ConvBlock& b, const ConvVector* vectors) {
  __m256i acc[kP][kN];
  const uint8_t* at[kP];
#pragma GCC unroll 2
  for (int p = 0; p < kP; ++p) at[p] = b.pixels + 4 * vectors[p].position;
#pragma GCC unroll 6
  for (int n = 0; n < kN; ++n) {
    const __m256i start = _mm256_set1_epi32(b.starts[n]);
#pragma GCC unroll 2
    for (int p = 0; p < kP; ++p) acc[p][n] = start;
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
      for (int p = 0; p < kP; ++p) multiply_add(acc[p][n], pixels[p], weight);
    }
  }
  __m256 largest = _mm256_setzero_ps();
#pragma GCC unroll 6
  for (int n = 0; n < kN; ++n) {
    __m256i sums[kP];
#pragma GCC unroll 2
    for (int p = 0; p < kP; ++p) sums[p] = acc[p][n];
    largest = finish_column(b, vectors, n, sums, largest);
  }
  note_largest(b, largest);
}

template <int kN>
void groups(const Int8ConvBlock& b) {
  int i = 0;
  for (; i + kVectors <= b.vector_count; i += kVectors) sum<kVectors, kN>(b, b.vectors + i);
  if (i < b.vector_count) sum<1, kN>(b, b.vectors + i);
}

void block(const Int8ConvBlock& b) {
  switch (b.columns) {
    case 1:
      return groups<1>(b);
    case 2:
      return groups<2>(b);
    case 3:
      return groups<3>(b);
    case 4:
      return groups<4>(b);
    case 5:
      return groups<5>(b);
    default:
      return groups<6>(b);
  }
}

}  // namespace

float int8_conv_max_abs_avx2(const float* x, int64_t n) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  __m256 most[4] = {};
  int64_t i = 0;
  for (; i + 32 <= n; i += 32) {
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k)
      most[k] = _mm256_max_ps(most[k], _mm256_andnot_ps(sign, _mm256_loadu_ps(x + i + 8 * k)));
  }
  for (; i < n; i += 8) {
    const __m256 v = _mm256_maskload_ps(x + i, first(n - i < 8 ? n - i : 8));
    most[0] = _mm256_max_ps(most[0], _mm256_andnot_ps(sign, v));
  }
  const __m256 all = _mm256_max_ps(_mm256_max_ps(most[0], most[1]), _mm256_max_ps(most[2], most[3]));
  __m128 m = _mm_max_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1));
  m = _mm_max_ps(m, _mm_movehl_ps(m, m));
  return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}

extern const Int8ConvKernels kInt8ConvAvx2;
const Int8ConvKernels kInt8ConvAvx2 = {kUnit,    kLanes, kVectors,          kColumns,           int8_conv_max_abs_avx2,
                                       quantise, block,  /*windows=*/false, &kInt8ConvBytesAvx2};

}  // namespace lutc::kernels
