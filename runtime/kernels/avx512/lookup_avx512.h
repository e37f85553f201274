// Parts of the AVX-512 lookup kernels with files of their own.
#pragma once

#include "kernels/lookup.h"

namespace lutc::kernels {

size_t encode_scratch_avx512(const EncodeView& view);
void encode_avx512(const EncodeView& view, const EncodeInput& input, uint8_t* panels, int64_t panel_bytes,
                   void* scratch);
void score_avx512(const EncodeView& view, const void* scratch, uint8_t* panels, int64_t panel_bytes);
void encode_pixels_avx512(const EncodeView& view, const EncodeInput& input, const PixelPlanes& planes, void* scratch);
void gather_row_avx512(const GatherRow& row);

constexpr int kStageColumns = 48, kStageGroup = 64;
void lookup_staged_avx512(const LookupBlock& b);
void unstage_avx512(StagedTile* tile);

}  // namespace lutc::kernels
