// Shared by the AVX2 lookup kernels: the encode (encode_avx2.cpp), small batches (gather_avx2.cpp), what follows the
// lookups (finish_avx2.cpp), and how many units 16-bit sums hold.
#pragma once

#include "kernels/lookup.h"

namespace lutc::kernels {

/// Panels of one encode_avx2() call: directions are prepared once for all of them.
constexpr int kEncodePanelsAvx2 = 4;

size_t encode_scratch_avx2(const EncodeView& view);
void gather_row_avx2(const GatherRow& row);
void finish_rows_avx2(const FinishBlock& f);
void finish_planes_avx2(const FinishBlock& f);
/// Lanes past the last row become whatever they are.
void scale_columns_avx2(const FinishBlock& f);
void encode_avx2(const EncodeView& view, const EncodeInput& input, uint8_t* panels, int64_t panel_bytes, void* scratch);

namespace {

/// Largest magnitude of a window's sum of gain * entry: it must leave room in an int16 for the low byte of the windows
/// before it and for what its start gives to or takes from another (even_starts()).
constexpr int64_t kWindowSum = 32767 - 255 - 128;

/// Units of two codebooks that make a window whatever their gains; reach: largest magnitude of a gain * entry.
constexpr int64_t window_units_avx2(int64_t reach) {
  const int64_t units = kWindowSum / (2 * (reach < 1 ? 1 : reach));
  return units < 1 ? 1 : units;
}

// The gains at hand are mostly far below their limit, so that the encode of rows may choose longer windows for a panel.
// The units it adds stand in bits 4 to 6, which vpshufb ignores, of the panel's first two codes.
constexpr int64_t kMostAddedUnits = 63;

inline void store_added_units(uint8_t* codes, int64_t units) {
  codes[0] = static_cast<uint8_t>(codes[0] | (units & 7) << 4);
  codes[1] = static_cast<uint8_t>(codes[1] | (units >> 3) << 4);
}
inline int64_t added_units(const uint8_t* codes) { return (codes[0] >> 4 & 7) | (codes[1] >> 4 & 7) << 3; }

}  // namespace
}  // namespace lutc::kernels
