// Encode with AVX-512 VNNI: 16 rows in the 32-bit lanes, one vpdpbusd a slot and direction.
//
// A panel goes through two stages: slots (quantised; a vector of 16 rows each) and scores. Rows are packed to slots in
// registers where the features of neighbouring slots are near each other, else by way of rows of int8. Images arrive
// with rows contiguous; a projection is an int8 matrix product between two quantise stages.
#include <cstring>

#include "kernels/avx512/encode_row.h"
#include "kernels/avx512/encode_slots.h"
#include "kernels/avx512/intrinsics.h"
#include "kernels/avx512/lookup_avx512.h"

namespace lutc::kernels {
namespace {

/// Up to this many rows are encoded one by one (measured).
constexpr int64_t kSingleRows = 5;

// The inner loop is volatile asm for the same reason as in lookup_avx512.cpp: left alone, gcc hoists the loads of all
// directions at once and then spills them, and makes constants from general registers.
LUTC_INLINE __m512i broadcast(const void* p) {
  __m512i v;
  asm volatile("vpbroadcastd %1, %0" : "=v"(v) : "m"(*static_cast<const int32_t*>(p)));
  return v;
}

LUTC_INLINE void dot(__m512i& sum, __m512i unsigned_bytes, __m512i signed_bytes) {
  asm volatile("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(unsigned_bytes), "v"(signed_bytes));
}

/// 1, 2, 4, 8 in registers: loads are as scarce as arithmetic.
struct Marks {
  __m512i bit[4];
};

LUTC_INLINE Marks make_marks() {
  Marks marks;
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    marks.bit[i] = _mm512_set1_epi32(1 << i);
    asm volatile("" : "+v"(marks.bit[i]));  // or gcc makes it again, from memory, wherever it is used
  }
  return marks;
}

LUTC_INLINE __m512i larger_magnitude(__m512i a, __m512i b) {
  return _mm512_castps_si512(_mm512_range_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), 0xb));
}

/// A codebook of kR panels against its directions.
template <int kSlots, bool kGain, int kR>
struct Scorer {
  const Marks& marks;
  const uint8_t* directions;  ///< entry k at place entries - 1 - k
  const int32_t* start;       ///< likewise
  __m512i z[kR][kSlots];
  __m512i init[kR];  ///< gain form: minus 128 times the sum of z

  LUTC_INLINE void load(const __m512i* slots) {
#pragma GCC unroll 2
    for (int r = 0; r < kR; ++r) {
      init[r] = _mm512_setzero_si512();
#pragma GCC unroll 8
      for (int s = 0; s < kSlots; ++s) {
        z[r][s] = _mm512_load_si512(slots + s * kR + r);
        if constexpr (kGain) init[r] = _mm512_dpbusd_epi32(init[r], _mm512_set1_epi8(static_cast<char>(128)), z[r][s]);
      }
      if constexpr (kGain) init[r] = _mm512_sub_epi32(_mm512_setzero_si512(), init[r]);
    }
  }

  LUTC_INLINE void score(int place, __m512i (&out)[kR]) const {
    const __m512i first = kGain ? _mm512_setzero_si512() : broadcast(start + place);
#pragma GCC unroll 2
    for (int r = 0; r < kR; ++r) out[r] = kGain ? init[r] : first;
#pragma GCC unroll 8
    for (int s = 0; s < kSlots; ++s) {
      const __m512i direction = broadcast(directions + 64 * s + 4 * place);
#pragma GCC unroll 2
      for (int r = 0; r < kR; ++r) kGain ? dot(out[r], direction, z[r][s]) : dot(out[r], z[r][s], direction);
    }
  }

  /// The key of the best of the 2^kBits entries from k on: its score and, in four low bits, its entry. A bit says at
  /// every joint that the lower half won, as it does when scores are equal. Plain form: score << 4. Gain form:
  /// float(score): scores stay below 32 * 127^2 < 2^19, so four bits of their mantissas are free, and vrangeps keeps
  /// the larger magnitude. (On Zen 4 vpabsd and vpshldd would queue for vpdpbusd's two ports.)
  template <int kBits>
  LUTC_INLINE void best(int k, int entries, __m512i (&out)[kR]) const {
    if constexpr (kBits == 0) {
      score(entries - 1 - k, out);
#pragma GCC unroll 2
      for (int r = 0; r < kR; ++r)
        out[r] = kGain ? _mm512_castps_si512(_mm512_cvtepi32_ps(out[r])) : _mm512_slli_epi32(out[r], 4);
    } else {
      __m512i other[kR];
      best<kBits - 1>(k, entries, out);
      best<kBits - 1>(k + (1 << (kBits - 1)), entries, other);
#pragma GCC unroll 2
      for (int r = 0; r < kR; ++r) {
        const __m512i lower = _mm512_or_si512(out[r], marks.bit[kBits - 1]);
        out[r] = kGain ? larger_magnitude(lower, other[r]) : _mm512_max_epi32(lower, other[r]);
      }
    }
  }
};

