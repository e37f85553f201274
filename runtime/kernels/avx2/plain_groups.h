// The inner loop of plain lookups, two panels times one column, as one piece of assembly.
//
// Widening every looked-up byte to 16 bits costs more than looking it up. Eight bytes are first averaged by vpavgb in
// three levels, whose results r are summed in 16 bits; every vpavgb rounds up, by 0 or 1/2. So the sum s of eight bytes
// is 8 r - e with 0 <= e <= 12, and the sum of up to kMostGroups of them is known from the sum of r and from s modulo
// 256, which byte sums give.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace lutc::kernels {
namespace {

constexpr int kGroupUnits = 4;                     ///< of two codebooks
constexpr int64_t kMostGroups = 255 / 12;          ///< whose errors stay below 256
constexpr int kGroupBytes = 32 * 2 * kGroupUnits;  ///< of codes

/// Of each panel byte sums modulo 256, and 16-bit sums of averages: all with the odd bytes in their high halves, and of
/// odd bytes.
struct PlainSums {
  __m256i bytes[2];
  __m256i all[2];
  __m256i odd[2];
};

struct PlainGroups {
  const uint8_t* table;  ///< the column's cell of the first unit
  int64_t table_step;    ///< bytes from one unit to the next
  const uint8_t* codes;  ///< of the first panel, 32 bytes a codebook
  int64_t panel_step;
  const uint8_t* ahead;  ///< a line to fetch a group
  int64_t ahead_step;
  int64_t groups;  ///< at least 1
};

// One codebook: its cell at `cell`, its codes at `code`, into registers x and y of the two panels.
#define LUTC_PLAIN_LOOKUP(cell, code, x, y)      \
  "vbroadcasti128 " cell                         \
  ", %%ymm7\n\t"                                 \
  "vpshufb " code "(%[codes]), %%ymm7, %%ymm" x  \
  "\n\t"                                         \
  "vpshufb " code "(%[second]), %%ymm7, %%ymm" y \
  "\n\t"                                         \
  "vpaddb %%ymm" x                               \
  ", %%ymm0, %%ymm0\n\t"                         \
  "vpaddb %%ymm" y ", %%ymm1, %%ymm1\n\t"
#define LUTC_PLAIN_AVERAGE(x, into_x, y, into_y)     \
  "vpavgb %%ymm" x ", %%ymm" into_x ", %%ymm" into_x \
  "\n\t"                                             \
  "vpavgb %%ymm" y ", %%ymm" into_y ", %%ymm" into_y "\n\t"

__attribute__((always_inline)) inline PlainSums plain_groups(PlainGroups g) {
  const uint8_t* second = g.codes + g.panel_step;
  const int64_t triple = 3 * g.table_step;
  // Left in registers: by way of memory they cost 8 % of a loop of 12 groups.
  register __m256i bytes0 asm("ymm0"), bytes1 asm("ymm1"), all0 asm("ymm2"), all1 asm("ymm3"), odd0 asm("ymm4"),
      odd1 asm("ymm5");
  asm volatile(
      "vpcmpeqw %%ymm6, %%ymm6, %%ymm6\n\t"
      "vpsrlw $15, %%ymm6, %%ymm6\n\t"
      "vpsllw $8, %%ymm6, %%ymm6\n\t"  // the odd bytes' factors
      "vpxor %%xmm0, %%xmm0, %%xmm0\n\t"
      "vpxor %%xmm1, %%xmm1, %%xmm1\n\t"
      "vpxor %%xmm2, %%xmm2, %%xmm2\n\t"
      "vpxor %%xmm3, %%xmm3, %%xmm3\n\t"
      "vpxor %%xmm4, %%xmm4, %%xmm4\n\t"
      "vpxor %%xmm5, %%xmm5, %%xmm5\n\t"
      ".p2align 4\n\t"
      "1:\n\t"
      "prefetcht1 (%[ahead])\n\t"
      // clang-format off
      LUTC_PLAIN_LOOKUP("(%[table])", "0", "8", "12")
      LUTC_PLAIN_LOOKUP("16(%[table])", "32", "9", "13")
      LUTC_PLAIN_AVERAGE("9", "8", "13", "12")
      LUTC_PLAIN_LOOKUP("(%[table],%[step])", "64", "9", "13")
      LUTC_PLAIN_LOOKUP("16(%[table],%[step])", "96", "10", "14")
      LUTC_PLAIN_AVERAGE("10", "9", "14", "13")
      LUTC_PLAIN_AVERAGE("9", "8", "13", "12")
      LUTC_PLAIN_LOOKUP("(%[table],%[step],2)", "128", "9", "13")
      LUTC_PLAIN_LOOKUP("16(%[table],%[step],2)", "160", "10", "14")
      LUTC_PLAIN_AVERAGE("10", "9", "14", "13")
      LUTC_PLAIN_LOOKUP("(%[table],%[triple])", "192", "10", "14")
      LUTC_PLAIN_LOOKUP("16(%[table],%[triple])", "224", "11", "15")
      LUTC_PLAIN_AVERAGE("11", "10", "15", "14")
      LUTC_PLAIN_AVERAGE("10", "9", "14", "13")
      LUTC_PLAIN_AVERAGE("9", "8", "13", "12")
      // clang-format on
      "vpmaddubsw %%ymm6, %%ymm8, %%ymm9\n\t"
      "vpmaddubsw %%ymm6, %%ymm12, %%ymm13\n\t"
      "vpaddw %%ymm8, %%ymm2, %%ymm2\n\t"
      "vpaddw %%ymm12, %%ymm3, %%ymm3\n\t"
      "vpaddw %%ymm9, %%ymm4, %%ymm4\n\t"
      "vpaddw %%ymm13, %%ymm5, %%ymm5\n\t"
      "add $256, %[codes]\n\t"
      "add $256, %[second]\n\t"
      "lea (%[table],%[step],4), %[table]\n\t"
      "add %[ahead_step], %[ahead]\n\t"
      "dec %[groups]\n\t"
      "jnz 1b\n\t"
      : [table] "+r"(g.table), [codes] "+r"(g.codes), [second] "+r"(second), [ahead] "+r"(g.ahead),
        [groups] "+r"(g.groups), "=x"(bytes0), "=x"(bytes1), "=x"(all0), "=x"(all1), "=x"(odd0), "=x"(odd1)
      : [step] "r"(g.table_step), [triple] "r"(triple), [ahead_step] "r"(g.ahead_step)
      : "cc", "memory", "ymm6", "ymm7", "ymm8", "ymm9", "ymm10", "ymm11", "ymm12", "ymm13", "ymm14", "ymm15");
  return {{bytes0, bytes1}, {all0, all1}, {odd0, odd1}};
}

#undef LUTC_PLAIN_LOOKUP
#undef LUTC_PLAIN_AVERAGE

}  // namespace
}  // namespace lutc::kernels
