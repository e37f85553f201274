// Winograd's F(2 x 2, 3 x 3): a 3 x 3 convolution of stride 1 as 16 products over tiles of 2 x 2 outputs, with 16
// multiplications a tile instead of 36. Its constants are 1 and 1/2, so its rounding is that of the plain sum. Part of
// dense_impl.h.
#pragma once

namespace lutc::kernels {
namespace {

/// One image row under W neighbouring tiles, times the transform along the row.
struct TileRow {
  Float v[4];
};

/// The 2 W + 2 columns of an image row under W tiles, as two pairs of vectors two columns apart.
struct TileColumns {
  int64_t start;           ///< column under the first lane, maybe in the padding
  V::Mask inside[4];       ///< which lie in the image
  bool whole, one_vector;  ///< all of them do; only the first vector of each pair does
};

LUTC_INLINE TileColumns tile_columns(int64_t start, int64_t width) {
  TileColumns at;
  const int64_t places[4] = {start, start + W, start + 2, start + 2 + W};
  for (int i = 0; i < 4; ++i) at.inside[i] = V::range(-places[i], width - places[i]);
  at.start = start;
  at.whole = start >= 0 && start + 2 * W + 2 <= width;
  at.one_vector = width - start <= W;
  return at;
}

LUTC_INLINE TileRow transform_row(const float* row, const TileColumns& at) {
  Float even, odd, next_even, next_odd;
  const float* x = row + at.start;
  if (at.whole) {
    V::deinterleave(V::load(x), V::load(x + W), &even, &odd);
    V::deinterleave(V::load(x + 2), V::load(x + 2 + W), &next_even, &next_odd);
  } else if (at.one_vector) {
    V::deinterleave(V::load_where(x, at.inside[0]), V::zero(), &even, &odd);
    V::deinterleave(V::load_where(x + 2, at.inside[2]), V::zero(), &next_even, &next_odd);
  } else {
    V::deinterleave(V::load_where(x, at.inside[0]), V::load_where(x + W, at.inside[1]), &even, &odd);
    V::deinterleave(V::load_where(x + 2, at.inside[2]), V::load_where(x + 2 + W, at.inside[3]), &next_even, &next_odd);
  }
  return {{V::sub(even, next_even), V::add(odd, next_even), V::sub(next_even, odd), V::sub(odd, next_odd)}};
}

/// A column of W tiles all the way down. Stores are whole vectors: what lies beyond the last tile of a row is written
/// later.
void tile_column(const float* x, const Tiling& t, const TileColumns& at, float* v, int64_t stride) {
  const auto row = [&](int64_t h) __attribute__((always_inline)) {
    const TileRow zero = {{V::zero(), V::zero(), V::zero(), V::zero()}};
    return h < 0 || h >= t.height ? zero : transform_row(x + h * t.width, at);
  };
  int64_t h = 2 * t.first_row - t.top;
  TileRow r0 = row(h), r1 = row(h + 1);
  for (int64_t i = 0; i < t.rows; ++i, v += t.columns) {
    h += 2;
    const TileRow r2 = row(h), r3 = row(h + 1);
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const Float sums[4] = {V::sub(r0.v[j], r2.v[j]), V::add(r1.v[j], r2.v[j]), V::sub(r2.v[j], r1.v[j]),
                             V::sub(r1.v[j], r3.v[j])};
#pragma GCC unroll 4
      for (int u = 0; u < 4; ++u) V::store(v + (4 * u + j) * stride, sums[u]);
    }
    r0 = r2;
    r1 = r3;
  }
}

void winograd_input(const float* x, const Tiling& t, float* v, int64_t stride) {
  // From the right: the last column, which may be less than a vector, first.
  for (int64_t j = (t.columns - 1) / W * W; j >= 0; j -= W)
    tile_column(x, t, tile_columns(2 * j - t.left, t.width), v + j, stride);
}

void winograd_output(const float* m, int64_t stride, const Tiling& t, float* y, int64_t height, int64_t width,
                     const Epilogue& e) {
  const bool residual_first =
      e.residual != nullptr && (e.activation_after_residual || e.activation == Activation::kNone);
  const bool relu = e.activation == Activation::kRelu && (e.residual == nullptr || residual_first);
  const Float floor = V::set1(relu ? 0.0f : -kInfinity), bias = V::set1(e.row_bias == nullptr ? 0.0f : *e.row_bias);
  const int64_t first = 2 * t.first_row;
  for (int64_t i = 0; i < t.rows; ++i) {
    for (int64_t j = 0; j < t.columns; j += W) {
      Float sums[2][4];
      const float* tile = m + i * t.columns + j;
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) {
        Float a[4];
#pragma GCC unroll 4
        for (int u = 0; u < 4; ++u) a[u] = load_columns(tile + (4 * u + v) * stride, t.columns - j);
        sums[0][v] = V::add(V::add(a[0], a[1]), a[2]);
        sums[1][v] = V::sub(V::sub(a[1], a[2]), a[3]);
      }
      for (int64_t u = 0; u < 2 && 2 * i + first + u < height; ++u) {
        const Float* s = sums[u];
        Float out[2];
        V::interleave(V::add(V::add(V::add(s[0], s[1]), s[2]), bias), V::add(V::sub(V::sub(s[1], s[2]), s[3]), bias),
                      &out[0], &out[1]);
        const int64_t row = (2 * i + first + u) * width;
        for (int64_t p = 0; p < 2; ++p) {
          const int64_t column = 2 * j + p * W, left = width - column;
          if (left <= 0) break;
          Float sum = out[p];
          if (residual_first) sum = V::add(sum, load_columns(e.residual + row + column, left));
          store_columns(y + row + column, V::max(floor, sum), left);
        }
      }
    }
  }
  if (e.activation == Activation::kNone || relu) return;
  const int64_t begin = first * width, rows = min_of(2 * t.rows, height - first);
  const Tile done{y + begin, 0, rows * width, true, true};
  activate_tile(kMaths, done, 1, e, residual_first || e.residual == nullptr ? nullptr : e.residual + begin);
}

}  // namespace
}  // namespace lutc::kernels
