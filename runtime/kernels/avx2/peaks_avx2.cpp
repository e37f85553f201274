// The peaks of AVX2, in assembly: what the compiler would make of intrinsics without an effect is nothing.
#include <immintrin.h>

#include "kernels/peaks.h"

namespace lutc::kernels {
namespace {

void multiply_adds(int64_t rounds) {
  const __m256 a = _mm256_set1_ps(0.5f);
  __m256 s0 = a, s1 = a, s2 = a, s3 = a, s4 = a, s5 = a, s6 = a, s7 = a, s8 = a, s9 = a, s10 = a, s11 = a;
  for (int64_t r = 0; r < rounds; ++r) {
    asm volatile(
        "vfmadd231ps %12, %12, %0\n\tvfmadd231ps %12, %12, %1\n\tvfmadd231ps %12, %12, %2\n\t"
        "vfmadd231ps %12, %12, %3\n\tvfmadd231ps %12, %12, %4\n\tvfmadd231ps %12, %12, %5\n\t"
        "vfmadd231ps %12, %12, %6\n\tvfmadd231ps %12, %12, %7\n\tvfmadd231ps %12, %12, %8\n\t"
        "vfmadd231ps %12, %12, %9\n\tvfmadd231ps %12, %12, %10\n\tvfmadd231ps %12, %12, %11"
        : "+x"(s0), "+x"(s1), "+x"(s2), "+x"(s3), "+x"(s4), "+x"(s5), "+x"(s6), "+x"(s7), "+x"(s8), "+x"(s9), "+x"(s10),
          "+x"(s11)
        : "x"(a));
  }
}

/// Without VNNI a product of bytes is three instructions: pairs to 16 bits, pairs to 32, the sum.
void int8_products(int64_t rounds) {
  const __m256i a = _mm256_set1_epi8(1), ones = _mm256_set1_epi16(1);
  __m256i s0 = a, s1 = a, s2 = a, s3 = a, t0, t1, t2, t3;
  for (int64_t r = 0; r < rounds; ++r) {
    asm volatile(
        "vpmaddubsw %8, %8, %4\n\tvpmaddubsw %8, %8, %5\n\tvpmaddubsw %8, %8, %6\n\tvpmaddubsw %8, %8, %7\n\t"
        "vpmaddwd %9, %4, %4\n\tvpmaddwd %9, %5, %5\n\tvpmaddwd %9, %6, %6\n\tvpmaddwd %9, %7, %7\n\t"
        "vpaddd %4, %0, %0\n\tvpaddd %5, %1, %1\n\tvpaddd %6, %2, %2\n\tvpaddd %7, %3, %3"
        : "+x"(s0), "+x"(s1), "+x"(s2), "+x"(s3), "=&x"(t0), "=&x"(t1), "=&x"(t2), "=&x"(t3)
        : "x"(a), "x"(ones));
  }
}

/// Even and odd sums of 16 bits: shuffle, add, shift, add.
void lookups(int64_t rounds) {
  const __m256i table = _mm256_set1_epi8(3), codes = _mm256_set1_epi8(7);
  __m256i e0 = table, e1 = table, o0 = table, o1 = table, t0, t1;
  for (int64_t r = 0; r < rounds; ++r) {
    asm volatile(
        "vpshufb %7, %6, %4\n\tvpshufb %7, %6, %5\n\tvpaddw %4, %0, %0\n\tvpaddw %5, %1, %1\n\t"
        "vpsrlw $8, %4, %4\n\tvpsrlw $8, %5, %5\n\tvpaddw %4, %2, %2\n\tvpaddw %5, %3, %3"
        : "+x"(e0), "+x"(e1), "+x"(o0), "+x"(o1), "=&x"(t0), "=&x"(t1)
        : "x"(table), "x"(codes));
  }
}

uint64_t read(const void* data, int64_t lines) {
  __m256i s0 = _mm256_setzero_si256(), s1 = s0;
  const char* at = static_cast<const char*>(data);
  for (int64_t l = 0; l < lines; ++l, at += 64) {
    _mm_prefetch(at + 2048, _MM_HINT_T0);
    s0 = _mm256_xor_si256(s0, _mm256_load_si256(reinterpret_cast<const __m256i*>(at)));
    s1 = _mm256_xor_si256(s1, _mm256_load_si256(reinterpret_cast<const __m256i*>(at + 32)));
  }
  s0 = _mm256_xor_si256(s0, s1);
  alignas(32) uint64_t words[4];
  _mm256_store_si256(reinterpret_cast<__m256i*>(words), s0);
  return words[0] ^ words[1] ^ words[2] ^ words[3];
}

}  // namespace

PeakKernels avx2_peaks() { return {multiply_adds, 12 * 8, int8_products, 4 * 32, lookups, 2 * 32, read}; }

}  // namespace lutc::kernels
