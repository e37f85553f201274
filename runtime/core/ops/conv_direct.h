// Convolution as an implicit product over output positions (kernels/direct_impl.h): which part of the image is copied,
// how the work is cut into pieces, who does which.
#pragma once

#include "core/ops/dense_gemm.h"
#include "core/ops/window.h"

namespace lutc::ops {

/// Sizes of a convolution, all checked.
struct ConvShape {
  Window window;
  Geometry g;
  Shape output;
  int64_t batch, inputs, outputs, groups;
  int64_t group_inputs, group_outputs;  ///< channels of one group
  int64_t taps, depth;                  ///< kh * kw; group_inputs * taps
  int64_t in_pixels, out_pixels;
};

/// Operands of one run.
struct ConvOperands {
  const float* x;
  const float* w;       ///< as in the model: [outputs, group_inputs, kh, kw]
  const float* packed;  ///< the same by DirectConv::pack(), or null
  const float* bias;
  const float* residual;
  float* y;
  kernels::Activation activation;
  bool activation_after_residual;

  /// For outputs from `channel` on, written from y + offset on.
  kernels::Epilogue epilogue(const ConvShape& shape, int64_t channel, int64_t offset) const;
};

class DirectConv {
 public:
  DirectConv(const ConvShape& shape, const kernels::DenseKernels& dense, bool weights_packed, int threads);

  /// Scratch of a run, all threads together; -1 when it overflows.
  int64_t bytes() const { return bytes_; }
  void run(RunContext& ctx, const ConvOperands& operands, int threads) const;

  /// Packs the weights [outputs, depth] of all groups; `packed` has room for as many floats.
  static void pack(const kernels::DenseKernels& dense, const float* w, int64_t outputs, int64_t groups, int64_t depth,
                   float* packed);

  /// Outputs of a register block: even shares, 16 are 6 + 5 + 5 rather than 6 + 6 + 4.
  static int64_t block_rows(const kernels::DenseKernels& dense, int64_t group_outputs);

 private:
  struct Scratch;
  void plan_expansion();
  void cut(int threads);
  int64_t plane_floats(int64_t rows) const;
  void fill_offsets(int64_t* offsets) const;

  const ConvShape& shape_;
  const kernels::DenseKernels& dense_;
  bool weights_packed_;
  bool in_place_ = false;        ///< a 1 x 1 convolution reads the image as it is
  kernels::Expansion how_{};     ///< of a whole image; first_row and rows change from chunk to chunk
  int64_t rows_, width_;         ///< output rows, as the expansion counts them
  int64_t block_;                ///< outputs of a register block
  int64_t chunk_rows_, chunks_;  ///< of an image
  int64_t part_, parts_;         ///< outputs of a piece of work; such parts of a group
  int64_t bytes_;
  int64_t thread_bytes_ = 0;
};

}  // namespace lutc::ops
