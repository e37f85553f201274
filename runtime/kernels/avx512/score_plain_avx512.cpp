// Codes of the plain form.
#include "kernels/avx512/encode_score.h"

namespace lutc::kernels {

void score_plain_avx512(const EncodeView& view, const ScoredPanels& panels) { score_panels<false>(view, panels); }

}  // namespace lutc::kernels
