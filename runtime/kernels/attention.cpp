#include "kernels/attention.h"

namespace lutc::kernels {

extern const AttentionKernels kAttentionScalar;
#ifdef LUTC_X86
extern const AttentionKernels kAttentionAvx2;
extern const AttentionKernels kAttentionAvx512;
#endif

const AttentionKernels* attention_kernels(Isa isa) {
#ifdef LUTC_X86
  if (isa == Isa::kAvx2) return &kAttentionAvx2;
  if (isa == Isa::kAvx512) return &kAttentionAvx512;
#endif
  (void)isa;
  return &kAttentionScalar;
}

}  // namespace lutc::kernels
