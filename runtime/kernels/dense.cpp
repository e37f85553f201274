#include "kernels/dense.h"

namespace lutc::kernels {

extern const DenseKernels kDenseScalar;
#ifdef LUTC_X86
extern const DenseKernels kDenseAvx2;
extern const DenseKernels kDenseAvx512;
#endif

const DenseKernels* dense_kernels(Isa isa) {
#ifdef LUTC_X86
  if (isa == Isa::kAvx2 || isa == Isa::kAvxVnni) return &kDenseAvx2;
  if (isa == Isa::kAvx512) return &kDenseAvx512;
#endif
  (void)isa;
  return &kDenseScalar;
}

}  // namespace lutc::kernels
