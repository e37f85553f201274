// Sliding windows: the geometry that convolutions and poolings share, with every attribute checked.
#pragma once

#include <string>

#include "core/op.h"

namespace lutc::ops {

/// Attributes of a window over the one or two trailing dims of [B, C, (H,) W]. One-dimensional ones become
/// two-dimensional with H = 1.
struct Window {
  int spatial = 2;  ///< 1 or 2
  int64_t kernel[2] = {1, 1};
  bool kernel_given = false;  ///< by the attribute kernel_shape
  int64_t strides[2] = {1, 1};
  int64_t dilations[2] = {1, 1};
  int64_t pads[4] = {0, 0, 0, 0};  ///< top, left, bottom, right
  bool ceil_mode = false;
  enum class Auto { kNotSet, kValid, kSameUpper, kSameLower } auto_pad = Auto::kNotSet;

  int64_t extent(int d) const { return (kernel[d] - 1) * dilations[d] + 1; }
};

/// Reads strides, dilations, pads, auto_pad, ceil_mode and, when given, kernel_shape. `spatial` is the number of window
/// dims.
Status read_window(const StepDef& def, int spatial, Window* window);

/// Number of window dims told by the attributes (kernel_shape, else strides, pads, dilations), or 0 when they say
/// nothing.
int spatial_dims(const StepDef& def);

/// One image and its windows.
struct Geometry {
  int64_t in[2], out[2];
  int64_t pads[4];  ///< resolved: top, left, bottom, right
};

/// Places windows over an image of in[0] x in[1] pixels; kInvalidArgument when the kernel is larger than the padded
/// image.
Status place_window(const StepDef& def, const Window& window, int64_t height, int64_t width, Geometry* geometry);

}  // namespace lutc::ops
