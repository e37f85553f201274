// Lookups with AVX-512 VBMI and VNNI: 16 rows in the 32-bit lanes, byte j of a lane belongs to codebook j of a unit of
// four. vpermb looks four codebooks up, vpdpbusd multiplies by the gains and sums.
#include "kernels/avx512/lookup_avx512.h"

#include "kernels/avx512/intrinsics.h"
#include "kernels/avx512/lookup_step.h"
#include "kernels/avx512/transpose.h"

namespace lutc::kernels {
namespace {

/// Where the outputs of a tile of kP panels and kN columns go, line after line: bytes from the first. They are asked
/// for one a step while the tile is computed, else its stores wait for them one after the other (.7 % of a convolution
/// whose planes are in level 3). Steps of more than that ask for the first line again.
template <int kP, int kN>
struct OutputLines {
  static constexpr int64_t kCount = 64;  // a power of two, at least kP * kN
  int64_t offset[kCount] = {};

  explicit OutputLines(int64_t stride) {
    for (int i = 0; i < kP * kN; ++i) offset[i] = (i / kP * stride + i % kP * 16) * 4;
  }
  LUTC_INLINE void fetch(const uint8_t* first, int64_t step) const {
    asm volatile("prefetchw %0" : : "m"(first[offset[step & (kCount - 1)]]));
  }
};

LUTC_INLINE __m512 finish(const FinishBlock& f, __m512 y, __mmask16 mask, int64_t at) {
  if (f.residual != nullptr && f.residual_first) y = _mm512_add_ps(y, _mm512_maskz_loadu_ps(mask, f.residual + at));
  if (f.relu) y = _mm512_max_ps(y, _mm512_setzero_ps());
  if (f.residual != nullptr && !f.residual_first) y = _mm512_add_ps(y, _mm512_maskz_loadu_ps(mask, f.residual + at));
  return y;
}

LUTC_INLINE __mmask16 first_lanes(int64_t n) { return n >= 16 ? 0xffff : static_cast<__mmask16>((1u << n) - 1); }

/// Sums of `columns` times 16 * panels positions, column after column, as outputs: what is left of a plane.
__attribute__((noinline)) void finish_rest(const FinishBlock& f, int64_t row, int64_t column, const __m512i* acc,
                                           int panels, int columns) {
  for (int n = 0; n < columns; ++n) {
    const __m512 scale = _mm512_set1_ps(f.scale[column + n]), bias = _mm512_set1_ps(f.bias[column + n]);
    for (int p = 0; p < panels && f.rows > row + p * 16; ++p) {
      const int64_t at = (column + n) * f.y_stride + row + p * 16;
      const __mmask16 mask = first_lanes(f.rows - row - p * 16);
      const __m512 y = _mm512_fmadd_ps(_mm512_cvtepi32_ps(acc[n * panels + p]), scale, bias);
      _mm512_mask_storeu_ps(f.y + at, mask, finish(f, y, mask, at));
    }
  }
}

/// How a block's sums become outputs: max(y, floor), or with a residual added before that or after it.
enum class Residual { kNone, kFirst, kLast };

template <int kP, int kN, Residual kResidual>
LUTC_INLINE void finish_whole(const FinishBlock& f, int64_t row, int64_t column, const __m512i (&acc)[kP][kN]) {
  const __m512 floor = _mm512_set1_ps(f.relu ? 0.0f : -__builtin_inff());
  const float *scales = f.scale + column, *biases = f.bias + column;
  const int64_t stride = f.y_stride, at = column * stride + row;
  float* to = f.y + at;
  const float* from = f.residual + (kResidual == Residual::kNone ? 0 : at);
#pragma GCC unroll 6
  for (int n = 0; n < kN; ++n, to += stride, from += kResidual == Residual::kNone ? 0 : stride) {
    const __m512 scale = _mm512_set1_ps(scales[n]), bias = _mm512_set1_ps(biases[n]);
#pragma GCC unroll 4
    for (int p = 0; p < kP; ++p) {
      __m512 y = _mm512_fmadd_ps(_mm512_cvtepi32_ps(acc[p][n]), scale, bias);
      if constexpr (kResidual == Residual::kFirst) y = _mm512_add_ps(y, _mm512_loadu_ps(from + p * 16));
      y = _mm512_max_ps(y, floor);
      if constexpr (kResidual == Residual::kLast) y = _mm512_add_ps(y, _mm512_loadu_ps(from + p * 16));
      _mm512_storeu_ps(to + p * 16, y);
    }
  }
}

/// Sums of 16 * kP positions from `row` on, of the columns from `column` on, as outputs.
template <int kP, int kN>
LUTC_INLINE void finish_sums(const FinishBlock& f, int64_t row, int64_t column, const __m512i (&acc)[kP][kN]) {
  if (f.rows - row < 16 * kP) {
    __m512i sums[kN * kP];
#pragma GCC unroll 6
    for (int n = 0; n < kN; ++n) {
#pragma GCC unroll 4
      for (int p = 0; p < kP; ++p) sums[n * kP + p] = acc[p][n];
    }
    return finish_rest(f, row, column, sums, kP, kN);
  }
  if (f.residual == nullptr) return finish_whole<kP, kN, Residual::kNone>(f, row, column, acc);
  // Without a relu it is the same, and NaN passes.
  f.residual_first&& f.relu ? finish_whole<kP, kN, Residual::kFirst>(f, row, column, acc)
                            : finish_whole<kP, kN, Residual::kLast>(f, row, column, acc);
}

/// `tiles` times kP panels, times `blocks` times kN columns, over all taps and units; kSteps: where codes are found is
/// listed. Tiles and blocks are loops in here: loads of the next one overlap stores of the last, and between calls the
/// arithmetic runs dry. Not inlined: among its sisters gcc runs out of registers and keeps addresses in vectors, where
/// they queue behind the arithmetic.
template <int kP, int kN, int K, bool kGain, bool kSteps>
__attribute__((noinline)) void block(const LookupBlock& b, int64_t tiles, int64_t blocks) {
  const __m512i ones = _mm512_set1_epi8(1);
  const uint8_t* ahead = b.prefetch != nullptr ? b.prefetch : b.table;
  // Up to three lines, one behind a panel, without a branch that would cloud the loop's end; fewer are fetched twice.
  const int64_t second = b.prefetch_lines > 1 ? 64 : 0, third = b.prefetch_lines > 2 ? 128 : 0;
  const int64_t ahead_step = 64 * b.prefetch_lines;
  // Rows: codes, gains and starts are those of panels, each unit's gains behind its codes. Steps: planes of 16
  // positions a panel, and one loop over taps and units: a loop in a loop ends too often to be predicted.
  constexpr int64_t kVector = 64, kUnit = kGain ? 2 * kVector : kVector;
  const int64_t count = kSteps ? b.units * b.tap_count : b.units;
  const int64_t panel = kSteps ? kVector : b.code_panel_step, table_unit = b.table_unit_step, stride = b.acc_stride;
  const int64_t block_bytes = count * table_unit;
  const uint8_t* first = b.table;
  int32_t* block_acc = b.acc;
  const int64_t *code_steps = b.steps, *gain_steps = kSteps ? code_steps + count : nullptr;
  const bool finishes = b.finish != nullptr;
  const OutputLines<kP, kN> lines(kSteps && finishes ? b.finish->y_stride : 0);
  for (int64_t column = b.finish_column; blocks > 0; --blocks, column += kN) {
    const uint8_t* const last = first + block_bytes;
    const uint8_t *tile_codes = b.codes, *tile_gains = b.gains, *starts = b.starts;
    int32_t* out = block_acc;
    for (int64_t tile = tiles; tile > 0; --tile, out += kP * 16) {
      __m512i acc[kP][kN];
#pragma GCC unroll 4
      for (int p = 0; p < kP; ++p) {
        const __m512i start =
            kGain ? _mm512_loadu_si512(starts + p * panel) : _mm512_set1_epi32(static_cast<int32_t>(-128 * 4 * count));
#pragma GCC unroll 6
        for (int n = 0; n < kN; ++n) acc[p][n] = start;
      }
      const uint8_t *codes = tile_codes, *gains = tile_gains;
      int64_t step_at = 0;
      const uint8_t* to = reinterpret_cast<const uint8_t*>(out);
      if (kSteps && finishes)
        to = reinterpret_cast<const uint8_t*>(b.finish->y + column * b.finish->y_stride + b.finish_row +
                                              (out - block_acc));
      for (const uint8_t* table = first; table != last; table += table_unit) {
        if constexpr (kSteps) {
          codes = tile_codes + code_steps[step_at];
          gains = tile_gains + gain_steps[step_at];
          lines.fetch(to, step_at++);
        } else {
          gains = codes + kVector;
        }
        if (!kSteps && ahead_step > 192) {  // with steps there is nothing to fetch, and loads are scarce
          for (int64_t l = 192; l < ahead_step; l += 64) fetch(ahead + l);
        }
        unit_step<kP, kN, K, kGain>(acc, table, codes, gains, panel, ones, [&](int p) __attribute__((always_inline)) {
          for (int l = p; !kSteps && l < 3; l += kP) fetch(ahead + (l == 0 ? 0 : l == 1 ? second : third));
        });
        ahead += ahead_step;
        codes += kUnit;
      }
      if (finishes) {
        finish_sums<kP, kN>(*b.finish, b.finish_row + (out - block_acc), column, acc);
      } else {
        int32_t* to = out;
#pragma GCC unroll 6
        for (int n = 0; n < kN; ++n, to += stride) {
#pragma GCC unroll 4
          for (int p = 0; p < kP; ++p) _mm512_storeu_si512(to + p * 16, acc[p][n]);
        }
      }
      tile_codes += kP * panel;
      tile_gains += kP * panel;
      starts += kP * panel;
    }
    first = last;
    block_acc += kN * stride;
  }
}

/// A part of a block: `panels` from panel p, `columns` from column n. The first part does the prefetching.
LookupBlock part(const LookupBlock& b, int p, int n) {
  LookupBlock sub = b;
  if (p > 0 || n > 0) sub.prefetch_lines = 0;
  const int64_t skipped = p * b.code_panel_step;  // the same everywhere
  sub.codes += skipped;
  if (b.gain_limit > 0) {
    sub.gains += skipped;
    sub.starts += skipped;
  }
  sub.table += n * 4 * b.entries;
  sub.acc += n * b.acc_stride + p * 16;
  sub.finish_row += 16 * p;
  sub.finish_column += n;
  return sub;
}

template <int kP, int K, bool kGain, bool kSteps>
void columns(const LookupBlock& b, int64_t tiles) {
  if (b.columns % kColumns == 0) return block<kP, kColumns, K, kGain, kSteps>(b, tiles, b.columns / kColumns);
  int n = 0;
  if (b.columns - n >= 4) {
    block<kP, 4, K, kGain, kSteps>(part(b, 0, n), tiles, 1);
    n += 4;
  }
  if (b.columns - n >= 2) {
    block<kP, 2, K, kGain, kSteps>(part(b, 0, n), tiles, 1);
    n += 2;
  }
  if (b.columns - n >= 1) block<kP, 1, K, kGain, kSteps>(part(b, 0, n), tiles, 1);
}

template <int K, bool kGain, bool kSteps>
void panels(const LookupBlock& b) {
  int p = b.panels / 4 * 4;
  if (p > 0) columns<4, K, kGain, kSteps>(b, p / 4);
  if (b.panels - p >= 2) {
    columns<2, K, kGain, kSteps>(part(b, p, 0), 1);
    p += 2;
  }
  if (b.panels - p >= 1) columns<1, K, kGain, kSteps>(part(b, p, 0), 1);
}

template <int K>
void entries(const LookupBlock& b) {
  if (b.steps != nullptr) return panels<K, true, true>(b);  // convolutions have gains in either form
  b.gain_limit > 0 ? panels<K, true, false>(b) : panels<K, false, false>(b);
}

void lookup(const LookupBlock& b) {
  if (b.stage != nullptr) return lookup_staged_avx512(b);
  switch (b.entries) {
    case 16:
      return entries<16>(b);
    case 8:
      return entries<8>(b);
    default:
      return entries<4>(b);
  }
}

/// float(acc) * scale + bias in place; lanes past the last row are whatever they are.
void scale_columns(const FinishBlock& f) {
  for (int64_t n = 0; n < f.columns; ++n) {
    int32_t* acc = const_cast<int32_t*>(f.acc) + n * f.acc_stride;
    const __m512 scale = _mm512_set1_ps(f.scale[n]), bias = _mm512_set1_ps(f.bias[n]);
    for (int64_t r = 0; r < f.rows; r += 16) {
      const __m512 y = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_loadu_si512(acc + r)), scale, bias);
      _mm512_storeu_ps(acc + r, y);
    }
  }
}

