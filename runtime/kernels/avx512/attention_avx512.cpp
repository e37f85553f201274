// Quantised attention with vpdpbusd: sixteen columns a vector, four summed values a lane.
#include "kernels/attention.h"
#include "kernels/avx512/transpose.h"

namespace lutc::kernels {
extern const AttentionKernels kAttentionAvx512;
namespace {

#define LUTC_ALWAYS static inline __attribute__((always_inline))

constexpr int kLanes = 32;  ///< two vectors
constexpr int kColumns = 16;
constexpr int kQuad = 4;  ///< bytes

LUTC_ALWAYS __mmask16 first_lanes(int64_t n) {
  return n >= 16 ? __mmask16{0xffff} : n <= 0 ? __mmask16{0} : static_cast<__mmask16>((1u << n) - 1u);
}

// Bits of magnitudes are compared as integers: those of NaN are above infinity's, so that both are found.
LUTC_ALWAYS __m512i magnitude(__m512 x) {
  return _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7fffffff));
}

/// Sixteen largest magnitudes to what quantises (0 for zero, NaN and infinity) and to steps (NaN for the latter two).
LUTC_ALWAYS void quantisers(__m512i largest, __m512* factor, __m512* step) {
  const __m512 a = _mm512_castsi512_ps(largest), levels = _mm512_set1_ps(attention::kLevels);
  const __mmask16 finite = _mm512_cmplt_epi32_mask(largest, _mm512_set1_epi32(0x7f800000));
  const __mmask16 useful = _mm512_mask_test_epi32_mask(finite, largest, largest);
  *factor = _mm512_maskz_min_ps(useful, _mm512_div_ps(levels, a), _mm512_set1_ps(attention::kLargest));
  *step = _mm512_mask_blend_ps(finite, _mm512_set1_ps(__builtin_nanf("")), _mm512_div_ps(a, levels));
}

/// Lane i: the largest lane of m[i].
LUTC_ALWAYS __m512i largest_lanes(__m512i (&m)[16]) {
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    m[i] =
        _mm512_max_epi32(_mm512_unpacklo_epi32(m[2 * i], m[2 * i + 1]), _mm512_unpackhi_epi32(m[2 * i], m[2 * i + 1]));
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    m[i] =
        _mm512_max_epi32(_mm512_unpacklo_epi64(m[2 * i], m[2 * i + 1]), _mm512_unpackhi_epi64(m[2 * i], m[2 * i + 1]));
  }
  // the four 128-bit parts of m[g] are partial results of rows 4 g .. 4 g + 3
  const __m512i low = _mm512_max_epi32(_mm512_shuffle_i32x4(m[0], m[1], 0x88), _mm512_shuffle_i32x4(m[0], m[1], 0xdd));
  const __m512i high = _mm512_max_epi32(_mm512_shuffle_i32x4(m[2], m[3], 0x88), _mm512_shuffle_i32x4(m[2], m[3], 0xdd));
  return _mm512_max_epi32(_mm512_shuffle_i32x4(low, high, 0x88), _mm512_shuffle_i32x4(low, high, 0xdd));
}

/// Bytes of a's lanes 0 .. 3, then of b's, c's and d's, then of lanes 4 .. 7 and so on.
LUTC_ALWAYS __m512i bytes(__m512i a, __m512i b, __m512i c, __m512i d) {
  return _mm512_packs_epi16(_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d));
}

/// 64 values of a column, of which `left` exist, as bytes in order.
LUTC_ALWAYS __m512i quantise64(const float* x, int64_t left, __m512 factor) {
  // NaN (0 * infinity) becomes INT_MIN, which saturates
  const auto integers = [=](int i) __attribute__((always_inline)) {
    const __m512 v = left >= i + 16 ? _mm512_loadu_ps(x + i) : _mm512_maskz_loadu_ps(first_lanes(left - i), x + i);
    return _mm512_cvtps_epi32(_mm512_mul_ps(v, factor));
  };
  const __m512i zero = _mm512_setzero_si512();
  const __m512i a = integers(0), b = left > 16 ? integers(16) : zero;
  const __m512i c = left > 32 ? integers(32) : zero, d = left > 48 ? integers(48) : zero;
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  return _mm512_permutexvar_epi32(order, bytes(a, b, c, d));
}

