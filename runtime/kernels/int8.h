// Dense int8 products: rows of floats become integers with one step a row, times unsigned weights in layout quad16.
//
// docs/operators.md (Int8Linear) says what is computed, docs/format.md how weights are stored: a *panel* is 16 columns,
// [groups of 4 features][16][4], so that a group of a panel is one vector of 64 bytes. The weights are offset by 128: a
// row's sums start at minus 128 times the sum of its integers. Everything up to the int32 sums, and each float
// operation after them, gives the same bits on every ISA.
#pragma once

#include <cstdint>

#include "kernels/kernel_table.h"

namespace lutc::kernels {

constexpr int64_t kInt8PanelColumns = 16;

/// One call of the product: all rows times some whole panels (the last may have fewer columns).
/// y = relu?(float(sum) * (steps[row] * scale) + bias) [+ residual].
struct Int8Product {
  const uint8_t* rows = nullptr;    ///< as quantise() wrote them, from the first row of a block
  const float* steps = nullptr;     ///< [row_count]
  const int32_t* starts = nullptr;  ///< [row_count]
  int64_t row_count = 0;
  const uint8_t* weight = nullptr;  ///< the first panel
  int64_t features = 0;             ///< D
  int64_t columns = 0;
  const float* scale = nullptr;  ///< [columns]
  const float* bias = nullptr;   ///< [columns]
  bool relu = false;
  const float* residual = nullptr;  ///< same layout as y
  float* y = nullptr;
  int64_t y_stride = 0;  ///< from one row to the next, of y and residual
};

struct Int8Kernels {
  int block_rows;     ///< rows that share a block of packed integers: split rows in multiples of this
  int element_bytes;  ///< of one packed integer: a row takes this times the features, rounded up to a multiple of 4

  /// q[d] = rint(x[d] * inv) with inv = min(127 / a, the largest float), a the largest |x[d]| (inv = 0 where that is
  /// 0); steps = a / 127, starts = -128 * sum of q, modulo 2^32 as all sums. Blocks of rows follow each other; the
  /// kernel decides what is in them.
  void (*quantise)(const float* x, int64_t stride, int64_t rows, int64_t features, uint8_t* packed, float* steps,
                   int32_t* starts);
  void (*product)(const Int8Product& product);
};

/// Bytes from one packed row of `features` integers to the next.
inline int64_t int8_row_bytes(const Int8Kernels& kernels, int64_t features) {
  return (features + 3) / 4 * 4 * kernels.element_bytes;
}

/// Never null; falls back to the scalar table when the library was built without this ISA.
const Int8Kernels* int8_kernels(Isa isa);

}  // namespace lutc::kernels
