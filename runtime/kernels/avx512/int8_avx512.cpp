// Dense int8 products with AVX-512 VNNI: vpdpbusd multiplies a group of a panel (16 columns x 4 features) by four
// integers of a row, broadcast from memory. A block is up to 16 rows and lies as [group][row][4], so that one pointer
// reaches them all; each weight is loaded once a block and stays in a register.
//
// gcc reorders intrinsics of an unrolled block and broadcasts into registers first, which spills: the inner instruction
// is volatile asm.
#include "kernels/avx512/intrinsics.h"
#include "kernels/avx512/transpose.h"
#include "kernels/int8.h"

namespace lutc::kernels {
namespace {

#define LUTC_INLINE __attribute__((always_inline)) inline

constexpr int kRows = 16;
/// A single block reads weights this far ahead, as they come from memory.
constexpr int64_t kAhead = 4096;

LUTC_INLINE __mmask16 first_lanes(int64_t n) { return n >= 16 ? 0xffff : static_cast<__mmask16>((1u << n) - 1); }

LUTC_INLINE void multiply(__m512i& acc, __m512i weight, const uint8_t* four) {
  asm volatile("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(acc) : "v"(weight), "m"(*reinterpret_cast<const int32_t*>(four)));
}

/// The largest |x[d]| of a row.
LUTC_INLINE float largest_of(const float* x, int64_t n) {
  __m512 a = _mm512_setzero_ps(), b = a, c = a, d = a;
  int64_t i = 0;
  for (; i + 64 <= n; i += 64) {
    a = _mm512_max_ps(a, _mm512_abs_ps(_mm512_loadu_ps(x + i)));
    b = _mm512_max_ps(b, _mm512_abs_ps(_mm512_loadu_ps(x + i + 16)));
    c = _mm512_max_ps(c, _mm512_abs_ps(_mm512_loadu_ps(x + i + 32)));
    d = _mm512_max_ps(d, _mm512_abs_ps(_mm512_loadu_ps(x + i + 48)));
  }
  for (; i < n; i += 16) a = _mm512_max_ps(a, _mm512_abs_ps(_mm512_maskz_loadu_ps(first_lanes(n - i), x + i)));
  return _mm512_reduce_max_ps(_mm512_max_ps(_mm512_max_ps(a, b), _mm512_max_ps(c, d)));
}

/// 127 / a, finite, 0 for a row of zeros: no product leaves -127 .. 127.
LUTC_INLINE float inverse_of(float a) {
  const float inv = a > 0.0f ? 127.0f / a : 0.0f;
  return inv < __FLT_MAX__ ? inv : __FLT_MAX__;
}

LUTC_INLINE __m512i scaled(const float* x, __m512 inv, __mmask16 mask) {
  return _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_maskz_loadu_ps(mask, x), inv));
}

/// 64 integers of a row in order, zeros behind its end.
LUTC_INLINE __m512i quantise64(const float* x, __m512 inv, int64_t left, __m512i order) {
  const __m512i a = scaled(x, inv, first_lanes(left));
  const __m512i b = left > 16 ? scaled(x + 16, inv, first_lanes(left - 16)) : _mm512_setzero_si512();
  const __m512i c = left > 32 ? scaled(x + 32, inv, first_lanes(left - 32)) : _mm512_setzero_si512();
  const __m512i d = left > 48 ? scaled(x + 48, inv, first_lanes(left - 48)) : _mm512_setzero_si512();
  const __m512i bytes = _mm512_packs_epi16(_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d));
  return _mm512_permutexvar_epi32(order, bytes);
}

/// One block of `rows` rows, [group][rows][4].
void quantise_block(const float* x, int64_t stride, int rows, int64_t features, uint8_t* packed, float* steps,
                    int32_t* starts) {
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  const __m512i ones = _mm512_set1_epi8(1);
  const int64_t groups = (features + 3) / 4;
  const __mmask16 mask = first_lanes(rows);
  float inv[kRows] = {};
  for (int r = 0; r < rows; ++r) {
    const float a = largest_of(x + r * stride, features);
    inv[r] = inverse_of(a);
    steps[r] = a / 127.0f;
  }
  __m512i sum = _mm512_setzero_si512();
  for (int64_t d = 0; d < features; d += 64) {
    const int64_t count = groups - d / 4 < 16 ? groups - d / 4 : 16;
    uint8_t* to = packed + d * rows;
    if (rows == 1) {  // as it lies
      const __m512i q = quantise64(x + d, _mm512_set1_ps(inv[0]), features - d, order);
      sum = _mm512_dpbusd_epi32(sum, ones, q);
      _mm512_mask_storeu_epi32(to, first_lanes(count), q);
      continue;
    }
    __m512i q[kRows];
    if (rows == kRows && features - d >= 64) {
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) q[r] = quantise64(x + r * stride + d, _mm512_set1_ps(inv[r]), 64, order);
    } else {
      for (int r = 0; r < kRows; ++r)
        q[r] = r < rows ? quantise64(x + r * stride + d, _mm512_set1_ps(inv[r]), features - d, order)
                        : _mm512_setzero_si512();
    }
    transpose16(q);
    if (rows == kRows && count == 16) {
#pragma GCC unroll 16
      for (int g = 0; g < 16; ++g) {
        sum = _mm512_dpbusd_epi32(sum, ones, q[g]);
        _mm512_storeu_si512(to + 64 * g, q[g]);
      }
    } else {
      for (int64_t g = 0; g < count; ++g) {
        sum = _mm512_dpbusd_epi32(sum, ones, q[g]);
        _mm512_mask_storeu_epi32(to + 4 * rows * g, mask, q[g]);
      }
    }
  }
  if (rows == 1) {
    starts[0] = static_cast<int32_t>(-128u * static_cast<uint32_t>(_mm512_reduce_add_epi32(sum)));
  } else {
    _mm512_mask_storeu_epi32(starts, mask, _mm512_mullo_epi32(sum, _mm512_set1_epi32(-128)));
  }
}

