// What the operating system grants this process: CPUs and memory.
#pragma once

#include <cstdint>

namespace lutc {

/// min(scheduler affinity, cgroup v1/v2 CPU quota rounded up), at least 1.
int granted_cpus();
/// min(physical memory, cgroup v1/v2 memory limit) in bytes.
uint64_t granted_memory();

}  // namespace lutc