/// 16 columns of 16 or fewer rows.
template <bool kScaled, bool kPlain>
LUTC_INLINE void finish_square(const FinishBlock& f, int64_t n0, int64_t r0, int64_t rows) {
  const int64_t columns = f.columns - n0;
  const __mmask16 mask = first_lanes(columns);
  const int32_t* acc = f.acc + n0 * f.acc_stride + r0;
  __m512i v[16];
  if (columns >= 16) {
#pragma GCC unroll 16
    for (int n = 0; n < 16; ++n) v[n] = _mm512_loadu_si512(acc + n * f.acc_stride);
  } else {
    // Lanes of columns that do not exist are never stored; they repeat one that does.
#pragma GCC unroll 16
    for (int n = 0; n < 16; ++n) v[n] = _mm512_loadu_si512(acc + (n < columns ? n : 0) * f.acc_stride);
  }
  transpose16(v);
  const __m512 scale = _mm512_maskz_loadu_ps(mask, f.scale + n0), bias = _mm512_maskz_loadu_ps(mask, f.bias + n0);
  const auto value = [&](int r) {
    if constexpr (kScaled) return _mm512_castsi512_ps(v[r]);
    return _mm512_fmadd_ps(_mm512_cvtepi32_ps(v[r]), scale, bias);
  };
  float* y = f.y + r0 * f.y_stride + n0;
  if (kPlain && rows >= 16 && columns >= 16) {
#pragma GCC unroll 16
    for (int r = 0; r < 16; ++r, y += f.y_stride) _mm512_storeu_ps(y, value(r));
    return;
  }
  int64_t at = r0 * f.y_stride + n0;
#pragma GCC unroll 16
  for (int r = 0; r < 16; ++r, at += f.y_stride) {
    if (r >= rows) return;
    _mm512_mask_storeu_ps(f.y + at, mask, finish(f, value(r), mask, at));
  }
}

