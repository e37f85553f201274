// The algorithms behind DenseKernels, once for every ISA. A per-ISA file defines Simd (simd.h) and the register block
// (kBlockRows x kPanelVectors vectors), then includes this one; everything has internal linkage.
#pragma once

#include <limits>

#include "kernels/dense.h"

namespace lutc::kernels {
namespace {

using V = Simd;
using Float = Simd::Float;
constexpr int W = Simd::kWidth;
constexpr int kPanel = kPanelVectors * W;
constexpr float kInfinity = std::numeric_limits<float>::infinity();
/// Depth of one pass over k: a block of A of this depth is what the stack copy holds.
constexpr int64_t kDepth = 512;
/// Panels of one pass, kDepth deep, that stay in L2 while all rows go by.
constexpr int64_t kChunkFloats = 96 * 1024;

/// Results of one pass over k in a register block.
template <int kRows, int kVectors>
struct Block {
  Float acc[kRows][kVectors];
};

/// kRows x kVectors products, k deep. b: a panel (row stride kPanel). kUnroll > 1 keeps that many independent sums to
/// hide latency in low blocks.
template <int kRows, int kVectors, int kUnroll>
LUTC_INLINE void multiply(const float* __restrict a, int64_t lda, const float* __restrict b, int64_t k,
                          Block<kRows, kVectors>& out) {
  Float acc[kUnroll][kRows][kVectors];
#pragma GCC unroll 4
  for (int u = 0; u < kUnroll; ++u)
#pragma GCC unroll 32
    for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) acc[u][i][v] = V::zero();
  // Three rows share a pointer: base, base + lda, base + 2 lda are x86 addressing modes.
  constexpr int kGroups = (kRows + 2) / 3;
  const float* row[kGroups];
  for (int g = 0; g < kGroups; ++g) row[g] = a + 3 * g * lda;
  const auto step = [&](auto& sums, int64_t offset) __attribute__((always_inline)) {
    Float bv[kVectors];
    for (int v = 0; v < kVectors; ++v) bv[v] = V::load(b + offset * kPanel + v * W);
#pragma GCC unroll 32
    for (int i = 0; i < kRows; ++i) {
      const Float x = V::set1(row[i / 3][(i % 3) * lda + offset]);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sums[i][v] = V::fma(x, bv[v], sums[i][v]);
    }
  };
  int64_t p = 0;
  for (; p + kUnroll <= k; p += kUnroll) {
#pragma GCC unroll 8
    for (int u = 0; u < kUnroll; ++u) step(acc[u], u);
    b += kUnroll * kPanel;
    for (int g = 0; g < kGroups; ++g) row[g] += kUnroll;
  }
  if constexpr (kUnroll > 1) {
    for (; p < k; ++p) {
      step(acc[0], 0);
      b += kPanel;
      for (int g = 0; g < kGroups; ++g) row[g] += 1;
    }
  }
#pragma GCC unroll 32
  for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      Float s = acc[0][i][v];
#pragma GCC unroll 4
      for (int u = 1; u < kUnroll; ++u) s = V::add(s, acc[u][i][v]);
      out.acc[i][v] = s;
    }
}

/// The epilogue of one tile: pointers already moved to its first element; columns valid ones.
struct Tile {
  float* c;
  int64_t ldc;
  int64_t columns;
  bool first;  ///< first pass over k: c holds nothing yet
  bool last;   ///< last pass over k: the epilogue applies
};

LUTC_INLINE Float load_columns(const float* p, int64_t columns) {
  return columns >= W ? V::load(p) : V::load_n(p, columns);
}
LUTC_INLINE void store_columns(float* p, Float v, int64_t columns) {
  if (columns >= W) {
    V::store(p, v);
  } else {
    V::store_n(p, v, columns);
  }
}