/// Depth is contiguous: sixteen columns are quantised one by one and transposed.
LUTC_ALWAYS void pack_rows(const AttentionColumns& in, int64_t first, __m512i flip, int32_t* out, int64_t stride,
                           __m512* step, __m512i* sums) {
  const float* x = in.x + first * in.column_stride;
  const int64_t some = in.columns - first;
  __m512i m[16];
  for (int r = 0; r < 16; ++r) {
    __m512i most = _mm512_setzero_si512();
    const float* row = x + r * in.column_stride;
    if (r < some) {
      int64_t i = 0;
      for (; i + 16 <= in.depth; i += 16) most = _mm512_max_epi32(most, magnitude(_mm512_loadu_ps(row + i)));
      if (i < in.depth) {
        const __mmask16 lanes = first_lanes(in.depth - i);
        most = _mm512_max_epi32(most, magnitude(_mm512_maskz_loadu_ps(lanes, row + i)));
      }
    }
    m[r] = most;
  }
  __m512 factor;
  quantisers(largest_lanes(m), &factor, step);
  alignas(64) float factors[16];
  _mm512_store_ps(factors, factor);
  const int64_t quads = (in.depth + 3) / 4;
  for (int64_t i = 0; i < quads; i += 16) {
    __m512i v[16];
    for (int r = 0; r < 16; ++r) {
      v[r] = r >= some ? _mm512_setzero_si512()
                       : quantise64(x + r * in.column_stride + 4 * i, in.depth - 4 * i, _mm512_set1_ps(factors[r]));
    }
    transpose16(v);
    const int64_t left = quads - i < 16 ? quads - i : 16;
    for (int64_t p = 0; p < left; ++p, out += stride) {
      *sums = _mm512_dpbusd_epi32(*sums, _mm512_set1_epi8(1), v[p]);
      _mm512_storeu_si512(out, _mm512_xor_si512(v[p], flip));
    }
  }
}

/// Columns are contiguous: one is a lane all the way.
LUTC_ALWAYS void pack_lanes(const AttentionColumns& in, int64_t first, __m512i flip, int32_t* out, int64_t stride,
                            __m512* step, __m512i* sums) {
  const float* x = in.x + first;
  const __mmask16 lanes = first_lanes(in.columns - first);
  const int64_t next = in.depth_stride;
  __m512i m0 = _mm512_setzero_si512(), m1 = m0;
  int64_t i = 0;
  for (; i + 2 <= in.depth; i += 2) {
    m0 = _mm512_max_epi32(m0, magnitude(_mm512_maskz_loadu_ps(lanes, x + i * next)));
    m1 = _mm512_max_epi32(m1, magnitude(_mm512_maskz_loadu_ps(lanes, x + (i + 1) * next)));
  }
  if (i < in.depth) m0 = _mm512_max_epi32(m0, magnitude(_mm512_maskz_loadu_ps(lanes, x + i * next)));
  __m512 factor;
  quantisers(_mm512_max_epi32(m0, m1), &factor, step);
  const __m512i turn = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
  const auto integers = [=](int64_t at) __attribute__((always_inline)) {
    return _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_maskz_loadu_ps(lanes, x + at * next), factor));
  };
  const auto store = [&](__m512i a, __m512i b, __m512i c, __m512i d) __attribute__((always_inline)) {
    const __m512i v = _mm512_shuffle_epi8(bytes(a, b, c, d), turn);
    *sums = _mm512_dpbusd_epi32(*sums, _mm512_set1_epi8(1), v);
    _mm512_storeu_si512(out, _mm512_xor_si512(v, flip));
    out += stride;
  };
  for (i = 0; i + 4 <= in.depth; i += 4) store(integers(i), integers(i + 1), integers(i + 2), integers(i + 3));
  if (i < in.depth) {
    const __m512i zero = _mm512_setzero_si512();
    store(integers(i), i + 1 < in.depth ? integers(i + 1) : zero, i + 2 < in.depth ? integers(i + 2) : zero, zero);
  }
}

