// The search by angle against the scores of all directions, for every input.
#include "kernels/angle_search.h"

#include <cmath>
#include <cstdlib>
#include <random>

#include "check.h"

namespace {

using lutc::kernels::AngleTable;
using lutc::kernels::make_angle_table;

struct Found {
  int code;
  int score;
};

int product(int32_t pair, int x, int y) {
  const uint32_t bits = static_cast<uint32_t>(pair);
  return x * static_cast<int16_t>(bits & 0xffff) + y * static_cast<int16_t>(bits >> 16);
}

Found by_angle(const AngleTable& table, int x, int y) {
  const int sign = product(table.edges[0], x, y) < 0 ? -1 : 1;
  int path = 1;
  for (int step = 0; step < 4; ++step)
    path = path << 1 | (product(table.edges[path & 15], sign * x, sign * y) < 0 ? 1 : 0);
  return {15 - table.keys[path & 15], product(table.directions[path & 15], x, y)};
}

Found by_scores(const int8_t* directions, int entries, int x, int y) {
  Found best{0, x * directions[0] + y * directions[1]};
  for (int k = 1; k < entries; ++k) {
    const int score = x * directions[2 * k] + y * directions[2 * k + 1];
    if (std::abs(score) > std::abs(best.score)) best = {k, score};
  }
  return best;
}

/// False when there is no table.
bool agrees_everywhere(const int8_t* directions, int entries) {
  AngleTable table;
  if (!make_angle_table(directions, 2, entries, &table)) return false;
  int wrong = 0;
  for (int x = -127; x <= 127; ++x) {
    for (int y = -127; y <= 127; ++y) {
      const Found a = by_angle(table, x, y), b = by_scores(directions, entries, x, y);
      // The score of q = 0 is 0 in any direction.
      if (a.code != b.code || a.score != b.score) ++wrong;
    }
  }
  CHECK(wrong == 0);
  return true;
}

}  // namespace

int main() {
  std::mt19937 random(1);
  int8_t d[32];
  const auto fill = [&](int entries, auto&& x, auto&& y) {
    for (int k = 0; k < entries; ++k) {
      d[2 * k] = static_cast<int8_t>(x(k));
      d[2 * k + 1] = static_cast<int8_t>(y(k));
    }
  };
  for (int entries : {4, 8, 16}) {
    for (int trial = 0; trial < 10; ++trial) {
      const double turn = random() % 1000;
      const auto angle = [&](int k) { return turn + (k * 7 % entries) * 3.14159265358979 / entries; };
      fill(
          entries, [&](int k) { return std::lrint(127 * std::cos(angle(k))); },
          [&](int k) { return std::lrint(127 * std::sin(angle(k))); });
      CHECK(agrees_everywhere(d, entries));
      // Zeros, duplicates, opposites and points between two others are many where numbers are small.
      for (int limit : {1, 2, 5, 127}) {
        const auto any = [&](int) { return static_cast<int>(random() % (2 * limit + 1)) - limit; };
        fill(entries, any, any);
        agrees_everywhere(d, entries);
      }
      // Corners and edges of the square.
      fill(
          entries, [&](int) { return random() % 2 ? 127 : -127; },
          [&](int) { return static_cast<int>(random() % 255) - 127; });
      agrees_everywhere(d, entries);
    }
  }
  AngleTable table;
  fill(16, [](int k) { return k - 8; }, [](int k) { return 3 * (k - 8); });
  CHECK(!make_angle_table(d, 2, 16, &table));  // a line
  fill(16, [](int) { return 0; }, [](int) { return 0; });
  CHECK(!make_angle_table(d, 2, 16, &table));
  return lutc_test::result();
}
