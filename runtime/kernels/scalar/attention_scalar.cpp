// Quantised attention on any CPU: plain loops that the compiler may vectorise.
#include <cmath>
#include <cstring>

#include "kernels/attention.h"

namespace lutc::kernels {
extern const AttentionKernels kAttentionScalar;
namespace {

constexpr int kPanel = 8;
constexpr int kBlockRows = 8;

/// What turns x into -2047 .. 2047, from the largest magnitude as bits: those of NaN are above infinity's.
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
  int16_t operator()(float x) const {
    const float scaled = x * factor;
    return scaled == scaled ? static_cast<int16_t>(std::nearbyint(scaled)) : int16_t{0};
  }
};

uint32_t magnitude(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return bits & 0x7fffffffu;
}

Quantiser quantiser(const float* x, int64_t stride, int64_t n) {
  uint32_t largest = 0;
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t m = magnitude(x[i * stride]);
    largest = m > largest ? m : largest;
  }
  return Quantiser(largest);
}

void quantise_rows(const float* x, int64_t stride, int64_t rows, int64_t d, int16_t* q, float* steps) {
  for (int64_t r = 0; r < rows; ++r, x += stride, q += (d + 1) / 2 * 2) {
    const Quantiser quantise = quantiser(x, 1, d);
    steps[r] = quantise.step;
    for (int64_t i = 0; i < d; ++i) q[i] = quantise(x[i]);
    if (d % 2 != 0) q[d] = 0;
  }
}

/// Column c of the panels from n values; returns the step.
float pack_column(const float* x, int64_t stride, int64_t n, int64_t c, int16_t* panels) {
  const int64_t pairs = (n + 1) / 2;
  int16_t* to = panels + (c / kPanel * pairs * kPanel + c % kPanel) * 2;
  const Quantiser quantise = quantiser(x, stride, n);
  for (int64_t p = 0; p < pairs; ++p, to += 2 * kPanel) {
    to[0] = quantise(x[2 * p * stride]);
    to[1] = 2 * p + 1 < n ? quantise(x[(2 * p + 1) * stride]) : int16_t{0};
  }
  return quantise.step;
}

/// Columns [first, a whole number of panels) hold zero.
void clear_columns(int64_t first, int64_t pairs, int16_t* panels, float* steps) {
  for (int64_t c = first; c % kPanel != 0; ++c) {
    steps[c] = 0.0f;
    int16_t* to = panels + (c / kPanel * pairs * kPanel + c % kPanel) * 2;
    for (int64_t p = 0; p < pairs; ++p) to[p * 2 * kPanel] = to[p * 2 * kPanel + 1] = 0;
  }
}

void pack_keys(const float* k, int64_t stride, int64_t keys, int64_t d, float scale, int16_t* panels, float* steps) {
  for (int64_t s = 0; s < keys; ++s) steps[s] = pack_column(k + s * stride, 1, d, s, panels) * scale;
  clear_columns(keys, (d + 1) / 2, panels, steps);
}

void pack_values(const float* v, int64_t stride, int64_t keys, int64_t d, int16_t* panels, float* steps) {
  for (int64_t j = 0; j < d; ++j) steps[j] = pack_column(v + j, stride, keys, j, panels);
  clear_columns(d, (keys + 1) / 2, panels, steps);
}

/// sums[0 .. kPanel) = one row of pairs times one panel.
void row_times_panel(const int16_t* a, const int16_t* panel, int64_t pairs, int32_t* sums) {
  for (int j = 0; j < kPanel; ++j) sums[j] = 0;
  for (int64_t p = 0; p < pairs; ++p, a += 2, panel += 2 * kPanel) {
    for (int j = 0; j < kPanel; ++j) sums[j] += a[0] * panel[2 * j] + a[1] * panel[2 * j + 1];
  }
}

void scores(const int16_t* q, const int16_t* panels, int64_t rows, int64_t keys, int64_t pairs, int32_t* sums,
            int64_t stride) {
  for (int64_t s = 0; s < keys; s += kPanel, panels += 2 * kPanel * pairs)
    for (int64_t r = 0; r < rows; ++r) row_times_panel(q + 2 * r * pairs, panels, pairs, sums + r * stride + s);
}

/// 4095 * 4^x for x <= 0 or NaN.
float exponential(float x) {
  x = x < -10.0f ? -10.0f : x;     // NaN passes
  const float magic = 6291456.0f;  // where halves are the unit
  const float whole = (x + magic) - magic, f = x - whole;
  float y = attention::kExp4[attention::kExpDegree];
  for (int i = attention::kExpDegree - 1; i >= 0; --i) y = y * f + attention::kExp4[i];
  return std::ldexp(y, whole == whole ? static_cast<int>(2.0f * whole) : 0);
}

float weigh_row(int32_t* sums, const float* key_steps, float query_step, const float* mask, int64_t keys,
                int16_t* weights) {
  float* scores = reinterpret_cast<float*>(sums);
  float top = -INFINITY;
  for (int64_t s = 0; s < keys; ++s) {
    int32_t sum;
    std::memcpy(&sum, sums + s, 4);
    float score = static_cast<float>(sum) * key_steps[s] * query_step;
    if (mask != nullptr) score += mask[s];
    score *= attention::kLog4E;
    std::memcpy(scores + s, &score, 4);
    top = score > top ? score : top;
  }
  int64_t total = 0;
  bool nan = false;
  for (int64_t s = 0; s < keys; ++s) {
    float score;
    std::memcpy(&score, scores + s, 4);
    const float w = exponential(score - top);
    nan = nan || w != w;
    weights[s] = w == w ? static_cast<int16_t>(std::nearbyint(w)) : int16_t{0};
    total += weights[s];
  }
  for (int64_t s = keys; s % 32 != 0; ++s) weights[s] = 0;
  return nan ? NAN : 1.0f / static_cast<float>(total);
}

void weigh(int32_t* sums, int64_t stride, const float* key_steps, const float* query_steps, const float* const* masks,
           int64_t rows, int64_t keys, int16_t* weights, int64_t weight_stride, float* inverses) {
  for (int64_t r = 0; r < rows; ++r) {
    inverses[r] = weigh_row(sums + r * stride, key_steps, query_steps[r], masks[r], keys, weights + r * weight_stride);
  }
}

void mix(const int16_t* weights, int64_t weight_stride, const int16_t* panels, int64_t rows, int64_t keys, int64_t d,
         const float* steps, const float* inverses, float* y, int64_t y_stride) {
  const int64_t pairs = (keys + 1) / 2;
  for (int64_t first = 0; first < d; first += kPanel, panels += 2 * kPanel * pairs) {
    const int64_t n = d - first < kPanel ? d - first : kPanel;
    for (int64_t r = 0; r < rows; ++r) {
      float totals[kPanel] = {};
      int32_t sums[kPanel];
      for (int64_t p = 0; p < pairs; p += attention::kBlockKeys / 2) {
        const int64_t some = pairs - p < attention::kBlockKeys / 2 ? pairs - p : attention::kBlockKeys / 2;
        row_times_panel(weights + r * weight_stride + 2 * p, panels + 2 * kPanel * p, some, sums);
        for (int j = 0; j < kPanel; ++j) totals[j] += static_cast<float>(sums[j]);
      }
      for (int64_t j = 0; j < n; ++j) y[r * y_stride + first + j] = totals[j] * (steps[first + j] * inverses[r]);
    }
  }
}

}  // namespace

const AttentionKernels kAttentionScalar = {kPanel,      kBlockRows, quantise_rows, pack_keys,
                                           pack_values, scores,     weigh,         mix};

}  // namespace lutc::kernels
