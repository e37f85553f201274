// Counts every allocation of the process while asked to. Include it in one file of a test: it replaces malloc and its
// family (where a sanitizer owns them, it asks the sanitizer).
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdlib>

namespace lutc_test {

inline std::atomic<bool> counting{false};
inline std::atomic<long> allocations{0};

inline void count_allocation() {
  if (counting.load(std::memory_order_relaxed)) allocations.fetch_add(1, std::memory_order_relaxed);
}

}  // namespace lutc_test

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)

extern "C" int __sanitizer_install_malloc_and_free_hooks(void (*allocated)(const volatile void*, size_t),
                                                         void (*freed)(const volatile void*));
namespace lutc_test {
inline bool can_count() {
  static const int installed = __sanitizer_install_malloc_and_free_hooks(
      [](const volatile void*, size_t) { count_allocation(); }, [](const volatile void*) {});
  return installed != 0;
}
}  // namespace lutc_test

#elif defined(__GLIBC__)

extern "C" {
void* __libc_malloc(size_t bytes);
void* __libc_calloc(size_t count, size_t bytes);
void* __libc_realloc(void* memory, size_t bytes);
void* __libc_memalign(size_t alignment, size_t bytes);

void* malloc(size_t bytes) {
  lutc_test::count_allocation();
  return __libc_malloc(bytes);
}
void* calloc(size_t count, size_t bytes) {
  lutc_test::count_allocation();
  return __libc_calloc(count, bytes);
}
void* realloc(void* memory, size_t bytes) {
  lutc_test::count_allocation();
  return __libc_realloc(memory, bytes);
}
void* memalign(size_t alignment, size_t bytes) {
  lutc_test::count_allocation();
  return __libc_memalign(alignment, bytes);
}
void* aligned_alloc(size_t alignment, size_t bytes) { return memalign(alignment, bytes); }
int posix_memalign(void** memory, size_t alignment, size_t bytes) {
  *memory = memalign(alignment, bytes);
  return *memory == nullptr ? 12 : 0;  // ENOMEM
}
}
namespace lutc_test {
inline bool can_count() { return true; }
}  // namespace lutc_test

#else

namespace lutc_test {
inline bool can_count() { return false; }
}  // namespace lutc_test

#endif
