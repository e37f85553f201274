#include "core/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "core/active_runs.h"
#include "core/machine.h"

namespace lutc {
namespace {

/// Set while this thread executes a range of some pool: a nested call then runs inline.
thread_local bool inside_range = false;

/// How long a thread with nothing to do looks for work (or for the end of it) before it sleeps. Between two steps of a
/// model there are a few microseconds; waking a thread costs ten times that.
constexpr std::chrono::microseconds kPatience{50};

void pause() {
#if defined(__x86_64__)
  asm volatile("pause");
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

/// Waits until done() holds, for kPatience at most; whoever else wants the core gets it meanwhile.
template <class Done>
bool wait_awake(const Done& done) {
  const auto end = std::chrono::steady_clock::now() + kPatience;
  do {
    for (int i = 0; i < 16; ++i) {
      if (done()) return true;
      pause();
    }
    sched_yield();
  } while (std::chrono::steady_clock::now() < end);
  return done();
}

}  // namespace

// One job at a time. The caller claims ranges like any worker, so a job ends even if no worker ever wakes (a late
// wake-up, a forked child whose workers are gone).
//
// `ticket` holds the number of the job and the next range to claim; a range is claimed by counting it up. The job's
// fields are written only while every range of the job before has been claimed and finished, so who read fields of one
// job and then claims with the ticket of that job has read them whole: a late worker's claim fails.
struct ThreadPool::State {
  std::atomic<Thunk> thunk{nullptr};
  std::atomic<const void*> body{nullptr};
  std::atomic<int64_t> total{0}, chunk{0};
  std::atomic<uint32_t> ranges{0};
  std::atomic<uint64_t> ticket{0};
  std::atomic<uint32_t> unfinished{0};  ///< ranges of the job that have not ended
  std::atomic<bool> busy{false};        ///< some caller owns the job
  std::atomic<bool> stop{false};

  std::mutex mutex;              ///< for sleeping only
  std::condition_variable work;  ///< signalled when ranges are there to claim, or at the end
  std::condition_variable done;  ///< signalled when the last range of the job has finished
  std::atomic<int> sleepers{0};
  std::atomic<bool> caller_sleeps{false};
  std::vector<std::thread> workers;

  bool has_work() const { return static_cast<uint32_t>(ticket.load()) < ranges.load(); }

  /// Claims and runs ranges until none is left.
  void drain() {
    for (;;) {
      uint64_t mine = ticket.load();
      const Thunk run = thunk.load();
      const void* with = body.load();
      const int64_t size = chunk.load(), all = total.load(), range = static_cast<uint32_t>(mine);
      if (range >= ranges.load()) return;
      if (!ticket.compare_exchange_strong(mine, mine + 1)) continue;
      inside_range = true;
      run(with, range * size, std::min(all, (range + 1) * size), static_cast<int>(range));
      inside_range = false;
      if (unfinished.fetch_sub(1) != 1 || !caller_sleeps.load()) continue;
      const std::lock_guard<std::mutex> lock(mutex);
      done.notify_one();
    }
  }

  void publish(Thunk job, const void* with, int64_t all, int64_t size) {
    const uint32_t count = static_cast<uint32_t>((all + size - 1) / size);
    ranges.store(0);  // nothing can be claimed while the fields change
    thunk.store(job);
    body.store(with);
    total.store(all);
    chunk.store(size);
    unfinished.store(count);
    ticket.store(((ticket.load() >> 32) + 1) << 32);
    ranges.store(count);
    if (sleepers.load() == 0) return;
    const std::lock_guard<std::mutex> lock(mutex);
    for (uint32_t i = 1; i < count; ++i) work.notify_one();
  }

  void wait_for_the_end() {
    const auto ended = [this] { return unfinished.load() == 0; };
    if (wait_awake(ended)) return;
    std::unique_lock<std::mutex> lock(mutex);
    caller_sleeps.store(true);
    done.wait(lock, ended);
    caller_sleeps.store(false);
  }

  void worker_loop() {
    while (!stop.load()) {
      drain();
      const auto called = [this] { return stop.load() || has_work(); };
      if (wait_awake(called)) continue;
      std::unique_lock<std::mutex> lock(mutex);
      sleepers.fetch_add(1);
      work.wait(lock, called);
      sleepers.fetch_sub(1);
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
    state_->stop.store(true);
  }
  state_->work.notify_all();
  for (std::thread& worker : state_->workers) worker.join();
}

int ThreadPool::threads() const { return static_cast<int>(state_->workers.size()) + 1; }

void ThreadPool::run(int64_t total, int64_t grain, int max_threads, Thunk thunk, const void* body) {
  if (total <= 0) return;
  grain = std::max<int64_t>(grain, 1);
  const int64_t grains = total / grain + (total % grain != 0 ? 1 : 0);
  // Every other run that is going on has a core of its own.
  const int64_t left = std::max(1, threads() - std::max(0, ActiveRun::count() - 1));
  const int64_t parts = std::min<int64_t>({grains, max_threads, left});
  if (parts <= 1 || inside_range) return thunk(body, 0, total, 0);
  // Taken: another session computes, and a queue would only oversubscribe the CPUs.
  if (state_->busy.exchange(true)) return thunk(body, 0, total, 0);
  state_->publish(thunk, body, total, (grains + parts - 1) / parts * grain);
  state_->drain();
  state_->wait_for_the_end();
  state_->busy.store(false);
}

}  // namespace lutc
