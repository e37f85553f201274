// The inner step of the AVX-512 lookups, and the block of sums that fits the registers.
//
// gcc reorders intrinsics of an unrolled block until they no longer fit 32 registers, and then spills; the two
// instructions of the inner loop are therefore volatile asm, which keeps their order and leaves the choice of registers
// to the compiler.
#pragma once

#include <cstdint>

#include "kernels/avx512/intrinsics.h"

namespace lutc::kernels {
namespace {

#define LUTC_INLINE __attribute__((always_inline)) inline

constexpr int kPanels = 4;
constexpr int kColumns = 6;
/// Tables kept in registers; the others are operands in memory (24 accumulators, tables, index, gains and one temporary
/// make 32).
constexpr int kHeld = 5;

template <int K>
LUTC_INLINE __m512i load_table(const uint8_t* p) {
  if constexpr (K == 16) return _mm512_loadu_si512(p);
  if constexpr (K == 8) return _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}

LUTC_INLINE void step(__m512i& acc, __m512i index, __m512i table, __m512i gain) {
  __m512i q;
  asm volatile("vpermb %2, %1, %0" : "=v"(q) : "v"(index), "v"(table));
  asm volatile("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(q), "v"(gain));
}

LUTC_INLINE void step(__m512i& acc, __m512i index, const uint8_t* table, __m512i gain) {
  __m512i q;
  asm volatile("vpermb %2, %1, %0" : "=v"(q) : "v"(index), "m"(*reinterpret_cast<const __m512i*>(table)));
  asm volatile("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(q), "v"(gain));
}

/// Into level 2 only: misses of level 1 are few at a time, and the codes need them. Asm, so that a panel's arithmetic
/// stays between one line and the next: all lines of a unit at once made whole models wait (3 % of MiniLM).
LUTC_INLINE void fetch(const uint8_t* p) { asm volatile("prefetcht1 %0" : : "m"(*p)); }

}  // namespace
}  // namespace lutc::kernels
