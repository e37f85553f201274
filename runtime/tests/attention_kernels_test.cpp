// The kernels of quantised attention: every ISA gives the bits of scalar, in buffers of the promised sizes (for
// sanitizers), from inputs that lie position by position or feature by feature.
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "check.h"
#include "kernels/attention.h"

namespace {

using lutc::kernels::AttentionColumns;
using lutc::kernels::AttentionKernels;
using lutc::kernels::AttentionMask;
using lutc::kernels::AttentionScores;

struct Shape {
  int64_t queries, keys, size, value_size;
};

int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

std::vector<float> normal(int64_t n, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> distribution;
  std::vector<float> x(static_cast<size_t>(n));
  for (float& v : x) v = distribution(random);
  return x;
}

/// [position][feature] or [feature][position], with a gap between rows.
struct Input {
  std::vector<float> x;
  int64_t position_stride, feature_stride;

  Input(int64_t positions, int64_t features, unsigned seed, bool by_features, bool wild) {
    const int64_t gap = 3, rows = by_features ? features : positions, columns = by_features ? positions : features;
    position_stride = by_features ? 1 : columns + gap;
    feature_stride = by_features ? columns + gap : 1;
    const std::vector<float> values = normal(positions * features, seed);
    x.resize(static_cast<size_t>(rows * (columns + gap) - gap));
    constexpr float kWild[] = {0.0f, 1e-42f, 1e30f, std::numeric_limits<float>::infinity(), NAN};
    for (int64_t p = 0; p < positions; ++p) {
      for (int64_t f = 0; f < features; ++f) {
        float& v = x[static_cast<size_t>(p * position_stride + f * feature_stride)];
        v = values[static_cast<size_t>(p * features + f)];
        if (wild && p % 7 == static_cast<int64_t>(seed)) v = kWild[(p / 7 + f / 11) % 5];
      }
    }
  }
};

/// What one ISA makes of a head: y[query][feature].
std::vector<float> attend(const AttentionKernels& k, const Shape& s, bool by_features, int masked, bool wild) {
  const Input xq(s.queries, s.size, 1, by_features, wild), xk(s.keys, s.size, 2, by_features, wild),
      xv(s.keys, s.value_size, 3, by_features, wild);
  const int64_t quads = (s.size + 3) / 4, keys = round_up(s.keys, k.columns),
                features = round_up(s.value_size, k.columns);
  const int64_t padded = round_up(s.keys, lutc::kernels::attention::kGroup);
  const auto bytes = [&](int64_t columns, int64_t q) {
    return std::vector<char>(static_cast<size_t>(columns * q * k.quad_bytes));
  };
  const auto floats = [](int64_t n) { return std::vector<float>(static_cast<size_t>(n)); };
  std::vector<char> q = bytes(k.lanes, quads), packed = bytes(keys, quads), values = bytes(features, padded / 4),
                    weights = bytes(k.lanes, padded / 4);
  std::vector<float> query_steps = floats(k.lanes), key_steps = floats(keys), value_steps = floats(features),
                     largest = floats(k.lanes), inverses = floats(k.lanes), scores = floats(padded * k.lanes),
                     turned = floats(s.value_size * k.lanes), y = floats(s.queries * s.value_size);
  std::vector<int32_t> starts(static_cast<size_t>(keys));
  std::vector<float> mask = normal(s.keys * k.lanes, 4);
  for (int64_t key = 0; key < s.keys; ++key) {  // the same for every ISA, however many lanes it has
    for (int64_t lane = 0; lane < k.lanes; ++lane) {
      float& m = mask[static_cast<size_t>(key * k.lanes + lane)];
      m = wild && (key + lane) % 5 == 0 ? -std::numeric_limits<float>::infinity()
                                        : static_cast<float>((key * 37 + lane * 11) % 64) / 16.0f;
    }
  }
  k.pack({xk.x.data(), xk.position_stride, xk.feature_stride, s.keys, s.size}, false, 0.3f, packed.data(), keys,
         key_steps.data(), starts.data());
  k.pack({xv.x.data(), xv.feature_stride, xv.position_stride, s.value_size, s.keys}, false, 1.0f, values.data(),
         features, value_steps.data(), nullptr);
  for (int64_t first = 0; first < s.queries; first += k.lanes) {
    const int64_t some = s.queries - first < k.lanes ? s.queries - first : k.lanes;
    k.pack({xq.x.data() + first * xq.position_stride, xq.position_stride, xq.feature_stride, some, s.size}, true, 1.0f,
           q.data(), k.lanes, query_steps.data(), nullptr);
    AttentionScores job = {};
    job.queries = some;
    job.keys = s.keys;
    job.quads = quads;
    job.q = q.data();
    job.query_steps = query_steps.data();
    job.packed = packed.data();
    job.columns = keys;
    job.starts = starts.data();
    job.key_steps = key_steps.data();
    if (masked == 1) job.mask = {mask.data(), k.lanes, false};
    if (masked == 2) job.mask = {mask.data(), k.lanes, true};
    if (masked == 3) job.mask = {mask.data(), 0, true};
    job.scores = scores.data();
    job.largest = largest.data();
    k.score(job);
    k.weigh(scores.data(), largest.data(), some, s.keys, weights.data(), inverses.data());
    k.mix(weights.data(), values.data(), features, some, s.keys, s.value_size, value_steps.data(), inverses.data(),
          turned.data(), k.lanes);
    k.turn(turned.data(), k.lanes, s.value_size, some, y.data() + first * s.value_size, s.value_size);
  }
  return y;
}

bool same(float a, float b) { return std::isnan(a) ? std::isnan(b) : std::memcmp(&a, &b, sizeof a) == 0; }

void compare(const AttentionKernels& scalar, const AttentionKernels& isa, Shape s, int masked, bool wild) {
  if (masked >= 2) s.queries = s.queries < scalar.lanes ? s.queries : scalar.lanes;  // whose mask is the same
  const std::vector<float> expected = attend(scalar, s, false, masked, wild);
  for (const bool by_features : {false, true}) {
    const std::vector<float> ours = attend(isa, s, by_features, masked, wild);
    int wrong = 0;
    for (size_t i = 0; i < ours.size(); ++i) wrong += !same(ours[i], expected[i]);
    CHECK(wrong == 0);
  }
}

/// Every distance, as every key of a group: what it weighs is what the table says.
void weigh_all(const AttentionKernels& k) {
  namespace attention = lutc::kernels::attention;
  const int64_t keys = attention::kGroup * attention::kDistances;
  const auto distance = [](int64_t key, int64_t lane) {
    return (key / attention::kGroup + 7 * lane) % attention::kDistances;
  };
  std::vector<float> scores(static_cast<size_t>(keys * k.lanes)), largest(static_cast<size_t>(k.lanes), 1.5f),
      inverses(static_cast<size_t>(k.lanes));
  for (int64_t key = 0; key < keys; ++key)
    for (int64_t lane = 0; lane < k.lanes; ++lane)
      scores[static_cast<size_t>(key * k.lanes + lane)] =
          1.5f - static_cast<float>(distance(key, lane)) / attention::kDistance;
  std::vector<char> weights(static_cast<size_t>(keys / 4 * k.lanes * k.quad_bytes));
  k.weigh(scores.data(), largest.data(), k.lanes, keys, weights.data(), inverses.data());
  int wrong = 0;
  for (int64_t lane = 0; lane < k.lanes; ++lane) {
    int32_t sum = 0;
    for (int64_t key = 0; key < keys; ++key) {
      const int64_t size = k.quad_bytes / 4, summed = 4 / size;  // bytes of a weight, weights of a lane
      const char* at = weights.data() + (key / summed * k.lanes + lane) * 4 + key % summed * size;
      uint16_t w = 0;
      std::memcpy(&w, at, static_cast<size_t>(size));
      wrong += w != attention::weights()[key / 4 % 4][distance(key, lane)];
      sum += w;
    }
    wrong += inverses[static_cast<size_t>(lane)] != 1.0f / static_cast<float>(sum);
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
      const Shape shape{any(70), any(i % 4 == 0 ? 400 : 40), any(70), any(70)};
      compare(scalar, kernels, shape, i % 4, i % 8 >= 5);
    }
    compare(scalar, kernels, {1, 1, 1, 1}, 0, false);
    compare(scalar, kernels, {5, 129, 511, 3}, 0, false);
    weigh_all(kernels);
  }
  return lutc_test::result();
}
