// Encode with AVX2: 8 rows in the 32-bit lanes, four vectors a panel. A slot is two vectors of int16 pairs, (0, 2) and
// (1, 3); directions are int16 and come times 16, so that the sum of two vpmaddwd has room for the entry's index in its
// low four bits.
//
// The stages are those of encode_avx512.cpp: slots (encode_slots.h), scores; in the gain form the windows of 16-bit
// sums follow (encode_windows.h).
#include "kernels/avx2/encode_codebook.h"
#include "kernels/avx2/encode_row.h"
#include "kernels/avx2/encode_short.h"
#include "kernels/avx2/encode_slots.h"
#include "kernels/avx2/encode_windows.h"
#include "kernels/avx2/lookup_avx2.h"

namespace lutc::kernels {
namespace {

/// Up to so many rows are encoded one by one.
constexpr int64_t kSingleRows = 4;

/// Codebooks of one slot, gain form, that are encoded stage by stage, so that the stages of several overlap.
constexpr int kBatch = 8;

bool is_short(const EncodeView& e, int64_t c) { return e.gain_limit > 0 && e.slot_count[c] == 1; }

/// Bytes of codes and gains of some codebooks and 32 rows, in the order of packing.
struct Encoded {
  __m256i codes[kBatch], gains[kBatch];
};

/// The codebooks from c on that are short.
__attribute__((noinline)) void encode_short(const EncodeView& e, int64_t c, int count, const __m256i* slots,
                                            const ShortEntries* entries, Encoded& out) {
  ShortRows rows[kBatch];
  const __m256i* slot = slots;
  for (int i = 0; i < count; slot += e.slot_count[c + i++] * kVectors) {
    if (!is_short(e, c + i)) continue;
    entries[i].pairs == 1 ? prepare_rows<1>(slot, rows[i]) : prepare_rows<2>(slot, rows[i]);
  }
  for (int i = 0; i < count; ++i) {
    if (!is_short(e, c + i)) continue;
    out.codes[i] =
        entries[i].pairs == 1 ? search<1>(e.entries, entries[i], rows[i]) : search<2>(e.entries, entries[i], rows[i]);
  }
  for (int i = 0; i < count; ++i) {
    if (!is_short(e, c + i)) continue;
    out.gains[i] = entries[i].pairs == 1 ? gains<1>(entries[i], rows[i], out.codes[i], e.gain_mul[c + i], e.gain_limit)
                                         : gains<2>(entries[i], rows[i], out.codes[i], e.gain_mul[c + i], e.gain_limit);
  }
}

/// The other codebooks.
template <bool kGain>
void encode_others(const EncodeView& e, int64_t c, int count, const __m256i* slots, const uint8_t* directions,
                   Encoded& out) {
  const float limit = static_cast<float>(e.gain_limit);
  for (int i = 0; i < count; ++i) {
    const int used = e.slot_count[c + i];
    if (!is_short(e, c + i)) {
      __m256i code[kVectors], gain[kVectors];
      const int32_t* start = e.start + 16 * (c + i);
      const float mul = e.gain_mul[c + i];
      if (used > 1) {
        encode_long<kGain>(used, e.entries, slots, directions, start, mul, limit, code, gain);
      } else if (is_pair(directions)) {
        encode_pair(e.entries, slots, directions, start, code);
      } else {
        encode_codebook<1, false, 4>(e.entries, slots, directions, start, mul, limit, code, gain);
      }
      out.codes[i] = pack(code);
      if constexpr (kGain) out.gains[i] = pack(gain);
    }
    slots += used * kVectors;
    directions += 128 * used;
  }
}

/// Some panels; kOfRows: rows 8 .. 15 change places with rows 16 .. 23 (LookupKernels::row_places).
template <bool kGain, bool kOfRows>
__attribute__((noinline)) void score(const EncodeView& e, const __m256i* slots, int64_t slot_step, uint8_t* panel,
                                     int64_t panel_bytes, int panels) {
  const __m256i in_order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  const __m256i code_order = kOfRows ? _mm256_setr_epi32(0, 4, 2, 6, 1, 5, 3, 7) : in_order;
  const uint8_t* directions = e.directions;
  uint8_t* units = panel + start_bytes(e, least_window(e));
  for (int64_t c = 0; c < e.codebooks; c += kBatch, units += kBatch * kUnitBytes<kGain> / 2) {
    const int count = static_cast<int>(lesser(kBatch, e.codebooks - c));
    ShortEntries entries[kBatch];
    int used = 0, others = 0;
    for (int i = 0; i < count; used += e.slot_count[c + i++]) {
      if (is_short(e, c + i)) {
        prepare_entries(directions + 128 * used, entries[i]);
      } else {
        ++others;
      }
    }
    for (int p = 0; p < panels; ++p) {
      Encoded encoded;
      if (others < count) encode_short(e, c, count, slots + p * slot_step, entries, encoded);
      if (others > 0) encode_others<kGain>(e, c, count, slots + p * slot_step, directions, encoded);
      if (count % 2 != 0) encoded.codes[count] = encoded.gains[count] = _mm256_setzero_si256();
      uint8_t* out = units + p * panel_bytes;
      for (int i = 0; i < count; i += 2, out += kUnitBytes<kGain>) {
        write(out, _mm256_permutevar8x32_epi32(encoded.codes[i], code_order));
        write(out + 32, _mm256_permutevar8x32_epi32(encoded.codes[i + 1], code_order));
        if constexpr (kGain) {
          const __m256i a = _mm256_permutevar8x32_epi32(encoded.gains[i], in_order);
          const __m256i b = _mm256_permutevar8x32_epi32(encoded.gains[i + 1], in_order);
          const __m256i low = _mm256_unpacklo_epi8(a, b), high = _mm256_unpackhi_epi8(a, b);
          write(out + 64, _mm256_permute2x128_si256(low, high, 0x20));
          write(out + 96, _mm256_permute2x128_si256(low, high, 0x31));
        }
      }
    }
    slots += used * kVectors;
    directions += 128 * used;
  }
}

void encode_row_by_row(const EncodeView& e, const EncodeInput& in, bool of_rows, uint8_t* panel, const Scratch& s) {
  const int64_t unit_bytes = e.gain_limit > 0 ? kUnitBytes<true> : kUnitBytes<false>;
  uint8_t* units = panel + start_bytes(e, least_window(e));
  std::memset(units, 0, static_cast<size_t>(unit_count(e) * unit_bytes));
  for (int64_t r = 0; r < in.rows; ++r) {
    quantise_rows(in.x + r * in.row_stride, in.row_stride, 1, e.features, e.has_offset ? e.offset : nullptr,
                  e.inv_scale, s.rows, s.row_stride);
    e.gain_limit > 0 ? score_row<true>(e, s.rows, r, units) : score_row<false>(e, s.rows, r, units);
  }
  if (e.gain_limit > 0) make_windows(e, of_rows, panel, s.slots);
}

}  // namespace

size_t encode_scratch_avx2(const EncodeView& e) {
  const int64_t projection = e.projected ? input_slots(e) + e.features : 0;
  return static_cast<size_t>((kEncodePanelsAvx2 * round_up(e.slots, 16) + projection) * 128 +
                             kRows * (round_up(widest(e), 64) + 64));
}

void encode_avx2(const EncodeView& e, const EncodeInput& in, uint8_t* panel, int64_t panel_bytes, void* memory) {
  const Scratch s = carve(e, memory);
  const bool by_rows = in.feature_stride == 1, of_rows = by_rows && in.rows > 1;
  int panels = 0;  // that are encoded together
  for (int64_t row = 0; row < in.rows; row += kRows) {
    EncodeInput part = in;
    part.x += row * in.row_stride;
    part.rows = lesser(kRows, in.rows - row);
    if (by_rows && !e.projected && e.entries == 16 && part.rows <= kSingleRows) {
      // The last panel: the memory of its slots is free.
      Scratch own = s;
      own.slots += panels * s.slot_step;
      encode_row_by_row(e, part, of_rows, panel + panels * panel_bytes, own);
      break;
    }
    fill_slots(e, part, s, s.slots + panels++ * s.slot_step);
  }
  if (e.gain_limit == 0) return score<false, false>(e, s.slots, s.slot_step, panel, panel_bytes, panels);
  of_rows ? score<true, true>(e, s.slots, s.slot_step, panel, panel_bytes, panels)
          : score<true, false>(e, s.slots, s.slot_step, panel, panel_bytes, panels);
  for (int p = 0; p < panels; ++p) make_windows(e, of_rows, panel + p * panel_bytes, s.slots + p * s.slot_step);
}

}  // namespace lutc::kernels
