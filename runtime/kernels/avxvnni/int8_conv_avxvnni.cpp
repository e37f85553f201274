// Int8 convolution with 256-bit vpdpbusd, which multiplies four unsigned pixels by four signed weights in each lane.
//
// The multiply-adds are volatile asm: gcc would otherwise reorder the unrolled block until it spills (see
// lookup_avx512.cpp).
#include "kernels/avx2/int8_conv_common.h"
#include "kernels/avxvnni/dpbusd.h"

namespace lutc::kernels {
namespace {

constexpr int kUnit = 4;

/// read(c): eight pixels of a channel.
struct Words {
  template <int kChannels, class Read>
  static LUTC_INLINE __m256i of(__m256 inv, const Read& read) {
    // In each 128-bit lane: byte 4 c + i to byte 4 i + c.
    const __m256i order =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    __m256i q[kUnit] = {};
#pragma GCC unroll 4
    for (int c = 0; c < kChannels; ++c) q[c] = quantise_channel(read(c), inv);
    const __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
    return _mm256_xor_si256(_mm256_shuffle_epi8(bytes, order), _mm256_set1_epi8(-128));
  }
};

struct Multiply {
  static LUTC_INLINE void add(__m256i& acc, __m256i pixels, __m256i weights) {
    asm volatile(LUTC_DPBUSD " %2, %1, %0" : "+x"(acc) : "x"(pixels), "x"(weights));
  }
};

}  // namespace

extern const Int8ConvKernels LUTC_VNNI(kInt8ConvAvxVnni);
const Int8ConvKernels LUTC_VNNI(kInt8ConvAvxVnni) = {
    kUnit, kLanes, kVectors, kColumns, int8_conv_max_abs_avx2, quantise_four<Words>, block<SumOfSteps<Multiply>>};

}  // namespace lutc::kernels