void pack(const AttentionColumns& in, bool queries, float scale, void* packed, int64_t columns, float* steps,
          int32_t* starts) {
  const __m512i flip = queries ? _mm512_set1_epi8(static_cast<char>(attention::kBias)) : _mm512_setzero_si512();
  for (int64_t first = 0; first < columns; first += kColumns) {
    __m512 step;
    __m512i sums = _mm512_setzero_si512();
    int32_t* out = static_cast<int32_t*>(packed) + first;
    (in.depth_stride == 1 ? pack_rows : pack_lanes)(in, first, flip, out, columns, &step, &sums);
    _mm512_storeu_ps(steps + first, _mm512_mul_ps(step, _mm512_set1_ps(scale)));
    if (starts != nullptr) {
      const __m512i bias = _mm512_set1_epi32(-attention::kBias);
      _mm512_storeu_si512(starts + first, _mm512_mullo_epi32(sums, bias));
    }
  }
}

/// acc[r][c] += `kRows` columns of quads times `kVectors` vectors of lanes. Lanes have no sign.
template <int kRows, int kVectors>
LUTC_ALWAYS void multiply(const int32_t* lanes, const int32_t* columns, int64_t stride, int64_t quads,
                          __m512i (&acc)[kRows][kVectors]) {
  for (int64_t p = 0; p < quads; ++p, lanes += kLanes, columns += stride) {
    __m512i a[kVectors];
#pragma GCC unroll 2
    for (int c = 0; c < kVectors; ++c) a[c] = _mm512_loadu_si512(lanes + 16 * c);
#pragma GCC unroll 12
    for (int r = 0; r < kRows; ++r) {
      const __m512i b = _mm512_set1_epi32(columns[r]);
#pragma GCC unroll 2
      for (int c = 0; c < kVectors; ++c)  // gcc 12 copies and spills the sums of the intrinsic
        asm("vpdpbusd %2, %1, %0" : "+v"(acc[r][c]) : "v"(a[c]), "v"(b));
    }
  }
}

enum MaskKind { kNone, kByKey, kByQuery };

/// Scores of `kKeys` keys, of which `valid` exist (of 4), and `kVectors` times 16 queries.
template <int kKeys, int kVectors, int kMask>
LUTC_ALWAYS void score_tile(const AttentionScores& job, int64_t key, int64_t valid,
                            const __m512 (&query_steps)[kVectors], __m512 (&largest)[kVectors]) {
  __m512i acc[kKeys][kVectors];
#pragma GCC unroll 12
  for (int r = 0; r < kKeys; ++r) {
#pragma GCC unroll 2
    for (int c = 0; c < kVectors; ++c) acc[r][c] = _mm512_set1_epi32(job.starts[key + r]);
  }
  multiply<kKeys, kVectors>(static_cast<const int32_t*>(job.q), static_cast<const int32_t*>(job.packed) + key,
                            job.columns, job.quads, acc);
  float* to = job.scores + key * kLanes;
  const float* mask = kMask == kNone ? nullptr : job.mask.x + key * job.mask.key_stride;
#pragma GCC unroll 12
  for (int r = 0; r < kKeys; ++r) {
    if (kKeys == 4 && r >= valid) break;
    const __m512 step = _mm512_set1_ps(job.key_steps[key + r]);
#pragma GCC unroll 2
    for (int c = 0; c < kVectors; ++c) {
      __m512 s = _mm512_mul_ps(_mm512_cvtepi32_ps(acc[r][c]), step);
      if (kMask == kNone) s = _mm512_mul_ps(s, query_steps[c]);
      if (kMask == kByKey) s = _mm512_fmadd_ps(s, query_steps[c], _mm512_set1_ps(mask[r * job.mask.key_stride]));
      if (kMask == kByQuery)
        s = _mm512_fmadd_ps(s, query_steps[c], _mm512_loadu_ps(mask + r * job.mask.key_stride + 16 * c));
      largest[c] = _mm512_max_ps(s, largest[c]);  // a NaN is dropped here, and seen later
      _mm512_storeu_ps(to + r * kLanes + 16 * c, s);
    }
  }
}

