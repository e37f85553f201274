#include "core/machine.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

namespace lutc {
namespace {

/// First line of a small kernel file; empty when there is none.
std::string first_line(const std::string& path) {
  std::string line;
  if (FILE* f = std::fopen(path.c_str(), "re")) {
    char buffer[256];
    if (std::fgets(buffer, sizeof buffer, f) != nullptr) line.assign(buffer, std::strcspn(buffer, "\n"));
    std::fclose(f);
  }
  return line;
}

/// This process's cgroup path for a v1 controller, or for v2 when `controller` is empty: the third field of
/// /proc/self/cgroup.
std::string cgroup_path(const char* controller) {
  std::string path;
  FILE* f = std::fopen("/proc/self/cgroup", "re");
  if (f == nullptr) return path;
  char buffer[4096];
  while (std::fgets(buffer, sizeof buffer, f) != nullptr) {
    const std::string line(buffer, std::strcspn(buffer, "\n"));
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string names = "," + line.substr(first + 1, second - first - 1) + ",";
    if (names == "," + std::string(controller) + "," ||
        (*controller != '\0' && names.find("," + std::string(controller) + ",") != std::string::npos)) {
      path = line.substr(second + 1);
      break;
    }
  }
  std::fclose(f);
  return path;
}

/// The folders whose limits apply: the process's cgroup and every ancestor up to the mount (a limit of a parent binds
/// too).
std::vector<std::string> cgroup_folders(const std::string& mount, const char* controller) {
  std::vector<std::string> folders;
  std::string path = cgroup_path(controller);
  while (path.size() > 1) {
    folders.push_back(mount + path);
    path.resize(path.rfind('/') == std::string::npos ? 0 : path.rfind('/'));
  }
  folders.push_back(mount);
  return folders;
}

int quota_cpus() {
  double cpus = std::numeric_limits<double>::infinity();
  for (const std::string& folder : cgroup_folders("/sys/fs/cgroup", "")) {  // v2: "max 100000" or "150000 100000"
    const std::string line = first_line(folder + "/cpu.max");
    char* end = nullptr;
    const double quota = std::strtod(line.c_str(), &end);
    const double period = end != nullptr ? std::strtod(end, nullptr) : 0;
    if (!line.empty() && line[0] != 'm' && quota > 0 && period > 0) cpus = std::min(cpus, quota / period);
  }
  for (const std::string& folder : cgroup_folders("/sys/fs/cgroup/cpu", "cpu")) {
    const double quota = std::strtod(first_line(folder + "/cpu.cfs_quota_us").c_str(), nullptr);
    const double period = std::strtod(first_line(folder + "/cpu.cfs_period_us").c_str(), nullptr);
    if (quota > 0 && period > 0) cpus = std::min(cpus, quota / period);
  }
  if (!(cpus < 1 << 20)) return std::numeric_limits<int>::max();
  const int whole = static_cast<int>(cpus);
  return std::max(1, whole + (cpus > whole ? 1 : 0));
}

int affinity_cpus() {
  // The mask's size must cover the kernel's; grow until it does.
  for (int cpus = 1024; cpus <= 1 << 20; cpus *= 2) {
    cpu_set_t* set = CPU_ALLOC(static_cast<size_t>(cpus));
    if (set == nullptr) break;
    const size_t bytes = CPU_ALLOC_SIZE(static_cast<size_t>(cpus));
    const int failed = sched_getaffinity(0, bytes, set);
    const int reason = errno;
    const int count = failed == 0 ? CPU_COUNT_S(bytes, set) : 0;
    CPU_FREE(set);
    if (failed == 0) return std::max(1, count);
    if (reason != EINVAL) break;
  }
  return 1;
}

}  // namespace

int granted_cpus() { return std::max(1, std::min(affinity_cpus(), quota_cpus())); }

uint64_t granted_memory() {
  uint64_t bytes = std::numeric_limits<uint64_t>::max();
  const long pages = sysconf(_SC_PHYS_PAGES);
  const long page = sysconf(_SC_PAGESIZE);
  if (pages > 0 && page > 0) bytes = static_cast<uint64_t>(pages) * static_cast<uint64_t>(page);
  const auto limit = [&bytes](const std::string& file) {
    const std::string line = first_line(file);
    const uint64_t value = std::strtoull(line.c_str(), nullptr, 10);  // "max" reads as 0
    if (value != 0) bytes = std::min(bytes, value);
  };
  for (const std::string& folder : cgroup_folders("/sys/fs/cgroup", "")) limit(folder + "/memory.max");
  for (const std::string& folder : cgroup_folders("/sys/fs/cgroup/memory", "memory"))
    limit(folder + "/memory.limit_in_bytes");
  return bytes;
}

}  // namespace lutc
