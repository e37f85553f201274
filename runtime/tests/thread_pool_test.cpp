// Every index exactly once, from any number of callers at once, nested or not; and no CPU time while idle.
#include "core/thread_pool.h"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <ctime>
#include <thread>
#include <vector>

#include "check.h"
#include "core/active_runs.h"

namespace {

void covers_every_index() {
  lutc::ThreadPool pool(4);
  CHECK(pool.threads() == 4);
  for (const int64_t total : {0, 1, 2, 3, 7, 64, 100, 1001}) {
    for (const int64_t grain : {1, 3, 16, 2000}) {
      for (const int threads : {1, 2, 4, 9}) {
        std::vector<std::atomic<int>> seen(static_cast<size_t>(total));
        std::atomic<int> in_range[4] = {};
        std::atomic<int> ranges{0};
        pool.parallel_for(total, grain, threads, [&](int64_t begin, int64_t end, int worker) {
          ++ranges;
          CHECK(worker >= 0 && worker < 4 && in_range[worker].fetch_add(1) == 0);
          CHECK(begin < end && begin % grain == 0 && (end % grain == 0 || end == total));
          for (int64_t i = begin; i < end; ++i) ++seen[static_cast<size_t>(i)];
          --in_range[worker];
        });
        CHECK(ranges <= threads && ranges <= 4);
        for (const auto& count : seen) CHECK(count == 1);
      }
    }
  }
}

void many_callers_and_nesting() {
  lutc::ThreadPool pool(3);
  std::atomic<int64_t> sum{0};
  std::vector<std::thread> callers;
  for (int c = 0; c < 4; ++c) {
    callers.emplace_back([&] {
      for (int round = 0; round < 500; ++round) {
        pool.parallel_for(64, 1, 3, [&](int64_t begin, int64_t end, int) {
          pool.parallel_for(end - begin, 1, 3, [&](int64_t b, int64_t e, int) { sum += e - b; });
        });
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  CHECK(sum == 4 * 500 * 64);
}

/// Jobs of changing sizes, one behind the other: a worker that comes late must not take a range of the next job for one
/// of its own.
void jobs_do_not_mix() {
  lutc::ThreadPool pool(4);
  for (int64_t round = 0; round < 20000; ++round) {
    const int64_t total = 1 + round % 9;
    std::atomic<int64_t> sum{0};
    pool.parallel_for(total, 1, 4, [&sum, round](int64_t begin, int64_t end, int) { sum += (end - begin) * round; });
    CHECK(sum == total * round);
  }
}

/// A run beside others gets what they leave.
void runs_share_the_cores() {
  lutc::ThreadPool pool(4);
  const auto ranges = [&pool] {
    std::atomic<int> count{0};
    pool.parallel_for(100, 1, 4, [&](int64_t, int64_t, int) { ++count; });
    return count.load();
  };
  const lutc::ActiveRun mine;
  CHECK(ranges() == 4);
  {
    const lutc::ActiveRun other;
    CHECK(ranges() == 3);
    const lutc::ActiveRun a, b, c, d;
    CHECK(ranges() == 1);
  }
  CHECK(ranges() == 4);
}

void sleeps_when_idle() {
  lutc::ThreadPool pool(4);
  pool.parallel_for(1000, 1, 4, [](int64_t, int64_t, int) {});
  const std::clock_t before = std::clock();
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  CHECK(static_cast<double>(std::clock() - before) / CLOCKS_PER_SEC < 0.05);
}

}  // namespace

int main() {
  CHECK(lutc::ThreadPool::available_cpus() >= 1);
  covers_every_index();
  many_callers_and_nesting();
  jobs_do_not_mix();
  runs_share_the_cores();
  sleeps_when_idle();
  return lutc_test::result();
}
