// Rows of a small batch on the canonical table. vpmaddubsw multiplies magnitudes of two gains by the entries of two
// codebooks, which take the gains' signs; 16-bit sums take gains until 127 times their magnitudes would not fit.
#include <immintrin.h>

#include "kernels/avx2/lookup_avx2.h"

namespace lutc::kernels {
namespace {

#define LUTC_INLINE __attribute__((always_inline)) inline

/// Most magnitudes of gains in a 16-bit sum.
constexpr int kMostGains = 32767 / 127;
/// Codebooks between a row that gather_columns() reads and one that it fetches.
constexpr int64_t kAhead = 8;
/// Codebooks that gather_group() adds at a time.
constexpr int kGroup = 8;
/// Columns whose sums are kept at hand; at a table row a page, each page is visited once.
constexpr int64_t kColumns = 4096;
/// From so many columns on whole table rows are read.
constexpr int64_t kWholeRows = 256;

LUTC_INLINE __m256i load(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
LUTC_INLINE void store(void* p, __m256i v) { _mm256_storeu_si256(static_cast<__m256i*>(p), v); }
LUTC_INLINE int magnitude(int gain) { return gain < 0 ? -gain : gain; }

/// 16-bit sums of columns 0-7 and 16-23 to int32: acc = sums, or acc += sums.
LUTC_INLINE void flush(int32_t* acc, __m256i sums, bool first) {
  __m256i low = _mm256_cvtepi16_epi32(_mm256_castsi256_si128(sums)),
          high = _mm256_cvtepi16_epi32(_mm256_extracti128_si256(sums, 1));
  if (!first) {
    low = _mm256_add_epi32(low, load(acc));
    high = _mm256_add_epi32(high, load(acc + 16));
  }
  store(acc, low);
  store(acc + 16, high);
}

/// The next table rows, their gains' signs and the magnitudes of two gains each; zero where there is no codebook.
struct Group {
  const int8_t* row[kGroup];
  alignas(32) int8_t sign[kGroup][32];
  alignas(32) int16_t sizes[kGroup / 2][16];
  int parts;  ///< 16-bit sums that the gains need: 1, 2 or 4
};

template <bool kGain>
void load_group(const GatherRow& r, int64_t c0, int64_t n0, Group* group) {
  int size[kGroup];
  for (int j = 0; j < kGroup; ++j) {
    const int64_t c = c0 + j < r.codebooks ? c0 + j : r.codebooks - 1;
    group->row[j] = r.table + (c * r.entries + (r.codes[c] & (r.entries - 1))) * r.outputs + n0;
    const int gain = c0 + j >= r.codebooks ? 0 : kGain ? r.gains[c] : 1;
    size[j] = magnitude(gain);
    if constexpr (kGain) store(group->sign[j], _mm256_set1_epi8(static_cast<char>(gain)));
  }
  for (int j = 0; j < kGroup; j += 2)
    store(group->sizes[j / 2], _mm256_set1_epi16(static_cast<int16_t>(size[j] | size[j + 1] << 8)));
  const int first = size[0] + size[1] + size[2] + size[3], second = size[4] + size[5] + size[6] + size[7];
  group->parts = first + second <= kMostGains ? 1 : first <= kMostGains && second <= kMostGains ? 2 : 4;
}

/// Adds a group to the sums of 32 columns.
template <bool kGain, int kParts>
LUTC_INLINE void gather_group(const Group& group, int64_t n, int32_t* sums) {
  constexpr int kPairs = kGroup / 2 / kParts;
#pragma GCC unroll 4
  for (int part = 0; part < kParts; ++part) {
    __m256i low = _mm256_setzero_si256(), high = low;
#pragma GCC unroll 4
    for (int pair = part * kPairs; pair < (part + 1) * kPairs; ++pair) {
      __m256i x = load(group.row[2 * pair] + n), y = load(group.row[2 * pair + 1] + n);
      if constexpr (kGain) {
        x = _mm256_sign_epi8(x, load(group.sign[2 * pair]));
        y = _mm256_sign_epi8(y, load(group.sign[2 * pair + 1]));
      }
      const __m256i sizes = load(group.sizes[pair]);
      low = _mm256_add_epi16(low, _mm256_maddubs_epi16(sizes, _mm256_unpacklo_epi8(x, y)));
      high = _mm256_add_epi16(high, _mm256_maddubs_epi16(sizes, _mm256_unpackhi_epi8(x, y)));
    }
    flush(sums + n, low, false);
    flush(sums + n + 8, high, false);
  }
}

template <bool kGain, int kParts>
void gather_columns_of(const Group& group, const Group& next, int64_t columns, int32_t* sums) {
  for (int64_t n = 0; n < columns; n += 64) {
#pragma GCC unroll 8
    for (int j = 0; j < kGroup; ++j) _mm_prefetch(reinterpret_cast<const char*>(next.row[j] + n), _MM_HINT_T1);
    gather_group<kGain, kParts>(group, n, sums);
    if (n + 32 < columns) gather_group<kGain, kParts>(group, n + 32, sums);
  }
}

/// Columns [0, columns), a multiple of 32. The table streams: its rows are read from end to end, eight codebooks at a
/// time, and the next eight are fetched meanwhile; sums stay in a level 1 cache.
template <bool kGain>
void gather_whole_rows(const GatherRow& r, int64_t columns) {
  for (int64_t n0 = 0; n0 < columns; n0 += kColumns) {
    const int64_t count = columns - n0 < kColumns ? columns - n0 : kColumns;
    int32_t* sums = r.acc + n0;
    for (int64_t n = 0; n < count; n += 8) store(sums + n, _mm256_setzero_si256());
    Group groups[2];
    load_group<kGain>(r, 0, n0, &groups[0]);
    for (int64_t c = 0, i = 0; c < r.codebooks; c += kGroup, i ^= 1) {
      const Group& group = groups[i];
      Group& next = groups[i ^ 1];
      if (c + kGroup < r.codebooks) {
        load_group<kGain>(r, c + kGroup, n0, &next);
      } else {
        next = group;
      }
      switch (group.parts) {
        case 1:
          gather_columns_of<kGain, 1>(group, next, count, sums);
          break;
        case 2:
          gather_columns_of<kGain, 2>(group, next, count, sums);
          break;
        default:
          gather_columns_of<kGain, 4>(group, next, count, sums);
          break;
      }
    }
  }
}

/// Columns [n, n + 32 kV), two codebooks a step.
template <bool kGain, int kV>
void gather_columns(const GatherRow& r, int64_t n) {
  const auto entry = [&](int64_t c) {
    return r.table + (c * r.entries + (r.codes[c] & (r.entries - 1))) * r.outputs + n;
  };
  int32_t* acc = r.acc + n;
  __m256i sums[kV][2];  // columns 0-7 16-23, 8-15 24-31
  for (int v = 0; v < kV; ++v) sums[v][0] = sums[v][1] = _mm256_setzero_si256();
  int budget = kMostGains;
  bool first = true;
  const auto flush_all = [&] {
#pragma GCC unroll 4
    for (int v = 0; v < kV; ++v) {
      flush(acc + 32 * v, sums[v][0], first);
      flush(acc + 32 * v + 8, sums[v][1], first);
      sums[v][0] = sums[v][1] = _mm256_setzero_si256();
    }
    first = false;
    budget = kMostGains;
  };
  for (int64_t c = 0; c < r.codebooks; c += 2) {
    const bool both = c + 1 < r.codebooks;
    const int8_t *a = entry(c), *b = both ? entry(c + 1) : a;
    const int gain_a = kGain ? r.gains[c] : 1, gain_b = !both ? 0 : kGain ? r.gains[c + 1] : 1;
    const int size_a = magnitude(gain_a), size_b = magnitude(gain_b);
    if (budget < size_a + size_b) flush_all();
    budget -= size_a + size_b;
    if (c + kAhead + 1 < r.codebooks) {
      for (int64_t h = 0; h < 2; ++h) {
        const char* p = reinterpret_cast<const char*>(entry(c + kAhead + h));
        for (int i = 0; i < 32 * kV; i += 64) _mm_prefetch(p + i, _MM_HINT_T0);
      }
    }
    const __m256i sizes = _mm256_set1_epi16(static_cast<int16_t>(size_a | size_b << 8));
    const __m256i sign_a = _mm256_set1_epi8(static_cast<char>(gain_a)),
                  sign_b = _mm256_set1_epi8(static_cast<char>(gain_b));
#pragma GCC unroll 4
    for (int v = 0; v < kV; ++v) {
      __m256i x = load(a + 32 * v), y = load(b + 32 * v);
      if constexpr (kGain) {
        x = _mm256_sign_epi8(x, sign_a);
        y = _mm256_sign_epi8(y, sign_b);
      }
      sums[v][0] = _mm256_add_epi16(sums[v][0], _mm256_maddubs_epi16(sizes, _mm256_unpacklo_epi8(x, y)));
      sums[v][1] = _mm256_add_epi16(sums[v][1], _mm256_maddubs_epi16(sizes, _mm256_unpackhi_epi8(x, y)));
    }
  }
  flush_all();
}

template <bool kGain>
void gather(const GatherRow& r) {
  int64_t n = 0;
  if (r.columns >= kWholeRows) {
    n = r.columns / 32 * 32;
    gather_whole_rows<kGain>(r, n);
  }
  for (; n + 128 <= r.columns; n += 128) gather_columns<kGain, 4>(r, n);
  if (n + 64 <= r.columns) {
    gather_columns<kGain, 2>(r, n);
    n += 64;
  }
  if (n + 32 <= r.columns) {
    gather_columns<kGain, 1>(r, n);
    n += 32;
  }
  if (n < r.columns && r.columns >= 32) return gather_columns<kGain, 1>(r, r.columns - 32);  // some of them again
  for (; n < r.columns; ++n) {
    int32_t sum = 0;
    for (int64_t c = 0; c < r.codebooks; ++c)
      sum += (kGain ? r.gains[c] : 1) * r.table[(c * r.entries + (r.codes[c] & (r.entries - 1))) * r.outputs + n];
    r.acc[n] = sum;
  }
}

}  // namespace

void gather_row_avx2(const GatherRow& r) { r.gains != nullptr ? gather<true>(r) : gather<false>(r); }

}  // namespace lutc::kernels
