// Int8 convolution with AVX2 of images without negative numbers: vpmaddubsw multiplies four pixels, 0 .. 127, by four
// weights in each lane. Two products of a pair never saturate, and the sums of a window of steps fit 16 bits
// (Int8ConvBlock::windows), so that widening them costs one vpmaddwd a window.
#include "kernels/avx2/int8_conv_common.h"
#include "kernels/avx2/int8_conv_windows.h"

namespace lutc::kernels {
namespace {

constexpr int kUnit = 4;

/// Words of eight pixels; read(c): the numbers of channel c.
struct Words {
  template <int kChannels, class Read>
  static LUTC_INLINE __m256i of(__m256 inv, const Read& read) {
    __m256i q[kUnit];
#pragma GCC unroll 4
    for (int c = 0; c < kUnit; ++c) {
      q[c] = c < kChannels ? _mm256_cvtps_epi32(_mm256_min_ps(_mm256_mul_ps(read(c), inv), _mm256_set1_ps(127.0f)))
                           : _mm256_setzero_si256();
    }
    const __m256i order = _mm256_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15, 0, 4, 8, 12, 1, 5, 9,
                                           13, 2, 6, 10, 14, 3, 7, 11, 15);
    return _mm256_shuffle_epi8(_mm256_packus_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3])),
                               order);
  }
};

/// Outputs of one or two vectors.
struct SumOfWindows {
  template <int kP, int kN>
  static void sum(const Int8ConvBlock& b, const ConvVector* vectors) {
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
};

}  // namespace

const Int8ConvKernels kInt8ConvBytesAvx2 = {
    kUnit,           kLanes, kVectors, kColumns, int8_conv_max_abs_avx2, quantise_four<Words>, block<SumOfWindows>,
    /*windows=*/true};

}  // namespace lutc::kernels
