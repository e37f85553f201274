// Depthwise convolution, 3 x 3 and 5 x 5, stride 1 and 2: lanes are neighbouring outputs of a row, four rows at a time
// share what they read. Part of dense_impl.h.
#pragma once

namespace lutc::kernels {
namespace {

/// Stands for an image row that lies in the padding.
alignas(64) constexpr float kZeroRow[4 * W] = {};

/// The columns of the image that W outputs read, from `start` on; which of them lie in the image.
template <int kSize, int kStride>
struct TapColumns {
  static constexpr int kLoads = kStride == 1 ? kSize : 2 * ((kSize + 1) / 2);
  int64_t start;
  V::Mask inside[kLoads];

  TapColumns(int64_t first, int64_t width) : start(first) {
    for (int i = 0; i < kLoads; ++i) inside[i] = V::range(-place(i) - first, width - place(i) - first);
  }
  /// Column of load i, relative to start: consecutive ones at stride 1, pairs of vectors at stride 2.
  static constexpr int64_t place(int i) { return kStride == 1 ? i : i / 2 * 2 + i % 2 * W; }
  bool whole(int64_t width) const { return start >= 0 && start + place(kLoads - 1) + W <= width; }
};

/// What the taps of one kernel row meet in an image row.
template <int kSize, int kStride, bool kWhole>
LUTC_INLINE void load_taps(const float* x, const TapColumns<kSize, kStride>& at, Float (&taps)[kSize]) {
  const auto load = [&](int i) __attribute__((always_inline)) {
    const float* from = x + at.place(i);
    return kWhole ? V::load(from) : V::load_where(from, at.inside[i]);
  };
  if constexpr (kStride == 1) {
#pragma GCC unroll 8
    for (int v = 0; v < kSize; ++v) taps[v] = load(v);
  } else {
#pragma GCC unroll 8
    for (int v = 0; v < kSize; v += 2) {
      Float odd;
      V::deinterleave(load(v), load(v + 1), &taps[v], &odd);
      if (v + 1 < kSize) taps[v + 1 < kSize ? v + 1 : 0] = odd;
    }
  }
}

struct DepthwiseCall {
  const float *x, *w;
  const DepthwisePlane& plane;
  float* y;
  const float* residual;  ///< added here, or null
  float bias, floor;
};

constexpr int kDepthwiseRows = 4;

/// The outputs of columns [j, j + W) of rows [i, i + kDepthwiseRows), as far as there are any.
template <int kSize, int kStride, bool kWhole>
LUTC_INLINE void depthwise_block(const DepthwiseCall& call, const DepthwisePlane& p, const Float (&w)[kSize * kSize],
                                 const TapColumns<kSize, kStride>& at, int64_t i, int64_t j) {
  constexpr int kReach = (kDepthwiseRows - 1) * kStride + kSize;
  const Float bias = V::set1(call.bias);
  Float acc[kDepthwiseRows] = {bias, bias, bias, bias};
#pragma GCC unroll 16
  for (int r = 0; r < kReach; ++r) {
    const int64_t h = i * kStride + r - p.top;
    Float taps[kSize];
    load_taps<kSize, kStride, kWhole>(h < 0 || h >= p.height ? kZeroRow : call.x + h * p.width + at.start, at, taps);
#pragma GCC unroll 4
    for (int o = 0; o < kDepthwiseRows; ++o) {
      const int u = r - o * kStride;
      if (u < 0 || u >= kSize) continue;
#pragma GCC unroll 8
      for (int v = 0; v < kSize; ++v) acc[o] = V::fma(w[u * kSize + v], taps[v], acc[o]);
    }
  }
  const Float floor = V::set1(call.floor);
#pragma GCC unroll 4
  for (int o = 0; o < kDepthwiseRows; ++o) {
    if (i + o >= p.out_height) break;
    const int64_t place = (i + o) * p.out_width + j;
    if (call.residual != nullptr) acc[o] = V::add(acc[o], load_columns(call.residual + place, p.out_width - j));
    const Float sum = V::max(floor, acc[o]);
    // What a whole vector writes behind a short row is written again by the next rows, if there are some.
    if (place + W <= p.out_height * p.out_width) {
      V::store(call.y + place, sum);
    } else {
      V::store_n(call.y + place, sum, p.out_width - j);
    }
  }
}

/// Rows before columns: the image is read as it lies in memory.
template <int kSize, int kStride>
void depthwise_plane(const DepthwiseCall& call) {
  const DepthwisePlane p = call.plane;
  Float w[kSize * kSize];
#pragma GCC unroll 32
  for (int t = 0; t < kSize * kSize; ++t) w[t] = V::set1(call.w[t]);
  for (int64_t next = 0; next < p.out_height; next += kDepthwiseRows) {
    // The last rows are computed with as many before them, where there are; the last columns likewise.
    const int64_t i = p.out_height < kDepthwiseRows ? 0 : min_of(next, p.out_height - kDepthwiseRows);
    for (int64_t column = 0; column < p.out_width; column += W) {
      const int64_t j = p.out_width < W ? 0 : min_of(column, p.out_width - W);
      const TapColumns<kSize, kStride> at(j * kStride - p.left, p.width);
      if (at.whole(p.width)) {
        depthwise_block<kSize, kStride, true>(call, p, w, at, i, j);
      } else {
        depthwise_block<kSize, kStride, false>(call, p, w, at, i, j);
      }
    }
  }
}

void depthwise(const float* x, const float* w, int64_t size, int64_t stride, const DepthwisePlane& plane, float* y,
               const Epilogue& e) {
  const bool residual_first =
      e.residual != nullptr && (e.activation_after_residual || e.activation == Activation::kNone);
  const bool relu = e.activation == Activation::kRelu && (e.residual == nullptr || residual_first);
  const DepthwiseCall call{x,
                           w,
                           plane,
                           y,
                           residual_first ? e.residual : nullptr,
                           e.row_bias == nullptr ? 0.0f : *e.row_bias,
                           relu ? 0.0f : -kInfinity};
  if (size == 3) {
    stride == 1 ? depthwise_plane<3, 1>(call) : depthwise_plane<3, 2>(call);
  } else {
    stride == 1 ? depthwise_plane<5, 1>(call) : depthwise_plane<5, 2>(call);
  }
  if (e.activation == Activation::kNone || relu) return;
  const Tile done{y, 0, plane.out_height * plane.out_width, true, true};
  activate_tile(kMaths, done, 1, e, residual_first ? nullptr : e.residual);
}

}  // namespace
}  // namespace lutc::kernels
