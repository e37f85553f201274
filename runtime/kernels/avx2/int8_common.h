// Shared by the dense int8 products with 256-bit vectors: maxima of rows, and what becomes of finished sums.
#pragma once

#include "kernels/avx2/lanes.h"
#include "kernels/int8.h"

namespace lutc::kernels {
namespace {

/// The largest |x[d]| of a row.
LUTC_INLINE float largest_of(const float* x, int64_t n) {
  alignas(32) float lanes[8];
  _mm256_store_ps(lanes, largest_lanes(x, n));
  float largest = 0.0f;
  for (const float lane : lanes) largest = lane > largest ? lane : largest;
  return largest;
}

/// 127 / a, finite, 0 for a row of zeros: no product leaves -127 .. 127.
LUTC_INLINE float inverse_of(float a) {
  const float inv = a > 0.0f ? 127.0f / a : 0.0f;
  return inv < __FLT_MAX__ ? inv : __FLT_MAX__;
}

/// Where a block's results go; pointers at its first column and row.
struct Tile {
  const float* steps;
  const int32_t* starts;
  const float *scale, *bias;
  bool relu;
  const float* residual;
  float* y;
  int64_t stride;
  int64_t columns;
};

/// Eight columns of a tile from `first` on: their parameters, read once for all rows.
struct TileColumns {
  int64_t first, count;
  __m256i mask;
  __m256 scale, bias, floor;
};

LUTC_INLINE TileColumns tile_columns(const Tile& t, int64_t first) {
  const int64_t count = t.columns - first;
  return {first,
          count,
          first_lanes(count),
          load_n(t.scale + first, count),
          load_n(t.bias + first, count),
          _mm256_set1_ps(t.relu ? 0.0f : -__builtin_inff())};
}

/// Scales, adds to and stores the sums of row r.
LUTC_INLINE void finish_row(const Tile& t, const TileColumns& c, int r, __m256i sums) {
  const int64_t at = r * t.stride + c.first;
  const __m256 step = _mm256_mul_ps(_mm256_set1_ps(t.steps[r]), c.scale);
  __m256 y = _mm256_add_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(sums), step), c.bias);
  y = _mm256_max_ps(c.floor, y);
  if (t.residual != nullptr) y = _mm256_add_ps(y, load_n(t.residual + at, c.count));
  if (c.count >= 8) {
    _mm256_storeu_ps(t.y + at, y);
  } else {
    _mm256_maskstore_ps(t.y + at, c.mask, y);
  }
}

}  // namespace
}  // namespace lutc::kernels
