#include "kernels/attention.h"

namespace lutc::kernels::attention {
namespace {

WeightParts make_parts() {
  WeightParts parts = {};
  for (int quad = 0; quad < 4; ++quad) {
    const uint8_t (&weight)[kDistances] = weights()[quad];
    for (int distance = 0; distance < 16 * WeightParts::kNear; ++distance) {
      const int before = distance < 16 ? 0 : weight[distance - 16];
      parts.quads[quad].near[distance / 16][distance % 16] = static_cast<uint8_t>(weight[distance] - before);
    }
    for (int i = 0; i < WeightParts::kFar; ++i) {  // weights fall with the distance
      int end = 128;
      while (end < kDistances && weight[end] > i) ++end;
      for (int8_t& copy : parts.quads[quad].far[i]) copy = static_cast<int8_t>(end - kDistances);
    }
  }
  return parts;
}

}  // namespace

const WeightParts& weight_parts() {
  static const WeightParts parts = make_parts();
  return parts;
}

}  // namespace lutc::kernels::attention