LUTC_INLINE __m512i gain_of(__m512i score, float mul, float limit) {
  __m512 g = _mm512_mul_ps(_mm512_cvtepi32_ps(score), _mm512_set1_ps(mul));
  g = _mm512_min_ps(_mm512_max_ps(g, _mm512_set1_ps(-limit)), _mm512_set1_ps(limit));
  return _mm512_cvtps_epi32(g);
}

constexpr int bits_of(int entries) { return entries == 16 ? 4 : entries == 8 ? 3 : 2; }

/// The key of the best entry, the complement of its code in the low bits, and its gain.
template <int K, int kSlots, bool kGain, int kR>
LUTC_INLINE void by_scores(const Marks& marks, const __m512i* slots, const uint8_t* directions, const int32_t* start,
                           float mul, float limit, __m512i (&key)[kR], __m512i (&gain)[kR]) {
  asm volatile("" : "+r"(directions), "+r"(start));  // no address of an entry is worth a register
  Scorer<kSlots, kGain, kR> scorer{marks, directions, start, {}, {}};
  scorer.load(slots);
  scorer.template best<bits_of(K)>(0, K, key);
  if constexpr (kGain) {
#pragma GCC unroll 2
    for (int r = 0; r < kR; ++r) {
      // The winner's score once more, with its sign.
      __m512i score = scorer.init[r];
#pragma GCC unroll 8
      for (int s = 0; s < kSlots; ++s) {
        const __m512i lines = _mm512_loadu_si512(directions + 64 * s);
        const __m512i index = K == 16 ? key[r] : _mm512_and_si512(key[r], _mm512_set1_epi32(K - 1));
        score = _mm512_dpbusd_epi32(score, _mm512_permutexvar_epi32(index, lines), scorer.z[r][s]);
      }
      gain[r] = gain_of(score, mul, limit);
    }
  }
}

/// Gain form: as by_scores(), of four codebooks of kSlots slots, whose codes and gains enter keys and gains. The
/// winners' scores are chains of dependent instructions: those of four codebooks together fill the time.
template <int K, int kSlots, int kR>
LUTC_INLINE void four_by_scores(const Marks& marks, const __m512i* slots, const uint8_t* directions, const float* mul,
                                float limit, __m512i (&keys)[kR], __m512i (&gains)[kR]) {
  __m512i key[4][kR], score[4][kR];
#pragma GCC unroll 1
  for (int j = 0; j < 4; ++j) {
    Scorer<kSlots, true, kR> scorer{marks, directions + j * kSlots * 64, nullptr, {}, {}};
    asm volatile("" : "+r"(scorer.directions));  // no address of an entry is worth a register
    scorer.load(slots + j * kSlots * kR);
    scorer.template best<bits_of(K)>(0, K, key[j]);
#pragma GCC unroll 2
    for (int r = 0; r < kR; ++r) score[j][r] = scorer.init[r];
  }
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
#pragma GCC unroll 2
    for (int r = 0; r < kR; ++r) {
      const __m512i index = K == 16 ? key[j][r] : _mm512_and_si512(key[j][r], _mm512_set1_epi32(K - 1));
#pragma GCC unroll 8
      for (int s = 0; s < kSlots; ++s) {
        const __m512i lines = _mm512_loadu_si512(directions + (j * kSlots + s) * 64);
        const __m512i z = _mm512_load_si512(slots + (j * kSlots + s) * kR + r);
        score[j][r] = _mm512_dpbusd_epi32(score[j][r], _mm512_permutexvar_epi32(index, lines), z);
      }
      keys[r] = _mm512_shrdi_epi32(keys[r], key[j][r], 8);
      gains[r] = _mm512_shrdi_epi32(gains[r], gain_of(score[j][r], mul[j], limit), 8);
    }
  }
}