void quantise(const float* x, int64_t stride, int64_t rows, int64_t features, uint8_t* packed, float* steps,
              int32_t* starts) {
  const int64_t row_bytes = (features + 3) / 4 * 4;
  for (int64_t r = 0; r < rows; r += kRows) {
    const int block = static_cast<int>(rows - r < kRows ? rows - r : kRows);
    quantise_block(x + r * stride, stride, block, features, packed + r * row_bytes, steps + r, starts + r);
  }
}

/// Where a panel's results go; pointers at its first column and the block's first row.
struct Tile {
  const float* steps;
  const int32_t* starts;
  __m512 scale, bias, floor;
  const float* residual;
  float* y;
  int64_t stride;
  __mmask16 mask;
};

/// R rows times one panel. kUnroll independent sums a row hide the latency where rows are few.
template <int R, int kUnroll>
void block(const uint8_t* rows, const uint8_t* weight, int64_t groups, const uint8_t* ahead, int64_t ahead_step,
           const Tile& t) {
  __m512i acc[kUnroll][R];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    acc[0][r] = _mm512_set1_epi32(t.starts[r]);
#pragma GCC unroll 8
    for (int u = 1; u < kUnroll; ++u) acc[u][r] = _mm512_setzero_si512();
  }
  int64_t g = 0;
  for (; g + kUnroll <= groups; g += kUnroll) {
#pragma GCC unroll 8
    for (int u = 0; u < kUnroll; ++u) {
      const __m512i w = _mm512_loadu_si512(weight + 64 * u);
      _mm_prefetch(ahead, _MM_HINT_T0);
      ahead += ahead_step;
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) multiply(acc[u][r], w, rows + 4 * (R * u + r));
    }
    weight += 64 * kUnroll;
    rows += 4 * R * kUnroll;
  }
  if constexpr (kUnroll > 1) {
    for (; g < groups; ++g, weight += 64, rows += 4 * R) {
      const __m512i w = _mm512_loadu_si512(weight);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) multiply(acc[0][r], w, rows + 4 * r);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    __m512i sum = acc[0][r];
#pragma GCC unroll 8
    for (int u = 1; u < kUnroll; ++u) sum = _mm512_add_epi32(sum, acc[u][r]);
    const __m512 step = _mm512_mul_ps(_mm512_set1_ps(t.steps[r]), t.scale);
    __m512 y = _mm512_add_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(sum), step), t.bias);
    y = _mm512_max_ps(t.floor, y);
    if (t.residual != nullptr) y = _mm512_add_ps(y, _mm512_maskz_loadu_ps(t.mask, t.residual + r * t.stride));
    _mm512_mask_storeu_ps(t.y + r * t.stride, t.mask, y);
  }
}

using BlockFunction = void (*)(const uint8_t*, const uint8_t*, int64_t, const uint8_t*, int64_t, const Tile&);

constexpr BlockFunction kBlocks[kRows + 1] = {nullptr,      block<1, 8>,  block<2, 4>,  block<3, 2>,  block<4, 2>,
                                              block<5, 2>,  block<6, 1>,  block<7, 1>,  block<8, 1>,  block<9, 1>,
                                              block<10, 1>, block<11, 1>, block<12, 1>, block<13, 1>, block<14, 1>,
                                              block<15, 1>, block<16, 1>};

void product(const Int8Product& p) {
  const int64_t groups = (p.features + 3) / 4, panel_bytes = 64 * groups;
  const int64_t blocks = (p.row_count + kRows - 1) / kRows;
  const __m512 floor = _mm512_set1_ps(p.relu ? 0.0f : -__builtin_inff());
  for (int64_t column = 0; column < p.columns; column += kInt8PanelColumns) {
    const uint8_t* panel = p.weight + column / kInt8PanelColumns * panel_bytes;
    const __mmask16 mask = first_lanes(p.columns - column);
    Tile t;
    t.scale = _mm512_maskz_loadu_ps(mask, p.scale + column);
    t.bias = _mm512_maskz_loadu_ps(mask, p.bias + column);
    t.floor = floor;
    t.stride = p.y_stride;
    t.mask = mask;
    // Several blocks fetch the next panel together, a line's part each; a single one runs ahead of itself.
    const int64_t ahead_step = (64 + blocks - 1) / blocks;
    for (int64_t b = 0; b < blocks; ++b) {
      const int64_t row = b * kRows, rows = p.row_count - row < kRows ? p.row_count - row : kRows;
      const int64_t at = row * p.y_stride + column;
      t.steps = p.steps + row;
      t.starts = p.starts + row;
      t.residual = p.residual == nullptr ? nullptr : p.residual + at;
      t.y = p.y + at;
      const uint8_t* ahead = blocks == 1 ? panel + kAhead : panel + panel_bytes + b * groups * ahead_step;
      kBlocks[rows](p.rows + row * groups * 4, panel, groups, ahead, ahead_step, t);
    }
  }
}

}  // namespace

extern const Int8Kernels kInt8Avx512;
const Int8Kernels kInt8Avx512 = {kRows, 1, quantise, product};

}  // namespace lutc::kernels