/// Out of line: called on a tile just written, for the activations that are long.
__attribute__((noinline)) void activate_tile(const VectorKernels& maths, const Tile& tile, int rows, const Epilogue& e,
                                             const float* residual) {
  for (int i = 0; i < rows; ++i) {
    float* c = tile.c + i * tile.ldc;
    maths.activate(e.activation, c, c, tile.columns);
    if (residual != nullptr) maths.add_f32(c, residual + i * e.residual_stride, c, tile.columns);
  }
}

template <int kRows, int kVectors>
LUTC_INLINE void finish(Block<kRows, kVectors>& block, const Tile& tile, const Epilogue& e) {
  // Offsets of the tile within the epilogue's operands were applied by the caller.
  const bool last = tile.last;
  const bool before =
      last && e.residual != nullptr && (e.activation_after_residual || e.activation == Activation::kNone);
  const bool relu = last && e.activation == Activation::kRelu && (e.residual == nullptr || before);
  const bool separate = last && e.activation != Activation::kNone && !relu;
  if (tile.first && !before && !(last && e.row_bias != nullptr) &&
      tile.columns >= kVectors * W) {  // the common case, without branches inside
    const Float floor = V::set1(relu ? 0.0f : -kInfinity);
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      const Float bias = last && e.column_bias != nullptr ? V::load(e.column_bias + v * W) : V::zero();
#pragma GCC unroll 32
      for (int i = 0; i < kRows; ++i)
        V::store(tile.c + i * tile.ldc + v * W, V::max(floor, V::add(block.acc[i][v], bias)));
    }
    if (separate) activate_tile(kMaths, tile, kRows, e, e.residual);
    return;
  }
  // Every index of the block is a constant, or it would have to lie in memory.
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) {
    const int64_t columns = tile.columns - v * W;
    if (columns <= 0) continue;
    const Float bias = last && e.column_bias != nullptr ? load_columns(e.column_bias + v * W, columns) : V::zero();
#pragma GCC unroll 32
    for (int i = 0; i < kRows; ++i) {
      float* c = tile.c + i * tile.ldc + v * W;
      Float x = V::add(block.acc[i][v], bias);
      if (!tile.first) x = V::add(x, load_columns(c, columns));
      if (last && e.row_bias != nullptr) x = V::add(x, V::set1(e.row_bias[i]));
      if (before) x = V::add(x, load_columns(e.residual + i * e.residual_stride + v * W, columns));
      if (relu) x = V::max(V::zero(), x);
      store_columns(c, x, columns);
    }
  }
  if (separate) activate_tile(kMaths, tile, kRows, e, before ? nullptr : e.residual);
}

template <int kRows>
void tile(const float* a, int64_t lda, const float* b, int64_t k, const Tile& t, const Epilogue& e) {
  constexpr int kUnroll = kRows <= 1 ? 4 : kRows <= 3 ? 2 : 1;
  if (kPanelVectors > 1 && t.columns <= W) {
    Block<kRows, 1> block;
    multiply<kRows, 1, kUnroll>(a, lda, b, k, block);
    finish(block, t, e);
  } else {
    Block<kRows, kPanelVectors> block;
    multiply<kRows, kPanelVectors, kUnroll>(a, lda, b, k, block);
    finish(block, t, e);
  }
}

using TileFunction = void (*)(const float*, int64_t, const float*, int64_t, const Tile&, const Epilogue&);

constexpr int64_t min_of(int64_t a, int64_t b) { return a < b ? a : b; }
constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

TileFunction tile_for(int64_t rows) {
  static constexpr TileFunction kTable[] = {
      nullptr,  tile<1>,  tile<2>, tile<3>,  tile<4>,
#if LUTC_BLOCK_ROWS >= 6
      tile<5>,  tile<6>,
#endif
#if LUTC_BLOCK_ROWS >= 12
      tile<7>,  tile<8>,  tile<9>, tile<10>, tile<11>, tile<12>,
#endif
#if LUTC_BLOCK_ROWS >= 14
      tile<13>, tile<14>,
#endif
  };
  return kTable[rows];
}