template <int kVectors, int kMask>
void score_tiles(const AttentionScores& scores) {
  const AttentionScores job = scores;  // which nothing stored here changes
  __m512 largest[kVectors], query_steps[kVectors];
  for (int c = 0; c < kVectors; ++c) {
    largest[c] = _mm512_set1_ps(-__builtin_inff());
    query_steps[c] = _mm512_loadu_ps(job.query_steps + 16 * c);
  }
  int64_t key = 0;
  for (; key + 12 <= job.keys; key += 12) score_tile<12, kVectors, kMask>(job, key, 12, query_steps, largest);
  if (key + 8 <= job.keys) score_tile<8, kVectors, kMask>(job, key, 8, query_steps, largest), key += 8;
  for (; key < job.keys; key += 4) score_tile<4, kVectors, kMask>(job, key, job.keys - key, query_steps, largest);
  for (key = job.keys; key % attention::kGroup != 0; ++key)
    for (int c = 0; c < kVectors; ++c)
      _mm512_storeu_ps(job.scores + key * kLanes + 16 * c, _mm512_set1_ps(-__builtin_inff()));
  for (int c = 0; c < kVectors; ++c) _mm512_storeu_ps(job.largest + 16 * c, largest[c]);
}

void score(const AttentionScores& job) {
  const int mask = job.mask.x == nullptr ? kNone : job.mask.by_query ? kByQuery : kByKey;
  constexpr void (*kTiles[2][3])(const AttentionScores&) = {
      {score_tiles<1, kNone>, score_tiles<1, kByKey>, score_tiles<1, kByQuery>},
      {score_tiles<2, kNone>, score_tiles<2, kByKey>, score_tiles<2, kByQuery>}};
  kTiles[job.queries > 16][mask](job);
}

/// Weights of sixteen queries: what a distance weighs is looked up.
void weigh_lanes(const attention::Weights& tables, const float* scores, const float* largest, int64_t keys,
                 int32_t* weights, float* inverses) {
  alignas(64) static constexpr uint8_t kBytes[64] = {
      0,  64,  0,  64,  4,  68,  4,  68,  8,  72,  8,  72,  12, 76,  12, 76,  16, 80,  16, 80,  20, 84,
      20, 84,  24, 88,  24, 88,  28, 92,  28, 92,  32, 96,  32, 96,  36, 100, 36, 100, 40, 104, 40, 104,
      44, 108, 44, 108, 48, 112, 48, 112, 52, 116, 52, 116, 56, 120, 56, 120, 60, 124, 60, 124};
  const __m512i two = _mm512_load_si512(kBytes);
  __m512i table[4][4];
#pragma GCC unroll 4
  for (int quad = 0; quad < 4; ++quad) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) table[quad][i] = _mm512_loadu_si512(tables[quad] + 64 * i);
  }
  const __m512 top = _mm512_loadu_ps(largest);
  const __m512 magic = _mm512_set1_ps(8388608.0f);  // whose unit is 1
  const __m512 most = _mm512_set1_ps(8388608.0f + attention::kDistances - 1);
  __m512i seen = _mm512_setzero_si512(), total = seen;
  const auto distance = [=](int64_t key) __attribute__((always_inline)) {
    const __m512 below = _mm512_sub_ps(top, _mm512_loadu_ps(scores + key * kLanes));
    // NaN, the second operand, passes
    return _mm512_castps_si512(
        _mm512_min_ps(most, _mm512_fmadd_ps(below, _mm512_set1_ps(attention::kDistance), magic)));
  };
  for (int64_t key = 0; key < keys; key += attention::kGroup) {
#pragma GCC unroll 4
    for (int quad = 0; quad < 4; ++quad) {
      const int64_t at = key + 4 * quad;
      const __m512i a = distance(at), b = distance(at + 1), c = distance(at + 2), d = distance(at + 3);
      seen = _mm512_ternarylogic_epi32(_mm512_ternarylogic_epi32(seen, a, b, 0xfe), c, d, 0xfe);
      const __m512i distances = _mm512_mask_blend_epi16(0xaaaaaaaau, _mm512_permutex2var_epi8(a, two, b),
                                                        _mm512_permutex2var_epi8(c, two, d));
      const __m512i near = _mm512_permutex2var_epi8(table[quad][0], distances, table[quad][1]);
      const __m512i far = _mm512_permutex2var_epi8(table[quad][2], distances, table[quad][3]);
      const __m512i w = _mm512_mask_blend_epi8(_mm512_movepi8_mask(distances), near, far);
      total = _mm512_dpbusd_epi32(total, w, _mm512_set1_epi8(1));
      _mm512_storeu_si512(weights + at / 4 * kLanes, w);
    }
  }
  // this bit is set in NaN and in no distance
  const __mmask16 nan = _mm512_test_epi32_mask(seen, _mm512_set1_epi32(0x10000000));
  const __m512 inverse = _mm512_div_ps(_mm512_set1_ps(1.0f), _mm512_cvtepi32_ps(total));
  _mm512_storeu_ps(inverses, _mm512_mask_blend_ps(nan, inverse, _mm512_set1_ps(__builtin_nanf(""))));
}

