// Dense int8 convolution: quantising images, and sums over planes of quantised pixels.
//
// A plane holds, for each position, a *unit* of channels in one 32-bit word: four bytes (q + 128) where the ISA
// multiplies bytes, two int16 elsewhere; or four bytes as they are (0 .. 127), where no number of the image is
// negative. Planes have borders of zeros, and one part for each phase of the strides, so that a tap is a displacement:
// the words of consecutive outputs lie side by side at any tap. Lanes are outputs of one row or of several; weights are
// broadcast.
#pragma once

#include <cstdint>

#include "kernels/kernel_table.h"

namespace lutc::kernels {

/// The outputs of one vector: lane l reads the word `position` + l. The lanes that are outputs, the others being
/// between rows, lie side by side in the result from `output` on.
struct ConvVector {
  static constexpr int kMostLanes = 16;
  int64_t position;
  int64_t output;
  uint32_t mask;              ///< of the lanes that are outputs; lane 0 is one
  int32_t count;              ///< how many these are
  uint8_t lanes[kMostLanes];  ///< which ones, in order; any lane beyond `count`
};

/// Vectors of positions times a few output channels, over steps, pairs of a unit and a tap:
/// y = relu(residual + float(acc) * (unit_value * scale) + bias), or the residual after the relu.
struct Int8ConvBlock {
  const ConvVector* vectors = nullptr;
  int vector_count = 0;             ///< best a multiple of Int8ConvKernels::block_vectors
  int columns = 0;                  ///< 1 .. Int8ConvKernels::block_columns
  const uint8_t* pixels = nullptr;  ///< plane of the first unit
  const int64_t* steps = nullptr;   ///< [step_count] bytes from there to the plane of a unit, displaced by a tap
  int64_t step_count = 0;
  /// Int8ConvKernels::windows: the number of steps of a window, then which ones they are, window after window. Sums
  /// over one of the products of a pair of channels fit 16 bits.
  const int32_t* windows = nullptr;
  const uint8_t* weights = nullptr;  ///< [step][column] words, steps in the order of windows
  const int32_t* starts = nullptr;   ///< [column] what sums begin with: it undoes the offset of the pixels
  float unit_value = 0;              ///< what one unit of the pixels is worth
  const float* scale = nullptr;      ///< [column], as bias
  const float* bias = nullptr;
  bool relu = false;
  bool residual_first = false;
  const float* residual = nullptr;  ///< laid out as y, or null
  float* y = nullptr;               ///< of the first column
  int64_t y_stride = 0;             ///< from one column to the next
  float* largest = nullptr;         ///< [lanes] grows to the largest magnitudes of y that were at hand, or null
};

struct Int8ConvKernels {
  int unit;           ///< channels of a word: 4 (uint8, offset by 128 unless `windows`) or 2 (int16)
  int lanes;          ///< words of one vector
  int block_vectors;  ///< vectors whose sums the registers hold
  int block_columns;  ///< most output channels of a block

  /// Largest |x[i]|; 0 when n == 0. Unspecified when there is a NaN.
  float (*max_abs)(const float* x, int64_t n);
  /// Words of n pixels: int8(rint(clip(x * inv, -127, 127))) of `channels` (1 .. unit) channels, zeros for the rest.
  void (*quantise)(const float* x, int64_t channel_stride, int channels, float inv, int64_t n, uint32_t* words);
  void (*block)(const Int8ConvBlock& block);
  bool windows = false;  ///< pixels are 0 .. 127, without offset; block() reads Int8ConvBlock::windows
  /// Those for images without negative numbers, where others are faster, or null.
  const Int8ConvKernels* nonnegative = nullptr;
};

/// The byte of words that are zero in every channel.
inline int int8_zero_byte(const Int8ConvKernels& kernels) { return kernels.unit == 4 && !kernels.windows ? 128 : 0; }

/// Never null; falls back to the scalar table when the library was built without this ISA.
const Int8ConvKernels* int8_conv_kernels(Isa isa);

}  // namespace lutc::kernels
