// Attention whose two products are integer (docs/operators.md, Attention with `quantised`).
//
// Queries lie in the lanes throughout. A tile is `lanes` queries of one head: their scores [key][lane], their weights
// and their outputs [feature][lane] all go down the lanes, so that neither softmax nor any layout of q, k, v and y,
// position by position or feature by feature, needs sums across lanes. A *quad* is four neighbouring integers of the
// summed axis, multiplied and added by one lane (vpdpbusd; two vpmaddwd on 16 bits). What is packed lies
// [quad][column], columns being queries, keys or features; missing ones and the rest of the last quad add nothing.
//
// A column that holds NaN or infinity gets NaN for its step, so that NaN reaches what it would reach in float.
#pragma once

#include <cstdint>

#include "kernels/kernel_table.h"

namespace lutc::kernels {

/// Values [column][depth] in float32; one of the strides is 1.
struct AttentionColumns {
  const float* x;
  int64_t column_stride, depth_stride;
  int64_t columns, depth;
};

/// What is added to the scores of a tile.
struct AttentionMask {
  const float* x;      ///< null: nothing
  int64_t key_stride;  ///< from one key to the next, 0: the same for all
  bool by_query;       ///< `lanes` values a key, not one
};

/// A tile of queries against the keys of a head.
struct AttentionScores {
  int64_t queries;  ///< of the tile, the others are not there
  int64_t keys, quads;
  const void* q;  ///< of `lanes` columns
  const float* query_steps;
  const void* packed;  ///< keys in `columns` columns
  int64_t columns;
  const int32_t* starts;
  const float* key_steps;
  AttentionMask mask;
  float* scores;   ///< [keys rounded up to 16][lanes]
  float* largest;  ///< [lanes]
};

struct AttentionKernels {
  int lanes;       ///< queries of a tile
  int columns;     ///< packed columns are a multiple of this
  int quad_bytes;  ///< of four packed integers

  /// Every column in -127 .. 127 by its largest magnitude; steps[column] = scale times what one unit is worth, 0 where
  /// there is no column. starts: null for values and queries; what sums with a key's column start from.
  void (*pack)(const AttentionColumns& in, bool queries, float scale, void* packed, int64_t columns, float* steps,
               int32_t* starts);
  /// scores = sum * key_step * query_step + mask, -inf up to a multiple of 16 keys; the largest that is not NaN.
  void (*score)(const AttentionScores& job);
  /// weights[quad][lane] = attention_weights() of how far the scores are below the largest; inverses = 1 / (sum of the
  /// weights), NaN where a score is NaN or infinite or all are -inf.
  void (*weigh)(const float* scores, const float* largest, int64_t queries, int64_t keys, void* weights,
                float* inverses);
  /// y[feature][query] = sum over keys of weight * value * inverses[query] * steps[feature].
  void (*mix)(const void* weights, const void* values, int64_t columns, int64_t queries, int64_t keys, int64_t features,
              const float* steps, const float* inverses, float* y, int64_t feature_stride);
  /// y[column][row] = x[row][column]
  void (*turn)(const float* x, int64_t x_stride, int64_t rows, int64_t columns, float* y, int64_t y_stride);
};

/// Never null; falls back to the scalar table when the library was built without this ISA.
const AttentionKernels* attention_kernels(Isa isa);

namespace attention {

constexpr float kLevels = 127.0f;           ///< of q, k and v
constexpr int kBias = 128;                  ///< added to q where integers without sign are multiplied
constexpr int64_t kMostSummed = 1 << 16;    ///< features of a head, keys: 2^16 * 255 * 127 < 2^31
constexpr int64_t kGroup = 16;              ///< keys whose weights are rounded differently, 4 by 4
constexpr float kLargest = 3.40282347e38f;  ///< finite
constexpr float kDistance = 31.7392902f;    ///< 22 / log(2): 22 steps down halve a weight
constexpr int kDistances = 256;             ///< the last one weighs nothing
constexpr float kWeight = 254.7f;           ///< of distance 0
constexpr float kRounding[4] = {0.625f, 0.125f, 0.875f, 0.375f};  ///< of quads 0 .. 3 of a group of keys

/// weights[quad % 4][distance] = floor(kWeight * 2^(-distance / 22) + kRounding[quad % 4])
using Weights = uint8_t[4][kDistances];
const Weights& weights();

/// The same for CPUs that look up in sixteen bytes at a time, every row of this struct. A distance below 128 weighs the
/// sum over i of near[i][distance % 16], as long as distance - 16 i is not negative: differences, modulo 256. Another
/// one weighs as many as there are entries of `far` above distance - 256.
struct WeightParts {
  static constexpr int kNear = 8, kFar = 5;
  struct {
    alignas(16) uint8_t near[kNear][16];
    alignas(16) int8_t far[kFar][16];  ///< sixteen times the same
  } quads[4];                          ///< quad % 4
};
const WeightParts& weight_parts();

}  // namespace attention
}  // namespace lutc::kernels
