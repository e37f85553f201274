// The inner loop of int8_conv_bytes_avx2.cpp, two vectors of pixels times up to six columns, as one piece of assembly:
// gcc keeps neither the sums nor their order in registers.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace lutc::kernels {
namespace {

struct ByteWindows {
  const uint8_t* pixels[2];  ///< of two vectors, at the first unit
  const uint8_t* weights;    ///< [step][column] words
  const int64_t* steps;      ///< displacements
  int64_t step_count;        ///< at least 1
  const int32_t* windows;    ///< the number of steps of each, then which ones
};

alignas(32) constexpr int16_t kOnes[16] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};

// 16-bit sums of a column are in registers a and b, pixels in ymm12 and ymm13; 32-bit sums in memory.
#define LUTC_BYTES_FIRST(weight, a, b) \
  "vpbroadcastd " weight               \
  "(%[weights]), %%ymm14\n\t"          \
  "vpmaddubsw %%ymm14, %%ymm12, %%" a  \
  "\n\t"                               \
  "vpmaddubsw %%ymm14, %%ymm13, %%" b "\n\t"
#define LUTC_BYTES_NEXT(weight, a, b)        \
  "vpbroadcastd " weight                     \
  "(%[weights]), %%ymm14\n\t"                \
  "vpmaddubsw %%ymm14, %%ymm12, %%ymm15\n\t" \
  "vpmaddubsw %%ymm14, %%ymm13, %%ymm14\n\t" \
  "vpaddw %%ymm15, %%" a ", %%" a            \
  "\n\t"                                     \
  "vpaddw %%ymm14, %%" b ", %%" b "\n\t"
#define LUTC_BYTES_WIDEN(at, a)           \
  "vpmaddwd %[ones], %%" a ", %%" a       \
  "\n\t"                                  \
  "vpaddd " at "(%[sums]), %%" a ", %%" a \
  "\n\t"                                  \
  "vmovdqa %%" a ", " at "(%[sums])\n\t"

// clang-format off
#define LUTC_BYTES_COLUMNS_1(step) step("0", "ymm0", "ymm1")
#define LUTC_BYTES_COLUMNS_2(step) LUTC_BYTES_COLUMNS_1(step) step("4", "ymm2", "ymm3")
#define LUTC_BYTES_COLUMNS_3(step) LUTC_BYTES_COLUMNS_2(step) step("8", "ymm4", "ymm5")
#define LUTC_BYTES_COLUMNS_4(step) LUTC_BYTES_COLUMNS_3(step) step("12", "ymm6", "ymm7")
#define LUTC_BYTES_COLUMNS_5(step) LUTC_BYTES_COLUMNS_4(step) step("16", "ymm8", "ymm9")
#define LUTC_BYTES_COLUMNS_6(step) LUTC_BYTES_COLUMNS_5(step) step("20", "ymm10", "ymm11")
#define LUTC_BYTES_SUMS_1 LUTC_BYTES_WIDEN("0", "ymm0") LUTC_BYTES_WIDEN("32", "ymm1")
#define LUTC_BYTES_SUMS_2 LUTC_BYTES_SUMS_1 LUTC_BYTES_WIDEN("64", "ymm2") LUTC_BYTES_WIDEN("96", "ymm3")
#define LUTC_BYTES_SUMS_3 LUTC_BYTES_SUMS_2 LUTC_BYTES_WIDEN("128", "ymm4") LUTC_BYTES_WIDEN("160", "ymm5")
#define LUTC_BYTES_SUMS_4 LUTC_BYTES_SUMS_3 LUTC_BYTES_WIDEN("192", "ymm6") LUTC_BYTES_WIDEN("224", "ymm7")
#define LUTC_BYTES_SUMS_5 LUTC_BYTES_SUMS_4 LUTC_BYTES_WIDEN("256", "ymm8") LUTC_BYTES_WIDEN("288", "ymm9")
#define LUTC_BYTES_SUMS_6 LUTC_BYTES_SUMS_5 LUTC_BYTES_WIDEN("320", "ymm10") LUTC_BYTES_WIDEN("352", "ymm11")

#define LUTC_BYTES_PIXELS                          \
  "movslq (%[windows]), %[at]\n\t"                 \
  "add $4, %[windows]\n\t"                         \
  "mov (%[steps],%[at],8), %[at]\n\t"              \
  "vmovdqu (%[first],%[at]), %%ymm12\n\t"          \
  "vmovdqu (%[second],%[at]), %%ymm13\n\t"

