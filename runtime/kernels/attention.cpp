#include "kernels/attention.h"

namespace lutc::kernels {

extern const AttentionKernels kAttentionScalar;
#ifdef LUTC_X86
extern const AttentionKernels kAttentionAvx2;
extern const AttentionKernels kAttentionAvx512;
#endif

const AttentionKernels* attention_kernels(Isa isa) {
#ifdef LUTC_X86
  if (isa == Isa::kAvx2 || isa == Isa::kAvxVnni) return &kAttentionAvx2;
  if (isa == Isa::kAvx512) return &kAttentionAvx512;
#endif
  (void)isa;
  return &kAttentionScalar;
}

namespace attention {
namespace {

struct Table {
  alignas(64) uint8_t weights[4][kDistances] = {};
  uint8_t room[3] = {};  ///< whoever reads four bytes for one reads them

  constexpr Table() {
    double y = kWeight;
    for (int distance = 0; distance < kDistances; ++distance, y *= 0.9689844739012624) {  // 2^(-1 / 22)
      for (int quad = 0; quad < 4; ++quad)
        weights[quad][distance] = static_cast<uint8_t>(y + static_cast<double>(kRounding[quad]));
    }
  }
};

constexpr Table kTable;

}  // namespace

const Weights& weights() { return kTable.weights; }

}  // namespace attention
}  // namespace lutc::kernels
