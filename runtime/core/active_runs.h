// How many runs are going on in the process: each has a thread of its own already, so the pool gives it fewer more.
#pragma once

#include <atomic>

namespace lutc {

/// Counts as one run while it lives.
class ActiveRun {
 public:
  ActiveRun() { count_.fetch_add(1, std::memory_order_relaxed); }
  ~ActiveRun() { count_.fetch_sub(1, std::memory_order_relaxed); }
  ActiveRun(const ActiveRun&) = delete;
  ActiveRun& operator=(const ActiveRun&) = delete;

  static int count() { return count_.load(std::memory_order_relaxed); }

 private:
  static inline std::atomic<int> count_{0};
};

}  // namespace lutc
