// Places buffers with known lifetimes in one arena.
#pragma once

#include <cstdint>
#include <vector>

namespace lutc {

/// A buffer that must keep its bytes from step `first` to step `last`, both included.
struct BufferLife {
  uint64_t bytes = 0;
  int first = 0;
  int last = 0;
};

struct ArenaPlan {
  std::vector<uint64_t> offsets;  ///< one per buffer, multiples of 64
  uint64_t bytes = 0;             ///< of the arena
};

/// Buffers alive at a common step never overlap. False when the arena's size overflows 62 bits.
/// Large buffers are placed first, each into the tightest gap that holds it (greedy by size); plans too large for that
/// quadratic search are walked in step order with a free list instead.
bool plan_arena(const std::vector<BufferLife>& buffers, ArenaPlan* plan);

}  // namespace lutc
