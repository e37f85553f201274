// Convolution 3 x 3 of stride 2 and few input channels, as at the top of a network: lanes are neighbouring outputs of a
// row, whose taps come straight from the image; a copy of it for `direct` would cost as much as it helps. Part of
// dense_impl.h.
#pragma once

#include "kernels/taps_impl.h"

namespace lutc::kernels {
namespace {

/// What one call of `shallow` has in common for all its blocks.
struct ShallowCall {
  const DepthwisePlane& plane;
  int64_t rows_read;  ///< image rows that an output reads, all channels together
  float* y;
  const float *bias, *residual;  ///< or null
  float floor;
};

/// kShallowOutputs outputs from `output` on, at the kVectors blocks `at` of output row i. x: the image rows.
template <int kVectors, bool kWhole>
LUTC_INLINE void shallow_block(const ShallowCall& call, const float* const* x, const float* __restrict w,
                               const Taps<3, 2>* at, const int64_t (&places)[kVectors], int64_t output) {
  constexpr int kRows = kShallowOutputs;
  Float acc[kRows][kVectors];
#pragma GCC unroll 16
  for (int o = 0; o < kRows; ++o) {
    const Float start = call.bias == nullptr ? V::zero() : V::set1(call.bias[output + o]);
#pragma GCC unroll 2
    for (int b = 0; b < kVectors; ++b) acc[o][b] = start;
  }
  for (int64_t r = 0; r < call.rows_read; ++r, w += 3 * kRows) {
    Float taps[kVectors][3];
#pragma GCC unroll 2
    for (int b = 0; b < kVectors; ++b) load_taps<3, 2, kWhole>(x[r], at[b], taps[b]);
#pragma GCC unroll 3
    for (int v = 0; v < 3; ++v)
#pragma GCC unroll 16
      for (int o = 0; o < kRows; ++o) {
        const Float weight = V::set1(w[v * kRows + o]);
#pragma GCC unroll 2
        for (int b = 0; b < kVectors; ++b) acc[o][b] = V::fma(weight, taps[b][v], acc[o][b]);
      }
  }
  const Float floor = V::set1(call.floor);
  const int64_t size = call.plane.out_height * call.plane.out_width;
#pragma GCC unroll 16
  for (int o = 0; o < kRows; ++o)
#pragma GCC unroll 2
    for (int b = 0; b < kVectors; ++b) {
      const int64_t place = (output + o) * size + places[b];
      if (call.residual != nullptr) acc[o][b] = V::add(acc[o][b], V::load(call.residual + place));
      V::store(call.y + place, V::max(floor, acc[o][b]));
    }
}

void shallow_rows(const ShallowCall call, const float* x, int64_t channels, const float* packed, int64_t outputs,
                  int64_t first_row, int64_t rows) {
  const DepthwisePlane p = call.plane;
  for (int64_t first = 0; first < p.out_width; first += kSection) {
    const Section<3, 2> section(first, p);
    for (int64_t i = first_row; i < first_row + rows; ++i) {
      const float* image_rows[3 * kShallowInputs];
      for (int64_t r = 0; r < 3 * channels; ++r)
        image_rows[r] = section.row(x + r / 3 * p.height * p.width, i * 2 + r % 3 - p.top, p);
      for (int64_t output = 0; output < outputs; output += kShallowOutputs) {
        const float* w = packed + output * 9 * channels;
        for (int b = 0; b < section.blocks; b += 2) {
          const Taps<3, 2>* at = section.taps + b;
          const int64_t next = first + b * W, place = i * p.out_width + section.column(next, p);
          if (b + 1 == section.blocks) {
            shallow_block<1, false>(call, image_rows, w, at, {place}, output);
          } else if (const int64_t second = i * p.out_width + section.column(next + W, p); at[0].whole && at[1].whole) {
            shallow_block<2, true>(call, image_rows, w, at, {place, second}, output);
          } else {
            shallow_block<2, false>(call, image_rows, w, at, {place, second}, output);
          }
        }
      }
    }
  }
}

void shallow(const float* x, int64_t channels, const float* packed, int64_t outputs, const DepthwisePlane& plane,
             int64_t first_row, int64_t rows, float* y, const Epilogue& e) {
  const bool residual_first =
      e.residual != nullptr && (e.activation_after_residual || e.activation == Activation::kNone);
  const bool relu = e.activation == Activation::kRelu && (e.residual == nullptr || residual_first);
  const ShallowCall call{
      plane, 3 * channels, y, e.row_bias, residual_first ? e.residual : nullptr, relu ? 0.0f : -kInfinity};
  shallow_rows(call, x, channels, packed, outputs, first_row, rows);
  if (e.activation == Activation::kNone || relu) return;
  const int64_t begin = first_row * plane.out_width;
  const Tile done{y + begin, plane.out_height * plane.out_width, rows * plane.out_width, true, true};
  activate_tile(kMaths, done, static_cast<int>(outputs), e,
                residual_first || e.residual == nullptr ? nullptr : e.residual + begin);
}

}  // namespace
}  // namespace lutc::kernels
