// The peaks of plain C++ as this compiler builds it for the portable kernels.
#include <cstring>

#include "kernels/peaks.h"

namespace lutc::kernels {
namespace {

constexpr int kLanes = 64;

/// Keeps the compiler from seeing through what a loop computes.
template <class T>
void opaque(T* values) {
  asm volatile("" : : "r"(values) : "memory");
}

void multiply_adds(int64_t rounds) {
  float sums[kLanes] = {}, a[kLanes], b[kLanes];
  for (int i = 0; i < kLanes; ++i) a[i] = b[i] = 0.5f;
  opaque(a);
  opaque(b);
  for (int64_t r = 0; r < rounds; ++r) {
    for (int i = 0; i < kLanes; ++i) sums[i] += a[i] * b[i];
    opaque(sums);
  }
}

void int8_products(int64_t rounds) {
  int32_t sums[kLanes] = {};
  int8_t a[kLanes] = {}, b[kLanes] = {};
  opaque(a);
  opaque(b);
  for (int64_t r = 0; r < rounds; ++r) {
    for (int i = 0; i < kLanes; ++i) sums[i] += a[i] * b[i];
    opaque(sums);
  }
}

void lookups(int64_t rounds) {
  int32_t sums[kLanes] = {};
  int8_t rows[16 * kLanes] = {};
  opaque(rows);
  for (int64_t r = 0; r < rounds; ++r) {
    const int8_t* row = rows + (r % 16) * kLanes;
    for (int i = 0; i < kLanes; ++i) sums[i] += row[i];
    opaque(sums);
  }
}

uint64_t read(const void* data, int64_t lines) {
  uint64_t sums[8] = {};
  const char* at = static_cast<const char*>(data);
  for (int64_t l = 0; l < lines; ++l, at += 64) {
    uint64_t words[8];
    std::memcpy(words, at, 64);
    for (int i = 0; i < 8; ++i) sums[i] ^= words[i];
  }
  uint64_t all = 0;
  for (const uint64_t sum : sums) all ^= sum;
  return all;
}

}  // namespace

PeakKernels scalar_peaks() { return {multiply_adds, kLanes, int8_products, kLanes, lookups, kLanes, read}; }

}  // namespace lutc::kernels
