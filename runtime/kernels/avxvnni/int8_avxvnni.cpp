// Dense int8 products with 256-bit vpdpbusd: it multiplies a group of half a panel (8 columns x 4 features) by four
// integers of a row, broadcast. A block is up to six rows times a panel and lies as [group][row][4].
#include <cstring>

#include "kernels/avx2/int8_common.h"
#include "kernels/avxvnni/dpbusd.h"

namespace lutc::kernels {
namespace {

constexpr int kRows = 6;
/// A single block reads weights this far ahead, as they come from memory.
constexpr int64_t kAhead = 4096;

/// 32 integers of a row, zeros behind its end; read(i) loads eight floats from x + i on.
template <class Read>
LUTC_INLINE __m256i quantise32(const Read& read, __m256 inv) {
  __m256i v[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) v[i] = _mm256_cvtps_epi32(_mm256_mul_ps(read(8 * i), inv));
  const __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(v[0], v[1]), _mm256_packs_epi32(v[2], v[3]));
  return _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

/// One dword a group, `step` bytes apart.
LUTC_INLINE void scatter(__m256i groups, int64_t count, int64_t step, uint8_t* to) {
  alignas(32) uint8_t bytes[32];
  _mm256_store_si256(reinterpret_cast<__m256i*>(bytes), groups);
  if (count == 8) {
#pragma GCC unroll 8
    for (int g = 0; g < 8; ++g) std::memcpy(to + g * step, bytes + 4 * g, 4);
  } else {
    for (int64_t g = 0; g < count; ++g) std::memcpy(to + g * step, bytes + 4 * g, 4);
  }
}

void quantise(const float* x, int64_t stride, int64_t rows, int64_t features, uint8_t* packed, float* steps,
              int32_t* starts) {
  const int64_t groups = (features + 3) / 4;
  const __m256i ones = _mm256_set1_epi8(1);
  for (int64_t r = 0; r < rows; ++r, x += stride) {
    const int64_t first = r / kRows * kRows, block = rows - first < kRows ? rows - first : kRows;
    uint8_t* to = packed + first * groups * 4 + (r - first) * 4;
    const float a = largest_of(x, features);
    const __m256 inv = _mm256_set1_ps(inverse_of(a));
    __m256i sum = _mm256_setzero_si256();
    for (int64_t d = 0; d < features; d += 32, to += 32 * block) {
      const int64_t left = features - d, count = groups - d / 4 < 8 ? groups - d / 4 : 8;
      const float* from = x + d;
      const __m256i q = left >= 32 ? quantise32([&](int i) { return _mm256_loadu_ps(from + i); }, inv)
                                   : quantise32(
                                         [&](int i) {
                                           const int64_t n = left - i;
                                           return n > 0 ? load_n(from + i, n) : _mm256_setzero_ps();
                                         },
                                         inv);
      sum = dpbusd(sum, ones, q);
      scatter(q, count, 4 * block, to);
    }
    __m128i four = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
    four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0xb1));
    steps[r] = a / 127.0f;
    starts[r] = static_cast<int32_t>(-128u * static_cast<uint32_t>(_mm_cvtsi128_si32(four)));
  }
}

template <int R>
LUTC_INLINE void finish(const Tile& t, const __m256i (&acc)[R][2]) {
#pragma GCC unroll 2
  for (int h = 0; h < 2; ++h) {
    if (8 * h >= t.columns) return;
    const TileColumns c = tile_columns(t, 8 * h);
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) finish_row(t, c, r, acc[r][h]);
  }
}

/// One row times a group of a panel. In one piece, since gcc otherwise orders a block so that it spills.
LUTC_INLINE void multiply(__m256i& sum0, __m256i& sum1, __m256i w0, __m256i w1, const uint8_t* four) {
  __m256i q;
  asm volatile("vpbroadcastd %5, %2\n\t" LUTC_DPBUSD " %2, %3, %0\n\t" LUTC_DPBUSD " %2, %4, %1"
               : "+x"(sum0), "+x"(sum1), "=&x"(q)
               : "x"(w0), "x"(w1), "m"(*reinterpret_cast<const int32_t*>(four)));
}

LUTC_INLINE __m256i load(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }

/// R rows times one panel. kUnroll independent sums a row hide the latency where rows are few.
template <int R, int kUnroll>
void block(const uint8_t* rows, const uint8_t* weight, int64_t groups, const uint8_t* ahead, int64_t ahead_step,
           const Tile& t) {
  __m256i acc[kUnroll][R][2];
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) {
    acc[0][r][0] = acc[0][r][1] = _mm256_set1_epi32(t.starts[r]);
#pragma GCC unroll 4
    for (int u = 1; u < kUnroll; ++u) acc[u][r][0] = acc[u][r][1] = _mm256_setzero_si256();
  }
  const auto group = [&](int u) __attribute__((always_inline)) {
    const __m256i w0 = load(weight), w1 = load(weight + 32);
    _mm_prefetch(ahead, _MM_HINT_T0);
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) multiply(acc[u][r][0], acc[u][r][1], w0, w1, rows + 4 * r);
    weight += 64;
    rows += 4 * R;
    ahead += ahead_step;
  };
  int64_t g = 0;
  for (; g + kUnroll <= groups; g += kUnroll) {
#pragma GCC unroll 4
    for (int u = 0; u < kUnroll; ++u) group(u);
  }
  for (; g < groups; ++g) group(0);
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int u = 1; u < kUnroll; ++u) {
      acc[0][r][0] = _mm256_add_epi32(acc[0][r][0], acc[u][r][0]);
      acc[0][r][1] = _mm256_add_epi32(acc[0][r][1], acc[u][r][1]);
    }
  }
  finish<R>(t, acc[0]);
}

using BlockFunction = void (*)(const uint8_t*, const uint8_t*, int64_t, const uint8_t*, int64_t, const Tile&);

constexpr BlockFunction kBlocks[kRows + 1] = {nullptr,     block<1, 4>, block<2, 2>, block<3, 2>,
                                              block<4, 1>, block<5, 1>, block<6, 1>};

void product(const Int8Product& p) {
  const int64_t groups = (p.features + 3) / 4, panel_bytes = 64 * groups;
  const int64_t blocks = (p.row_count + kRows - 1) / kRows;
  // Several blocks fetch the next panel together, a line's part each; a single one runs ahead of itself.
  const int64_t ahead_step = (64 + blocks - 1) / blocks;
  Tile t;
  t.relu = p.relu;
  t.stride = p.y_stride;
  for (int64_t column = 0; column < p.columns; column += kInt8PanelColumns) {
    const uint8_t* panel = p.weight + column / kInt8PanelColumns * panel_bytes;
    t.columns = p.columns - column;
    t.scale = p.scale + column;
    t.bias = p.bias + column;
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

extern const Int8Kernels LUTC_VNNI(kInt8AvxVnni);
const Int8Kernels LUTC_VNNI(kInt8AvxVnni) = {kRows, 1, quantise, product};

}  // namespace lutc::kernels