/// True when so many rows at this stride meet in so few L1 sets (64 sets of 8 lines) that they would evict one another.
bool rows_collide(int64_t lda, int64_t rows) {
  int64_t lines = lda * 4 / 64;
  if (lda * 4 % 64 != 0 || rows < 4) return false;
  int64_t sets = 64;
  while (sets > 1 && lines % 2 == 0) {
    lines /= 2;
    sets /= 2;
  }
  return sets * 8 < 2 * rows;
}

void gemm(const float* a, int64_t lda, const float* packed, int64_t m, int64_t n, int64_t k, float* c, int64_t ldc,
          const Epilogue& e) {
  if (m <= 0 || n <= 0) return;
  const int64_t passes = k <= kDepth ? 1 : ceil_div(k, kDepth);
  const int64_t depth = ceil_div(k, passes);
  const int64_t blocks = ceil_div(m, kBlockRows);
  const int64_t block_rows = ceil_div(m, blocks);  // even blocks: 16 rows are 8 + 8 rather than 14 + 2
  const int64_t panels = ceil_div(n, kPanel);
  int64_t chunk = depth > 0 ? kChunkFloats / (depth * kPanel) : panels;
  if (chunk < 1) chunk = 1;
  alignas(64) float copy[kBlockRows * (kDepth + 16)];
  const int64_t copy_stride = kDepth + 16;
  for (int64_t j0 = 0; j0 < panels; j0 += chunk) {
    const int64_t j1 = min_of(panels, j0 + chunk);
    for (int64_t k0 = 0; k0 < k || k0 == 0; k0 += depth) {
      const int64_t kd = min_of(depth, k - k0);
      for (int64_t i = 0; i < m; i += block_rows) {
        const int64_t rows = min_of(block_rows, m - i);
        const float* block = a + i * lda + k0;
        int64_t stride = lda;
        if (j1 - j0 > 1 && rows_collide(lda, rows)) {
          for (int64_t r = 0; r < rows; ++r)
            for (int64_t p = 0; p < kd; p += W)
              store_columns(copy + r * copy_stride + p, load_columns(block + r * lda + p, kd - p), kd - p);
          block = copy;
          stride = copy_stride;
        }
        const TileFunction function = tile_for(rows);
        for (int64_t j = j0; j < j1; ++j) {
          const int64_t column = j * kPanel;
          const Tile t{c + i * ldc + column, ldc, min_of(kPanel, n - column), k0 == 0, k0 + kd >= k};
          Epilogue at = e;
          if (at.column_bias != nullptr) at.column_bias += column;
          if (at.row_bias != nullptr) at.row_bias += i;
          if (at.residual != nullptr) at.residual += i * at.residual_stride + column;
          function(block, stride, packed + column * k + k0 * kPanel, kd, t, at);
        }
      }
      if (k == 0) break;
    }
  }
}

/// A panel of a matrix that is stored by columns: W x W blocks turned round in registers.
void pack_columns(const float* b, int64_t column_stride, int64_t k, int64_t columns, float* packed) {
  for (int v = 0; v < kPanelVectors; ++v) {
    const int64_t left = columns - v * W;
    for (int64_t p = 0; p < k; p += W) {
      const int64_t depth = min_of(W, k - p);
      Float block[W];
#pragma GCC unroll 16
      for (int j = 0; j < W; ++j) {
        const float* x = b + (v * W + j) * column_stride + p;
        block[j] = j >= left ? V::zero() : depth == W ? V::load(x) : V::load_n(x, depth);
      }
      V::transpose(block);
      float* y = packed + p * kPanel + v * W;
      if (depth == W) {
#pragma GCC unroll 16
        for (int t = 0; t < W; ++t) V::store(y + t * kPanel, block[t]);
      } else {
        for (int64_t t = 0; t < depth; ++t) V::store(y + t * kPanel, block[t]);
      }
    }
  }
}

