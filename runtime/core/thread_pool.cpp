#include "core/thread_pool.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "core/machine.h"

namespace lutc {
namespace {

/// Set while this thread executes a range of some pool: a nested call then runs inline.
thread_local bool inside_range = false;

}  // namespace

// One job at a time. The caller claims ranges like any worker, so a job ends even if no worker ever wakes (a late
// wake-up, a forked child whose workers are gone). Ranges are claimed under the mutex: a worker that wakes late sees no
// range left, never a stale job.
struct ThreadPool::State {
  struct Job {
    Thunk thunk = nullptr;
    const void* body = nullptr;
    int64_t total = 0;
    int64_t chunk = 0;
  };

  std::mutex mutex;
  std::condition_variable work;  ///< signalled when ranges are there to claim, or at the end
  std::condition_variable done;  ///< signalled when the last range of the job has finished
  Job job;
  int ranges = 0;      ///< of the current job
  int next = 0;        ///< first unclaimed range
  int unfinished = 0;  ///< ranges not finished yet
  bool busy = false;   ///< some caller owns the job
  bool stop = false;
  std::vector<std::thread> workers;

  /// Claims and runs ranges until none is left. The lock is held on entry and on return.
  void drain(std::unique_lock<std::mutex>& lock) {
    while (next < ranges) {
      const int range = next++;
      const Job mine = job;
      lock.unlock();
      inside_range = true;
      const int64_t begin = range * mine.chunk;
      mine.thunk(mine.body, begin, std::min(mine.total, begin + mine.chunk), range);
      inside_range = false;
      lock.lock();
      if (--unfinished == 0) done.notify_one();
    }
  }

  void worker_loop() {
    std::unique_lock<std::mutex> lock(mutex);
    while (!stop) {
      drain(lock);
      if (!stop && next >= ranges) work.wait(lock);
    }
  }
};

ThreadPool& ThreadPool::shared() {
  // Never destroyed: joining at exit would hang in a forked child, and a session may outlive static objects.
  static ThreadPool* pool = new ThreadPool(available_cpus());
  return *pool;
}

int ThreadPool::available_cpus() { return granted_cpus(); }

ThreadPool::ThreadPool(int threads) : state_(std::make_unique<State>()) {
  State* state = state_.get();
  for (int i = 1; i < threads; ++i) state->workers.emplace_back([state] { state->worker_loop(); });
}

ThreadPool::~ThreadPool() {
  {
    const std::lock_guard<std::mutex> lock(state_->mutex);
    state_->stop = true;
  }
  state_->work.notify_all();
  for (std::thread& worker : state_->workers) worker.join();
}

int ThreadPool::threads() const { return static_cast<int>(state_->workers.size()) + 1; }

void ThreadPool::run(int64_t total, int64_t grain, int max_threads, Thunk thunk, const void* body) {
  if (total <= 0) return;
  grain = std::max<int64_t>(grain, 1);
  const int64_t grains = total / grain + (total % grain != 0 ? 1 : 0);
  const int64_t parts = std::min<int64_t>({grains, max_threads, threads()});
  if (parts <= 1 || inside_range) return thunk(body, 0, total, 0);

  std::unique_lock<std::mutex> lock(state_->mutex);
  if (state_->busy) {  // another session computes: a queue would only oversubscribe the CPUs
    lock.unlock();
    return thunk(body, 0, total, 0);
  }
  const int64_t chunk = (grains + parts - 1) / parts * grain;
  state_->busy = true;
  state_->job = {thunk, body, total, chunk};
  state_->ranges = static_cast<int>((total + chunk - 1) / chunk);
  state_->next = 0;
  state_->unfinished = state_->ranges;
  for (int i = 1; i < state_->ranges; ++i) state_->work.notify_one();
  state_->drain(lock);
  state_->done.wait(lock, [this] { return state_->unfinished == 0; });
  state_->ranges = 0;
  state_->next = 0;
  state_->busy = false;
}

}  // namespace lutc
