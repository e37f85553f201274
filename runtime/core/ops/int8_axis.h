// Where the pixels and taps of an image lie in the planes of an int8 convolution (kernels/int8_conv.h), in one dim.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/ops/window.h"

namespace lutc::ops {

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }  // a > -b
inline int64_t common_divisor(int64_t a, int64_t b) { return b == 0 ? a : common_divisor(b, a % b); }

/// One dim of the planes. Word i of phase p holds pixel i * stride + residue(p) - pad.
struct PlaneAxis {
  int64_t in, out, pad, stride, dilation;
  int64_t phases;  ///< residues that taps have modulo the stride
  int64_t reach;   ///< furthest displacement of a tap
  int64_t size;    ///< words that outputs and taps reach

  PlaneAxis() = default;
  PlaneAxis(const Geometry& g, const Window& w, int d)
      : in(g.in[d]), out(g.out[d]), pad(g.pads[d]), stride(w.strides[d]), dilation(w.dilations[d]) {
    phases = std::min(w.kernel[d], period());
    reach = (w.kernel[d] - 1) * dilation / stride;
    size = out + reach;
  }
  int64_t period() const { return stride / common_divisor(stride, dilation); }
  int64_t phase(int64_t tap) const { return tap % period(); }
  int64_t displacement(int64_t tap) const { return tap * dilation / stride; }
  int64_t residue(int64_t phase) const { return phase * dilation % stride; }
  /// Words [low, high) of a phase hold the pixels, those outside are border.
  int64_t low(int64_t phase) const { return std::min(size, ceil_div(pad - residue(phase), stride)); }
  int64_t high(int64_t phase) const {
    return std::max(low(phase), std::min(size, ceil_div(in + pad - residue(phase), stride)));
  }
  int64_t pixel(int64_t phase, int64_t word) const { return word * stride + residue(phase) - pad; }
};

}  // namespace lutc::ops
