// Quantised attention with vpmaddwd: eight columns a vector, two summed values a lane.
#include "kernels/attention.h"
#include "kernels/avx2/transpose.h"

namespace lutc::kernels {
extern const AttentionKernels kAttentionAvx2;
namespace {

#define LUTC_ALWAYS static inline __attribute__((always_inline))

constexpr int kLanes = 16;  ///< two vectors
constexpr int kColumns = 8;
constexpr int kQuad = 8;  ///< bytes: two pairs of int16

LUTC_ALWAYS __m256i first_lanes(int64_t n) {
  const int most = n > 8 ? 8 : n < 0 ? 0 : static_cast<int>(n);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(most), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

LUTC_ALWAYS __m256 load8(const float* x, int64_t left) {
  return left >= 8 ? _mm256_loadu_ps(x) : _mm256_maskload_ps(x, first_lanes(left));
}

// Bits of magnitudes are compared as integers: those of NaN are above infinity's, so that both are found.
LUTC_ALWAYS __m256i magnitude(__m256 x) {
  return _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(0x7fffffff));
}

/// Largest magnitudes to what quantises (0 for zero, NaN and infinity) and to steps (NaN for the latter two).
LUTC_ALWAYS void quantisers(__m256i largest, __m256* factor, __m256* step) {
  const __m256 a = _mm256_castsi256_ps(largest), levels = _mm256_set1_ps(attention::kLevels);
  const __m256i infinite = _mm256_cmpgt_epi32(largest, _mm256_set1_epi32(0x7f7fffff));
  const __m256i useless = _mm256_or_si256(infinite, _mm256_cmpeq_epi32(largest, _mm256_setzero_si256()));
  *factor = _mm256_andnot_ps(_mm256_castsi256_ps(useless),
                             _mm256_min_ps(_mm256_div_ps(levels, a), _mm256_set1_ps(attention::kLargest)));
  *step = _mm256_or_ps(_mm256_div_ps(a, levels), _mm256_castsi256_ps(infinite));  // all bits set: NaN
}

LUTC_ALWAYS int32_t greatest(__m256i v) {
  __m128i m = _mm_max_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4e));
  m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0xb1));
  return _mm_cvtsi128_si32(m);
}

/// Quantisers of up to eight rows.
LUTC_ALWAYS void row_quantisers(const float* x, int64_t stride, int64_t rows, int64_t d, float* factors, __m256* step) {
  alignas(32) int32_t largest[8] = {};
  for (int64_t r = 0; r < rows; ++r) {
    __m256i most = _mm256_setzero_si256();
    for (int64_t i = 0; i < d; i += 8) most = _mm256_max_epi32(most, magnitude(load8(x + r * stride + i, d - i)));
    largest[r] = greatest(most);
  }
  __m256 factor;
  quantisers(_mm256_load_si256(reinterpret_cast<const __m256i*>(largest)), &factor, step);
  _mm256_store_ps(factors, factor);
}

/// Int32 lanes of a, then of b, as int16.
LUTC_ALWAYS __m256i narrow(__m256i a, __m256i b) { return _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xd8); }

/// 16 values of a row, of which `left` exist, as int16 in order.
LUTC_ALWAYS __m256i quantise16(const float* x, int64_t left, __m256 factor) {
  const __m256 a = load8(x, left), b = left > 8 ? load8(x + 8, left - 8) : _mm256_setzero_ps();
  const __m256 least = _mm256_set1_ps(-attention::kLevels);  // second operand: NaN (0 * infinity) becomes this
  return narrow(_mm256_cvtps_epi32(_mm256_max_ps(_mm256_mul_ps(a, factor), least)),
                _mm256_cvtps_epi32(_mm256_max_ps(_mm256_mul_ps(b, factor), least)));
}

LUTC_ALWAYS void store8(int32_t* to, __m256i v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), v); }

/// Depth is contiguous: eight columns are quantised one by one and transposed.
LUTC_ALWAYS void pack_rows(const AttentionColumns& in, int64_t first, int32_t* out, int64_t stride, __m256* step) {
  const float* rows = in.x + first * in.column_stride;
  const int64_t some = in.columns - first < 8 ? in.columns - first : 8, pairs = (in.depth + 3) / 4 * 2;
  alignas(32) float factors[8];
  row_quantisers(rows, in.column_stride, some, in.depth, factors, step);
  for (int64_t i = 0; i < pairs; i += 8) {
    __m256i v[8];
    for (int r = 0; r < 8; ++r) {
      v[r] = r >= some ? _mm256_setzero_si256()
                       : quantise16(rows + r * in.column_stride + 2 * i, in.depth - 2 * i, _mm256_set1_ps(factors[r]));
    }
    transpose8(v);
    const int64_t left = pairs - i < 8 ? pairs - i : 8;
    for (int64_t p = 0; p < left; ++p, out += stride) store8(out, v[p]);
  }
}

