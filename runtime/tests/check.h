// The whole test framework: CHECK counts failures and says where; main() ends with `return lutc_test::result();`.
#pragma once

#include <cstdio>

namespace lutc_test {

inline int failures = 0;

inline int result() {
  if (failures != 0) std::fprintf(stderr, "%d check(s) failed\n", failures);
  return failures == 0 ? 0 : 1;
}

}  // namespace lutc_test

#define CHECK(condition)                                                                 \
  do {                                                                                   \
    if (!(condition)) {                                                                  \
      std::fprintf(stderr, "%s:%d: CHECK(%s) failed\n", __FILE__, __LINE__, #condition); \
      ++lutc_test::failures;                                                             \
    }                                                                                    \
  } while (0)
