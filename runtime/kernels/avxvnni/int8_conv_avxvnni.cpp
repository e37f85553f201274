// Int8 convolution with 256-bit vpdpbusd, which multiplies four unsigned pixels by four signed weights in each lane.
//
// The multiply-adds are volatile asm: gcc would otherwise reorder the unrolled block until it spills (see
// lookup_avx512.cpp).
#include "kernels/avx2/int8_conv_common.h"
#include "kernels/avxvnni/dpbusd.h"

namespace lutc::kernels {
namespace {

constexpr int kUnit = 4;
constexpr int kVectors = 2;
constexpr int kColumns = 6;

LUTC_INLINE __m256i quantise_channel(__m256 x, __m256 inv) {
  const __m256 scaled = _mm256_mul_ps(x, inv);
  const __m256 clipped = _mm256_min_ps(_mm256_max_ps(scaled, _mm256_set1_ps(-127.0f)), _mm256_set1_ps(127.0f));
  return _mm256_cvtps_epi32(clipped);
}

/// read(c): eight pixels of a channel.
template <int kChannels, class Read>
LUTC_INLINE __m256i quantise_word(__m256 inv, const Read& read) {
  // In each 128-bit lane: byte 4 c + i to byte 4 i + c.
  const __m256i order =
      _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
  __m256i q[kUnit] = {};
#pragma GCC unroll 4
  for (int c = 0; c < kChannels; ++c) q[c] = quantise_channel(read(c), inv);
  const __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
  return _mm256_xor_si256(_mm256_shuffle_epi8(bytes, order), _mm256_set1_epi8(-128));
}

template <int kChannels>
void quantise_channels(const float* x, int64_t stride, float inv, int64_t n, uint32_t* words) {
  const __m256 scale = _mm256_set1_ps(inv);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const auto read = [&](int c) { return _mm256_loadu_ps(x + c * stride + i); };
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(words + i), quantise_word<kChannels>(scale, read));
  }
  if (i == n) return;
  const __m256i mask = first(n - i);
  const auto read = [&](int c) { return _mm256_maskload_ps(x + c * stride + i, mask); };
  _mm256_maskstore_epi32(reinterpret_cast<int*>(words + i), mask, quantise_word<kChannels>(scale, read));
}

void quantise(const float* x, int64_t channel_stride, int channels, float inv, int64_t n, uint32_t* words) {
  switch (channels) {
    case 1:
      return quantise_channels<1>(x, channel_stride, inv, n, words);
    case 2:
      return quantise_channels<2>(x, channel_stride, inv, n, words);
    case 3:
      return quantise_channels<3>(x, channel_stride, inv, n, words);
    default:
      return quantise_channels<4>(x, channel_stride, inv, n, words);
  }
}

LUTC_INLINE void multiply_add(__m256i& acc, __m256i pixels, __m256i weights) {
  asm volatile(LUTC_DPBUSD " %2, %1, %0" : "+x"(acc) : "x"(pixels), "x"(weights));
}

template <int kP, int kN>
void sum(const Int8ConvBlock& b, const ConvVector* vectors) {
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
      for (int p = 0; p < kP; ++p) multiply_add(acc[n][p], pixels[p], weight);
    }
  }
  __m256 largest = _mm256_setzero_ps();
#pragma GCC unroll 6
  for (int n = 0; n < kN; ++n) largest = finish_column<kP>(b, vectors, n, acc[n], largest);
  note_largest(b, largest);
}

template <int kN>
void groups(const Int8ConvBlock& b) {
  int p = 0;
  for (; p + kVectors <= b.vector_count; p += kVectors) sum<kVectors, kN>(b, b.vectors + p);
  if (p < b.vector_count) sum<1, kN>(b, b.vectors + p);
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

extern const Int8ConvKernels LUTC_VNNI(kInt8ConvAvxVnni);
const Int8ConvKernels LUTC_VNNI(kInt8ConvAvxVnni) = {kUnit,    kLanes, kVectors, kColumns, int8_conv_max_abs_avx2,
                                                     quantise, block};

}  // namespace lutc::kernels
