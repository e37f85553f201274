// Lookups of a tile whose outputs go by way of a stage. Sums lie with their rows in the lanes, and transposing a tile
// of them after its arithmetic took a fifth of a layer's time (96 codebooks; a third with 48). So a block that ends
// scales its sums and transposes four columns at a time, as far as it can by itself, while the next one's arithmetic
// begins; and rows of 16 columns are put together and written to y while the next tile is computed.
//
// A stage is [panel][column / 16][row % 4][column / 4 % 4][row / 4 % 4][column % 4] floats, with rows and columns
// counted within panel and tile.
#include "kernels/avx512/intrinsics.h"
#include "kernels/avx512/lookup_avx512.h"
#include "kernels/avx512/lookup_step.h"

namespace lutc::kernels {
namespace {

constexpr int64_t kStagePanel = 16 * kStageColumns;  ///< floats

/// Two columns of 16 rows -> their pairs: of rows 0 and 1 of every four, and of rows 2 and 3.
LUTC_INLINE void interleave(__m512i& a, __m512i& b) {
  const __m512i low = _mm512_unpacklo_epi32(a, b);
  b = _mm512_unpackhi_epi32(a, b);
  a = low;
}

/// Pairs of columns 0 and 1, and of columns 2 and 3 -> four vectors of the stage, as outputs: quad `quad` of a panel.
template <bool kRelu>
LUTC_INLINE void stage_quad(const LookupBlock& b, int64_t quad, float* panel, const __m512i (&first)[2],
                            const __m512i (&second)[2]) {
  const __m512 scale = _mm512_broadcast_f32x4(_mm_loadu_ps(b.scale + 4 * quad));
  const __m512 bias = _mm512_broadcast_f32x4(_mm_loadu_ps(b.bias + 4 * quad));
  float* to = panel + quad / 4 * 256 + quad % 4 * 16;
#pragma GCC unroll 4
  for (int r = 0; r < 4; ++r, to += 64) {
    const __m512i sums = r % 2 == 0 ? _mm512_unpacklo_epi64(first[r / 2], second[r / 2])
                                    : _mm512_unpackhi_epi64(first[r / 2], second[r / 2]);
    const __m512 y = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums), scale, bias);
    _mm512_storeu_ps(to, kRelu ? _mm512_max_ps(y, _mm512_setzero_ps()) : y);
  }
}

/// Sums of six columns from `column` of the tile on, of the panels from `panel` on. Of twelve columns the middle four
/// are of two blocks: the first leaves its pairs where the quad will lie.
template <int kP, bool kRelu>
LUTC_INLINE void stage_sums(const LookupBlock& b, int64_t panel, int64_t column, __m512i (&acc)[kP][kColumns]) {
  const bool first = column % 12 == 0;
  const int64_t quad = column / 12 * 3, shared = quad + 1;
  float* to = b.stage + panel * kStagePanel;
#pragma GCC unroll 4
  for (int p = 0; p < kP; ++p, to += kStagePanel) {
    __m512i(&v)[kColumns] = acc[p];
    float* half = to + shared / 4 * 256 + shared % 4 * 16;
    interleave(v[0], v[1]);
    interleave(v[2], v[3]);
    interleave(v[4], v[5]);
    if (first) {
      stage_quad<kRelu>(b, quad, to, {v[0], v[1]}, {v[2], v[3]});
      _mm512_storeu_si512(half, v[4]);
      _mm512_storeu_si512(half + 64, v[5]);
    } else {
      stage_quad<kRelu>(b, shared, to, {_mm512_loadu_si512(half), _mm512_loadu_si512(half + 64)}, {v[0], v[1]});
      stage_quad<kRelu>(b, quad + 2, to, {v[2], v[3]}, {v[4], v[5]});
    }
  }
}

