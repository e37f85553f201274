#include "core/ops/conv_shallow.h"

namespace lutc::ops {

using kernels::DenseKernels;

bool ShallowConv::suits(const DenseKernels& dense, const Window& window, int64_t group_inputs, int64_t group_outputs) {
  for (int d = 0; d < 2; ++d) {
    if (window.kernel[d] != 3 || window.strides[d] != 2 || window.dilations[d] != 1) return false;
  }
  return group_inputs <= kernels::kShallowInputs && group_outputs % dense.shallow_outputs == 0;
}

bool ShallowConv::suits(const DenseKernels& dense, const ConvShape& shape) {
  return suits(dense, shape.window, shape.group_inputs, shape.group_outputs) && shape.g.out[1] >= dense.lanes;
}

void ShallowConv::pack(const DenseKernels& dense, const float* w, int64_t outputs, int64_t depth, float* packed) {
  dense.pack_direct(w, outputs, depth, dense.shallow_outputs, packed);  // groups are whole blocks
}

void ShallowConv::run(RunContext& ctx, const DenseKernels& dense, const ConvShape& s, const ConvOperands& operands,
                      int threads) {
  const Geometry& g = s.g;
  const kernels::DepthwisePlane plane{g.in[0], g.in[1], g.pads[0], g.pads[1], g.out[0], g.out[1]};
  const int64_t images = s.batch * s.groups, shares = (threads + images - 1) / images;
  const int64_t chunk_rows = (g.out[0] + shares - 1) / shares, chunks = (g.out[0] + chunk_rows - 1) / chunk_rows;
  ctx.pool().parallel_for(images * chunks, 1, threads, [&](int64_t begin, int64_t end, int) {
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t image = unit / chunks, first = unit % chunks * chunk_rows;
      const int64_t channel = image % s.groups * s.group_outputs, offset = image * s.group_outputs * s.out_pixels;
      dense.shallow(operands.x + image * s.group_inputs * s.in_pixels, s.group_inputs,
                    operands.packed + channel * s.depth, s.group_outputs, plane, first,
                    std::min(chunk_rows, g.out[0] - first), operands.y + offset, operands.epilogue(s, channel, offset));
    }
  });
}

}  // namespace lutc::ops
