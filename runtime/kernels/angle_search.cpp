#include "kernels/angle_search.h"

#include <algorithm>
#include <cstdlib>
#include <vector>

namespace lutc::kernels {
namespace {

struct Point {
  int32_t x, y;
  int32_t code;
};

bool same_place(const Point& a, const Point& b) { return a.x == b.x && a.y == b.y; }

/// Twice the area of the triangle; positive where it runs counter-clockwise.
int32_t turn(const Point& a, const Point& b, const Point& c) {
  return (b.x - a.x) * (c.y - a.y) - (b.y - a.y) * (c.x - a.x);
}

/// The corners of the convex hull, counter-clockwise; points on an edge are none. `points` are sorted and distinct.
std::vector<Point> hull(const std::vector<Point>& points) {
  std::vector<Point> corners;
  const auto chain = [&](auto begin, auto end) {
    const size_t base = corners.size();
    for (auto p = begin; p != end; ++p) {
      while (corners.size() >= base + 2 && turn(corners[corners.size() - 2], corners.back(), *p) <= 0)
        corners.pop_back();
      corners.push_back(*p);
    }
    corners.pop_back();  // the other chain's first
  };
  chain(points.begin(), points.end());
  chain(points.rbegin(), points.rend());
  return corners;
}

int32_t pair(int32_t x, int32_t y) {
  return static_cast<int32_t>(static_cast<uint32_t>(x & 0xffff) | static_cast<uint32_t>(y & 0xffff) << 16);
}

/// 128 times the edge from a to b, plus 1 along (or against) its outward normal where that is longest: ties go to the
/// lower code.
int32_t edge(const Point& a, const Point& b, int32_t sign) {
  const int32_t x = b.x - a.x, y = b.y - a.y, side = b.code < a.code ? 1 : -1;
  int32_t ex = 128 * x, ey = 128 * y;
  if (std::abs(y) >= std::abs(x)) {
    ex += y > 0 ? side : -side;  // the normal is (y, -x)
  } else {
    ey += x > 0 ? -side : side;
  }
  return pair(sign * ex, sign * ey);
}

}  // namespace

bool make_angle_table(const int8_t* directions, int64_t stride, int64_t entries, AngleTable* table) {
  std::vector<Point> points;
  for (int64_t k = 0; k < entries; ++k) {
    const int32_t x = directions[k * stride], y = directions[k * stride + 1];
    if (x == 0 && y == 0) continue;
    for (const int32_t sign : {1, -1}) points.push_back({sign * x, sign * y, static_cast<int32_t>(k)});
  }
  // Of equal points the lowest code stays.
  std::sort(points.begin(), points.end(), [](const Point& a, const Point& b) {
    return a.x != b.x ? a.x < b.x : a.y != b.y ? a.y < b.y : a.code < b.code;
  });
  points.erase(std::unique(points.begin(), points.end(), same_place), points.end());
  if (points.size() < 4) return false;
  std::vector<Point> corners = hull(points);
  const size_t half = corners.size() / 2;
  if (half < 2) return false;
  // Half way round. With sixteen corners the walk begins at direction 0, where it also ends for q = 0.
  const auto first = std::find_if(corners.begin(), corners.end(), [](const Point& p) { return p.code == 0; });
  if (first != corners.end()) std::rotate(corners.begin(), first, corners.end());
  std::vector<Point> walk = {corners[0]};
  for (size_t i = 0; i < half; ++i) {
    const Point &a = corners[i], &b = corners[i + 1];
    // Where q ties with both ends, a point between them wins if its code is the lowest.
    const Point* between = nullptr;
    for (const Point& p : points) {
      if (turn(a, b, p) == 0 && p.code < std::min(a.code, b.code) && (between == nullptr || p.code < between->code))
        between = &p;
    }
    if (between != nullptr) walk.push_back(*between);
    walk.push_back(b);
  }
  const size_t count = walk.size() - 1;
  // Past its end the signs of the first edge come again, reversed.
  int32_t edges[16];
  for (size_t i = 0; i < 16; ++i) edges[i] = i < count ? edge(walk[i], walk[i + 1], 1) : edge(walk[0], walk[1], -1);
  table->edges[0] = edges[0];
  for (int depth = 0; depth < 4; ++depth) {
    for (int path = 0; path < 1 << depth; ++path) {  // a bit a step, 1: the sign was negative
      const int low = (~path & ((1 << depth) - 1)) << (4 - depth);
      table->edges[(1 << depth) | path] = edges[low + (8 >> depth)];
    }
  }
  for (size_t leaf = 0; leaf < 16; ++leaf) {
    const Point& corner = walk[std::min<size_t>(16 - leaf, count)];
    const int8_t* direction = directions + corner.code * stride;
    table->directions[leaf] = pair(direction[0], direction[1]);
    table->keys[leaf] = 15 - corner.code;
  }
  if (count < 16) table->keys[0] = 15;  // all signs alike: q = 0
  return true;
}

}  // namespace lutc::kernels