template <bool kScaled, bool kPlain>
void finish_tile(const FinishBlock& f) {
  for (int64_t r = 0; r < f.rows; r += 16) {
    for (int64_t n = 0; n < f.columns; n += 16) finish_square<kScaled, kPlain>(f, n, r, f.rows - r);
  }
}

void finish_rows(const FinishBlock& f) {
  const bool plain = f.residual == nullptr && !f.relu;
  if (f.scaled) return plain ? finish_tile<true, true>(f) : finish_tile<true, false>(f);
  plain ? finish_tile<false, true>(f) : finish_tile<false, false>(f);
}

template <bool kPlain>
void finish_lines(const FinishBlock& f) {
  const FinishBlock g = f;  // or gcc reads it again after every store
  const int64_t whole = g.rows / 16 * 16;
  const __mmask16 rest = static_cast<__mmask16>((1u << (g.rows - whole)) - 1);
  for (int64_t n = 0; n < g.columns; ++n) {
    const __m512 scale = _mm512_set1_ps(g.scale[n]), bias = _mm512_set1_ps(g.bias[n]);
    for (int64_t line = 0; line < g.lines; ++line) {
      const int32_t* acc = g.acc + n * g.acc_stride + line * g.acc_line_step;
      const int64_t at = n * g.y_stride + line * g.rows;
      const auto value = [&](int64_t r, __m512i sums, __mmask16 mask) {
        const __m512 y = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums), scale, bias);
        return kPlain ? y : finish(g, y, mask, at + r);
      };
      for (int64_t r = 0; r < whole; r += 16)
        _mm512_storeu_ps(g.y + at + r, value(r, _mm512_loadu_si512(acc + r), 0xffff));
      if (rest != 0) {
        const __m512i sums = _mm512_maskz_loadu_epi32(rest, acc + whole);
        _mm512_mask_storeu_ps(g.y + at + whole, rest, value(whole, sums, rest));
      }
    }
  }
}