/// Writes a tile four lines of 16 columns at a time, as the stage has them: rows r, r + 4, r + 8 and r + 12 of a panel.
/// Whole panels only. Its state stays in memory (volatile): the loop that it is a guest of needs the registers.
class StagedLines {
 public:
  explicit StagedLines(StagedTile* tile) : tile_(tile) {
    if (tile == nullptr) return;
    left_ = tile->rows / 16 * kPanelGroups - tile->groups_done;
    const int64_t panel = tile->groups_done / kPanelGroups, group = tile->groups_done % kPanelGroups;
    from_ = tile->stage + tile->groups_done * kStageGroup;
    to_ = tile->y + (panel * 16 + group % 4) * tile->y_stride + group / 4 * 16;
    stride_ = tile->y_stride;
    next_ = next_of(left_, stride_);
    residual_ = tile->residual;
  }
  int64_t left() const { return left_; }

  LUTC_INLINE void write() {
    const float* from = from_;
    float* to = to_;
    const int64_t stride = stride_;
    const float* residual = residual_;
    if (__builtin_expect(residual == nullptr, 1)) {
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) write_line<false>(from + 4 * i, nullptr, to + 4 * i * stride);
    } else {
      residual += to - tile_->y;
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) write_line<true>(from + 4 * i, residual + 4 * i * stride, to + 4 * i * stride);
    }
    // The same rows of the next 16 columns, or the next rows: all of it may have to come from memory.
    const float* next = to + next_;
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) asm volatile("prefetchw %0" : : "m"(next[4 * i * stride]));
    const int64_t left = left_ - 1;
    left_ = left;
    from_ = from + kStageGroup;
    to += stride;
    if (left % 4 == 0) {
      to = to - 4 * stride + next_;
      next_ = next_of(left, stride);
    }
    to_ = to;
  }
  /// Tells the tile how far it is.
  void leave() const {
    if (tile_ != nullptr) tile_->groups_done = tile_->rows / 16 * kPanelGroups - left_;
  }

 private:
  static constexpr int64_t kPanelGroups = kStagePanel / kStageGroup;

  /// From a group to the one of the same rows in the next 16 columns, or after the last columns of the next rows.
  static int64_t next_of(int64_t left, int64_t stride) {
    const int64_t in_panel = (left - 1) % kPanelGroups + 1;
    return in_panel > 4 ? 16 : 16 * stride - (kStageColumns - 16);
  }

  /// By halves of 256 bits: that takes the least of the ports that the arithmetic fills.
  template <bool kResidual>
  LUTC_INLINE void write_line(const float* from, const float* residual, float* to) {
    __m256 low = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(from)), _mm_loadu_ps(from + 16), 1);
    __m256 high = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(from + 32)), _mm_loadu_ps(from + 48), 1);
    if constexpr (kResidual) {
      low = _mm256_add_ps(low, _mm256_loadu_ps(residual));
      high = _mm256_add_ps(high, _mm256_loadu_ps(residual + 8));
    }
    _mm256_storeu_ps(to, low);
    _mm256_storeu_ps(to + 8, high);
  }

  StagedTile* tile_;
  volatile int64_t left_ = 0, stride_ = 0, next_ = 0;
  const float* volatile from_ = nullptr;
  const float* volatile residual_ = nullptr;  ///< of the whole tile; may be y itself
  float* volatile to_ = nullptr;
};

