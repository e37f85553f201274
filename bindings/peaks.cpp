// What one core can do, measured: binds kernels/peaks.h.
#include "kernels/peaks.h"

#include <pybind11/pybind11.h>

#include <algorithm>
#include <cstring>
#include <ctime>
#include <string>

#include "core/aligned_buffer.h"
#include "errors.h"
#include "kernels/kernel_table.h"

namespace py = pybind11;

namespace {

double thread_seconds() {
  timespec now = {};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

/// Operations per second of CPU time: the best of a few runs of some two milliseconds.
template <class Run>
double best_rate(double operations, const Run& run) {
  run();
  double best = 0;
  for (int i = 0; i < 12; ++i) {
    const double start = thread_seconds();
    run();
    best = std::max(best, operations / std::max(thread_seconds() - start, 1e-9));
  }
  return best;
}

double loop_rate(lutc::kernels::PeakKernels::Loop loop, int64_t operations) {
  constexpr int64_t kRounds = 400000;
  return best_rate(static_cast<double>(kRounds * operations), [&] { loop(kRounds); });
}

double read_rate(const lutc::kernels::PeakKernels& peaks, size_t bytes) {
  lutc::AlignedBuffer buffer;
  bytes = std::max<size_t>(bytes, 4096) / 64 * 64;
  if (!buffer.allocate(bytes)) throw std::bad_alloc();
  std::memset(buffer.data(), 1, bytes);
  const int64_t repeats = std::max<int64_t>(1, static_cast<int64_t>((size_t{16} << 20) / bytes));
  return best_rate(static_cast<double>(repeats) * static_cast<double>(bytes), [&] {
    for (int64_t r = 0; r < repeats; ++r) {
      const uint64_t result = peaks.read(buffer.data(), static_cast<int64_t>(bytes / 64));
      asm volatile("" : : "r"(result));
    }
  });
}

py::dict peaks(const std::string& isa, size_t cache_bytes, size_t memory_bytes) {
  const auto table = lutc::python::value_or_raise(lutc::kernels::table_named(isa));
  const lutc::kernels::PeakKernels kernels = lutc::kernels::peak_kernels(table->isa);
  double multiply_adds = 0, int8_products = 0, lookups = 0, cache = 0, memory = 0;
  {
    const py::gil_scoped_release release;
    multiply_adds = loop_rate(kernels.multiply_adds, kernels.multiply_adds_round);
    int8_products = loop_rate(kernels.int8_products, kernels.int8_products_round);
    lookups = loop_rate(kernels.lookups, kernels.lookups_round);
    cache = read_rate(kernels, cache_bytes);
    memory = read_rate(kernels, memory_bytes);
  }
  py::dict rates;
  rates["multiply_adds"] = multiply_adds;
  rates["int8_products"] = int8_products;
  rates["lookups"] = lookups;
  rates["cache_bytes"] = cache;
  rates["memory_bytes"] = memory;
  return rates;
}

}  // namespace

void bind_peaks(py::module_& m) {
  m.def("peaks", &peaks, py::arg("isa"), py::arg("cache_bytes"), py::arg("memory_bytes"),
        "Peak rates of this thread's core on an ISA, each per second, measured within about 0.2 s: float32 "
        "multiply_adds, "
        "int8_products and lookups in registers, cache_bytes and memory_bytes read from buffers of those sizes.");
}
