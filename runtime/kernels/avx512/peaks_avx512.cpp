// The peaks of AVX-512 with VBMI and VNNI, in assembly: what the compiler would make of intrinsics without an effect is
// nothing.
#include "kernels/avx512/intrinsics.h"
#include "kernels/peaks.h"

namespace lutc::kernels {
namespace {

void multiply_adds(int64_t rounds) {
  const __m512 a = _mm512_set1_ps(0.5f);
  __m512 s0 = a, s1 = a, s2 = a, s3 = a, s4 = a, s5 = a, s6 = a, s7 = a, s8 = a, s9 = a, s10 = a, s11 = a;
  for (int64_t r = 0; r < rounds; ++r) {
    asm volatile(
        "vfmadd231ps %12, %12, %0\n\tvfmadd231ps %12, %12, %1\n\tvfmadd231ps %12, %12, %2\n\t"
        "vfmadd231ps %12, %12, %3\n\tvfmadd231ps %12, %12, %4\n\tvfmadd231ps %12, %12, %5\n\t"
        "vfmadd231ps %12, %12, %6\n\tvfmadd231ps %12, %12, %7\n\tvfmadd231ps %12, %12, %8\n\t"
        "vfmadd231ps %12, %12, %9\n\tvfmadd231ps %12, %12, %10\n\tvfmadd231ps %12, %12, %11"
        : "+v"(s0), "+v"(s1), "+v"(s2), "+v"(s3), "+v"(s4), "+v"(s5), "+v"(s6), "+v"(s7), "+v"(s8), "+v"(s9), "+v"(s10),
          "+v"(s11)
        : "v"(a));
  }
}

void int8_products(int64_t rounds) {
  const __m512i a = _mm512_set1_epi8(1);
  __m512i s0 = a, s1 = a, s2 = a, s3 = a, s4 = a, s5 = a, s6 = a, s7 = a;
  for (int64_t r = 0; r < rounds; ++r) {
    asm volatile(
        "vpdpbusd %8, %8, %0\n\tvpdpbusd %8, %8, %1\n\tvpdpbusd %8, %8, %2\n\tvpdpbusd %8, %8, %3\n\t"
        "vpdpbusd %8, %8, %4\n\tvpdpbusd %8, %8, %5\n\tvpdpbusd %8, %8, %6\n\tvpdpbusd %8, %8, %7"
        : "+v"(s0), "+v"(s1), "+v"(s2), "+v"(s3), "+v"(s4), "+v"(s5), "+v"(s6), "+v"(s7)
        : "v"(a));
  }
}

/// 64 lookups in four tables of 16 entries by one vpermb, added up by one vpdpbusd.
void lookups(int64_t rounds) {
  const __m512i table = _mm512_set1_epi8(3), codes = _mm512_set1_epi8(7), gains = _mm512_set1_epi8(1);
  __m512i s0 = table, s1 = table, s2 = table, s3 = table, s4 = table, s5 = table, t0, t1, t2, t3, t4, t5;
  for (int64_t r = 0; r < rounds; ++r) {
    asm volatile(
        "vpermb %12, %13, %6\n\tvpermb %12, %13, %7\n\tvpermb %12, %13, %8\n\t"
        "vpermb %12, %13, %9\n\tvpermb %12, %13, %10\n\tvpermb %12, %13, %11\n\t"
        "vpdpbusd %14, %6, %0\n\tvpdpbusd %14, %7, %1\n\tvpdpbusd %14, %8, %2\n\t"
        "vpdpbusd %14, %9, %3\n\tvpdpbusd %14, %10, %4\n\tvpdpbusd %14, %11, %5"
        : "+v"(s0), "+v"(s1), "+v"(s2), "+v"(s3), "+v"(s4), "+v"(s5), "=&v"(t0), "=&v"(t1), "=&v"(t2), "=&v"(t3),
          "=&v"(t4), "=&v"(t5)
        : "v"(table), "v"(codes), "v"(gains));
  }
}

uint64_t read(const void* data, int64_t lines) {
  __m512i s0 = _mm512_setzero_si512(), s1 = s0;
  const char* at = static_cast<const char*>(data);
  int64_t l = 0;
  for (; l + 2 <= lines; l += 2, at += 128) {
    _mm_prefetch(at + 2048, _MM_HINT_T0);
    _mm_prefetch(at + 2112, _MM_HINT_T0);
    s0 = _mm512_xor_si512(s0, _mm512_load_si512(at));
    s1 = _mm512_xor_si512(s1, _mm512_load_si512(at + 64));
  }
  if (l < lines) s0 = _mm512_xor_si512(s0, _mm512_load_si512(at));
  return static_cast<uint64_t>(_mm512_reduce_add_epi64(_mm512_xor_si512(s0, s1)));
}

}  // namespace

PeakKernels avx512_peaks() { return {multiply_adds, 12 * 16, int8_products, 8 * 64, lookups, 6 * 64, read}; }

}  // namespace lutc::kernels