/// Columns are contiguous: one is a lane all the way.
LUTC_ALWAYS void pack_lanes(const AttentionColumns& in, int64_t first, int32_t* out, int64_t stride, __m256* step) {
  const float* x = in.x + first;
  const int64_t left = in.columns - first, next = in.depth_stride, pairs = (in.depth + 3) / 4 * 2;
  __m256i most = _mm256_setzero_si256();
  for (int64_t i = 0; i < in.depth; ++i) most = _mm256_max_epi32(most, magnitude(load8(x + i * next, left)));
  __m256 factor;
  quantisers(most, &factor, step);
  const auto quantise = [=](int64_t i) __attribute__((always_inline)) {
    if (i >= in.depth) return _mm256_setzero_si256();
    return _mm256_cvtps_epi32(_mm256_mul_ps(load8(x + i * next, left), factor));
  };
  // NaN (0 * infinity) becomes INT_MIN, whose low half is zero
  for (int64_t i = 0; i < 2 * pairs; i += 2, out += stride)
    store8(out, _mm256_blend_epi16(quantise(i), _mm256_slli_epi32(quantise(i + 1), 16), 0xaa));
}

void pack(const AttentionColumns& in, bool, float scale, void* packed, int64_t columns, float* steps, int32_t*) {
  for (int64_t first = 0; first < columns; first += kColumns) {
    __m256 step;
    (in.depth_stride == 1 ? pack_rows : pack_lanes)(in, first, static_cast<int32_t*>(packed) + first, columns, &step);
    _mm256_storeu_ps(steps + first, _mm256_mul_ps(step, _mm256_set1_ps(scale)));
  }
}

/// acc[r][c] = `kRows` columns of pairs times `kVectors` vectors of lanes.
template <int kRows, int kVectors>
LUTC_ALWAYS void multiply(const int32_t* lanes, const int32_t* columns, int64_t stride, int64_t pairs,
                          __m256i (&acc)[kRows][kVectors]) {
#pragma GCC unroll 6
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int c = 0; c < kVectors; ++c) acc[r][c] = _mm256_setzero_si256();
  }
  for (int64_t p = 0; p < pairs; ++p, lanes += kLanes, columns += stride) {
    __m256i a[kVectors];
#pragma GCC unroll 2
    for (int c = 0; c < kVectors; ++c) a[c] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(lanes + 8 * c));
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r) {
      const __m256i b = _mm256_set1_epi32(columns[r]);
#pragma GCC unroll 2
      for (int c = 0; c < kVectors; ++c) {  // gcc 12 copies and spills the sums of intrinsics
        __m256i products;
        asm volatile("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0" : "+x"(acc[r][c]), "=&x"(products) : "x"(a[c]), "x"(b));
      }
    }
  }
}

enum MaskKind { kNone, kByKey, kByQuery };

template <int kKeys, int kVectors, int kMask>
LUTC_ALWAYS void score_tile(const AttentionScores& job, int64_t key, const __m256 (&query_steps)[kVectors],
                            __m256 (&largest)[kVectors]) {
  __m256i acc[kKeys][kVectors];
  multiply<kKeys, kVectors>(static_cast<const int32_t*>(job.q), static_cast<const int32_t*>(job.packed) + key,
                            job.columns, 2 * job.quads, acc);
  float* to = job.scores + key * kLanes;
  const float* mask = kMask == kNone ? nullptr : job.mask.x + key * job.mask.key_stride;
#pragma GCC unroll 6
  for (int r = 0; r < kKeys; ++r) {
    const __m256 step = _mm256_set1_ps(job.key_steps[key + r]);
#pragma GCC unroll 2
    for (int c = 0; c < kVectors; ++c) {
      __m256 s = _mm256_mul_ps(_mm256_cvtepi32_ps(acc[r][c]), step);
      if (kMask == kNone) s = _mm256_mul_ps(s, query_steps[c]);
      if (kMask == kByKey) s = _mm256_fmadd_ps(s, query_steps[c], _mm256_set1_ps(mask[r * job.mask.key_stride]));
      if (kMask == kByQuery)
        s = _mm256_fmadd_ps(s, query_steps[c], _mm256_loadu_ps(mask + r * job.mask.key_stride + 8 * c));
      largest[c] = _mm256_max_ps(s, largest[c]);  // a NaN is dropped here, and seen later
      _mm256_storeu_ps(to + r * kLanes + 8 * c, s);
    }
  }
}

