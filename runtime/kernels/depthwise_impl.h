// Depthwise convolution, 3 x 3 and 5 x 5, stride 1 and 2: lanes are neighbouring outputs of a row, four rows at a time
// share what they read. Part of dense_impl.h.
#pragma once

#include "kernels/taps_impl.h"

namespace lutc::kernels {
namespace {

/// One channel.
struct DepthwiseCall {
  const float *x, *w;
  float* y;
  const float* residual;  ///< added here, or null
  float bias, floor;
};

constexpr int kDepthwiseRows = 4;

/// The outputs at `at` of rows [i, i + kDepthwiseRows), as far as there are any, of the image rows `x`.
template <int kSize, int kStride, bool kWhole, int kReach>
LUTC_INLINE void depthwise_block(const DepthwiseCall& call, const DepthwisePlane& p, const Float* w,
                                 const float* const (&x)[kReach], const Taps<kSize, kStride>& at, int64_t i,
                                 int64_t j) {
  const Float bias = V::set1(call.bias);
  Float acc[kDepthwiseRows] = {bias, bias, bias, bias};
#pragma GCC unroll 16
  for (int r = 0; r < kReach; ++r) {
    Float taps[kSize];
    load_taps<kSize, kStride, kWhole>(x[r], at, taps);
#pragma GCC unroll 8
    for (int v = 0; v < kSize; ++v)
#pragma GCC unroll 4
      for (int o = 0; o < kDepthwiseRows; ++o) {
        const int u = r - o * kStride;
        if (u >= 0 && u < kSize) acc[o] = V::fma(w[u * kSize + v], taps[v], acc[o]);
      }
  }
  const Float floor = V::set1(call.floor);
  const int64_t size = p.out_height * p.out_width;
  int64_t place = i * p.out_width + j;
#pragma GCC unroll 4
  for (int o = 0; o < kDepthwiseRows; ++o, place += p.out_width) {
    if (place >= size) break;
    if (call.residual != nullptr) acc[o] = V::add(acc[o], load_columns(call.residual + place, p.out_width - j));
    const Float sum = V::max(floor, acc[o]);
    // What a whole vector writes behind a short row is written again by the next rows, if there are some.
    if (place + W <= size) {
      V::store(call.y + place, sum);
    } else {
      V::store_n(call.y + place, sum, p.out_width - j);
    }
  }
}

/// Rows before columns: the image is read as it lies in memory.
template <int kSize, int kStride>
void depthwise_section(const DepthwiseCall call, const DepthwisePlane p, const Section<kSize, kStride>& section) {
  constexpr int kReach = (kDepthwiseRows - 1) * kStride + kSize;
  Float w[kSize * kSize];
#pragma GCC unroll 32
  for (int t = 0; t < kSize * kSize; ++t) w[t] = V::set1(call.w[t]);
  for (int64_t next = 0; next < p.out_height; next += kDepthwiseRows) {
    // The last rows are computed with as many before them, where there are.
    const int64_t i = p.out_height < kDepthwiseRows ? 0 : min_of(next, p.out_height - kDepthwiseRows);
    const float* x[kReach];
    for (int r = 0; r < kReach; ++r) x[r] = section.row(call.x, i * kStride + r - p.top, p);
    for (int b = 0; b < section.blocks; ++b) {
      const Taps<kSize, kStride>& at = section.taps[b];
      const int64_t j = section.column(section.first + b * W, p);
      if (at.whole) {
        depthwise_block<kSize, kStride, true>(call, p, w, x, at, i, j);
      } else {
        depthwise_block<kSize, kStride, false>(call, p, w, x, at, i, j);
      }
    }
  }
}

template <int kSize, int kStride>
void depthwise_channels(const float* x, const float* w, const DepthwisePlane& p, int64_t channels, float* y,
                        const Epilogue& e, bool residual_first, float floor) {
  const int64_t in = p.height * p.width, out = p.out_height * p.out_width;
  for (int64_t first = 0; first < p.out_width; first += kSection) {
    const Section<kSize, kStride> section(first, p);
    for (int64_t c = 0; c < channels; ++c) {
      const DepthwiseCall call{x + c * in,
                               w + c * kSize * kSize,
                               y + c * out,
                               residual_first ? e.residual + c * e.residual_stride : nullptr,
                               e.row_bias == nullptr ? 0.0f : e.row_bias[c],
                               floor};
      depthwise_section(call, p, section);
    }
  }
}

void depthwise(const float* x, const float* w, int64_t size, int64_t stride, const DepthwisePlane& plane,
               int64_t channels, float* y, const Epilogue& e) {
  const bool residual_first =
      e.residual != nullptr && (e.activation_after_residual || e.activation == Activation::kNone);
  const bool relu = e.activation == Activation::kRelu && (e.residual == nullptr || residual_first);
  const float floor = relu ? 0.0f : -kInfinity;
  if (size == 3) {
    stride == 1 ? depthwise_channels<3, 1>(x, w, plane, channels, y, e, residual_first, floor)
                : depthwise_channels<3, 2>(x, w, plane, channels, y, e, residual_first, floor);
  } else {
    stride == 1 ? depthwise_channels<5, 1>(x, w, plane, channels, y, e, residual_first, floor)
                : depthwise_channels<5, 2>(x, w, plane, channels, y, e, residual_first, floor);
  }
  if (e.activation == Activation::kNone || relu) return;
  const int64_t size_out = plane.out_height * plane.out_width;
  const Tile done{y, size_out, size_out, true, true};
  activate_tile(kMaths, done, static_cast<int>(channels), e, residual_first ? nullptr : e.residual);
}

}  // namespace
}  // namespace lutc::kernels
