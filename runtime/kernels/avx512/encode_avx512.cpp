// Encode with AVX-512 VNNI: 16 rows in the 32-bit lanes.
//
// A panel goes through two stages: slots (quantised; a vector of 16 rows each) and scores (score_panels.h). Rows are
// packed to slots in registers where the features of neighbouring slots are near each other, else by way of rows of
// int8. Images arrive with rows contiguous; a projection is an int8 matrix product between two quantise stages.
#include "kernels/avx512/encode_row.h"
#include "kernels/avx512/encode_slots.h"
#include "kernels/avx512/intrinsics.h"
#include "kernels/avx512/lookup_avx512.h"
#include "kernels/avx512/score_panels.h"

namespace lutc::kernels {
namespace {

/// Images of so many bytes are in a level 2 cache: nothing of them is worth fetching ahead (measured).
constexpr int64_t kNearBytes = 256 << 10;
/// Up to this many rows are encoded one by one (measured).
constexpr int64_t kSingleRows = 5;

/// `next`: pixels to be encoded after these, features `stride` apart, or null.
template <int kR>
void score(const EncodeView& e, const __m512i* slots, const float* next, int64_t stride, uint8_t* panel,
           int64_t panel_bytes) {
  (e.gain_limit > 0 ? score_gain_avx512 : score_plain_avx512)(e, {kR, slots, next, stride, panel, panel_bytes});
}

void quantise_any(bool has_offset, const float* x, int64_t stride, int64_t rows, int64_t features, const float* offset,
                  const float* inv_scale, int8_t* q, int64_t q_stride) {
  if (has_offset) {
    quantise_rows<true>(x, stride, rows, features, offset, inv_scale, q, q_stride);
  } else {
    quantise_rows<false>(x, stride, rows, features, offset, inv_scale, q, q_stride);
  }
}

/// Codes of kR panels (the last may be short).
template <int kR>
void encode_panels(const EncodeView& e, const EncodeInput& in, uint8_t* panel, int64_t panel_bytes, void* memory) {
  const Scratch s = carve(e, memory);
  const bool by_rows = in.feature_stride == 1;
  if (!e.projected && !by_rows) {
    e.has_offset ? slots_of_pixels<kR, true>(e, in.x, in.feature_stride, in.rows, s.slots)
                 : slots_of_pixels<kR, false>(e, in.x, in.feature_stride, in.rows, s.slots);
    const bool near = e.features * in.feature_stride * 4 <= kNearBytes;
    return score<kR>(e, s.slots, near ? nullptr : in.x + kR * kRows, in.feature_stride, panel, panel_bytes);
  }
  for (int r = 0; r < kR; ++r) {
    const int64_t rows = in.rows - r * kRows < kRows ? in.rows - r * kRows : kRows;
    const float* x = in.x + r * kRows * in.row_stride;
    const __mmask16 mask = lanes(rows);
    const auto load = [&](int64_t f) { return _mm512_maskz_loadu_ps(mask, x + f * in.feature_stride); };
    if (e.projected) {
      if (by_rows) {
        quantise_any(e.has_proj_offset, x, in.row_stride, rows, e.inputs, e.proj_offset, e.proj_inv_scale, s.rows,
                     s.row_stride);
        input_slots_of_rows(e, s.rows, s.row_stride, s.input_slots);
      } else {
        input_slots_of_features(
            e, s.input_slots, [&](int64_t d) { return quantise_feature(load(d), e.proj_offset, e.proj_inv_scale, d); });
      }
      project(e, s.input_slots, s.features);
      slots_of_features<kR>(e, s.slots + r, [&](int64_t f) { return s.features[f]; });
    } else if (e.runs != nullptr) {
      pack_any<kR>(e, x, in.row_stride, rows, s.slots + r);
    } else {
      quantise_any(e.has_offset, x, in.row_stride, rows, e.features, e.offset, e.inv_scale, s.rows, s.row_stride);
      arrange<kR>(e, s.rows, s.row_stride, rows, s.slots + r);
    }
  }
  score<kR>(e, s.slots, nullptr, 0, panel, panel_bytes);
}

int64_t codes_of_panel(const EncodeView& e) {
  return e.gain_limit > 0 ? 64 + round_up(e.codebooks, 4) / 4 * 128 : round_up(e.codebooks, 4) / 4 * 64;
}

int64_t panel_scratch(const EncodeView& e) {
  const int64_t projection = e.projected ? input_slots(e) + e.features : 0;
  return (round_up(e.slots, 16) + 16) * 128 + kRows * (round_up(widest(e), 64) + 64) + projection * 64;
}

/// A panel to planes, of which it is number `at`.
template <bool kGain>
void place_pixels(const PixelPlanes& planes, const uint8_t* panel, int64_t units, int64_t at, int64_t rows) {
  uint8_t* codes = planes.codes + at * 64;
  if constexpr (!kGain) {
    for (int64_t u = 0; u < units; ++u, panel += 64, codes += planes.code_unit_step)
      _mm512_storeu_si512(codes, _mm512_load_si512(panel));
    return;
  }
  const int64_t copies = planes.copies;
  const int64_t* const copy = planes.copy;
  const uint16_t* inside = planes.inside + (planes.phase + at) % planes.period * copies;
  const __mmask16 present = lanes(rows);
  uint8_t* gains = planes.gains + at * 64;
  panel += 64;
  for (int64_t u = 0; u < units; ++u, panel += 128, codes += planes.code_unit_step, gains += planes.gain_unit_step) {
    _mm512_storeu_si512(codes, _mm512_load_si512(panel));
    const __m512i g = _mm512_load_si512(panel + 64);
    for (int64_t v = 0; v < copies; ++v)
      _mm512_storeu_si512(gains + copy[v], _mm512_maskz_mov_epi32(present & inside[v], g));
  }
}

}  // namespace

size_t encode_scratch_avx512(const EncodeView& e) {
  return static_cast<size_t>(panel_scratch(e) + 2 * codes_of_panel(e));
}

void encode_avx512(const EncodeView& e, const EncodeInput& in, uint8_t* panels, int64_t panel_bytes, void* scratch) {
  if (e.row_by_row && in.rows <= kSingleRows && in.feature_stride == 1) {
    const Scratch s = carve(e, scratch);
    for (int64_t r = 0; r < in.rows; ++r) {
      quantise_any(e.has_offset, in.x + r * in.row_stride, in.row_stride, 1, e.features, e.offset, e.inv_scale, s.rows,
                   s.row_stride);
      e.gain_limit > 0 ? score_row<true>(e, s.rows, r, panels) : score_row<false>(e, s.rows, r, panels);
    }
    return;
  }
  in.rows > kRows ? encode_panels<2>(e, in, panels, panel_bytes, scratch)
                  : encode_panels<1>(e, in, panels, panel_bytes, scratch);
}

void score_avx512(const EncodeView& e, const void* scratch, uint8_t* panels, int64_t panel_bytes) {
  score<2>(e, static_cast<const __m512i*>(scratch), nullptr, 0, panels, panel_bytes);
}

void encode_pixels_avx512(const EncodeView& e, const EncodeInput& in, const PixelPlanes& planes, void* scratch) {
  const int64_t panel_bytes = codes_of_panel(e), units = round_up(e.codebooks, 4) / 4;
  uint8_t* const panels = static_cast<uint8_t*>(scratch) + panel_scratch(e);
  EncodeInput part = in;
  for (int64_t row = 0; row < in.rows; row += 2 * kRows) {
    const int64_t rest = in.rows - row;
    part.x = in.x + row * in.row_stride;
    part.rows = rest < 2 * kRows ? rest : 2 * kRows;
    encode_avx512(e, part, panels, panel_bytes, scratch);
    for (int64_t r = 0; r < part.rows; r += kRows) {
      const uint8_t* panel = panels + r / kRows * panel_bytes;
      e.gain_limit > 0 ? place_pixels<true>(planes, panel, units, (row + r) / kRows, rest - r)
                       : place_pixels<false>(planes, panel, units, (row + r) / kRows, rest - r);
    }
  }
}

}  // namespace lutc::kernels
