// What the taps of a kernel row meet in an image row, for kernels whose lanes are neighbouring outputs of a row. Part
// of dense_impl.h.
#pragma once

namespace lutc::kernels {
namespace {

/// Outputs of a row that are planned together, and what stands for an image row in the padding while they are computed.
constexpr int kSectionBlocks = 16;
constexpr int64_t kSection = kSectionBlocks * W;
alignas(64) constexpr float kZeros[2 * kSection + 8 * W] = {};
constexpr const float* kZeroRow = kZeros + 4 * W;

/// W outputs of a row: where they stand, and which of the columns that they read lie in the image.
template <int kSize, int kStride>
struct Taps {
  /// Three neighbouring vectors, shifted into one another: loads that cross cache lines would take twice as long.
  static constexpr bool kShift = kSize == 3 && (kStride == 2 || W == 16);
  static constexpr int kLoads = kShift ? 3 : kStride == 1 ? kSize : 2 * ((kSize + 1) / 2);
  int64_t start = 0;   ///< column of the first output's first tap
  bool whole = false;  ///< all columns lie in the image
  V::Mask inside[kLoads];

  Taps() = default;
  Taps(int64_t first_column, int64_t width)
      : start(first_column), whole(start + place(0) >= 0 && start + place(kLoads - 1) + W <= width) {
    for (int i = 0; i < kLoads; ++i) inside[i] = V::range(-place(i) - start, width - place(i) - start);
  }

  /// Column of load i, seen from start.
  static constexpr int64_t place(int i) { return kShift ? 1 + (i - 1) * W : kStride == 1 ? i : i / 2 * 2 + i % 2 * W; }
};

template <int kSize, int kStride>
struct Section {
  int64_t first;  ///< output column
  int blocks = 0;
  Taps<kSize, kStride> taps[kSectionBlocks];

  /// The last block moves back to end where the row ends, unless the row is shorter than a vector.
  Section(int64_t first_column, const DepthwisePlane& p) : first(first_column) {
    for (int64_t next = first; next < p.out_width && blocks < kSectionBlocks; next += W)
      taps[blocks++] = Taps<kSize, kStride>(column(next, p) * kStride - p.left, p.width);
  }
  static int64_t column(int64_t next, const DepthwisePlane& p) {
    return p.out_width < W ? 0 : min_of(next, p.out_width - W);
  }
  /// Row h of an image: to be read at the starts of this section's taps.
  const float* row(const float* x, int64_t h, const DepthwisePlane& p) const {
    return h < 0 || h >= p.height ? kZeroRow - (first * kStride - p.left) : x + h * p.width;
  }
};

/// x: the image row.
template <int kSize, int kStride, bool kWhole>
LUTC_INLINE void load_taps(const float* x, const Taps<kSize, kStride>& at, Float (&taps)[kSize]) {
  using At = Taps<kSize, kStride>;
  x += at.start;
  const auto load = [&](int i) __attribute__((always_inline)) {
    return kWhole ? V::load(x + At::place(i)) : V::load_where(x + At::place(i), at.inside[i]);
  };
  if constexpr (At::kShift && kStride == 1) {
    taps[1] = load(1);
    taps[0] = V::shift_in_low(load(0), taps[1]);
    taps[2] = V::shift_in_high(taps[1], load(2));
  } else if constexpr (At::kShift) {
    V::deinterleave(load(1), load(2), &taps[1], &taps[2]);
    taps[0] = V::shift_in_low(load(0), taps[2]);
  } else if constexpr (kStride == 1) {
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

}  // namespace
}  // namespace lutc::kernels