#define LUTC_BYTES_WINDOWS(columns, sums_of, bytes)                                                             \
  asm volatile(                                                                                                 \
      "1:\n\t"                                                                                                  \
      "movslq (%[windows]), %[count]\n\t"                                                                       \
      "add $4, %[windows]\n\t"                                                                                  \
      "sub %[count], %[left]\n\t"                                                                               \
      LUTC_BYTES_PIXELS columns(LUTC_BYTES_FIRST)                                                               \
      "add $" bytes ", %[weights]\n\t"                                                                          \
      "dec %[count]\n\t"                                                                                        \
      "jz 3f\n\t"                                                                                               \
      ".p2align 4\n\t"                                                                                          \
      "2:\n\t"                                                                                                  \
      LUTC_BYTES_PIXELS columns(LUTC_BYTES_NEXT)                                                                \
      "add $" bytes ", %[weights]\n\t"                                                                          \
      "dec %[count]\n\t"                                                                                        \
      "jnz 2b\n\t"                                                                                              \
      "3:\n\t"                                                                                                  \
      sums_of                                                                                                   \
      "test %[left], %[left]\n\t"                                                                               \
      "jnz 1b\n\t"                                                                                              \
      : [windows] "+r"(w.windows), [weights] "+r"(w.weights), [left] "+r"(w.step_count), [count] "=&r"(count),  \
        [at] "=&r"(at)                                                                                          \
      : [first] "r"(w.pixels[0]), [second] "r"(w.pixels[1]), [steps] "r"(w.steps), [sums] "r"(sums),            \
        [ones] "m"(*reinterpret_cast<const int16_t(*)[16]>(kOnes))                                              \
      : "cc", "memory", "ymm0", "ymm1", "ymm2", "ymm3", "ymm4", "ymm5", "ymm6", "ymm7", "ymm8", "ymm9",         \
        "ymm10", "ymm11", "ymm12", "ymm13", "ymm14", "ymm15")
// clang-format on

/// sums[column][vector] += products, over all steps.
template <int kColumns>
__attribute__((always_inline)) inline void byte_windows(ByteWindows w, __m256i* sums) {
  int64_t count, at;
  if constexpr (kColumns == 1) LUTC_BYTES_WINDOWS(LUTC_BYTES_COLUMNS_1, LUTC_BYTES_SUMS_1, "4");
  if constexpr (kColumns == 2) LUTC_BYTES_WINDOWS(LUTC_BYTES_COLUMNS_2, LUTC_BYTES_SUMS_2, "8");
  if constexpr (kColumns == 3) LUTC_BYTES_WINDOWS(LUTC_BYTES_COLUMNS_3, LUTC_BYTES_SUMS_3, "12");
  if constexpr (kColumns == 4) LUTC_BYTES_WINDOWS(LUTC_BYTES_COLUMNS_4, LUTC_BYTES_SUMS_4, "16");
  if constexpr (kColumns == 5) LUTC_BYTES_WINDOWS(LUTC_BYTES_COLUMNS_5, LUTC_BYTES_SUMS_5, "20");
  if constexpr (kColumns == 6) LUTC_BYTES_WINDOWS(LUTC_BYTES_COLUMNS_6, LUTC_BYTES_SUMS_6, "24");
}

#undef LUTC_BYTES_FIRST
#undef LUTC_BYTES_NEXT
#undef LUTC_BYTES_WIDEN
#undef LUTC_BYTES_PIXELS
#undef LUTC_BYTES_WINDOWS
#undef LUTC_BYTES_COLUMNS_1
#undef LUTC_BYTES_COLUMNS_2
#undef LUTC_BYTES_COLUMNS_3
#undef LUTC_BYTES_COLUMNS_4
#undef LUTC_BYTES_COLUMNS_5
#undef LUTC_BYTES_COLUMNS_6
#undef LUTC_BYTES_SUMS_1
#undef LUTC_BYTES_SUMS_2
#undef LUTC_BYTES_SUMS_3
#undef LUTC_BYTES_SUMS_4
#undef LUTC_BYTES_SUMS_5
#undef LUTC_BYTES_SUMS_6

}  // namespace
}  // namespace lutc::kernels
