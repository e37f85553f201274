// The second stage of the encode as two functions: templates over entries, slots and panels that take long to compile.
#pragma once

#include "kernels/lookup.h"

namespace lutc::kernels {

/// One or two panels whose features are slots: vectors of 16 rows each, those of the panels side by side.
struct ScoredPanels {
  int count;
  const void* slots;
  const float* next;  ///< pixels to be encoded after these, to be fetched meanwhile, or null
  int64_t stride;     ///< of those, from one feature to the next
  uint8_t* panel;     ///< where the first one's codes go
  int64_t panel_bytes;
};

void score_gain_avx512(const EncodeView& view, const ScoredPanels& panels);
void score_plain_avx512(const EncodeView& view, const ScoredPanels& panels);

}  // namespace lutc::kernels
