// Int8 convolution with VNNI: vpdpbusd multiplies four unsigned pixels by four signed weights in each lane.
//
// The multiply-adds are volatile asm: gcc would otherwise reorder the unrolled block until it spills (see
// lookup_avx512.cpp).
#include "kernels/avx512/intrinsics.h"
#include "kernels/int8_conv.h"

namespace lutc::kernels {
namespace {

constexpr int kUnit = 4;
constexpr int kLanes = 16;
constexpr int kVectors = 4;
constexpr int kColumns = 6;

#define LUTC_INLINE __attribute__((always_inline)) inline

LUTC_INLINE __mmask16 first(int64_t n) { return static_cast<__mmask16>((1u << n) - 1u); }

float max_abs(const float* x, int64_t n) {
  __m512 most[4] = {};
  int64_t i = 0;
  for (; i + 64 <= n; i += 64) {
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) most[k] = _mm512_max_ps(most[k], _mm512_abs_ps(_mm512_loadu_ps(x + i + 16 * k)));
  }
  for (; i < n; i += 16) {
    const __mmask16 mask = n - i < 16 ? first(n - i) : static_cast<__mmask16>(-1);
    most[0] = _mm512_max_ps(most[0], _mm512_abs_ps(_mm512_maskz_loadu_ps(mask, x + i)));
  }
  return _mm512_reduce_max_ps(_mm512_max_ps(_mm512_max_ps(most[0], most[1]), _mm512_max_ps(most[2], most[3])));
}

LUTC_INLINE __m512i quantise_channel(const float* x, __mmask16 mask, __m512 inv) {
  const __m512 scaled = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, x), inv);
  const __m512 clipped = _mm512_min_ps(_mm512_max_ps(scaled, _mm512_set1_ps(-127.0f)), _mm512_set1_ps(127.0f));
  return _mm512_cvtps_epi32(clipped);
}

template <int kChannels>
LUTC_INLINE __m512i quantise_word(const float* x, int64_t stride, __mmask16 mask, __m512 inv) {
  // In each 128-bit lane: byte 4 c + i to byte 4 i + c.
  const __m512i order = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
  __m512i q[kUnit] = {};
#pragma GCC unroll 4
  for (int c = 0; c < kChannels; ++c) q[c] = quantise_channel(x + c * stride, mask, inv);
  const __m512i bytes = _mm512_packs_epi16(_mm512_packs_epi32(q[0], q[1]), _mm512_packs_epi32(q[2], q[3]));
  return _mm512_xor_si512(_mm512_shuffle_epi8(bytes, order), _mm512_set1_epi8(-128));
}

