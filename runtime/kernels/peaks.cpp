#include "kernels/peaks.h"

#include "kernels/kernel_table.h"

namespace lutc::kernels {

PeakKernels peak_kernels(Isa isa) {
#if defined(LUTC_X86)
  if (isa == Isa::kAvx2 || isa == Isa::kAvxVnni) return avx2_peaks();
  if (isa == Isa::kAvx512) return avx512_peaks();
#endif
  static_cast<void>(isa);
  return scalar_peaks();
}

}  // namespace lutc::kernels
