// Attention whose two products are integer (docs/operators.md, Attention with `quantised`).
//
// One head at a time: its keys and values are quantised and packed once, then blocks of query rows go through scores,
// weights and the mix of values. A *pair* is two neighbouring int16 of the summed axis, multiplied and added by one
// lane (vpdpwssd, vpmaddwd). What is packed lies in panels [panel][pair][column][2], columns being keys for the scores
// and features for the mix; missing columns and the second half of an odd pair hold zero.
//
// A row (q, k) or column (v) that holds NaN or infinity gets NaN for its step, so that NaN reaches what it would reach
// in float.
#pragma once

#include <cstdint>

#include "kernels/kernel_table.h"

namespace lutc::kernels {

struct AttentionKernels {
  int panel;       ///< columns of one panel
  int block_rows;  ///< query rows of one register block

  /// q[row][pair][2] = the row in -2047 .. 2047, steps[row] = what one unit is worth.
  void (*quantise_rows)(const float* x, int64_t stride, int64_t rows, int64_t d, int16_t* q, float* steps);
  /// The same into panels of keys; steps (a whole number of panels, zero where there is no key) are times `scale`.
  void (*pack_keys)(const float* k, int64_t stride, int64_t keys, int64_t d, float scale, int16_t* panels,
                    float* steps);
  /// Features column by column, pairs along the keys; steps in whole panels, zero where there is no feature.
  void (*pack_values)(const float* v, int64_t stride, int64_t keys, int64_t d, int16_t* panels, float* steps);

  /// sums[row][key] for every column of the panels that hold a key.
  void (*scores)(const int16_t* q, const int16_t* panels, int64_t rows, int64_t keys, int64_t pairs, int32_t* sums,
                 int64_t stride);
  /// weights[row][key] = rint(4095 exp(s - largest s)) with s = sum * key_step * query_step + mask (null: none; a null
  /// row: nothing to add); zero follows up to a whole number of 32. inverses[row] = 1 / (sum of the weights), NaN where
  /// a score is NaN or all are -inf. The sums are overwritten.
  void (*weigh)(int32_t* sums, int64_t stride, const float* key_steps, const float* query_steps,
                const float* const* masks, int64_t rows, int64_t keys, int16_t* weights, int64_t weight_stride,
                float* inverses);
  /// y[row][feature] = sum over keys of weight * value * step * inverses[row], in blocks of 128 keys.
  void (*mix)(const int16_t* weights, int64_t weight_stride, const int16_t* panels, int64_t rows, int64_t keys,
              int64_t d, const float* steps, const float* inverses, float* y, int64_t y_stride);
};

/// Never null; falls back to the scalar table when the library was built without this ISA.
const AttentionKernels* attention_kernels(Isa isa);

namespace attention {

constexpr float kLevels = 2047.0f;          ///< of q, k and v
constexpr float kWeightLevels = 4095.0f;    ///< of the weights
constexpr int64_t kMostFeatures = 511;      ///< 511 * 2047^2 < 2^31
constexpr int64_t kBlockKeys = 128;         ///< 128 * 4095 * 2047 < 2^31
constexpr int64_t kMostRows = 96;           ///< of one call of scores, weigh and mix
constexpr int64_t kMostKeys = 1 << 19;      ///< of a row: 2^19 * 4095 < 2^31
constexpr float kLargest = 3.40282347e38f;  ///< finite
constexpr float kLog4E = 0.721347520f;      ///< 4, not e or 2: the lowest float times this is finite
/// 4095 * 4^x for |x| <= 1/4, to 3e-6 of its value.
constexpr int kExpDegree = 4;
constexpr float kExp4[] = {4094.9971f, 5676.6675f, 3935.2531f, 1831.8691f, 627.0331f};

}  // namespace attention
}  // namespace lutc::kernels
