#include <cstring>

#include "kernels/avx2/simd.h"
#include "kernels/expand.h"

namespace lutc::kernels {
namespace {

struct Bytes {
  /// 16 signed bytes; conversion rounds to nearest even.
  LUTC_INLINE __m128i pack(const Simd::Float (&y)[2]) {
    const __m256i words = _mm256_packs_epi32(_mm256_cvtps_epi32(y[0]), _mm256_cvtps_epi32(y[1]));
    const __m256i ordered = _mm256_permute4x64_epi64(words, 0xd8);
    return _mm_packs_epi16(_mm256_castsi256_si128(ordered), _mm256_extracti128_si256(ordered, 1));
  }
  LUTC_INLINE void row(const Simd::Float (&y)[2], int8_t* p) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), pack(y));
  }
  /// The layout keeps 16 bytes for every codebook.
  LUTC_INLINE void cell(const Simd::Float (&y)[2][2], uint8_t* p, int) {
    const __m256i first = _mm256_packs_epi32(_mm256_cvtps_epi32(y[0][0]), _mm256_cvtps_epi32(y[0][1]));
    const __m256i second = _mm256_packs_epi32(_mm256_cvtps_epi32(y[1][0]), _mm256_cvtps_epi32(y[1][1]));
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    const __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(first, second), order);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_xor_si256(bytes, _mm256_set1_epi8(-128)));
  }
};

}  // namespace
}  // namespace lutc::kernels

#include "kernels/expand_impl.h"

namespace lutc::kernels {
extern const ExpandKernels kExpandAvx2;
const ExpandKernels kExpandAvx2 = {expand_cells<2>, expand_rows};
}  // namespace lutc::kernels
