#include <cstring>

#include "kernels/avx512/simd.h"
#include "kernels/expand.h"

namespace lutc::kernels {
namespace {

struct Bytes {
  LUTC_INLINE void row(const Simd::Float (&y)[1], int8_t* p) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(y[0])));
  }
  LUTC_INLINE void cell(const Simd::Float (&y)[4][1], uint8_t* p, int stored) {
    const __m512i low = _mm512_packs_epi32(_mm512_cvtps_epi32(y[0][0]), _mm512_cvtps_epi32(y[1][0]));
    const __m512i high = _mm512_packs_epi32(_mm512_cvtps_epi32(y[2][0]), _mm512_cvtps_epi32(y[3][0]));
    // A lane of 128 bits has the same four entries of each codebook.
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const __m512i bytes =
        _mm512_xor_si512(_mm512_permutexvar_epi32(order, _mm512_packs_epi16(low, high)), _mm512_set1_epi8(-128));
    if (stored == 16) {
      _mm512_storeu_si512(p, bytes);
    } else if (stored == 8) {
      const __m512i packed = _mm512_maskz_compress_epi64(0x55, bytes);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_castsi512_si256(packed));
    } else {
      const __m512i packed = _mm512_maskz_compress_epi32(0x1111, bytes);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_castsi512_si128(packed));
    }
  }
};

}  // namespace
}  // namespace lutc::kernels

#include "kernels/expand_impl.h"

namespace lutc::kernels {
extern const ExpandKernels kExpandAvx512;
const ExpandKernels kExpandAvx512 = {expand_cells<4>, expand_rows};
}  // namespace lutc::kernels