void finish_planes(const FinishBlock& f) {
  f.residual == nullptr && !f.relu ? finish_lines<true>(f) : finish_lines<false>(f);
}

void sum_gains(const uint8_t* gains, const int64_t* offsets, int64_t count, int64_t positions, int32_t* starts) {
  const __m512i ones = _mm512_set1_epi8(1), factor = _mm512_set1_epi32(-128);
  for (int64_t p = 0; p < positions; p += 32, gains += 128) {  // two panels: their sums are chains
    __m512i sum[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
    for (int64_t i = 0; i < count; ++i) {
      sum[0] = _mm512_dpbusd_epi32(sum[0], ones, _mm512_loadu_si512(gains + offsets[i]));
      sum[1] = _mm512_dpbusd_epi32(sum[1], ones, _mm512_loadu_si512(gains + offsets[i] + 64));
    }
    _mm512_storeu_si512(starts + p, _mm512_mullo_epi32(sum[0], factor));
    if (positions - p > 16) _mm512_storeu_si512(starts + p + 16, _mm512_mullo_epi32(sum[1], factor));
  }
}

constexpr LookupKernels make_kernels() {
  LookupKernels kernels = {
      "quad6",
      DirectionForm::kQuads,
      /*panel_rows=*/16,
      /*unit=*/4,
      /*encode_panels=*/2,
      /*code_planes=*/1,
      /*code_bytes=*/4,
      /*gain_bytes=*/4,
      /*start_element=*/4,
      kPanels,
      kColumns,
      /*gather_rows=*/8,
      [](int64_t, int gain_limit) -> int64_t { return gain_limit > 0 ? 64 : 0; },
      [](int64_t units, int) -> int64_t { return units; },
      encode_scratch_avx512,
      encode_avx512,
      lookup,
      finish_rows,
      finish_planes,
      gather_row_avx512,
      scale_columns,
      /*plane_lines=*/true,
  };
  kernels.many_blocks = true;
  kernels.finishes = true;
  kernels.stage_columns = kStageColumns;
  kernels.stage_group = kStageGroup;
  kernels.unstage = unstage_avx512;
  kernels.encode_pixels = encode_pixels_avx512;
  kernels.score = score_avx512;
  kernels.sum_gains = sum_gains;
  return kernels;
}

}  // namespace

extern const LookupKernels kLookupAvx512;
const LookupKernels kLookupAvx512 = make_kernels();

}  // namespace lutc::kernels