template <int kChannels>
void quantise_channels(const float* x, int64_t stride, float inv, int64_t n, uint32_t* words) {
  const __m512 scale = _mm512_set1_ps(inv);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    _mm512_storeu_si512(words + i, quantise_word<kChannels>(x + i, stride, static_cast<__mmask16>(-1), scale));
  if (i == n) return;
  const __mmask16 mask = first(n - i);
  _mm512_mask_storeu_epi32(words + i, mask, quantise_word<kChannels>(x + i, stride, mask, scale));
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

LUTC_INLINE void multiply_add(__m512i& acc, __m512i pixels, __m512i weights) {
  asm volatile("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(pixels), "v"(weights));
}

/// Broadcasts the word at p; volatile so that loads of later columns are not done first.
LUTC_INLINE __m512i broadcast(const uint8_t* p) {
  __m512i word;
  asm volatile("vpbroadcastd %1, %0" : "=v"(word) : "m"(*reinterpret_cast<const uint8_t (*)[4]>(p)));
  return word;
}

/// Residual and activation of finished sums; at(p) reads the residual.
template <class Load>
LUTC_INLINE __m512 finish(const Int8ConvBlock& b, __m512 y, const Load& load) {
  const __m512 zero = _mm512_setzero_ps();
  if (b.residual == nullptr) return b.relu ? _mm512_max_ps(zero, y) : y;
  if (b.relu && !b.residual_first) y = _mm512_max_ps(zero, y);
  y = _mm512_add_ps(y, load());
  return b.relu && b.residual_first ? _mm512_max_ps(zero, y) : y;
}

/// Stores the outputs of a vector at y + at; returns them, and zeros for the lanes that are none.
LUTC_INLINE __m512 store(const Int8ConvBlock& b, const ConvVector& v, int64_t at, __m512 y) {
  if (v.count == kLanes) {
    y = finish(b, y, [&] { return _mm512_loadu_ps(b.residual + at); });
    _mm512_storeu_ps(b.y + at, y);
  } else {
    const __mmask16 mask = first(v.count);
    y = _mm512_maskz_compress_ps(static_cast<__mmask16>(v.mask), y);
    y = finish(b, y, [&] { return _mm512_maskz_loadu_ps(mask, b.residual + at); });
    _mm512_mask_storeu_ps(b.y + at, mask, y);
  }
  return y;
}

template <int kP, int kN>
void sum(const Int8ConvBlock& b, const ConvVector* vectors) {
  __m512i acc[kP][kN];
  const uint8_t* at[kP];
#pragma GCC unroll 4
  for (int p = 0; p < kP; ++p) at[p] = b.pixels + 4 * vectors[p].position;
#pragma GCC unroll 6
  for (int n = 0; n < kN; ++n) {
    const __m512i start = _mm512_set1_epi32(b.starts[n]);
#pragma GCC unroll 4
    for (int p = 0; p < kP; ++p) acc[p][n] = start;
  }
  const uint8_t* weights = b.weights;
  for (int64_t i = 0; i < b.step_count; ++i, weights += 4 * kN) {
    const int64_t step = b.steps[i];
    __m512i pixels[kP];
#pragma GCC unroll 4
    for (int p = 0; p < kP; ++p) pixels[p] = _mm512_loadu_si512(at[p] + step);
#pragma GCC unroll 6
    for (int n = 0; n < kN; ++n) {
      const __m512i weight = broadcast(weights + 4 * n);
#pragma GCC unroll 4
      for (int p = 0; p < kP; ++p) multiply_add(acc[p][n], pixels[p], weight);
    }
  }
  __m512 largest = _mm512_setzero_ps();
#pragma GCC unroll 6
  for (int n = 0; n < kN; ++n) {
    const __m512 scale = _mm512_set1_ps(b.unit_value * b.scale[n]), bias = _mm512_set1_ps(b.bias[n]);
#pragma GCC unroll 4
    for (int p = 0; p < kP; ++p) {
      const __m512 y = _mm512_fmadd_ps(_mm512_cvtepi32_ps(acc[p][n]), scale, bias);
      const __m512 stored = store(b, vectors[p], n * b.y_stride + vectors[p].output, y);
      largest = _mm512_max_ps(largest, _mm512_abs_ps(stored));
    }
  }
  if (b.largest != nullptr) _mm512_storeu_ps(b.largest, _mm512_max_ps(largest, _mm512_loadu_ps(b.largest)));
}

/// All vectors, in groups as even as can be.
template <int kN>
void groups(const Int8ConvBlock& b) {
  const int count = (b.vector_count + kVectors - 1) / kVectors;
  const ConvVector* vectors = b.vectors;
  for (int g = count, left = b.vector_count; g > 0; --g) {
    const int size = (left + g - 1) / g;
    switch (size) {
      case 1:
        sum<1, kN>(b, vectors);
        break;
      case 2:
        sum<2, kN>(b, vectors);
        break;
      case 3:
        sum<3, kN>(b, vectors);
        break;
      default:
        sum<4, kN>(b, vectors);
    }
    vectors += size;
    left -= size;
  }
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

extern const Int8ConvKernels kInt8ConvAvx512;
const Int8ConvKernels kInt8ConvAvx512 = {kUnit, kLanes, kVectors, kColumns, max_abs, quantise, block};

}  // namespace lutc::kernels
