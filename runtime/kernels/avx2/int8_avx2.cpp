// Dense int8 products with AVX2, exact: vpmaddubsw would saturate, so weights become 16-bit words (four columns x four
// features a vector) and vpmaddwd multiplies them by four 16-bit integers of a row, broadcast. A column has two partial
// sums, added at the end. Packed rows are int16, blocks of six rows as [group][row][4].
#include "kernels/avx2/int8_common.h"

namespace lutc::kernels {
namespace {

constexpr int kRows = 6;
constexpr int64_t kAhead = 2048;

/// 8 integers of a row as words, zeros behind its end.
LUTC_INLINE __m128i quantise8(const float* x, __m256 inv, int64_t left) {
  const __m256i q = _mm256_cvtps_epi32(_mm256_mul_ps(load_n(x, left), inv));
  return _mm_packs_epi32(_mm256_castsi256_si128(q), _mm256_extracti128_si256(q, 1));
}

void quantise(const float* x, int64_t stride, int64_t rows, int64_t features, uint8_t* packed, float* steps,
              int32_t* starts) {
  const int64_t groups = (features + 3) / 4;
  for (int64_t r = 0; r < rows; ++r, x += stride) {
    const int64_t first = r / kRows * kRows, block = rows - first < kRows ? rows - first : kRows;
    uint8_t* to = packed + first * groups * 8 + (r - first) * 8;
    const float a = largest_of(x, features);
    const __m256 inv = _mm256_set1_ps(inverse_of(a));
    __m128i sum = _mm_setzero_si128();
    for (int64_t g = 0; g < groups; g += 2, to += 16 * block) {
      const __m128i q = quantise8(x + 4 * g, inv, features - 4 * g);
      sum = _mm_add_epi32(sum, _mm_madd_epi16(q, _mm_set1_epi16(1)));
      _mm_storel_epi64(reinterpret_cast<__m128i*>(to), q);
      if (g + 1 < groups) _mm_storel_epi64(reinterpret_cast<__m128i*>(to + 8 * block), _mm_srli_si128(q, 8));
    }
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4e));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xb1));
    steps[r] = a / 127.0f;
    starts[r] = static_cast<int32_t>(-128u * static_cast<uint32_t>(_mm_cvtsi128_si32(sum)));
  }
}

/// 8 columns of R rows, from the tile's column `first` on; acc holds the two partial sums of four columns each.
template <int R>
LUTC_INLINE void finish(const Tile& t, int64_t first, const __m256i (&acc)[R][2]) {
  if (first >= t.columns) return;
  const TileColumns c = tile_columns(t, first);
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) {
    const __m256i pairs = _mm256_hadd_epi32(acc[r][0], acc[r][1]);  // columns 0 1 4 5 2 3 6 7
    finish_row(t, c, r, _mm256_add_epi32(_mm256_permute4x64_epi64(pairs, 0xd8), _mm256_set1_epi32(t.starts[r])));
  }
}

/// One row times a group of half a panel. In one piece, since gcc otherwise orders a block so that it spills.
LUTC_INLINE void multiply(__m256i& sum0, __m256i& sum1, __m256i w0, __m256i w1, const uint8_t* four) {
  __m256i q, product;
  asm volatile(
      "vpbroadcastq %6, %2\n\t"
      "vpmaddwd %2, %4, %3\n\t"
      "vpmaddwd %2, %5, %2\n\t"
      "vpaddd %3, %0, %0\n\t"
      "vpaddd %2, %1, %1"
      : "+x"(sum0), "+x"(sum1), "=&x"(q), "=&x"(product)
      : "x"(w0), "x"(w1), "m"(*reinterpret_cast<const int64_t*>(four)));
}

/// R rows times one half of a panel (8 columns), or both.
template <int R, int kHalves>
void block(const uint8_t* rows, const uint8_t* weight, int64_t groups, const uint8_t* ahead, const Tile& t) {
  __m256i acc[kHalves][R][2];
#pragma GCC unroll 2
  for (int h = 0; h < kHalves; ++h)
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) acc[h][r][0] = acc[h][r][1] = _mm256_setzero_si256();
  for (int64_t g = 0; g < groups; ++g, weight += 64, rows += 8 * R, ahead += 64) {
    _mm_prefetch(ahead, _MM_HINT_T0);
#pragma GCC unroll 2
    for (int h = 0; h < kHalves; ++h) {
      const __m128i* bytes = reinterpret_cast<const __m128i*>(weight) + 2 * h;
      const __m256i w0 = _mm256_cvtepu8_epi16(_mm_loadu_si128(bytes));
      const __m256i w1 = _mm256_cvtepu8_epi16(_mm_loadu_si128(bytes + 1));
#pragma GCC unroll 6
      for (int r = 0; r < R; ++r) multiply(acc[h][r][0], acc[h][r][1], w0, w1, rows + 8 * r);
    }
  }
#pragma GCC unroll 2
  for (int h = 0; h < kHalves; ++h) finish<R>(t, 8 * h, acc[h]);
}

using BlockFunction = void (*)(const uint8_t*, const uint8_t*, int64_t, const uint8_t*, const Tile&);

constexpr BlockFunction kBlocks[kRows + 1] = {nullptr,     block<1, 1>, block<2, 1>, block<3, 1>,
                                              block<4, 1>, block<5, 1>, block<6, 1>};
/// Few rows wait for memory: whole panels make one stream of it.
constexpr BlockFunction kStreams[] = {nullptr, block<1, 2>, block<2, 2>, block<3, 2>};
constexpr int64_t kStreamRows = 3;

void product(const Int8Product& p) {
  const int64_t groups = (p.features + 3) / 4, panel_bytes = 64 * groups;
  const bool stream = p.row_count <= kStreamRows;
  Tile t;
  t.relu = p.relu;
  t.stride = p.y_stride;
  for (int64_t column = 0; column < p.columns; column += stream ? kInt8PanelColumns : 8) {
    const uint8_t* weight = p.weight + column / kInt8PanelColumns * panel_bytes + column % kInt8PanelColumns * 4;
    t.columns = p.columns - column;
    t.scale = p.scale + column;
    t.bias = p.bias + column;
    for (int64_t row = 0; row < p.row_count; row += kRows) {
      const int64_t rows = p.row_count - row < kRows ? p.row_count - row : kRows;
      const int64_t at = row * p.y_stride + column;
      t.steps = p.steps + row;
      t.starts = p.starts + row;
      t.residual = p.residual == nullptr ? nullptr : p.residual + at;
      t.y = p.y + at;
      const BlockFunction function = stream ? kStreams[rows] : kBlocks[rows];
      function(p.rows + row * groups * 8, weight, groups, weight + kAhead, t);
    }
  }
}

}  // namespace

extern const Int8Kernels kInt8Avx2;
const Int8Kernels kInt8Avx2 = {kRows, 2, quantise, product};

}  // namespace lutc::kernels
