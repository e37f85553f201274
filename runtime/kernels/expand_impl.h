// The expansion kernels over an ISA's Simd (../simd.h of its folder) and Bytes, which the including file defines first:
//   Bytes::row(y, p): 16 numbers in -127 .. 127, rounded to nearest even, become signed bytes;
//   Bytes::cell(y, p, stored): those of a unit become bytes plus 128, the first `stored` of each codebook side by side.
// Products and sums are whole numbers below 2^24: exact with or without a fused multiply-add.
#pragma once

#include "kernels/expand.h"

namespace lutc::kernels {
namespace {

constexpr int kLanes = 16;  ///< entries side by side
constexpr int kVectors = kLanes / Simd::kWidth;

/// Weights of the slots of a codebook as floats, columns side by side; zeros for an empty slot and past the columns.
LUTC_INLINE void read_weights(const ExpandUnit& e, int codebook, float (*w)[kExpandColumns]) {
  for (int v = 0; v < e.width; ++v) {
    const int8_t* from = e.features[codebook * e.width + v];
    int64_t n = 0;
    if (from != nullptr && e.column_step == 1) {
      for (; n < e.columns; ++n) w[v][n] = static_cast<float>(from[n]);
    } else if (from != nullptr) {
      for (; n < e.columns; ++n) w[v][n] = static_cast<float>(from[n * e.column_step]);
    }
    for (; n < kExpandColumns; ++n) w[v][n] = 0.0f;
  }
}

/// Atoms of a codebook as floats, [slot][entry]; zeros for missing entries.
LUTC_INLINE void read_atoms(const ExpandUnit& e, int codebook, float (*atoms)[kLanes]) {
  const int8_t* from = e.atoms + static_cast<int64_t>(codebook) * e.entries * e.width;
  for (int v = 0; v < e.width; ++v) {
    for (int k = 0; k < kLanes; ++k) atoms[v][k] = k < e.entries ? static_cast<float>(from[k * e.width + v]) : 0.0f;
  }
}

LUTC_INLINE Simd::Float scaled(Simd::Float acc, Simd::Float first, Simd::Float second) {
  const Simd::Float y = Simd::mul(Simd::mul(acc, first), second);
  return Simd::max(Simd::min(y, Simd::set1(127.0f)), Simd::set1(-127.0f));
}

/// kWidth: slots of a codebook, 0: any number.
template <int kUnit, int kWidth>
void expand_cells_of(const ExpandUnit& e) {
  alignas(64) float weights[kUnit][kWidth > 0 ? kWidth : kExpandSlots][kExpandColumns];
  alignas(64) float atoms[kUnit][kWidth > 0 ? kWidth : kExpandSlots][kLanes];
  Simd::Float codebook_mul[kUnit];
  const int width = kWidth > 0 ? kWidth : e.width;
  for (int j = 0; j < kUnit; ++j) {
    codebook_mul[j] = Simd::set1(j < e.codebooks ? e.codebook_mul[j] : 0.0f);
    if (j < e.codebooks) {
      read_weights(e, j, weights[j]);
      read_atoms(e, j, atoms[j]);
      continue;
    }
    for (int v = 0; v < width; ++v) {
      for (int64_t n = 0; n < kExpandColumns; ++n) weights[j][v][n] = 0.0f;
      for (int k = 0; k < kLanes; ++k) atoms[j][v][k] = 0.0f;
    }
  }
  uint8_t* block = e.table;
  for (int64_t n0 = 0; n0 < e.columns; n0 += e.block, block += e.block_step) {
    for (int i = 0; i < e.block; ++i) {
      const int64_t n = n0 + i;
      const Simd::Float column_mul = Simd::set1(e.column_mul[n]);
      Simd::Float y[kUnit][kVectors];
      for (int j = 0; j < kUnit; ++j) {
        for (int part = 0; part < kVectors; ++part) {
          Simd::Float acc = Simd::mul(Simd::load(&atoms[j][0][part * Simd::kWidth]), Simd::set1(weights[j][0][n]));
          for (int v = 1; v < width; ++v)
            acc = Simd::fma(Simd::load(&atoms[j][v][part * Simd::kWidth]), Simd::set1(weights[j][v][n]), acc);
          y[j][part] = scaled(acc, codebook_mul[j], column_mul);
        }
      }
      Bytes::cell(y, block + i * e.step, e.stored);
    }
  }
}

template <int kUnit>
void expand_cells(const ExpandUnit& e) {
  switch (e.width) {
    case 2:
      return expand_cells_of<kUnit, 2>(e);
    case 3:
      return expand_cells_of<kUnit, 3>(e);
    case 4:
      return expand_cells_of<kUnit, 4>(e);
    default:
      return expand_cells_of<kUnit, 0>(e);
  }
}

void expand_rows(const ExpandUnit& e) {
  alignas(64) float weights[kExpandSlots][kExpandColumns];
  alignas(64) float atoms[kExpandSlots][kLanes];
  alignas(64) float column_mul[kExpandColumns] = {};
  read_weights(e, 0, weights);
  read_atoms(e, 0, atoms);
  for (int64_t n = 0; n < e.columns; ++n) column_mul[n] = e.column_mul[n];
  const Simd::Float codebook_mul = Simd::set1(e.codebook_mul[0]);
  for (int k = 0; k < e.entries; ++k) {
    int8_t* row = reinterpret_cast<int8_t*>(e.table) + k * e.step;
    for (int64_t n = 0; n < e.columns; n += kLanes) {
      Simd::Float y[kVectors];
      for (int part = 0; part < kVectors; ++part) {
        const int64_t at = n + part * Simd::kWidth;
        Simd::Float acc = Simd::mul(Simd::set1(atoms[0][k]), Simd::load(&weights[0][at]));
        for (int v = 1; v < e.width; ++v) acc = Simd::fma(Simd::set1(atoms[v][k]), Simd::load(&weights[v][at]), acc);
        y[part] = scaled(acc, codebook_mul, Simd::load(&column_mul[at]));
      }
      if (n + kLanes <= e.columns) {
        Bytes::row(y, row + n);
      } else {
        int8_t bytes[kLanes];
        Bytes::row(y, bytes);
        for (int64_t i = n; i < e.columns; ++i) row[i] = bytes[i - n];
      }
    }
  }
}

}  // namespace
}  // namespace lutc::kernels
