// vpdpbusd at 256 bits, in the encoding that this translation unit is compiled for: every source of this folder is
// compiled twice (runtime/CMakeLists.txt), with VEX prefixes for CPUs with AVX-VNNI and, with LUTC_EVEX, with EVEX
// prefixes for CPUs with AVX-512 VL and VNNI. LUTC_VNNI names what a source defines.
#pragma once

#include <immintrin.h>

#ifdef LUTC_EVEX
#define LUTC_VNNI(name) name##Evex
#define LUTC_DPBUSD "vpdpbusd"
#else
#define LUTC_VNNI(name) name##Vex
#define LUTC_DPBUSD "%{vex%} vpdpbusd"
#endif

namespace lutc::kernels {
namespace {

/// sum + four products of unsigned and signed bytes a lane.
__attribute__((always_inline)) inline __m256i dpbusd(__m256i sum, __m256i bytes, __m256i signed_bytes) {
#ifdef LUTC_EVEX
  return _mm256_dpbusd_epi32(sum, bytes, signed_bytes);
#else
  return _mm256_dpbusd_avx_epi32(sum, bytes, signed_bytes);
#endif
}

}  // namespace
}  // namespace lutc::kernels
