// 3 x 3 convolution of stride 2 and few input channels, as at the top of a network (kernels/shallow_impl.h): the image
// is read in place, row by row.
#pragma once

#include "core/ops/conv_direct.h"

namespace lutc::ops {

class ShallowConv {
 public:
  /// Weights that the kernel takes.
  static bool suits(const kernels::DenseKernels& dense, const Window& window, int64_t group_inputs,
                    int64_t group_outputs);
  /// Images whose rows fill a vector.
  static bool suits(const kernels::DenseKernels& dense, const ConvShape& shape);

  /// operands.packed: by pack().
  static void run(RunContext& ctx, const kernels::DenseKernels& dense, const ConvShape& shape,
                  const ConvOperands& operands, int threads);

  /// Packs the weights [outputs, depth] of all groups; `packed` has room for as many floats.
  static void pack(const kernels::DenseKernels& dense, const float* w, int64_t outputs, int64_t depth, float* packed);
};

}  // namespace lutc::ops
