#include "kernels/expand.h"
#include "kernels/scalar/simd.h"

namespace lutc::kernels {
namespace {

struct Bytes {
  static void row(const Simd::Float (&y)[4], int8_t* p) {
    for (int i = 0; i < 16; ++i) p[i] = static_cast<int8_t>(Simd::round(y[i / 4])[i % 4]);
  }
  template <int kUnit>
  static void cell(const Simd::Float (&y)[kUnit][4], uint8_t* p, int stored) {
    for (int j = 0; j < kUnit; ++j) {
      int8_t bytes[16];
      row(y[j], bytes);
      for (int k = 0; k < stored; ++k) p[j * stored + k] = static_cast<uint8_t>(bytes[k] + 128);
    }
  }
};

}  // namespace
}  // namespace lutc::kernels

#include "kernels/expand_impl.h"

namespace lutc::kernels {
extern const ExpandKernels kExpandScalar;
const ExpandKernels kExpandScalar = {nullptr, expand_rows};
}  // namespace lutc::kernels
