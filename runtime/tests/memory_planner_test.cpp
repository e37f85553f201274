// Buffers that live at the same time never overlap, whatever their sizes and lives; and the plan is not wasteful.
#include "core/memory_planner.h"

#include <algorithm>
#include <cstdint>
#include <random>
#include <vector>

#include "check.h"

namespace {

bool overlap(uint64_t a, uint64_t a_bytes, uint64_t b, uint64_t b_bytes) { return a < b + b_bytes && b < a + a_bytes; }

void check_plan(const std::vector<lutc::BufferLife>& buffers, const lutc::ArenaPlan& plan) {
  CHECK(plan.offsets.size() == buffers.size());
  for (size_t i = 0; i < buffers.size(); ++i) {
    CHECK(plan.offsets[i] % 64 == 0);
    CHECK(plan.offsets[i] + buffers[i].bytes <= plan.bytes);
    for (size_t j = 0; j < i; ++j) {
      if (buffers[i].last < buffers[j].first || buffers[j].last < buffers[i].first) continue;
      CHECK(!overlap(plan.offsets[i], std::max<uint64_t>(buffers[i].bytes, 1), plan.offsets[j],
                     std::max<uint64_t>(buffers[j].bytes, 1)));
    }
  }
}

std::vector<lutc::BufferLife> random_buffers(std::mt19937& random, size_t count, int steps, int longest) {
  std::vector<lutc::BufferLife> buffers(count);
  for (lutc::BufferLife& b : buffers) {
    b.bytes = random() % 5 == 0 ? random() % 3 : random() % 100000;
    b.first = static_cast<int>(random() % static_cast<unsigned>(steps));
    b.last = b.first + static_cast<int>(random() % static_cast<unsigned>(longest));
  }
  return buffers;
}

}  // namespace

int main() {
  std::mt19937 random(7);
  lutc::ArenaPlan plan;
  for (int round = 0; round < 300; ++round) {
    const auto buffers = random_buffers(random, 1 + random() % 120, 60, 1 + static_cast<int>(random() % 40));
    CHECK(lutc::plan_arena(buffers, &plan));
    check_plan(buffers, plan);
  }
  // Past 4096 buffers another algorithm takes over.
  for (int round = 0; round < 2; ++round) {
    const auto buffers = random_buffers(random, 5000, 3000, 20);
    CHECK(lutc::plan_arena(buffers, &plan));
    check_plan(buffers, plan);
    uint64_t sum = 0;
    for (const auto& b : buffers) sum += b.bytes;
    CHECK(plan.bytes < sum / 20);
  }
  // A chain needs two buffers, whatever its length.
  std::vector<lutc::BufferLife> chain;
  for (int i = 0; i < 100; ++i) chain.push_back({4096, i, i + 1});
  CHECK(lutc::plan_arena(chain, &plan) && plan.bytes == 2 * 4096);
  CHECK(lutc::plan_arena({}, &plan) && plan.bytes == 0);
  // Sizes whose sum overflows are refused, not wrapped.
  CHECK(!lutc::plan_arena({{UINT64_MAX / 2, 0, 1}, {UINT64_MAX / 2 + 100, 0, 1}}, &plan));
  CHECK(!lutc::plan_arena({{UINT64_MAX, 0, 1}}, &plan));
  return lutc_test::result();
}
