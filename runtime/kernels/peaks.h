// What a core can do at most, by short loops without dependencies between neighbours: what the share of the roofline in
// `lutc bench --per-op` is a share of.
#pragma once

#include <cstdint>

namespace lutc::kernels {

enum class Isa;

struct PeakKernels {
  /// `rounds` rounds of the loop; the number of operations of one round stands beside it.
  using Loop = void (*)(int64_t rounds);
  Loop multiply_adds;  ///< float32 a * b + c
  int64_t multiply_adds_round;
  Loop int8_products;  ///< int8 products, added to 32-bit sums
  int64_t int8_products_round;
  Loop lookups;  ///< 16-entry lookups of bytes, added to sums wide enough for them
  int64_t lookups_round;
  /// Reads `lines` cache lines and returns something that depends on all of them.
  uint64_t (*read)(const void* data, int64_t lines);
};

PeakKernels scalar_peaks();
PeakKernels avx2_peaks();
PeakKernels avx512_peaks();
/// Of an ISA that this CPU can execute.
PeakKernels peak_kernels(Isa isa);

}  // namespace lutc::kernels
