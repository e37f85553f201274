#include "kernels/int8.h"

namespace lutc::kernels {

extern const Int8Kernels kInt8Scalar;
#ifdef LUTC_X86
extern const Int8Kernels kInt8Avx2;
extern const Int8Kernels kInt8AvxVnniVex;
extern const Int8Kernels kInt8AvxVnniEvex;
extern const Int8Kernels kInt8Avx512;
#endif

const Int8Kernels* int8_kernels(Isa isa) {
#ifdef LUTC_X86
  if (isa == Isa::kAvx2) return &kInt8Avx2;
  if (isa == Isa::kAvxVnni) return has_vex_vnni() ? &kInt8AvxVnniVex : &kInt8AvxVnniEvex;
  if (isa == Isa::kAvx512) return &kInt8Avx512;
#endif
  (void)isa;
  return &kInt8Scalar;
}

}  // namespace lutc::kernels
