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

/// A unit of four codebooks: kP panels times kN columns. The last table stays in memory where registers are short: only
/// whole 64-byte cells can be operands. after(p) comes behind the arithmetic of panel p.
template <int kP, int kN, int K, bool kGain, class After>
LUTC_INLINE void unit_step(__m512i (&acc)[kP][kN], const uint8_t* table, const uint8_t* codes, const uint8_t* gains,
                           int64_t panel, __m512i ones, const After& after) {
  constexpr bool kSpill = K == 16 && kN == kColumns && kP == kPanels;
  constexpr int kRegisters = kSpill ? kHeld : kN;
  __m512i tables[kRegisters];
#pragma GCC unroll 6
  for (int n = 0; n < kRegisters; ++n) tables[n] = load_table<K>(table + n * 4 * K);
#pragma GCC unroll 4
  for (int p = 0; p < kP; ++p) {
    const __m512i index = _mm512_loadu_si512(codes + p * panel);
    const __m512i gain = kGain ? _mm512_loadu_si512(gains + p * panel) : ones;
#pragma GCC unroll 6
    for (int n = 0; n < kRegisters; ++n) step(acc[p][n], index, tables[n], gain);
    if constexpr (kSpill) step(acc[p][kN - 1], index, table + (kN - 1) * 4 * K, gain);
    after(p);
  }
}

/// Into level 2 only: misses of level 1 are few at a time, and the codes need them. Asm, so that a panel's arithmetic
/// stays between one line and the next: all lines of a unit at once made whole models wait (3 % of MiniLM).
LUTC_INLINE void fetch(const uint8_t* p) { asm volatile("prefetcht1 %0" : : "m"(*p)); }

}  // namespace
}  // namespace lutc::kernels
