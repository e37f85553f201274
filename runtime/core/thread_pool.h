// One pool for the process, shared by sessions. Sized by CPU affinity and cgroup quota. Workers that run out of work
// stay awake for some microseconds, giving way to whoever wants the core, then sleep.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

namespace lutc {

class ThreadPool {
 public:
  /// The process-wide pool, started on first use.
  static ThreadPool& shared();
  /// CPUs this process may use: min(affinity mask, cgroup v1/v2 quota rounded up), at least 1.
  static int available_cpus();

  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const;

  /// Calls body(begin, end, worker) over [0, total) cut into at most `threads` contiguous ranges whose bounds are
  /// multiples of `grain` (the last may be shorter). Runs inline when one range suffices. The caller works too. worker
  /// < threads(), unique among concurrently running ranges of the call. Nested calls run inline. Allocates nothing.
  template <class Body>
  void parallel_for(int64_t total, int64_t grain, int max_threads, const Body& body) {
    run(
        total, grain, max_threads,
        [](const void* f, int64_t b, int64_t e, int w) { (*static_cast<const Body*>(f))(b, e, w); }, &body);
  }

 private:
  using Thunk = void (*)(const void* body, int64_t begin, int64_t end, int worker);
  void run(int64_t total, int64_t grain, int max_threads, Thunk thunk, const void* body);
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace lutc