void pack(const float* b, int64_t row_stride, int64_t column_stride, int64_t k, int64_t n, float* packed) {
  for (int64_t column = 0; column < n; column += kPanel, packed += k * kPanel) {
    const int64_t columns = min_of(kPanel, n - column);
    if (row_stride == 1 && column_stride != 1) {
      pack_columns(b + column * column_stride, column_stride, k, columns, packed);
      continue;
    }
    float* y = packed;
    for (int64_t p = 0; p < k; ++p, y += kPanel) {
      const float* x = b + p * row_stride + column * column_stride;
      if (column_stride != 1) {
        for (int64_t j = 0; j < columns; ++j) y[j] = x[j * column_stride];
        for (int64_t j = columns; j < kPanel; ++j) y[j] = 0.0f;
      } else if (columns == kPanel) {
        for (int v = 0; v < kPanelVectors; ++v) V::store(y + v * W, V::load(x + v * W));
      } else {
        for (int v = 0; v < kPanelVectors; ++v) V::store(y + v * W, V::load_range(x + v * W, 0, columns - v * W));
      }
    }
  }
}

float dot(const float* a, const float* b, int64_t n) {
  Float s[4] = {V::zero(), V::zero(), V::zero(), V::zero()};
  int64_t i = 0;
  for (; i + 4 * W <= n; i += 4 * W)
    for (int u = 0; u < 4; ++u) s[u] = V::fma(V::load(a + i + u * W), V::load(b + i + u * W), s[u]);
  for (; i < n; i += W) s[0] = V::fma(load_columns(a + i, n - i), load_columns(b + i, n - i), s[0]);
  return V::sum(V::add(V::add(s[0], s[1]), V::add(s[2], s[3])));
}

void axpy(float a, const float* x, float* y, int64_t n) {
  const Float s = V::set1(a);
  int64_t i = 0;
  for (; i + W <= n; i += W) V::store(y + i, V::fma(s, V::load(x + i), V::load(y + i)));
  if (i < n) V::store_n(y + i, V::fma(s, V::load_n(x + i, n - i), V::load_n(y + i, n - i)), n - i);
}

/// Lanes [low, high) of the pixels p[0], p[stride], ...; zero elsewhere.
LUTC_INLINE Float load_pixels(const float* p, int64_t stride, int64_t low, int64_t high) {
  if (stride == 1) return low == 0 && high == W ? V::load(p) : V::load_range(p, low, high);
  if (stride == 2) {
    Float even, odd;
    V::deinterleave(V::load_range(p, 2 * low, 2 * high - 1), V::load_range(p + W, 2 * low - W, 2 * high - 1 - W), &even,
                    &odd);
    return even;
  }
  float lanes[W];
  V::store(lanes, V::zero());
  for (int64_t i = low; i < high; ++i) lanes[i] = p[i * stride];
  return V::load(lanes);
}

void gather_strided(const float* x, int64_t stride, float* y, int64_t n) {
  for (int64_t i = 0; i < n; i += W)
    store_columns(y + i, load_pixels(x + i * stride, stride, 0, min_of(W, n - i)), n - i);
}

}  // namespace
}  // namespace lutc::kernels

#include "kernels/depthwise_impl.h"
#include "kernels/direct_impl.h"
#include "kernels/pool_impl.h"
#include "kernels/shallow_impl.h"
#include "kernels/winograd_impl.h"

namespace lutc::kernels {
namespace {

constexpr DenseKernels make_dense_kernels() {
  return {kPanel,          W,           kBlockRows,         pack,        gemm,   dot,    axpy,
          gather_strided,  kDirectRows, kDirectVectors * W, pack_direct, direct, expand, winograd_input,
          winograd_output, depthwise,   kShallowOutputs,    shallow,     pool};
}

}  // namespace
}  // namespace lutc::kernels
