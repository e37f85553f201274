#include "core/memory_planner.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <queue>
#include <set>

#include "core/checked.h"

namespace lutc {
namespace {

constexpr uint64_t kAlignment = 64;
constexpr uint64_t kMaxArena = uint64_t{1} << 62;
constexpr size_t kMaxGreedy = 4096;

struct Placed {
  uint64_t begin;
  uint64_t end;
  int first;
  int last;
};

bool greedy_by_size(const std::vector<BufferLife>& buffers, const std::vector<uint64_t>& sizes, ArenaPlan* plan) {
  std::vector<size_t> order(buffers.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return sizes[a] > sizes[b]; });
  std::vector<Placed> placed;  // sorted by begin
  placed.reserve(buffers.size());
  for (const size_t i : order) {
    const BufferLife& b = buffers[i];
    uint64_t best = 0;
    uint64_t best_gap = UINT64_MAX;
    uint64_t top = 0;  // end of everything alive with b among those passed
    for (const Placed& p : placed) {
      if (p.last < b.first || b.last < p.first) continue;
      if (p.begin > top) {
        const uint64_t gap = p.begin - top;
        if (gap >= sizes[i] && gap < best_gap) {
          best = top;
          best_gap = gap;
        }
      }
      top = std::max(top, p.end);
    }
    if (best_gap == UINT64_MAX) best = top;
    uint64_t end = 0;
    if (!checked_add(best, sizes[i], &end) || end > kMaxArena) return false;
    plan->offsets[i] = best;
    plan->bytes = std::max(plan->bytes, end);
    const Placed entry = {best, end, b.first, b.last};
    placed.insert(std::upper_bound(placed.begin(), placed.end(), entry,
                                   [](const Placed& x, const Placed& y) { return x.begin < y.begin; }),
                  entry);
  }
  return true;
}

/// Free ranges of the arena, merged with their neighbours, found by size.
class FreeList {
 public:
  bool take(uint64_t bytes, uint64_t* offset) {
    const auto it = by_size_.lower_bound({bytes, 0});
    if (it == by_size_.end()) return false;
    const auto [size, begin] = *it;
    erase(begin, size);
    if (size > bytes) insert(begin + bytes, size - bytes);
    *offset = begin;
    return true;
  }
  /// The free range that ends at the arena's end, given up so that the arena grows from there.
  uint64_t take_tail(uint64_t arena_end) {
    if (by_begin_.empty()) return arena_end;
    const auto [begin, size] = *by_begin_.rbegin();
    if (begin + size != arena_end) return arena_end;
    erase(begin, size);
    return begin;
  }
  void give(uint64_t begin, uint64_t size) {
    const auto after = by_begin_.lower_bound(begin);
    if (after != by_begin_.end() && after->first == begin + size) {
      const uint64_t more = after->second;
      erase(begin + size, more);
      size += more;
    }
    const auto next = by_begin_.lower_bound(begin);
    if (next != by_begin_.begin()) {
      const auto [before, bytes] = *std::prev(next);
      if (before + bytes == begin) {
        erase(before, bytes);
        begin = before;
        size += bytes;
      }
    }
    insert(begin, size);
  }

 private:
  void insert(uint64_t begin, uint64_t size) {
    by_begin_[begin] = size;
    by_size_.insert({size, begin});
  }
  void erase(uint64_t begin, uint64_t size) {
    by_begin_.erase(begin);
    by_size_.erase({size, begin});
  }
  std::map<uint64_t, uint64_t> by_begin_;
  std::set<std::pair<uint64_t, uint64_t>> by_size_;
};

bool first_to_last(const std::vector<BufferLife>& buffers, const std::vector<uint64_t>& sizes, ArenaPlan* plan) {
  std::vector<size_t> order(buffers.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return buffers[a].first < buffers[b].first; });
  using End = std::pair<int, size_t>;
  std::priority_queue<End, std::vector<End>, std::greater<End>> alive;
  FreeList free;
  for (const size_t i : order) {
    while (!alive.empty() && alive.top().first < buffers[i].first) {
      free.give(plan->offsets[alive.top().second], sizes[alive.top().second]);
      alive.pop();
    }
    if (!free.take(sizes[i], &plan->offsets[i])) {
      plan->offsets[i] = free.take_tail(plan->bytes);
      if (!checked_add(plan->offsets[i], sizes[i], &plan->bytes) || plan->bytes > kMaxArena) return false;
    }
    alive.emplace(buffers[i].last, i);
  }
  return true;
}

}  // namespace

bool plan_arena(const std::vector<BufferLife>& buffers, ArenaPlan* plan) {
  plan->offsets.assign(buffers.size(), 0);
  plan->bytes = 0;
  std::vector<uint64_t> sizes(buffers.size());
  for (size_t i = 0; i < buffers.size(); ++i)  // an empty buffer gets a place of its own too: no special case later
    if (!checked_align(std::max<uint64_t>(buffers[i].bytes, 1), kAlignment, &sizes[i])) return false;
  return buffers.size() <= kMaxGreedy ? greedy_by_size(buffers, sizes, plan) : first_to_last(buffers, sizes, plan);
}

}  // namespace lutc