/// `tiles` times kP panels, times all blocks of columns. Not inlined, and apart from blocks that do other things with
/// their sums: gcc runs out of registers and keeps addresses in vectors, where they queue behind the arithmetic.
template <int kP, int K, bool kGain>
__attribute__((noinline)) void block(const LookupBlock& b, int64_t tiles) {
  constexpr int64_t kUnit = kGain ? 128 : 64, kTables = kColumns * 4 * K;
  const __m512i ones = _mm512_set1_epi8(1);
  const int64_t panel_bytes = b.code_panel_step, block_bytes = b.units * kTables, ahead_step = 64 * b.prefetch_lines;
  const uint8_t* ahead = b.prefetch != nullptr ? b.prefetch : b.table;
  const uint8_t* first = b.table;
  const int64_t every = kP == kPanels ? b.pending_every * kTables : block_bytes;
  StagedLines pending(kP == kPanels ? b.pending : nullptr);
  for (int64_t column = 0; column < kStageColumns; column += kColumns) {
    const uint8_t* const last = first + block_bytes;
    const uint8_t *tile_codes = b.codes, *starts = b.starts;
    for (int64_t tile = 0; tile < tiles; ++tile) {
      __m512i acc[kP][kColumns];
#pragma GCC unroll 4
      for (int p = 0; p < kP; ++p) {
        const __m512i start = kGain ? _mm512_loadu_si512(starts + p * panel_bytes)
                                    : _mm512_set1_epi32(static_cast<int32_t>(-128 * 4 * b.units));
#pragma GCC unroll 6
        for (int n = 0; n < kColumns; ++n) acc[p][n] = start;
      }
      const uint8_t* codes = tile_codes;
      const uint8_t* table = first;
      while (table != last) {
        // Written between a few units and the next: to ask after each one costs a load.
        if (kP == kPanels && pending.left() > 0) pending.write();
        const uint8_t* const stop = last - table > every ? table + every : last;
        do {
          if (__builtin_expect(ahead_step > 192, 0)) {
            for (int64_t l = 192; l < ahead_step; l += 64) fetch(ahead + l);
          }
          // Three lines, one behind a panel; where they are fewer a unit, those of the next ones again.
          unit_step<kP, kColumns, K, kGain>(acc, table, codes, codes + 64, panel_bytes, ones,
                                            [&](int p) __attribute__((always_inline)) {
                                              for (int l = p; l < 3; l += kP) fetch(ahead + 64 * l);
                                            });
          table += kTables;
          codes += kUnit;
          ahead += ahead_step;
        } while (table != stop);
      }
      b.relu ? stage_sums<kP, true>(b, tile * kP, column, acc) : stage_sums<kP, false>(b, tile * kP, column, acc);
      tile_codes += kP * panel_bytes;
      starts += kP * panel_bytes;
    }
    first = last;
  }
  pending.leave();
}

template <int kP, int K>
void panels(LookupBlock b, int64_t first, int64_t tiles) {
  if (tiles == 0) return;
  b.codes += first * b.code_panel_step;
  b.starts += first * b.code_panel_step;
  b.stage += first * kStagePanel;
  if (first > 0) b.prefetch_lines = 0;  // the first panels did it
  b.gain_limit > 0 ? block<kP, K, true>(b, tiles) : block<kP, K, false>(b, tiles);
}

template <int K>
void entries(const LookupBlock& b) {
  const int64_t whole = b.panels / 4 * 4, two = (b.panels - whole) / 2;
  panels<4, K>(b, 0, whole / 4);
  panels<2, K>(b, whole, two);
  panels<1, K>(b, whole + 2 * two, b.panels % 2);
}

}  // namespace

void lookup_staged_avx512(const LookupBlock& b) {
  switch (b.entries) {
    case 16:
      return entries<16>(b);
    case 8:
      return entries<8>(b);
    default:
      return entries<4>(b);
  }
}

/// What is left of a tile, its last rows too.
void unstage_avx512(StagedTile* tile) {
  StagedLines lines(tile);
  while (lines.left() > 0) lines.write();
  lines.leave();
  const int64_t whole = tile->rows / 16 * 16;
  const float* panel = tile->stage + whole * kStageColumns;
  for (int64_t r = 0; r < tile->rows - whole; ++r) {
    const int64_t at = (whole + r) * tile->y_stride;
    for (int n = 0; n < kStageColumns; n += 4) {
      __m128 y = _mm_loadu_ps(panel + n / 16 * 256 + r % 4 * 64 + n % 16 * 4 + r / 4 * 4);
      if (tile->residual != nullptr) y = _mm_add_ps(y, _mm_loadu_ps(tile->residual + at + n));
      _mm_storeu_ps(tile->y + at + n, y);
    }
  }
}

}  // namespace lutc::kernels
