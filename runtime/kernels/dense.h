// fp32 matrix products over packed weights, and the pieces from which convolution and attention are made.
//
// The right-hand matrix B is packed once into panels: panel p holds columns p*panel_columns ... as [k][panel_columns],
// zero-filled at the edge. The left-hand matrix A is read in place through a row stride. Kernels use a few tens of KB
// of stack and no other memory; threads split rows or panels among calls.
#pragma once

#include <cstdint>

#include "kernels/kernel_table.h"
#include "kernels/vector.h"

namespace lutc::kernels {

/// What happens to a finished product: c = activation(ab + column_bias[j] + row_bias[i]) + residual, or the activation
/// last. Null pointers mean "none".
struct Epilogue {
  const float* column_bias = nullptr;
  const float* row_bias = nullptr;
  const float* residual = nullptr;  ///< same layout as c, its own row stride
  int64_t residual_stride = 0;
  Activation activation = Activation::kNone;
  bool activation_after_residual = false;
};

/// What fills some lanes of one vector of an im2col panel: lane i in [low, high) is pixel offset + i * stride of the
/// channel.
struct PanelRun {
  int32_t place;      ///< of the vector's lane 0 within the rows of a channel
  int32_t low, high;  ///< equal: nothing but zeros
  int32_t fresh;      ///< the first run of its vector: the other lanes become zero
  int64_t offset;
};

struct DenseKernels {
  int panel_columns;  ///< columns of one packed panel
  int lanes;          ///< floats of one vector; divides panel_columns
  int block_rows;     ///< rows of A that one register block holds: split rows among threads in multiples of this

  /// Packs B[k, n], element (i, j) at b[i * row_stride + j * column_stride], into packed_floats(k, n) floats.
  void (*pack)(const float* b, int64_t row_stride, int64_t column_stride, int64_t k, int64_t n, float* packed);

  /// c[m, n] = epilogue(a[m, k] packed), row strides lda and ldc. k == 0 gives epilogue(0).
  void (*gemm)(const float* a, int64_t lda, const float* packed, int64_t m, int64_t n, int64_t k, float* c, int64_t ldc,
               const Epilogue& epilogue);

  /// Sum of a[i] * b[i].
  float (*dot)(const float* a, const float* b, int64_t n);
  /// y += a * x.
  void (*axpy)(float a, const float* x, float* y, int64_t n);

  /// y[i] = x[i * stride], n values.
  void (*gather_strided)(const float* x, int64_t stride, float* y, int64_t n);
  /// Fills one im2col panel, [channels * taps][panel_columns], from an image whose channel c starts at x + c *
  /// channel_stride. The runs cover each vector of a channel's rows, every one beginning with a fresh run.
  void (*fill_panel)(const float* x, int64_t channel_stride, int64_t channels, int64_t taps, const PanelRun* runs,
                     int64_t run_count, int64_t stride, float* panel);
  /// One output row of a depthwise convolution: y[j] = bias + sum over taps (u, v) of w[u * kw + v] *
  /// rows[u][tap_offsets[v] + j].
  void (*depthwise_row)(const float* const* rows, const float* w, int64_t kh, int64_t kw, const int64_t* tap_offsets,
                        float bias, float* y, int64_t n);
};

/// Floats of a packed k x n matrix.
inline int64_t packed_floats(const DenseKernels& kernels, int64_t k, int64_t n) {
  return (n + kernels.panel_columns - 1) / kernels.panel_columns * kernels.panel_columns * k;
}

/// Never null; falls back to the scalar table when the library was built without this ISA.
const DenseKernels* dense_kernels(Isa isa);

}  // namespace lutc::kernels
