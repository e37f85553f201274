// Packing steps into windows: largest first, each into the first window with room (first fit decreasing).
//
// Weights of both signs cancel, so that sums of positive and of negative ones are bounded apart. Networks' weights make
// windows of four to five steps where their order leaves two to three.
#include "core/ops/int8_windows.h"

#include <algorithm>

namespace lutc::ops {
namespace {

constexpr int64_t kLargestPixel = 127;
constexpr int kRoom = INT16_MAX / kLargestPixel;  ///< what weights of one sign may add up to
constexpr int64_t kSteps = 288;                   ///< packed together: the time to pack grows with the square

struct Window {
  std::vector<int16_t> sums;
  std::vector<int32_t> steps;
};

/// Sums of the weights of each pair of channels, above zero and below, of one step: [2 * columns][2].
void sums_of(const int8_t* weights, int64_t columns, int16_t* sums) {
  for (int64_t i = 0; i < 2 * columns; ++i) {
    const int a = weights[2 * i], b = weights[2 * i + 1];
    sums[2 * i] = static_cast<int16_t>(std::max(a, 0) + std::max(b, 0));
    sums[2 * i + 1] = static_cast<int16_t>(-std::min(a, 0) - std::min(b, 0));
  }
}

bool fits(const Window& window, const int16_t* sums) {
  for (size_t i = 0; i < window.sums.size(); ++i) {
    if (window.sums[i] + sums[i] > kRoom) return false;
  }
  return true;
}

}  // namespace

std::vector<int32_t> int8_windows(const int8_t* weights, int64_t steps, int64_t columns) {
  const size_t lanes = static_cast<size_t>(4 * columns);
  std::vector<int32_t> result;
  for (int64_t first = 0; first < steps; first += kSteps) {
    const size_t count = static_cast<size_t>(std::min(kSteps, steps - first));
    std::vector<int16_t> sums(count * lanes);
    std::vector<int32_t> order(count);
    std::vector<int16_t> largest(count);
    for (size_t i = 0; i < count; ++i) {
      int16_t* of_step = sums.data() + i * lanes;
      sums_of(weights + (first + static_cast<int64_t>(i)) * columns * 4, columns, of_step);
      order[i] = static_cast<int32_t>(i);
      largest[i] = *std::max_element(of_step, of_step + lanes);
    }
    std::stable_sort(order.begin(), order.end(),
                     [&](int32_t a, int32_t b) { return largest[size_t(a)] > largest[size_t(b)]; });
    std::vector<Window> windows;
    for (const int32_t i : order) {
      const int16_t* of_step = sums.data() + static_cast<size_t>(i) * lanes;
      auto window = std::find_if(windows.begin(), windows.end(), [&](const Window& w) { return fits(w, of_step); });
      if (window == windows.end()) window = windows.insert(window, Window{std::vector<int16_t>(lanes, 0), {}});
      for (size_t l = 0; l < lanes; ++l) window->sums[l] = static_cast<int16_t>(window->sums[l] + of_step[l]);
      window->steps.push_back(static_cast<int32_t>(first) + i);
    }
    // Windows of one length follow each other: processors foresee their ends.
    std::stable_sort(windows.begin(), windows.end(),
                     [](const Window& a, const Window& b) { return a.steps.size() > b.steps.size(); });
    for (Window& window : windows) {
      std::sort(window.steps.begin(), window.steps.end());
      result.push_back(static_cast<int32_t>(window.steps.size()));
      result.insert(result.end(), window.steps.begin(), window.steps.end());
    }
  }
  return result;
}

}  // namespace lutc::ops
