// Int8 convolution with AVX2 of images without negative numbers: vpmaddubsw multiplies four pixels, 0 .. 127, by four
// weights in each lane. Two products of a pair never saturate, and the sums of a window of steps fit 16 bits
// (Int8ConvBlock::windows), so that widening them costs one vpmaddwd a window.
#include "kernels/avx2/int8_conv_common.h"
#include "kernels/avx2/int8_conv_windows.h"

namespace lutc::kernels {
namespace {

constexpr int kUnit = 4;
constexpr int kVectors = 2;
constexpr int kColumns = 6;

/// Words of eight pixels; read(c): the numbers of channel c.
template <int kChannels, class Read>
LUTC_INLINE __m256i words_of(__m256 inv, const Read& read) {
  __m256i q[kUnit];
#pragma GCC unroll 4
  for (int c = 0; c < kUnit; ++c) {
    q[c] = c < kChannels ? _mm256_cvtps_epi32(_mm256_min_ps(_mm256_mul_ps(read(c), inv), _mm256_set1_ps(127.0f)))
                         : _mm256_setzero_si256();
  }
  const __m256i order = _mm256_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15, 0, 4, 8, 12, 1, 5, 9, 13,
                                         2, 6, 10, 14, 3, 7, 11, 15);
  return _mm256_shuffle_epi8(_mm256_packus_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3])),
                             order);
}

template <int kChannels>
void quantise_channels(const float* x, int64_t stride, float inv, int64_t n, uint32_t* words) {
  const __m256 scale = _mm256_set1_ps(inv);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const __m256i v = words_of<kChannels>(scale, [&](int c) { return _mm256_loadu_ps(x + c * stride + i); });
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(words + i), v);
  }
  if (i == n) return;
  const __m256i mask = first(n - i);  // masked stores are slow, but there is one at most
  const __m256i v = words_of<kChannels>(scale, [&](int c) { return _mm256_maskload_ps(x + c * stride + i, mask); });
  _mm256_maskstore_epi32(reinterpret_cast<int*>(words + i), mask, v);
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

/// Outputs of one or two vectors.
template <int kP, int kN>
void sum(const Int8ConvBlock& b, const ConvVector* vectors) {
  __m256i sums[kN][kVectors];
  for (int n = 0; n < kN; ++n) {
    for (int p = 0; p < kVectors; ++p) sums[n][p] = _mm256_set1_epi32(b.starts[n]);
  }
  ByteWindows w;
  for (int p = 0; p < kVectors; ++p) w.pixels[p] = b.pixels + 4 * vectors[p < kP ? p : 0].position;
  w.weights = b.weights;
  w.steps = b.steps;
  w.step_count = b.step_count;
  w.windows = b.windows;
  byte_windows<kN>(w, sums[0]);
  __m256 largest = _mm256_setzero_ps();
#pragma GCC unroll 6
  for (int n = 0; n < kN; ++n) {
    __m256i finished[kP];
#pragma GCC unroll 2
    for (int p = 0; p < kP; ++p) finished[p] = sums[n][p];
    largest = finish_column(b, vectors, n, finished, largest);
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

const Int8ConvKernels kInt8ConvBytesAvx2 = {kUnit,    kLanes, kVectors,        kColumns, int8_conv_max_abs_avx2,
                                            quantise, block,  /*windows=*/true};

}  // namespace lutc::kernels
