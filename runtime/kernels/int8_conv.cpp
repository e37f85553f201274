#include "kernels/int8_conv.h"

namespace lutc::kernels {

extern const Int8ConvKernels kInt8ConvScalar;
#ifdef LUTC_X86
extern const Int8ConvKernels kInt8ConvAvx2;
extern const Int8ConvKernels kInt8ConvAvxVnniVex;
extern const Int8ConvKernels kInt8ConvAvxVnniEvex;
extern const Int8ConvKernels kInt8ConvAvx512;
#endif

const Int8ConvKernels* int8_conv_kernels(Isa isa) {
#ifdef LUTC_X86
  if (isa == Isa::kAvx2) return &kInt8ConvAvx2;
  if (isa == Isa::kAvxVnni) return has_vex_vnni() ? &kInt8ConvAvxVnniVex : &kInt8ConvAvxVnniEvex;
  if (isa == Isa::kAvx512) return &kInt8ConvAvx512;
#endif
  (void)isa;
  return &kInt8ConvScalar;
}

}  // namespace lutc::kernels