/// As by_scores(), of kC codebooks of two features with an AngleTable each. A search is a chain of dependent
/// instructions: several at once fill the time.
template <int kC, int kR>
LUTC_INLINE void by_angle(const __m512i* slots, bool pairs, const uint8_t* tables, const float* mul, float limit,
                          __m512i (&key)[kC][kR], __m512i (&gain)[kC][kR]) {
  constexpr int kChains = kC * kR;
  __m512i q[kChains], path[kChains];
#pragma GCC unroll 8
  for (int i = 0; i < kChains; ++i) {
    q[i] = _mm512_load_si512(slots + i);
    if (!pairs) {
      const __m512i words =
          _mm512_broadcast_i32x4(_mm_setr_epi8(-1, 0, -1, 1, -1, 4, -1, 5, -1, 8, -1, 9, -1, 12, -1, 13));
      q[i] = _mm512_srai_epi16(_mm512_shuffle_epi8(q[i], words), 8);
    }
  }
  const auto table = [tables](int i, int part) { return _mm512_loadu_si512(tables + i / kR * 192 + part * 64); };
  __m512i turned[kChains];
#pragma GCC unroll 8
  for (int i = 0; i < kChains; ++i) {
    const __m512i sign = _mm512_srai_epi32(_mm512_madd_epi16(q[i], broadcast(tables + i / kR * 192)), 31);
    turned[i] = _mm512_sub_epi16(_mm512_xor_si512(q[i], sign), sign);
  }
  // A bit a step: the sign of the edge. The first one is the leading 1 of a heap's index.
#pragma GCC unroll 8
  for (int i = 0; i < kChains; ++i) {
    const __m512i side = _mm512_madd_epi16(turned[i], broadcast(tables + i / kR * 192 + 4));
    path[i] = _mm512_shldi_epi32(_mm512_set1_epi32(1), side, 1);
  }
#pragma GCC unroll 3
  for (int step = 0; step < 3; ++step) {
#pragma GCC unroll 8
    for (int i = 0; i < kChains; ++i) {
      const __m512i side = _mm512_madd_epi16(turned[i], _mm512_permutexvar_epi32(path[i], table(i, 0)));
      path[i] = _mm512_shldi_epi32(path[i], side, 1);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kChains; ++i) {
    key[i / kR][i % kR] = _mm512_permutexvar_epi32(path[i], table(i, 2));
    const __m512i direction = _mm512_permutexvar_epi32(path[i], table(i, 1));
    gain[i / kR][i % kR] = gain_of(_mm512_madd_epi16(q[i], direction), mul[i / kR], limit);
  }
}

/// Four codebooks, all of them pairs to be searched by angle.
bool four_by_angle(const uint8_t* by_angle, const uint8_t* forms) {
  return std::memcmp(by_angle, "\1\1\1\1", 4) == 0 && (forms[0] & forms[1] & forms[2] & forms[3] & kPairSlot) != 0;
}

template <int K, bool kGain, int kR>
void score(const EncodeView& e, const __m512i* slots, uint8_t* panel, int64_t panel_bytes) {
  const uint8_t* directions = e.directions;
  const uint8_t* forms = e.slot_features;
  const float limit = static_cast<float>(e.gain_limit);
  const __m512i places = _mm512_set1_epi32(K * 0x03020100), mask = _mm512_set1_epi32((K - 1) * 0x01010101);
  const __m512i ones = _mm512_set1_epi8(1);
  const Marks marks = make_marks();
  __m512i sum[kR];
  for (int r = 0; r < kR; ++r) sum[r] = _mm512_setzero_si512();
  uint8_t* out = panel + (kGain ? 64 : 0);
  for (int64_t c0 = 0; c0 < e.codebooks; c0 += 4) {
    const int count = static_cast<int>(e.codebooks - c0 < 4 ? e.codebooks - c0 : 4);
    __m512i keys[kR], gains[kR];
    for (int r = 0; r < kR; ++r) keys[r] = gains[r] = _mm512_setzero_si512();
    int j = 0;
    if (kGain && count == 4 && four_by_angle(e.by_angle + c0, forms)) {
      __m512i key[4][kR], gain[4][kR];
      by_angle<4, kR>(slots, true, directions, e.gain_mul + c0, limit, key, gain);
#pragma GCC unroll 4
      for (; j < 4; ++j) {
#pragma GCC unroll 2
        for (int r = 0; r < kR; ++r) {
          keys[r] = _mm512_shrdi_epi32(keys[r], key[j][r], 8);
          gains[r] = _mm512_shrdi_epi32(gains[r], gain[j][r], 8);
        }
      }
      slots += 4 * kR;
      forms += 4;
      directions += 4 * 192;
    }
    if (kGain && j == 0 && count == 4 && std::memcmp(e.by_angle + c0, "\0\0\0\0", 4) == 0) {
      const int used = e.slot_count[c0];
      if (used <= 2 && std::memcmp(e.slot_count + c0, used == 1 ? "\1\1\1\1" : "\2\2\2\2", 4) == 0) {
        used == 1 ? four_by_scores<K, 1, kR>(marks, slots, directions, e.gain_mul + c0, limit, keys, gains)
                  : four_by_scores<K, 2, kR>(marks, slots, directions, e.gain_mul + c0, limit, keys, gains);
        slots += 4 * used * kR;
        forms += 4 * used;
        directions += 4 * used * 64;
        j = 4;
      }
    }
    for (; j < count; ++j) {
      const int64_t c = c0 + j;
      int used = e.slot_count[c], table_bytes = 64 * used;
      __m512i key[kR], gain[kR];
      const int32_t* start = e.start + 16 * c;
      const float mul = e.gain_mul[c];
      if (kGain && e.by_angle[c] != 0) {
        table_bytes = 192;
        __m512i one_key[1][kR], one_gain[1][kR];
        by_angle<1, kR>(slots, *forms == kPairSlot, directions, &mul, limit, one_key, one_gain);
#pragma GCC unroll 2
        for (int r = 0; r < kR; ++r) {
          key[r] = one_key[0][r];
          gain[r] = one_gain[0][r];
        }
      } else {
        switch (used) {
          case 1:
            by_scores<K, 1, kGain, kR>(marks, slots, directions, start, mul, limit, key, gain);
            break;
          case 2:
            by_scores<K, 2, kGain, kR>(marks, slots, directions, start, mul, limit, key, gain);
            break;
          case 3:
            by_scores<K, 3, kGain, kR>(marks, slots, directions, start, mul, limit, key, gain);
            break;
          case 4:
            by_scores<K, 4, kGain, kR>(marks, slots, directions, start, mul, limit, key, gain);
            break;
          default:
            by_scores<K, 8, kGain, kR>(marks, slots, directions, start, mul, limit, key, gain);
            break;
        }
      }
      slots += used * kR;
      forms += used;
      directions += table_bytes;
      // The low bytes enter from above: after four codebooks the first is in the lowest byte.
#pragma GCC unroll 2
      for (int r = 0; r < kR; ++r) {
        keys[r] = _mm512_shrdi_epi32(keys[r], key[r], 8);
        if constexpr (kGain) gains[r] = _mm512_shrdi_epi32(gains[r], gain[r], 8);
      }
    }
#pragma GCC unroll 2
    for (int r = 0; r < kR; ++r) {
      if (count < 4) {  // missing codebooks: code 0, gain 0
        for (int j = count; j < 4; ++j) {
          keys[r] = _mm512_shrdi_epi32(keys[r], mask, 8);
          gains[r] = _mm512_srli_epi32(gains[r], 8);
        }
      }
      // (~keys & mask) | places
      _mm512_store_si512(out + r * panel_bytes, _mm512_ternarylogic_epi32(keys[r], mask, places, 0xae));
      if constexpr (kGain) {
        _mm512_store_si512(out + r * panel_bytes + 64, gains[r]);
        sum[r] = _mm512_dpbusd_epi32(sum[r], ones, gains[r]);
      }
    }
    out += kGain ? 128 : 64;
  }
  if constexpr (kGain) {
    for (int r = 0; r < kR; ++r)
      _mm512_store_si512(panel + r * panel_bytes, _mm512_mullo_epi32(sum[r], _mm512_set1_epi32(-128)));
  }
}

template <int kR>
void score_any(const EncodeView& e, const __m512i* slots, uint8_t* panel, int64_t panel_bytes) {
  const bool gain = e.gain_limit > 0;
  switch (e.entries) {
    case 16:
      return gain ? score<16, true, kR>(e, slots, panel, panel_bytes)
                  : score<16, false, kR>(e, slots, panel, panel_bytes);
    case 8:
      return gain ? score<8, true, kR>(e, slots, panel, panel_bytes)
                  : score<8, false, kR>(e, slots, panel, panel_bytes);
    default:
      return gain ? score<4, true, kR>(e, slots, panel, panel_bytes)
                  : score<4, false, kR>(e, slots, panel, panel_bytes);
  }
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
    } else if (by_rows && e.runs != nullptr) {
      pack_any<kR>(e, x, in.row_stride, rows, s.slots + r);
    } else if (by_rows) {
      quantise_any(e.has_offset, x, in.row_stride, rows, e.features, e.offset, e.inv_scale, s.rows, s.row_stride);
      arrange<kR>(e, s.rows, s.row_stride, rows, s.slots + r);
    } else if (e.has_offset) {
      slots_of_features<kR>(e, s.slots + r,
                            [&](int64_t f) { return quantise_feature(load(f), e.offset, e.inv_scale, f); });
    } else {
      slots_of_features<kR>(e, s.slots + r,
                            [&](int64_t f) { return quantise_feature<false>(load(f), e.offset, e.inv_scale, f); });
    }
  }
  score_any<kR>(e, s.slots, panel, panel_bytes);
}

}  // namespace

size_t encode_scratch_avx512(const EncodeView& e) {
  const int64_t projection = e.projected ? input_slots(e) + e.features : 0;
  return static_cast<size_t>((round_up(e.slots, 16) + 16) * 128 + kRows * (round_up(widest(e), 64) + 64) +
                             projection * 64);
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

}  // namespace lutc::kernels
