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

/// How `expand` copies an image for `direct`: a channel becomes [columns][phases][rows][out_width] floats. Row r of
/// phase q of column v holds the pixels that tap (q, v) of the outputs of row first_row + r meets, zeros outside the
/// image; tap u finds its rows in phase u % phases, u * row_dilation / row_stride rows further down.
struct Expansion {
  int64_t in_height, in_width;
  int64_t columns, column_stride, column_dilation, left;  ///< taps along a row; pixels of padding to the left
  int64_t phases, row_stride, row_dilation, top;
  int64_t first_row, rows, out_width;
};

/// Tiles of 2 x 2 outputs of a 3 x 3 convolution: `rows` rows of `columns` tiles from row first_row on, over an image
/// of height x width pixels padded by top and left.
struct Tiling {
  int64_t height, width, top, left;
  int64_t first_row, rows, columns;
};

/// One channel of a convolution whose lanes are neighbouring outputs of a row.
struct DepthwisePlane {
  int64_t height, width, top, left;  ///< of the image, and its padding
  int64_t out_height, out_width;
};

/// Input channels that `shallow` takes at most.
constexpr int64_t kShallowInputs = 4;

/// One channel of a pooling.
struct PoolPlane {
  int64_t height, width, top, left;  ///< of the image, and its padding
  int64_t out_height, out_width;
  int64_t kernel[2], strides[2], dilations[2];
};
/// Parts of a row in the buffer of a pooling: columns 0, s, 2 s ..., columns 1, s + 1 ..., for strides s up to 4.
inline int64_t pool_phases(const PoolPlane& p) { return p.strides[1] <= 4 ? p.strides[1] : 1; }
/// Floats of such a part: whole vectors, since what has just been stored is read faster where no line ends in it.
inline int64_t pool_phase_floats(const PoolPlane& p, int64_t lanes) {
  const int64_t columns = p.out_width + (p.kernel[1] - 1) * p.dilations[1] / p.strides[1] + 1;
  return (columns / lanes + 2) * lanes;
}
/// Floats of that buffer; overflow is the caller's to rule out.
inline int64_t pool_floats(const PoolPlane& p, int64_t lanes) {
  const int64_t reach = (p.out_width - 1) * p.strides[1] + (p.kernel[1] - 1) * p.dilations[1] + 1;
  const int64_t phases = pool_phases(p);
  return (phases > 1 ? phases * pool_phase_floats(p, lanes) : reach) + 2 * lanes;
}

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

  int direct_rows;     ///< outputs that a register block of `direct` holds at most
  int direct_columns;  ///< positions of such a block

  /// Packs w[outputs][terms] (row stride terms) for `direct`: blocks of `block` outputs, each [terms][outputs of the
  /// block].
  void (*pack_direct)(const float* w, int64_t outputs, int64_t terms, int64_t block, float* packed);
  /// Implicit product: y[o * ldy + p] = epilogue(sum over t of w[o][t] * x[offsets[t] + p]) for p in [0, positions).
  /// block: at most direct_rows. With fewer positions than lanes, x is read `lanes` floats wide all the same.
  void (*direct)(const float* x, const int64_t* offsets, int64_t terms, const float* packed, int64_t outputs,
                 int64_t block, int64_t positions, float* y, int64_t ldy, const Epilogue& epilogue);
  /// The copies of `channels` channels, channel_stride apart, one after the other; up to a vector behind is
  /// overwritten.
  void (*expand)(const float* x, int64_t channel_stride, int64_t channels, const Expansion& how, float* y);

  /// Winograd's transforms for one channel. Input: v[(4 u + w) * stride + tile] = (B' d B)[u][w] of the 4 x 4 pixels d
  /// under each tile; up to a vector behind the last tile is overwritten. Output: the pixels A' m A of a height x width
  /// plane y under the tiles, with one bias
  /// (*epilogue.row_bias) and a residual plane beside y.
  void (*winograd_input)(const float* x, const Tiling& tiling, float* v, int64_t stride);
  void (*winograd_output)(const float* m, int64_t stride, const Tiling& tiling, float* y, int64_t height, int64_t width,
                          const Epilogue& epilogue);

  /// Neighbouring channels of a depthwise convolution: a square kernel of 3 or 5, stride 1 or 2 both ways, undilated.
  /// Biases by row, a residual plane for each plane of y.
  void (*depthwise)(const float* x, const float* w, int64_t size, int64_t stride, const DepthwisePlane& plane,
                    int64_t channels, float* y, const Epilogue& epilogue);
  int shallow_outputs;  ///< outputs of a register block of `shallow`
  /// Output rows [first_row, first_row + rows) of a 3 x 3 convolution of at most kShallowInputs channels, stride 2 both
  /// ways, undilated, rows of at least `lanes` outputs. packed: by pack_direct in blocks of shallow_outputs, of
  /// which `outputs` is a multiple. Biases by row, a residual plane for each plane of y.
  void (*shallow)(const float* x, int64_t channels, const float* packed, int64_t outputs, const DepthwisePlane& plane,
                  int64_t first_row, int64_t rows, float* y, const Epilogue& epilogue);
  /// Poolings: the average when there are row_shares (out_height) and column_shares (out_width), whose product is what
  /// a window's sum is multiplied by, else the maximum. Windows outside the image give 0 and -inf, those that hold a
  /// NaN, NaN. buffer: pool_floats(plane, lanes).
  void (*pool)(const float* x, const PoolPlane& plane, const float* row_shares, const float* column_shares, float* y,
               float* buffer);
};

/// Floats of a packed k x n matrix.
inline int64_t packed_floats(const DenseKernels& kernels, int64_t k, int64_t n) {
  return (n + kernels.panel_columns - 1) / kernels.panel_columns * kernels.panel_columns * k;
}

/// Never null; falls back to the scalar table when the library was built without this ISA.
const DenseKernels* dense_kernels(Isa isa);

}  // namespace lutc::kernels
