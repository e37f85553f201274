// Int8 convolution with AVX2: vpmaddwd multiplies two int16 pixels by two int16 weights in each lane; nothing
// saturates.
//
// The multiply-adds are volatile asm: gcc would otherwise reorder the unrolled block until it spills.
#include <immintrin.h>

#include "kernels/avx2/int8_conv_common.h"

namespace lutc::kernels {
namespace {

constexpr int kUnit = 2;

/// Words of eight pixels: low halves from `even`, high halves from `odd`.
LUTC_INLINE __m256i words_of(__m256 even, __m256 odd, __m256 inv) {
  return _mm256_blend_epi16(quantise_channel(even, inv), _mm256_slli_epi32(quantise_channel(odd, inv), 16), 0xaa);
}

template <bool kPair>
void quantise_channels(const float* x, int64_t stride, float inv, int64_t n, uint32_t* words) {
  const __m256 scale = _mm256_set1_ps(inv);
  quantise_words(x, stride, n, words,
                 [&](const auto& read) { return words_of(read(0), kPair ? read(1) : _mm256_setzero_ps(), scale); });
}

void quantise(const float* x, int64_t channel_stride, int channels, float inv, int64_t n, uint32_t* words) {
  channels == kUnit ? quantise_channels<true>(x, channel_stride, inv, n, words)
                    : quantise_channels<false>(x, channel_stride, inv, n, words);
}

struct Multiply {
  static LUTC_INLINE void add(__m256i& acc, __m256i pixels, __m256i weights) {
    __m256i product;
    asm volatile(
        "vpmaddwd %3, %2, %1\n\t"
        "vpaddd %1, %0, %0"
        : "+x"(acc), "=&x"(product)
        : "x"(pixels), "x"(weights));
  }
};

}  // namespace

float int8_conv_max_abs_avx2(const float* x, int64_t n) {
  const __m256 all = largest_lanes(x, n);
  __m128 m = _mm_max_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1));
  m = _mm_max_ps(m, _mm_movehl_ps(m, m));
  return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}

extern const Int8ConvKernels kInt8ConvAvx2;
const Int8ConvKernels kInt8ConvAvx2 = {kUnit,
                                       kLanes,
                                       kVectors,
                                       kColumns,
                                       int8_conv_max_abs_avx2,
                                       quantise,
                                       block<SumOfSteps<Multiply>>,
                                       /*windows=*/false,
                                       &kInt8ConvBytesAvx2};

}  // namespace lutc::kernels
