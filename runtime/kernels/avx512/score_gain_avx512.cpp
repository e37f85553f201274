// Codes and gains of the gain form.
#include "kernels/avx512/encode_score.h"

namespace lutc::kernels {

void score_gain_avx512(const EncodeView& view, const ScoredPanels& panels) { score_panels<true>(view, panels); }

}  // namespace lutc::kernels
