// 64-bit arithmetic that says when it overflows. Every size that comes from a file or a caller goes through here.
#pragma once

#include <cstdint>

namespace lutc {

/// *out = a + b; false on overflow.
template <class T>
[[nodiscard]] inline bool checked_add(T a, T b, T* out) {
  return !__builtin_add_overflow(a, b, out);
}

/// *out = a * b; false on overflow.
template <class T>
[[nodiscard]] inline bool checked_mul(T a, T b, T* out) {
  return !__builtin_mul_overflow(a, b, out);
}

/// *out = n rounded up to a multiple of `alignment` (a power of two); false on overflow.
[[nodiscard]] inline bool checked_align(uint64_t n, uint64_t alignment, uint64_t* out) {
  uint64_t padded = 0;
  if (!checked_add(n, alignment - 1, &padded)) return false;
  *out = padded & ~(alignment - 1);
  return true;
}

}  // namespace lutc