void weigh(const float* scores, const float* largest, int64_t queries, int64_t keys, void* weights, float* inverses) {
  const attention::Weights& tables = attention::weights();
  for (int64_t lane = 0; lane < queries; lane += 16)
    weigh_lanes(tables, scores + lane, largest + lane, keys, static_cast<int32_t*>(weights) + lane, inverses + lane);
}

struct Mix {
  const int32_t *weights, *values;
  int64_t columns, queries, quads;
  const float *steps, *inverses;
  float* y;
  int64_t stride;
};

template <int kFeatures, int kVectors>
LUTC_ALWAYS void mix_tile(const Mix& job, int64_t feature, int64_t valid) {
  __m512i acc[kFeatures][kVectors];
#pragma GCC unroll 12
  for (int r = 0; r < kFeatures; ++r) {
#pragma GCC unroll 2
    for (int c = 0; c < kVectors; ++c) acc[r][c] = _mm512_setzero_si512();
  }
  multiply<kFeatures, kVectors>(job.weights, job.values + feature, job.columns, job.quads, acc);
  float* to = job.y + feature * job.stride;
  const __mmask16 last = first_lanes(job.queries - 16 * (kVectors - 1));
#pragma GCC unroll 12
  for (int r = 0; r < kFeatures; ++r) {
    if (kFeatures == 4 && r >= valid) break;
    const __m512 step = _mm512_set1_ps(job.steps[feature + r]);
#pragma GCC unroll 2
    for (int c = 0; c < kVectors; ++c) {
      const __m512 inverse = _mm512_loadu_ps(job.inverses + 16 * c);
      const __m512 sum = _mm512_mul_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(acc[r][c]), inverse), step);
      _mm512_mask_storeu_ps(to + r * job.stride + 16 * c, c + 1 < kVectors ? __mmask16{0xffff} : last, sum);
    }
  }
}

template <int kVectors>
void mix_tiles(const Mix job, int64_t features) {
  int64_t i = 0;
  for (; i + 12 <= features; i += 12) mix_tile<12, kVectors>(job, i, 12);
  if (i + 8 <= features) mix_tile<8, kVectors>(job, i, 8), i += 8;
  for (; i < features; i += 4) mix_tile<4, kVectors>(job, i, features - i);
}

void mix(const void* weights, const void* values, int64_t columns, int64_t queries, int64_t keys, int64_t features,
         const float* steps, const float* inverses, float* y, int64_t feature_stride) {
  const Mix job = {static_cast<const int32_t*>(weights),
                   static_cast<const int32_t*>(values),
                   columns,
                   queries,
                   (keys + 3) / 4,
                   steps,
                   inverses,
                   y,
                   feature_stride};
  (queries > 16 ? mix_tiles<2> : mix_tiles<1>)(job, features);
}

void turn(const float* x, int64_t x_stride, int64_t rows, int64_t columns, float* y, int64_t y_stride) {
  for (int64_t r = 0; r < rows; r += 16) {
    for (int64_t c = 0; c < columns; c += 16) {
      const __mmask16 from = first_lanes(columns - c), to = first_lanes(rows - r);
      __m512i v[16];
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) {
        v[i] = r + i < rows ? _mm512_castps_si512(_mm512_maskz_loadu_ps(from, x + (r + i) * x_stride + c))
                            : _mm512_setzero_si512();
      }
      transpose16(v);
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i)
        if (c + i < columns) _mm512_mask_storeu_epi32(y + (c + i) * y_stride + r, to, v[i]);
    }
  }
}

}  // namespace

const AttentionKernels kAttentionAvx512 = {kLanes, kColumns, kQuad, pack, score, weigh, mix, turn};

}  // namespace lutc::kernels
