// Average and maximum over windows: the rows of a window fold into one, whose columns fold into outputs. Part of
// dense_impl.h.
#pragma once

#include "kernels/taps_impl.h"

namespace lutc::kernels {
namespace {

struct FoldSum {
  static constexpr bool kLosesNan = false;
  static constexpr float kStart = 0.0f;
  LUTC_INLINE Float fold(Float a, Float b) { return V::add(a, b); }
};
/// Loses NaNs: for rows without any.
struct FoldMaximum {
  static constexpr bool kLosesNan = true;
  static constexpr float kStart = -kInfinity;
  LUTC_INLINE Float fold(Float a, Float b) { return V::max(a, b); }
};
struct FoldMaximumOrNan {
  static constexpr bool kLosesNan = false;
  static constexpr float kStart = -kInfinity;
  LUTC_INLINE Float fold(Float a, Float b) { return V::select(V::is_nan(a), a, V::max(a, b)); }
};

/// The columns of outputs [j, j + W) for a square window that is known to the compiler: every image row is folded once,
/// in registers, for four output rows.
template <class Fold, int kSize, int kStride, bool kWhole>
LUTC_INLINE void pool_column(const float* x, const PoolPlane& p, const Taps<kSize, kStride>& at, int64_t j, float* y,
                             V::Mask* nan) {
  constexpr int kRows = 4, kReach = (kRows - 1) * kStride + kSize;
  const Float start = V::set1(Fold::kStart);
  V::Mask inside[kSize];  // of tap v: what of its lanes lies in the image
  for (int v = 0; v < kSize; ++v) {
    const int64_t first = at.start + v;
    inside[v] = V::range(first < 0 ? (-first + kStride - 1) / kStride : 0,
                         p.width <= first ? 0 : (p.width - 1 - first) / kStride + 1);
  }
  for (int64_t next = 0; next < p.out_height; next += kRows) {
    const int64_t i = p.out_height < kRows ? 0 : min_of(next, p.out_height - kRows);
    Float acc[kRows] = {start, start, start, start};
#pragma GCC unroll 16
    for (int r = 0; r < kReach; ++r) {
      const int64_t h = i * kStride + r - p.top;
      if (h < 0 || h >= p.height) continue;
      Float taps[kSize];
      load_taps<kSize, kStride, kWhole>(x + h * p.width, at, taps);
      if (!kWhole) {
#pragma GCC unroll 8
        for (int v = 0; v < kSize; ++v) taps[v] = V::select(inside[v], taps[v], start);
      }
      Float row = taps[0], sum = taps[0];
#pragma GCC unroll 8
      for (int v = 1; v < kSize; ++v) {
        row = Fold::fold(row, taps[v]);
        sum = V::add(sum, taps[v]);
      }
      // One test for all taps; infinities of both signs only make it look twice.
      if (Fold::kLosesNan) *nan = V::either(*nan, V::is_nan(sum));
#pragma GCC unroll 4
      for (int o = 0; o < kRows; ++o)
        if (r >= o * kStride && r < o * kStride + kSize) acc[o] = Fold::fold(acc[o], row);
    }
#pragma GCC unroll 4
    for (int o = 0; o < kRows; ++o) {
      if (i + o >= p.out_height) break;
      const int64_t place = (i + o) * p.out_width + j;
      if (place + W <= p.out_height * p.out_width) {
        V::store(y + place, acc[o]);
      } else {
        V::store_n(y + place, acc[o], p.out_width - j);
      }
    }
  }
}

/// One plane; false: NaNs were met.
template <class Fold, int kSize, int kStride>
bool pool_plane(const float* x, const PoolPlane& p, float* y) {
  V::Mask nan = V::none();
  for (int64_t next = 0; next < p.out_width; next += W) {
    const int64_t j = p.out_width < W ? 0 : min_of(next, p.out_width - W);
    const Taps<kSize, kStride> at(j * kStride - p.left, p.width);
    if (at.whole) {
      pool_column<Fold, kSize, kStride, true>(x, p, at, j, y, &nan);
    } else {
      pool_column<Fold, kSize, kStride, false>(x, p, at, j, y, &nan);
    }
  }
  return !V::any(nan);
}

/// True when the window is one of those known to the compiler: the plane is done then, *finite tells whether there was
/// no NaN.
template <class Fold>
bool pool_known(const float* x, const PoolPlane& p, float* y, bool* finite) {
  const int64_t size = p.kernel[0], stride = p.strides[0];
  if (size != p.kernel[1] || stride != p.strides[1] || p.dilations[0] != 1 || p.dilations[1] != 1) return false;
  if (size == 2 && stride == 2) {
    *finite = pool_plane<Fold, 2, 2>(x, p, y);
  } else if (size == 3 && stride == 1) {
    *finite = pool_plane<Fold, 3, 1>(x, p, y);
  } else if (size == 3 && stride == 2) {
    *finite = pool_plane<Fold, 3, 2>(x, p, y);
  } else if (size == 5 && stride == 1) {
    *finite = pool_plane<Fold, 5, 1>(x, p, y);
  } else {
    return false;
  }
  return true;
}

/// The rows of one window that lie in the image.
struct WindowRows {
  const float* first;  ///< column 0 of the first of them
  int64_t count, step;
};

WindowRows window_rows(const float* x, const PoolPlane& p, int64_t i) {
  WindowRows rows{nullptr, 0, p.dilations[0] * p.width};
  for (int64_t u = 0; u < p.kernel[0]; ++u) {
    const int64_t h = i * p.strides[0] - p.top + u * p.dilations[0];
    if (h < 0 || h >= p.height) continue;
    if (rows.count++ == 0) rows.first = x + h * p.width;
  }
  return rows;
}

/// The folded pixels of columns [column, column + W), the start value outside the image; *nan collects where any is
/// NaN.
template <class Fold>
LUTC_INLINE Float fold_column(const WindowRows& rows, int64_t column, int64_t width, V::Mask* nan) {
  const bool whole = column >= 0 && column + W <= width;
  const V::Mask inside = V::range(-column, width - column);
  const float* x = rows.first + column;
  Float sum = whole ? V::load(x) : V::load_where(x, inside);
  *nan = V::either(*nan, V::is_nan(sum));
  for (int64_t u = 1; u < rows.count; ++u) {
    x += rows.step;
    const Float next = whole ? V::load(x) : V::load_where(x, inside);
    *nan = V::either(*nan, V::is_nan(next));
    sum = Fold::fold(sum, next);
  }
  return whole ? sum : V::select(inside, sum, V::set1(Fold::kStart));
}

/// One output row. The folded row lies in `buffer` as the window's columns want it: at stride 2 even and odd columns
/// apart. False: NaNs were met.
template <class Fold>
LUTC_INLINE bool pool_row(const WindowRows& rows, const PoolPlane& p, float* y, float* buffer) {
  const int64_t kw = p.kernel[1], stride = p.strides[1], dilation = p.dilations[1];
  const int64_t reach = (p.out_width - 1) * stride + (kw - 1) * dilation + 1, half = pool_half(p, W);
  V::Mask nan = V::none();
  if (stride == 2) {
    for (int64_t q = 0; q < (reach + 1) / 2; q += W) {
      Float even, odd;
      V::deinterleave(fold_column<Fold>(rows, 2 * q - p.left, p.width, &nan),
                      fold_column<Fold>(rows, 2 * q + W - p.left, p.width, &nan), &even, &odd);
      V::store(buffer + q, even);
      V::store(buffer + half + q, odd);
    }
  } else {
    for (int64_t q = 0; q < reach; q += W) V::store(buffer + q, fold_column<Fold>(rows, q - p.left, p.width, &nan));
  }
  for (int64_t j = 0; j < p.out_width; j += W) {
    const auto columns = [&](int64_t v) __attribute__((always_inline)) {
      const int64_t at = v * dilation;
      if (stride == 1) return V::load(buffer + at + j);
      if (stride == 2) return V::load(buffer + at % 2 * half + at / 2 + j);
      float lanes[W];
      for (int64_t i = 0; i < W; ++i) lanes[i] = buffer[min_of(j + i, p.out_width - 1) * stride + at];
      return V::load(lanes);
    };
    Float sum = columns(0);
    for (int64_t v = 1; v < kw; ++v) sum = Fold::fold(sum, columns(v));
    store_columns(y + j, sum, p.out_width - j);
  }
  return !V::any(nan);
}

void scale(const PoolPlane& p, const float* row_shares, const float* column_shares, float* y) {
  for (int64_t i = 0; i < p.out_height; ++i, y += p.out_width) {
    const Float share = V::set1(row_shares[i]);
    for (int64_t j = 0; j < p.out_width; j += W) {
      const int64_t left = p.out_width - j;
      store_columns(y + j, V::mul(load_columns(y + j, left), V::mul(share, load_columns(column_shares + j, left))),
                    left);
    }
  }
}

void pool(const float* x, const PoolPlane& p, const float* row_shares, const float* column_shares, float* y,
          float* buffer) {
  const bool average = row_shares != nullptr;
  bool finite = true;
  if (average ? pool_known<FoldSum>(x, p, y, &finite) : pool_known<FoldMaximum>(x, p, y, &finite)) {
    if (average) return scale(p, row_shares, column_shares, y);
    if (!finite) pool_known<FoldMaximumOrNan>(x, p, y, &finite);
    return;
  }
  float* const plane = y;
  for (int64_t i = 0; i < p.out_height; ++i, y += p.out_width) {
    const WindowRows rows = window_rows(x, p, i);
    if (rows.count == 0) {
      for (int64_t j = 0; j < p.out_width; ++j) y[j] = average ? 0.0f : -kInfinity;
    } else if (average) {
      pool_row<FoldSum>(rows, p, y, buffer);
    } else if (!pool_row<FoldMaximum>(rows, p, y, buffer)) {
      pool_row<FoldMaximumOrNan>(rows, p, y, buffer);
    }
  }
  if (average) scale(p, row_shares, column_shares, plane);
}

}  // namespace
}  // namespace lutc::kernels
