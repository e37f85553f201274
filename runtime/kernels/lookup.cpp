#include "kernels/lookup.h"

namespace lutc::kernels {

extern const LookupKernels kLookupScalar;
#ifdef LUTC_X86
extern const LookupKernels kLookupAvx2;
extern const LookupKernels kLookupAvx512;
#endif

const LookupKernels* lookup_kernels(Isa isa) {
#ifdef LUTC_X86
  if (isa == Isa::kAvx2 || isa == Isa::kAvxVnni) return &kLookupAvx2;
  if (isa == Isa::kAvx512) return &kLookupAvx512;
#endif
  (void)isa;
  return &kLookupScalar;
}

}  // namespace lutc::kernels
