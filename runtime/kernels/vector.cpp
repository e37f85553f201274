#include "kernels/vector.h"

namespace lutc::kernels {

extern const VectorKernels kVectorScalar;
#ifdef LUTC_X86
extern const VectorKernels kVectorAvx2;
extern const VectorKernels kVectorAvx512;
#endif

const VectorKernels* vector_kernels(Isa isa) {
#ifdef LUTC_X86
  if (isa == Isa::kAvx2 || isa == Isa::kAvxVnni) return &kVectorAvx2;
  if (isa == Isa::kAvx512) return &kVectorAvx512;
#endif
  (void)isa;
  return &kVectorScalar;
}

}  // namespace lutc::kernels
