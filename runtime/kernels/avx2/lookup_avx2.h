// Shared by the AVX2 lookup kernels: the encode (encode_avx2.cpp) and how many units 16-bit sums hold.
#pragma once

#include "kernels/lookup.h"

namespace lutc::kernels {

size_t encode_scratch_avx2(const EncodeView& view);
void encode_avx2(const EncodeView& view, const EncodeInput& input, uint8_t* panel, int64_t panel_bytes, void* scratch);

namespace {

/// Units of two codebooks whose sum of gain * entry stays in an int16, whatever the entries (-127 .. 127).
constexpr int64_t window_units_avx2(int64_t gain_limit) {
  const int64_t units = 32767 / (2 * 127 * (gain_limit < 1 ? 1 : gain_limit));
  return units < 1 ? 1 : units;
}

}  // namespace
}  // namespace lutc::kernels