template <int kVectors, int kMask>
void score_tiles(const AttentionScores& job) {
  const __m256 lowest = _mm256_set1_ps(-__builtin_inff());
  __m256 largest[kVectors], query_steps[kVectors];
  for (int c = 0; c < kVectors; ++c) {
    largest[c] = lowest;
    query_steps[c] = _mm256_loadu_ps(job.query_steps + 8 * c);
  }
  int64_t key = 0;
  for (; key + 6 <= job.keys; key += 6) score_tile<6, kVectors, kMask>(job, key, query_steps, largest);
  for (; key + 2 <= job.keys; key += 2) score_tile<2, kVectors, kMask>(job, key, query_steps, largest);
  for (; key < job.keys; ++key) score_tile<1, kVectors, kMask>(job, key, query_steps, largest);
  for (; key % attention::kGroup != 0; ++key)
    for (int c = 0; c < kVectors; ++c) _mm256_storeu_ps(job.scores + key * kLanes + 8 * c, lowest);
  for (int c = 0; c < kVectors; ++c) _mm256_storeu_ps(job.largest + 8 * c, largest[c]);
}

void score(const AttentionScores& job) {
  const int mask = job.mask.x == nullptr ? kNone : job.mask.by_query ? kByQuery : kByKey;
  constexpr void (*kTiles[2][3])(const AttentionScores&) = {
      {score_tiles<1, kNone>, score_tiles<1, kByKey>, score_tiles<1, kByQuery>},
      {score_tiles<2, kNone>, score_tiles<2, kByKey>, score_tiles<2, kByQuery>}};
  kTiles[job.queries > 8][mask](job);
}

LUTC_ALWAYS __m256i row16(const void* bytes) {
  return _mm256_broadcastsi128_si256(_mm_load_si128(static_cast<const __m128i*>(bytes)));
}

/// What 32 distances weigh.
template <class Quad>
LUTC_ALWAYS __m256i weigh_bytes(const Quad& parts, __m256i distances) {
  constexpr int kNear = attention::WeightParts::kNear, kFar = attention::WeightParts::kFar;
  const __m256i sixteen = _mm256_set1_epi8(16);
  // negative indices, those of distances from 128 on and of what is subtracted too often, look up zero
  __m256i index = distances, w = _mm256_shuffle_epi8(row16(parts.near[0]), index);
#pragma GCC unroll 8
  for (int i = 1; i < kNear; ++i) {
    index = _mm256_subs_epi8(index, sixteen);
    w = _mm256_add_epi8(w, _mm256_shuffle_epi8(row16(parts.near[i]), index));
  }
#pragma GCC unroll 8
  for (int i = 0; i < kFar; ++i) w = _mm256_sub_epi8(w, _mm256_cmpgt_epi8(row16(parts.far[i]), distances));
  return w;
}

/// Weights of eight queries.
void weigh_lanes(const attention::WeightParts& parts, const float* scores, const float* largest, int64_t keys,
                 int32_t* weights, float* inverses) {
  const __m256 top = _mm256_loadu_ps(largest);
  const __m256 magic = _mm256_set1_ps(8388608.0f);  // whose unit is 1
  const __m256 most = _mm256_set1_ps(8388608.0f + attention::kDistances - 1);
  // bytes 0 and 1 of a lane as int16, and bytes 2 and 3
  const __m256i first =
      _mm256_broadcastsi128_si256(_mm_setr_epi8(0, -1, 1, -1, 4, -1, 5, -1, 8, -1, 9, -1, 12, -1, 13, -1));
  const __m256i second =
      _mm256_broadcastsi128_si256(_mm_setr_epi8(2, -1, 3, -1, 6, -1, 7, -1, 10, -1, 11, -1, 14, -1, 15, -1));
  __m256i seen = _mm256_setzero_si256(), total = seen;
  const auto distance = [&](int64_t key) __attribute__((always_inline)) {
    const __m256 below = _mm256_sub_ps(top, _mm256_loadu_ps(scores + key * kLanes));
    // NaN, the second operand, passes
    const __m256i x =
        _mm256_castps_si256(_mm256_min_ps(most, _mm256_fmadd_ps(below, _mm256_set1_ps(attention::kDistance), magic)));
    seen = _mm256_or_si256(seen, x);
    return x;
  };
  for (int64_t key = 0; key < keys; key += attention::kGroup) {
    for (int quad = 0; quad < 4; ++quad, weights += 2 * kLanes) {
      const int64_t at = key + 4 * quad;
      // of a distance's two bytes that are not zero, one is shifted out
      const __m256i a = _mm256_and_si256(distance(at), _mm256_set1_epi32(255));
      const __m256i b = _mm256_slli_epi32(distance(at + 1), 8), c = _mm256_slli_epi32(distance(at + 2), 16);
      const __m256i d = _mm256_slli_epi32(distance(at + 3), 24);
      const __m256i distances = _mm256_or_si256(_mm256_or_si256(a, b), _mm256_or_si256(c, d));
      const __m256i w = weigh_bytes(parts.quads[quad], distances);
      const __m256i sums = _mm256_maddubs_epi16(w, _mm256_set1_epi8(1));
      total = _mm256_add_epi32(total, _mm256_madd_epi16(sums, _mm256_set1_epi16(1)));
      store8(weights, _mm256_shuffle_epi8(w, first));
      store8(weights + kLanes, _mm256_shuffle_epi8(w, second));
    }
  }
  // this bit is set in NaN and in no distance
  const __m256 nan = _mm256_castsi256_ps(_mm256_srai_epi32(_mm256_slli_epi32(seen, 3), 31));
  const __m256 inverse = _mm256_div_ps(_mm256_set1_ps(1.0f), _mm256_cvtepi32_ps(total));
  _mm256_storeu_ps(inverses, _mm256_or_ps(inverse, nan));  // all bits set: NaN
}

