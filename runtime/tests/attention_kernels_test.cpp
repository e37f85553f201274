// The kernels of quantised attention, every ISA against scalar: the same integers, weights to within one, in buffers of
// the promised sizes (for sanitizers).
#include <cmath>
#include <cstdlib>
#include <random>
#include <vector>

#include "check.h"
#include "kernels/attention.h"

namespace {

using lutc::kernels::AttentionKernels;

struct Shape {
  int64_t rows, keys, size, value_size;
};

int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

std::vector<float> normal(int64_t n, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> distribution;
  std::vector<float> x(static_cast<size_t>(n));
  for (float& v : x) v = distribution(random);
  return x;
}

/// What one ISA makes of a head.
struct Head {
  std::vector<int16_t> q, keys, values, weights;
  std::vector<float> query_steps, key_steps, value_steps, inverses, y;
  std::vector<int32_t> sums;
  int64_t score_stride, weight_stride;

  Head(const AttentionKernels& k, const Shape& s, const std::vector<const float*>& masks) {
    const int64_t pairs = (s.size + 1) / 2, key_pairs = (s.keys + 1) / 2, gap = 3;
    const int64_t columns = round_up(s.keys, k.panel), features = round_up(s.value_size, k.panel);
    const std::vector<float> xq = normal(s.rows * (s.size + gap) - gap, 1),
                             xk = normal(s.keys * (s.size + gap) - gap, 2),
                             xv = normal(s.keys * (s.value_size + gap) - gap, 3);
    score_stride = columns + 5;
    weight_stride = round_up(s.keys, 32) + 2;
    q.resize(static_cast<size_t>(s.rows * pairs * 2));
    keys.resize(static_cast<size_t>(columns * pairs * 2));
    values.resize(static_cast<size_t>(features * key_pairs * 2));
    weights.resize(static_cast<size_t>(s.rows * weight_stride));
    query_steps.resize(static_cast<size_t>(s.rows));
    key_steps.resize(static_cast<size_t>(columns));
    value_steps.resize(static_cast<size_t>(features));
    inverses.resize(static_cast<size_t>(s.rows));
    sums.resize(static_cast<size_t>(s.rows * score_stride));
    y.resize(static_cast<size_t>(s.rows * s.value_size));
    k.quantise_rows(xq.data(), s.size + gap, s.rows, s.size, q.data(), query_steps.data());
    k.pack_keys(xk.data(), s.size + gap, s.keys, s.size, 0.3f, keys.data(), key_steps.data());
    k.pack_values(xv.data(), s.value_size + gap, s.keys, s.value_size, values.data(), value_steps.data());
    k.scores(q.data(), keys.data(), s.rows, s.keys, pairs, sums.data(), score_stride);
    const std::vector<int32_t> kept = sums;
    k.weigh(sums.data(), score_stride, key_steps.data(), query_steps.data(), masks.data(), s.rows, s.keys,
            weights.data(), weight_stride, inverses.data());
    sums = kept;
    k.mix(weights.data(), weight_stride, values.data(), s.rows, s.keys, s.value_size, value_steps.data(),
          inverses.data(), y.data(), s.value_size);
  }
};

/// Value `pair` half `half` of a column of panels.
int16_t packed(const std::vector<int16_t>& panels, int panel, int64_t pairs, int64_t column, int64_t i) {
  const int64_t at = ((column / panel * pairs + i / 2) * panel + column % panel) * 2 + i % 2;
  return panels[static_cast<size_t>(at)];
}

void compare(const AttentionKernels& scalar, const AttentionKernels& isa, const Shape& s, bool masked) {
  const std::vector<float> mask = normal(s.keys, 4);
  std::vector<const float*> masks;
  for (int64_t r = 0; r < s.rows; ++r) masks.push_back(masked && r % 3 != 1 ? mask.data() : nullptr);
  const Head a(scalar, s, masks), b(isa, s, masks);
  CHECK(a.q == b.q);
  CHECK(a.query_steps == b.query_steps);
  int wrong = 0;
  for (int64_t key = 0; key < s.keys; ++key) {
    wrong += a.key_steps[static_cast<size_t>(key)] != b.key_steps[static_cast<size_t>(key)];
    for (int64_t i = 0; i < s.size; ++i) {
      wrong +=
          packed(a.keys, scalar.panel, (s.size + 1) / 2, key, i) != packed(b.keys, isa.panel, (s.size + 1) / 2, key, i);
    }
  }
  for (int64_t j = 0; j < s.value_size; ++j) {
    wrong += a.value_steps[static_cast<size_t>(j)] != b.value_steps[static_cast<size_t>(j)];
    for (int64_t i = 0; i < s.keys; ++i) {
      wrong +=
          packed(a.values, scalar.panel, (s.keys + 1) / 2, j, i) != packed(b.values, isa.panel, (s.keys + 1) / 2, j, i);
    }
  }
  for (int64_t r = 0; r < s.rows; ++r) {
    for (int64_t key = 0; key < s.keys; ++key) {
      wrong += a.sums[static_cast<size_t>(r * a.score_stride + key)] !=
               b.sums[static_cast<size_t>(r * b.score_stride + key)];
      const int apart = a.weights[static_cast<size_t>(r * a.weight_stride + key)] -
                        b.weights[static_cast<size_t>(r * b.weight_stride + key)];
      wrong += std::abs(apart) > 1;
    }
    for (int64_t j = 0; j < s.value_size; ++j) {
      const size_t at = static_cast<size_t>(r * s.value_size + j);
      wrong += !(std::fabs(a.y[at] - b.y[at]) <= 1e-3f * 4);
    }
  }
  CHECK(wrong == 0);
}

}  // namespace

int main() {
  const AttentionKernels& scalar = *lutc::kernels::attention_kernels(lutc::kernels::Isa::kScalar);
  std::mt19937 random(5);
  const auto any = [&](int64_t most) { return static_cast<int64_t>(random() % static_cast<unsigned>(most)) + 1; };
  for (const lutc::kernels::Isa isa : lutc::kernels::available_isas()) {
    const AttentionKernels& kernels = *lutc::kernels::attention_kernels(isa);
    for (int i = 0; i < 300; ++i) {
      const Shape shape{any(lutc::kernels::attention::kMostRows), any(i % 4 == 0 ? 400 : 40), any(70), any(70)};
      compare(scalar, kernels, shape, i % 2 == 0);
    }
    compare(scalar, kernels, {1, 1, 1, 1}, false);
    compare(scalar, kernels, {5, 129, 511, 3}, false);
  }
  return lutc_test::result();
}
