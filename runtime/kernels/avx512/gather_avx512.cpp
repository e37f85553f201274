// Rows of a small batch on the canonical table: whole table rows, eight codebooks at a time, are multiplied and added
// to sums in a level 1 cache. The table streams: rows are read from end to end, and the next eight are fetched
// meanwhile.
#include <cstring>

#include "kernels/avx512/intrinsics.h"
#include "kernels/avx512/lookup_avx512.h"

namespace lutc::kernels {
namespace {

#define LUTC_INLINE __attribute__((always_inline)) inline

constexpr int kRows = 8;
/// Columns whose sums are kept at hand; at a table row a page, each page is visited once.
constexpr int64_t kColumns = 4096;
/// How far behind the columns being added the fetched ones of the next rows lie: farther than a walk of page tables and
/// memory take.
constexpr int64_t kAhead = 1024;

/// The next table rows: their first bytes, and weights of four codebooks each (gains, or ones; zero where there is no
/// codebook).
struct Group {
  const int8_t* row[kRows];
  int32_t weights[2];
};

template <bool kGain>
void load_group(const GatherRow& r, int64_t c0, int64_t n0, Group* group) {
  uint8_t weights[kRows] = {};
  for (int j = 0; j < kRows; ++j) {
    const int64_t c = c0 + j < r.codebooks ? c0 + j : r.codebooks - 1;
    const int64_t entry = c * r.entries + (r.codes[c] & (r.entries - 1));
    group->row[j] = r.table + entry * r.outputs + n0;
    if (c0 + j < r.codebooks) weights[j] = kGain ? static_cast<uint8_t>(r.gains[c]) : 1;
  }
  std::memcpy(group->weights, weights, sizeof(weights));
}

/// Four codebooks of 64 columns: entries are interleaved, so that vpdpbusd multiplies by four weights and sums. acc[i]
/// has columns 4 i .. 4 i + 3 of each 16. Its unsigned side are the entries plus 128, or the ones.
template <bool kGain>
LUTC_INLINE void add_four(__m512i e0, __m512i e1, __m512i e2, __m512i e3, __m512i weights, __m512i (&acc)[4]) {
  if constexpr (kGain) {
    const __m512i sign = _mm512_set1_epi8(static_cast<char>(0x80));
    e0 = _mm512_xor_si512(e0, sign);
    e1 = _mm512_xor_si512(e1, sign);
    e2 = _mm512_xor_si512(e2, sign);
    e3 = _mm512_xor_si512(e3, sign);
  }
  const __m512i lo01 = _mm512_unpacklo_epi8(e0, e1), hi01 = _mm512_unpackhi_epi8(e0, e1);
  const __m512i lo23 = _mm512_unpacklo_epi8(e2, e3), hi23 = _mm512_unpackhi_epi8(e2, e3);
  const __m512i quad[4] = {_mm512_unpacklo_epi16(lo01, lo23), _mm512_unpackhi_epi16(lo01, lo23),
                           _mm512_unpacklo_epi16(hi01, hi23), _mm512_unpackhi_epi16(hi01, hi23)};
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i)
    acc[i] = kGain ? _mm512_dpbusd_epi32(acc[i], quad[i], weights) : _mm512_dpbusd_epi32(acc[i], weights, quad[i]);
}

template <bool kGain>
LUTC_INLINE void add_block(const Group& group, int64_t n, __mmask64 mask, __m512i w0, __m512i w1, int32_t* sums) {
  __m512i e[kRows], acc[4];
#pragma GCC unroll 8
  for (int j = 0; j < kRows; ++j) e[j] = _mm512_maskz_loadu_epi8(mask, group.row[j] + n);
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) acc[i] = _mm512_loadu_si512(sums + n + 16 * i);
  add_four<kGain>(e[0], e[1], e[2], e[3], w0, acc);
  add_four<kGain>(e[4], e[5], e[6], e[7], w1, acc);
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) _mm512_storeu_si512(sums + n + 16 * i, acc[i]);
}

/// The sums of 64 columns to their order.
LUTC_INLINE void order_block(int32_t* sums) {
  __m512i v[4];
  for (int i = 0; i < 4; ++i) v[i] = _mm512_loadu_si512(sums + 16 * i);
  const __m512i low01 = _mm512_shuffle_i32x4(v[0], v[1], 0x44), high01 = _mm512_shuffle_i32x4(v[0], v[1], 0xee);
  const __m512i low23 = _mm512_shuffle_i32x4(v[2], v[3], 0x44), high23 = _mm512_shuffle_i32x4(v[2], v[3], 0xee);
  _mm512_storeu_si512(sums, _mm512_shuffle_i32x4(low01, low23, 0x88));
  _mm512_storeu_si512(sums + 16, _mm512_shuffle_i32x4(low01, low23, 0xdd));
  _mm512_storeu_si512(sums + 32, _mm512_shuffle_i32x4(high01, high23, 0x88));
  _mm512_storeu_si512(sums + 48, _mm512_shuffle_i32x4(high01, high23, 0xdd));
}

template <bool kGain>
void gather(const GatherRow& r) {
  int32_t gains = 0;
  if (kGain) {
    for (int64_t c = 0; c < r.codebooks; ++c) gains += r.gains[c];
  }
  for (int64_t n0 = 0; n0 < r.columns; n0 += kColumns) {
    const int64_t columns = r.columns - n0 < kColumns ? r.columns - n0 : kColumns;
    const int64_t whole = columns / 64 * 64;
    const __mmask64 rest = (uint64_t{1} << (columns - whole)) - 1;
    int32_t* sums = r.acc + n0;
    const __m512i start = _mm512_set1_epi32(-128 * gains);
    for (int64_t n = 0; n < (columns + 63) / 64 * 64; n += 16) _mm512_storeu_si512(sums + n, start);
    const int64_t ahead = kAhead < whole ? kAhead : whole, turn = whole - ahead;
    Group group, next, later;
    load_group<kGain>(r, 0, n0, &next);
    load_group<kGain>(r, kRows, n0, &later);
    for (int64_t c = 0; c < r.codebooks; c += kRows) {
      group = next;
      next = later;
      if (c + 2 * kRows < r.codebooks) load_group<kGain>(r, c + 2 * kRows, n0, &later);
      const __m512i w0 = _mm512_set1_epi32(group.weights[0]), w1 = _mm512_set1_epi32(group.weights[1]);
      for (int64_t n = 0; n < whole; n += 64) {
        const int8_t* const* row = n < turn ? next.row : later.row;
        const int64_t at = n < turn ? n + ahead : n - turn;
#pragma GCC unroll 8
        for (int j = 0; j < kRows; ++j) _mm_prefetch(row[j] + at, _MM_HINT_T1);
        add_block<kGain>(group, n, ~uint64_t{0}, w0, w1, sums);
      }
      if (rest != 0) add_block<kGain>(group, whole, rest, w0, w1, sums);
    }
    for (int64_t n = 0; n < columns; n += 64) order_block(sums + n);
  }
}

}  // namespace

void gather_row_avx512(const GatherRow& r) { r.gains != nullptr ? gather<true>(r) : gather<false>(r); }

}  // namespace lutc::kernels