void weigh(const float* scores, const float* largest, int64_t queries, int64_t keys, void* weights, float* inverses) {
  const attention::WeightParts& parts = attention::weight_parts();
  for (int64_t lane = 0; lane < queries; lane += 8)
    weigh_lanes(parts, scores + lane, largest + lane, keys, static_cast<int32_t*>(weights) + lane, inverses + lane);
}

struct Mix {
  const int32_t *weights, *values;
  int64_t columns, queries, pairs;
  const float *steps, *inverses;
  float* y;
  int64_t stride;
};

template <int kFeatures, int kVectors>
LUTC_ALWAYS void mix_tile(const Mix& job, int64_t feature) {
  __m256i acc[kFeatures][kVectors];
  multiply<kFeatures, kVectors>(job.weights, job.values + feature, job.columns, job.pairs, acc);
  float* to = job.y + feature * job.stride;
  const int64_t last = job.queries - 8 * (kVectors - 1);
#pragma GCC unroll 6
  for (int r = 0; r < kFeatures; ++r) {
    const __m256 step = _mm256_set1_ps(job.steps[feature + r]);
#pragma GCC unroll 2
    for (int c = 0; c < kVectors; ++c) {
      const __m256 inverse = _mm256_loadu_ps(job.inverses + 8 * c);
      const __m256 sum = _mm256_mul_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(acc[r][c]), inverse), step);
      float* at = to + r * job.stride + 8 * c;
      if (c + 1 < kVectors || last >= 8) {
        _mm256_storeu_ps(at, sum);
      } else {  // some CPUs are slow at this
        _mm256_maskstore_ps(at, first_lanes(last), sum);
      }
    }
  }
}

template <int kVectors>
void mix_tiles(const Mix& job, int64_t features) {
  int64_t i = 0;
  for (; i + 6 <= features; i += 6) mix_tile<6, kVectors>(job, i);
  for (; i + 2 <= features; i += 2) mix_tile<2, kVectors>(job, i);
  for (; i < features; ++i) mix_tile<1, kVectors>(job, i);
}

void mix(const void* weights, const void* values, int64_t columns, int64_t queries, int64_t keys, int64_t features,
         const float* steps, const float* inverses, float* y, int64_t feature_stride) {
  const Mix job = {static_cast<const int32_t*>(weights),
                   static_cast<const int32_t*>(values),
                   columns,
                   queries,
                   (keys + 3) / 4 * 2,
                   steps,
                   inverses,
                   y,
                   feature_stride};
  (queries > 8 ? mix_tiles<2> : mix_tiles<1>)(job, features);
}

void turn(const float* x, int64_t x_stride, int64_t rows, int64_t columns, float* y, int64_t y_stride) {
  for (int64_t r = 0; r < rows; r += 8) {
    for (int64_t c = 0; c < columns; c += 8) {
      __m256i v[8];
      for (int i = 0; i < 8; ++i) {
        v[i] =
            r + i < rows ? _mm256_castps_si256(load8(x + (r + i) * x_stride + c, columns - c)) : _mm256_setzero_si256();
      }
      transpose8(v);
      for (int i = 0; i < 8 && c + i < columns; ++i) {
        float* to = y + (c + i) * y_stride + r;
        if (rows - r >= 8) {
          _mm256_storeu_ps(to, _mm256_castsi256_ps(v[i]));
        } else {
          _mm256_maskstore_ps(to, first_lanes(rows - r), _mm256_castsi256_ps(v[i]));
        }
      }
    }
  }
}

}  // namespace

const AttentionKernels kAttentionAvx2 = {kLanes, kColumns, kQuad, pack, score, weigh, mix, turn};

}  // namespace lutc::kernels
