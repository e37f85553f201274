// The inner loops of gain lookups, one panel of rows or of positions times four columns, as pieces of assembly: gcc
// keeps neither the sums nor their order in registers.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace lutc::kernels {
namespace {

/// Sums of one panel and four columns at the end of some windows.
struct alignas(32) GainSums {
  int16_t low[4][32];   ///< of which only the low bytes count
  int16_t high[4][32];  ///< high bytes of all windows
};

/// What a run of windows reads.
struct GainWindows {
  const uint8_t* table;   ///< 128 bytes a unit
  const uint8_t* codes;   ///< 64 bytes of codes and 64 of gains a unit
  const uint8_t* starts;  ///< 64 bytes a window, multiples of 256 but for the first one
  const uint8_t* ahead;   ///< a line to fetch a unit
  int64_t ahead_step;
  int64_t units;
  int64_t window;  ///< units
};

// Looks two codebooks of one column up, whose cells are 16 bytes each at `cell`, while the entries of the column
// before, interleaved in ymm12 and ymm14, are multiplied and added to `low` and `high`: measured to be the best order
// for the ports. Codes are in ymm8 and ymm9, gains in ymm10 and ymm11.
#define LUTC_GAIN_COLUMN(cell, odd_cell, low, high) \
  "vbroadcasti128 " cell                            \
  "(%[table]), %%ymm13\n\t"                         \
  "vbroadcasti128 " odd_cell                        \
  "(%[table]), %%ymm15\n\t"                         \
  "vpmaddubsw %%ymm11, %%ymm14, %%ymm14\n\t"        \
  "vpshufb %%ymm8, %%ymm13, %%ymm13\n\t"            \
  "vpmaddubsw %%ymm10, %%ymm12, %%ymm12\n\t"        \
  "vpaddw %%ymm14, %%" high ", %%" high             \
  "\n\t"                                            \
  "vpshufb %%ymm9, %%ymm15, %%ymm15\n\t"            \
  "vpunpckhbw %%ymm15, %%ymm13, %%ymm14\n\t"        \
  "vpaddw %%ymm12, %%" low ", %%" low               \
  "\n\t"                                            \
  "vpunpcklbw %%ymm15, %%ymm13, %%ymm12\n\t"

// The high byte of a sum moves to memory, the one of a start takes its place.
#define LUTC_GAIN_START(sum, start) "vpblendvb %%ymm15, %%" start ", %%" sum ", %%" sum "\n\t"
#define LUTC_GAIN_CARRY(sum, at, temporary)               \
  "vpsraw $8, %%" sum ", %%" temporary                    \
  "\n\t"                                                  \
  "vpaddw " at "(%[sums]), %%" temporary ", %%" temporary \
  "\n\t"                                                  \
  "vmovdqa %%" temporary ", " at "(%[sums])\n\t"

// What both loops below share: a window's sums are in ymm0 to ymm7, column by column, low rows before high ones.
// clang-format off
// The first window's starts, in ymm0 and ymm1, for every column.
#define LUTC_GAIN_COPIES \
  "vmovdqa %%ymm0, %%ymm2\n\t" \
  "vmovdqa %%ymm1, %%ymm3\n\t" \
  "vmovdqa %%ymm0, %%ymm4\n\t" \
  "vmovdqa %%ymm1, %%ymm5\n\t" \
  "vmovdqa %%ymm0, %%ymm6\n\t" \
  "vmovdqa %%ymm1, %%ymm7\n\t"
// The starts of a window, in ymm8 and ymm9; the pipeline of LUTC_GAIN_COLUMN is empty (ymm12, ymm14).
#define LUTC_GAIN_STARTS \
  LUTC_GAIN_START("ymm0", "ymm8") LUTC_GAIN_START("ymm1", "ymm9") \
  LUTC_GAIN_START("ymm2", "ymm8") LUTC_GAIN_START("ymm3", "ymm9") \
  LUTC_GAIN_START("ymm4", "ymm8") LUTC_GAIN_START("ymm5", "ymm9") \
  LUTC_GAIN_START("ymm6", "ymm8") LUTC_GAIN_START("ymm7", "ymm9") \
  "vpxor %%xmm12, %%xmm12, %%xmm12\n\t" \
  "vpxor %%xmm14, %%xmm14, %%xmm14\n\t"
// The last column's products leave the pipeline, all high bytes go to memory.
#define LUTC_GAIN_ENDS \
  "vpmaddubsw %%ymm11, %%ymm14, %%ymm14\n\t" \
  "vpmaddubsw %%ymm10, %%ymm12, %%ymm12\n\t" \
  "vpaddw %%ymm14, %%ymm7, %%ymm7\n\t" \
  "vpaddw %%ymm12, %%ymm6, %%ymm6\n\t" \
  LUTC_GAIN_CARRY("ymm0", "256", "ymm8") LUTC_GAIN_CARRY("ymm1", "288", "ymm9") \
  LUTC_GAIN_CARRY("ymm2", "320", "ymm10") LUTC_GAIN_CARRY("ymm3", "352", "ymm11") \
  LUTC_GAIN_CARRY("ymm4", "384", "ymm12") LUTC_GAIN_CARRY("ymm5", "416", "ymm13") \
  LUTC_GAIN_CARRY("ymm6", "448", "ymm14") LUTC_GAIN_CARRY("ymm7", "480", "ymm8")
#define LUTC_GAIN_STORES \
  "vmovdqa %%ymm0, (%[sums])\n\t" \
  "vmovdqa %%ymm1, 32(%[sums])\n\t" \
  "vmovdqa %%ymm2, 64(%[sums])\n\t" \
  "vmovdqa %%ymm3, 96(%[sums])\n\t" \
  "vmovdqa %%ymm4, 128(%[sums])\n\t" \
  "vmovdqa %%ymm5, 160(%[sums])\n\t" \
  "vmovdqa %%ymm6, 192(%[sums])\n\t" \
  "vmovdqa %%ymm7, 224(%[sums])\n\t"
#define LUTC_GAIN_REGISTERS \
  "ymm0", "ymm1", "ymm2", "ymm3", "ymm4", "ymm5", "ymm6", "ymm7", \
  "ymm8", "ymm9", "ymm10", "ymm11", "ymm12", "ymm13", "ymm14", "ymm15"
// clang-format on

/// sums.high += high bytes of the windows' sums; sums.low = the last ones.
__attribute__((always_inline)) inline void gain_windows(GainWindows w, GainSums& sums) {
  int64_t left;
  asm volatile(
      "vmovdqu (%[starts]), %%ymm0\n\t"
      "vmovdqu 32(%[starts]), %%ymm1\n\t"
      LUTC_GAIN_COPIES
      "1:\n\t"
      "mov %[window], %[left]\n\t"
      "cmp %[units], %[left]\n\t"
      "cmovg %[units], %[left]\n\t"
      "sub %[left], %[units]\n\t"
      "vpcmpeqw %%ymm15, %%ymm15, %%ymm15\n\t"
      "vpsllw $8, %%ymm15, %%ymm15\n\t"
      "vmovdqu (%[starts]), %%ymm8\n\t"
      "vmovdqu 32(%[starts]), %%ymm9\n\t"
      "add $64, %[starts]\n\t"
      // clang-format off
      LUTC_GAIN_STARTS
      // clang-format on
      ".p2align 5\n\t"
      "2:\n\t"
      "vmovdqu (%[codes]), %%ymm8\n\t"
      "vmovdqu 32(%[codes]), %%ymm9\n\t"
      "prefetcht1 (%[ahead])\n\t"
      // clang-format off
      LUTC_GAIN_COLUMN("0", "16", "ymm6", "ymm7")
      "vmovdqu 64(%[codes]), %%ymm10\n\t"
      "vmovdqu 96(%[codes]), %%ymm11\n\t"
      LUTC_GAIN_COLUMN("32", "48", "ymm0", "ymm1")
      LUTC_GAIN_COLUMN("64", "80", "ymm2", "ymm3")
      LUTC_GAIN_COLUMN("96", "112", "ymm4", "ymm5")
      // clang-format on
      "sub $-128, %[codes]\n\t"
      "sub $-128, %[table]\n\t"
      "add %[step], %[ahead]\n\t"
      "dec %[left]\n\t"
      "jnz 2b\n\t"
      LUTC_GAIN_ENDS
      "test %[units], %[units]\n\t"
      "jnz 1b\n\t"
      LUTC_GAIN_STORES
      : [left] "=&r"(left), [table] "+r"(w.table), [codes] "+r"(w.codes), [starts] "+r"(w.starts),
        [ahead] "+r"(w.ahead), [units] "+r"(w.units)
      : [step] "r"(w.ahead_step), [window] "r"(w.window), [sums] "r"(&sums)
      : "cc", "memory", LUTC_GAIN_REGISTERS);
}

/// What a run of windows of a convolution reads.
struct GainSteps {
  const uint8_t* table;     ///< 128 bytes a step
  const uint8_t* codes[2];  ///< of the even and the odd codebooks
  const uint8_t* gains;
  const uint8_t* starts;  ///< of positions, multiples of 256 but for the first window's
  int64_t start_step;     ///< bytes from one window to the next
  const int64_t* steps;   ///< displacements of codes; those of gains are `gain_steps` bytes further
  int64_t gain_steps;
  int64_t count;   ///< at least 1
  int64_t window;  ///< steps
};

// 16-bit values of positions 0 .. 7 and 16 .. 23, and of the others.
#define LUTC_GAIN_HALVES(at, low, high)             \
  "vmovdqu (" at "), %%x" low                       \
  "\n\t"                                            \
  "vmovdqu 16(" at "), %%x" high                    \
  "\n\t"                                            \
  "vinserti128 $1, 32(" at "), %%y" low ", %%y" low \
  "\n\t"                                            \
  "vinserti128 $1, 48(" at "), %%y" high ", %%y" high "\n\t"

/// As gain_windows(), positions for rows; the sums' rows are in the order of LUTC_GAIN_HALVES.
__attribute__((always_inline)) inline void gain_steps(GainSteps w, GainSums& sums) {
  int64_t left, at;
  asm volatile(
      // clang-format off
      LUTC_GAIN_HALVES("%[starts]", "mm0", "mm1")
      // clang-format on
      LUTC_GAIN_COPIES
      "1:\n\t"
      "mov %[window], %[left]\n\t"
      "cmp %[count], %[left]\n\t"
      "cmovg %[count], %[left]\n\t"
      "sub %[left], %[count]\n\t"
      "vpcmpeqw %%ymm15, %%ymm15, %%ymm15\n\t"
      "vpsllw $8, %%ymm15, %%ymm15\n\t"
      // clang-format off
      LUTC_GAIN_HALVES("%[starts]", "mm8", "mm9")
      "add %[start_step], %[starts]\n\t"
      LUTC_GAIN_STARTS
                                               // clang-format on
                                               ".p2align 5\n\t"
                                               "2:\n\t"
                                               "mov (%[steps]), %[at]\n\t"
                                               "vmovdqu (%[even],%[at]), %%ymm8\n\t"
                                               "vmovdqu (%[odd],%[at]), %%ymm9\n\t"
      // clang-format off
      LUTC_GAIN_COLUMN("0", "16", "ymm6", "ymm7")
      "mov (%[steps],%[gain_steps]), %[at]\n\t"
      LUTC_GAIN_HALVES("%[gains],%[at]", "mm10", "mm11")
      LUTC_GAIN_COLUMN("32", "48", "ymm0", "ymm1")
      LUTC_GAIN_COLUMN("64", "80", "ymm2", "ymm3")
      LUTC_GAIN_COLUMN("96", "112", "ymm4", "ymm5")
      // clang-format on
      "add $8, %[steps]\n\t"
      "sub $-128, %[table]\n\t"
      "dec %[left]\n\t"
      "jnz 2b\n\t" LUTC_GAIN_ENDS
      "test %[count], %[count]\n\t"
      "jnz 1b\n\t" LUTC_GAIN_STORES
      : [left] "=&r"(left), [at] "=&r"(at), [table] "+r"(w.table), [steps] "+r"(w.steps), [starts] "+r"(w.starts),
        [count] "+r"(w.count)
      : [even] "r"(w.codes[0]), [odd] "r"(w.codes[1]), [gains] "r"(w.gains), [gain_steps] "r"(w.gain_steps),
        [start_step] "m"(w.start_step), [window] "m"(w.window), [sums] "r"(&sums)
      : "cc", "memory", LUTC_GAIN_REGISTERS);
}

#undef LUTC_GAIN_HALVES
#undef LUTC_GAIN_COLUMN
#undef LUTC_GAIN_START
#undef LUTC_GAIN_CARRY
#undef LUTC_GAIN_COPIES
#undef LUTC_GAIN_STARTS
#undef LUTC_GAIN_ENDS
#undef LUTC_GAIN_STORES
#undef LUTC_GAIN_REGISTERS

}  // namespace
}  // namespace lutc::kernels
