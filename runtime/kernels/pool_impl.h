// Average and maximum over windows: the rows of a window fold into one, whose columns fold into outputs. Part of
// dense_impl.h.
#pragma once

#include <type_traits>

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
  const int64_t top = i * p.strides[0] - p.top, step = p.dilations[0];
  int64_t first = 0, last = p.kernel[0];  // taps
  while (first < last && top + first * step < 0) ++first;
  while (first < last && top + (last - 1) * step >= p.height) --last;
  return {x + (top + first * step) * p.width, last - first, step * p.width};
}

/// `count` vectors `step` apart, folded; *nan collects where any is NaN, if the fold loses them.
template <class Fold, class Load>
LUTC_INLINE Float fold_rows(const float* x, int64_t count, int64_t step, const Load& load, V::Mask* nan) {
  const auto next = [&]() __attribute__((always_inline)) {
    const Float v = load(x);
    if (Fold::kLosesNan) *nan = V::either(*nan, V::is_nan(v));
    x += step;
    return v;
  };
  Float sum = next();
#pragma GCC unroll 4
  for (int64_t u = 1; u < count; ++u) sum = Fold::fold(sum, next());
  return sum;
}

/// The folded pixels of columns [column, column + W), the start value outside the image; *nan as above.
template <class Fold>
LUTC_INLINE Float fold_column(const WindowRows& rows, int64_t column, int64_t width, V::Mask* nan) {
  const float* x = rows.first + column;
  const auto fold = [&](const auto& load)
                        __attribute__((always_inline)) { return fold_rows<Fold>(x, rows.count, rows.step, load, nan); };
  if (column >= 0 && column + W <= width)
    return fold([](const float* p) __attribute__((always_inline)) { return V::load(p); });
  const V::Mask inside = V::range(-column, width - column);
  return V::select(inside,
                   fold([&](const float* p) __attribute__((always_inline)) { return V::load_where(p, inside); }),
                   V::set1(Fold::kStart));
}

/// Vectors of neighbouring values, kParts of them, to those at places 0, kParts, 2 kParts ..., those at places 1, ...
template <int kParts>
LUTC_INLINE void split(Float (&v)[kParts]) {
  if constexpr (kParts == 2) {
    V::deinterleave(v[0], v[1], &v[0], &v[1]);
  } else if constexpr (kParts == 3) {
    V::deinterleave3(v);
  } else if constexpr (kParts == 4) {
    Float even[2], odd[2];
    V::deinterleave(v[0], v[1], &even[0], &odd[0]);
    V::deinterleave(v[2], v[3], &even[1], &odd[1]);
    V::deinterleave(even[0], even[1], &v[0], &v[2]);
    V::deinterleave(odd[0], odd[1], &v[1], &v[3]);
  }
}

/// What sums are multiplied by: row * columns[j]. Null: nothing.
struct Shares {
  float row;
  const float* columns;
};

/// Outputs [j, j + W) of a row.
LUTC_INLINE void store_outputs(const PoolPlane& p, const Shares& shares, int64_t j, Float sum, float* y) {
  const int64_t left = p.out_width - j;
  if (shares.columns != nullptr) sum = V::mul(sum, V::mul(V::set1(shares.row), load_columns(shares.columns + j, left)));
  store_columns(y + j, sum, left);
}

/// Output rows [first, last) of windows that are no wider than their stride and kRows high (0: of any height), all in
/// the image: an output reads one column of each of kPhases parts at most, and nothing goes by way of memory. False:
/// NaNs were met.
template <class Fold, int kPhases, int kRows>
bool pool_apart(const float* x, const PoolPlane& p, int64_t first, int64_t last, const float* row_shares,
                const float* column_shares, float* y) {
  V::Mask nan = V::none();
  const int64_t height = kRows > 0 ? kRows : p.kernel[0];
  for (int64_t j = 0; j < p.out_width; j += W) {
    const int64_t column = j * kPhases - p.left;
    V::Mask inside[kPhases];
    for (int k = 0; k < kPhases; ++k) inside[k] = V::range(-column - k * W, p.width - column - k * W);
    const auto rows = [&](auto whole) __attribute__((always_inline)) {
      for (int64_t i = first; i < last; ++i) {
        const float* from = x + (i * p.strides[0] - p.top) * p.width + column;
        Float columns[kPhases];
#pragma GCC unroll 4
        for (int k = 0; k < kPhases; ++k) {
          const auto load = [&](const float* at) __attribute__((always_inline)) {
            return decltype(whole)::value ? V::load(at) : V::load_where(at, inside[k]);
          };
          const Float sum = fold_rows<Fold>(from + k * W, height, p.width, load, &nan);
          columns[k] = decltype(whole)::value ? sum : V::select(inside[k], sum, V::set1(Fold::kStart));
        }
        split<kPhases>(columns);
        Float sum = columns[0];
#pragma GCC unroll 4
        for (int k = 1; k < kPhases; ++k)
          if (k < p.kernel[1]) sum = Fold::fold(sum, columns[k]);
        store_outputs(p, {row_shares == nullptr ? 1.0f : row_shares[i], column_shares}, j, sum, y + i * p.out_width);
      }
    };
    column >= 0 && column + kPhases* W <= p.width ? rows(std::true_type()) : rows(std::false_type());
  }
  return !V::any(nan);
}

