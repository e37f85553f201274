// 3 x 3 convolution of stride 1 by Winograd's F(2 x 2, 3 x 3) (kernels/winograd_impl.h). Finite pixels give the plain
// sum up to rounding; an infinity or NaN may spoil all outputs of the tiles that see it, one pixel further than it
// reaches.
#pragma once

#include "core/ops/conv_direct.h"

namespace lutc::ops {

class WinogradConv {
 public:
  /// Weights for which the transform pays: enough channels on both sides, a 3 x 3 window that neither skips nor
  /// dilates.
  static bool suits(const Window& window, int64_t group_inputs, int64_t group_outputs);
  /// Images for which it does: not mostly padding of the last tiles.
  static bool suits(const ConvShape& shape);

  WinogradConv(const ConvShape& shape, const kernels::DenseKernels& dense, int threads);
  /// Scratch of a run, all threads together; -1 when it overflows.
  int64_t bytes() const { return bytes_; }
  /// operands.packed: by pack().
  void run(RunContext& ctx, const ConvOperands& operands, int threads) const;

  /// Floats of the transformed weights.
  static int64_t packed_floats(int64_t outputs, int64_t group_inputs) { return 16 * outputs * group_inputs; }
  /// Transforms and packs w[outputs, group_inputs, 3, 3].
  static void pack(const kernels::DenseKernels& dense, const float* w, int64_t outputs, int64_t groups,
                   int64_t group_inputs, float* packed);

 private:
  struct Scratch;
  kernels::Tiling tiling(int64_t chunk) const;

  const ConvShape& shape_;
  const kernels::DenseKernels& dense_;
  int64_t block_;                     ///< outputs of a register block
  int64_t tile_rows_, tile_columns_;  ///< of an image
  int64_t chunk_rows_, chunks_;       ///< tile rows done at once
  int64_t part_, parts_;              ///< outputs of a piece of work; such parts of a group
  int64_t thread_bytes_ = 0, bytes_ = -1;
};

}  // namespace lutc::ops
