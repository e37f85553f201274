// Quantised attention on any CPU: plain loops that the compiler may vectorise.
#include <cmath>
#include <cstring>

#include "kernels/attention.h"

namespace lutc::kernels {
extern const AttentionKernels kAttentionScalar;
namespace {

constexpr int kLanes = 8;
constexpr int kQuad = 4;

/// What turns x into -127 .. 127, from the largest magnitude as bits: those of NaN are above infinity's.
struct Quantiser {
  float factor = 0.0f, step = 0.0f;

  explicit Quantiser(uint32_t largest) {
    float a;
    std::memcpy(&a, &largest, 4);
    step = a / attention::kLevels;
    if (largest >= 0x7f800000u) {
      step = NAN;
    } else if (a > 0.0f) {
      factor = attention::kLevels / a < attention::kLargest ? attention::kLevels / a : attention::kLargest;
    }
  }
  int8_t operator()(float x) const {
    const float scaled = x * factor;
    return scaled == scaled ? static_cast<int8_t>(std::nearbyint(scaled)) : int8_t{0};
  }
};

uint32_t magnitude(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return bits & 0x7fffffffu;
}

void pack(const AttentionColumns& in, bool, float scale, void* packed, int64_t columns, float* steps, int32_t*) {
  int8_t* out = static_cast<int8_t*>(packed);
  const int64_t quads = (in.depth + 3) / 4;
  std::memset(out, 0, static_cast<size_t>(quads * columns * 4));
  for (int64_t c = 0; c < columns; ++c) {
    uint32_t largest = 0;
    const float* x = in.x + c * in.column_stride;
    const int64_t depth = c < in.columns ? in.depth : 0;
    for (int64_t i = 0; i < depth; ++i) {
      const uint32_t m = magnitude(x[i * in.depth_stride]);
      largest = m > largest ? m : largest;
    }
    const Quantiser quantise(largest);
    for (int64_t i = 0; i < depth; ++i) out[(i / 4 * columns + c) * 4 + i % 4] = quantise(x[i * in.depth_stride]);
    steps[c] = quantise.step * scale;
  }
}

/// sums[lane] += quads of a column times quads of the lanes.
template <class T>
void add_products(const T* lanes, const int8_t* column, int32_t* sums) {
  for (int lane = 0; lane < kLanes; ++lane) {
    for (int i = 0; i < 4; ++i) sums[lane] += static_cast<int32_t>(lanes[4 * lane + i]) * column[i];
  }
}

void score(const AttentionScores& job) {
  const int8_t *q = static_cast<const int8_t*>(job.q), *keys = static_cast<const int8_t*>(job.packed);
  for (int lane = 0; lane < kLanes; ++lane) job.largest[lane] = -INFINITY;
  int64_t key = 0;
  for (; key < job.keys; ++key) {
    int32_t sums[kLanes] = {};
    for (int64_t p = 0; p < job.quads; ++p) add_products(q + p * kLanes * 4, keys + (p * job.columns + key) * 4, sums);
    for (int lane = 0; lane < kLanes; ++lane) {
      const float s = static_cast<float>(sums[lane]) * job.key_steps[key];
      float added = 0.0f;
      if (job.mask.x != nullptr) added = job.mask.x[key * job.mask.key_stride + (job.mask.by_query ? lane : 0)];
      const float all = job.mask.x == nullptr ? s * job.query_steps[lane] : std::fma(s, job.query_steps[lane], added);
      job.scores[key * kLanes + lane] = all;
      if (all > job.largest[lane]) job.largest[lane] = all;
    }
  }
  for (; key % attention::kGroup != 0; ++key)
    for (int lane = 0; lane < kLanes; ++lane) job.scores[key * kLanes + lane] = -INFINITY;
}

void weigh(const float* scores, const float* largest, int64_t, int64_t keys, void* weights, float* inverses) {
  uint8_t* to = static_cast<uint8_t*>(weights);
  for (int lane = 0; lane < kLanes; ++lane) {
    int32_t total = 0;
    bool nan = false;
    for (int64_t key = 0; key < (keys + 3) / 4 * 4; ++key) {
      const float magic = 8388608.0f;  // whose unit is 1
      const float shifted = std::fma(largest[lane] - scores[key * kLanes + lane], attention::kDistance, magic);
      const float distance = shifted - magic;
      nan = nan || distance != distance;
      const int at = distance < attention::kDistances ? static_cast<int>(distance) : attention::kDistances - 1;
      const uint8_t w = attention::weights()[key / 4 % 4][at];
      total += w;
      to[(key / 4 * kLanes + lane) * 4 + key % 4] = w;
    }
    inverses[lane] = nan ? NAN : 1.0f / static_cast<float>(total);
  }
}

void mix(const void* weights, const void* values, int64_t columns, int64_t queries, int64_t keys, int64_t features,
         const float* steps, const float* inverses, float* y, int64_t feature_stride) {
  const uint8_t* w = static_cast<const uint8_t*>(weights);
  const int8_t* v = static_cast<const int8_t*>(values);
  for (int64_t i = 0; i < features; ++i) {
    int32_t sums[kLanes] = {};
    for (int64_t p = 0; p < (keys + 3) / 4; ++p) add_products(w + p * kLanes * 4, v + (p * columns + i) * 4, sums);
    for (int64_t lane = 0; lane < queries; ++lane)
      y[i * feature_stride + lane] = static_cast<float>(sums[lane]) * inverses[lane] * steps[i];
  }
}

void turn(const float* x, int64_t x_stride, int64_t rows, int64_t columns, float* y, int64_t y_stride) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < columns; ++c) y[c * y_stride + r] = x[r * x_stride + c];
}

}  // namespace

const AttentionKernels kAttentionScalar = {kLanes, 1, kQuad, pack, score, weigh, mix, turn};

}  // namespace lutc::kernels