/// pool_apart() where there is one; false: there is none.
template <class Fold>
bool pool_apart_known(const float* x, const PoolPlane& p, int64_t first, int64_t last, const float* row_shares,
                      const float* column_shares, float* y, bool* finite) {
  const int64_t phases = p.strides[1], rows = p.kernel[0];
  if (p.kernel[1] > phases || p.dilations[0] != 1 || p.dilations[1] != 1 || phases < 2 || phases > 4) return false;
  using Rows = bool (*)(const float*, const PoolPlane&, int64_t, int64_t, const float*, const float*, float*);
  constexpr Rows kKnown[3][4] = {
      {pool_apart<Fold, 2, 0>, pool_apart<Fold, 2, 2>, pool_apart<Fold, 2, 3>, pool_apart<Fold, 2, 4>},
      {pool_apart<Fold, 3, 0>, pool_apart<Fold, 3, 2>, pool_apart<Fold, 3, 3>, pool_apart<Fold, 3, 4>},
      {pool_apart<Fold, 4, 0>, pool_apart<Fold, 4, 2>, pool_apart<Fold, 4, 3>, pool_apart<Fold, 4, 4>}};
  *finite = kKnown[phases - 2][rows < 2 || rows > 4 ? 0 : rows - 1](x, p, first, last, row_shares, column_shares, y);
  return true;
}

/// One output row. The folded row lies in `buffer` in kPhases parts (pool_phases). False: NaNs were met.
template <class Fold, int kPhases>
bool pool_row(const WindowRows& rows, const PoolPlane& p, const Shares& shares, float* y, float* buffer) {
  const int64_t kw = p.kernel[1], stride = p.strides[1], dilation = p.dilations[1];
  const int64_t reach = (p.out_width - 1) * stride + (kw - 1) * dilation + 1, part = pool_phase_floats(p, W);
  V::Mask nan = V::none();
  for (int64_t q = 0; q * kPhases < reach; q += W) {
    Float columns[kPhases];
#pragma GCC unroll 4
    for (int k = 0; k < kPhases; ++k) columns[k] = fold_column<Fold>(rows, q * kPhases + k * W - p.left, p.width, &nan);
    split<kPhases>(columns);
#pragma GCC unroll 4
    for (int k = 0; k < kPhases; ++k) V::store(buffer + k * part + q, columns[k]);
  }
  for (int64_t j = 0; j < p.out_width; j += W) {
    const auto columns = [&](int64_t v) __attribute__((always_inline)) {
      const int64_t at = v * dilation;
      if (kPhases > 1) return V::load(buffer + at % kPhases * part + at / kPhases + j);
      if (stride == 1) return V::load(buffer + at + j);
      float lanes[W];
      for (int64_t i = 0; i < W; ++i) lanes[i] = buffer[min_of(j + i, p.out_width - 1) * stride + at];
      return V::load(lanes);
    };
    Float sum = columns(0);
    for (int64_t v = 1; v < kw; ++v) sum = Fold::fold(sum, columns(v));
    store_outputs(p, shares, j, sum, y);
  }
  return !V::any(nan);
}

template <class Fold>
bool pool_any(const WindowRows& rows, const PoolPlane& p, const Shares& shares, float* y, float* buffer) {
  switch (pool_phases(p)) {
    case 2:
      return pool_row<Fold, 2>(rows, p, shares, y, buffer);
    case 3:
      return pool_row<Fold, 3>(rows, p, shares, y, buffer);
    case 4:
      return pool_row<Fold, 4>(rows, p, shares, y, buffer);
    default:
      return pool_row<Fold, 1>(rows, p, shares, y, buffer);
  }
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
  // Rows whose windows lie in the image from top to bottom.
  const int64_t step = p.strides[0], first = min_of((p.top + step - 1) / step, p.out_height);
  int64_t last = min_of(p.out_height, (p.height + p.top - p.kernel[0] + step) / step);
  if (last < first) last = first;
  if (average ? !pool_apart_known<FoldSum>(x, p, first, last, row_shares, column_shares, y, &finite)
              : !pool_apart_known<FoldMaximum>(x, p, first, last, nullptr, nullptr, y, &finite)) {
    last = first;
  } else if (!finite) {
    pool_apart_known<FoldMaximumOrNan>(x, p, first, last, nullptr, nullptr, y, &finite);
  }
  for (int64_t i = 0; i < p.out_height; ++i, y += p.out_width) {
    if (i >= first && i < last) continue;
    const WindowRows rows = window_rows(x, p, i);
    if (rows.count == 0) {
      for (int64_t j = 0; j < p.out_width; ++j) y[j] = average ? 0.0f : -kInfinity;
    } else if (average) {
      pool_any<FoldSum>(rows, p, {row_shares[i], column_shares}, y, buffer);
    } else if (!pool_any<FoldMaximum>(rows, p, {}, y, buffer)) {
      pool_any<FoldMaximumOrNan>(rows, p, {}, y, buffer);
    }
  }
}

}  // namespace
}  // namespace lutc::kernels
