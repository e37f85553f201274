// The second stage of the encode: slots -> codes and gains. Directions are scored, one vpdpbusd a slot and direction,
// or searched by angle.
#pragma once

#include <cstring>

#include "kernels/avx512/intrinsics.h"
#include "kernels/avx512/score_panels.h"

namespace lutc::kernels {
namespace {

#define LUTC_INLINE __attribute__((always_inline)) inline

constexpr int kRows = 16;

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
  return _mm512_castps_si512(_mm512_range_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), 0x7));
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

/// Not clipped: products fit integers (EncodePlan), and pack_gains() clips bytes.
LUTC_INLINE __m512i gain_of(__m512 score, float mul) {
  return _mm512_cvtps_epi32(_mm512_mul_ps(score, _mm512_set1_ps(mul)));
}

/// The winner's score, whose key it is but for the entry.
LUTC_INLINE __m512 score_of(__m512i key) { return _mm512_castsi512_ps(_mm512_and_si512(key, _mm512_set1_epi32(~15))); }

/// Four vectors of gains to the bytes of one, clipped.
LUTC_INLINE __m512i pack_gains(const __m512i (&gain)[4], __m512i limit) {
  const __m512i order = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
  const __m512i bytes = _mm512_packs_epi16(_mm512_packs_epi32(gain[0], gain[1]), _mm512_packs_epi32(gain[2], gain[3]));
  const __m512i clipped =
      _mm512_max_epi8(_mm512_min_epi8(bytes, limit), _mm512_sub_epi8(_mm512_setzero_si512(), limit));
  return _mm512_shuffle_epi8(clipped, order);
}

constexpr int bits_of(int entries) { return entries == 16 ? 4 : entries == 8 ? 3 : 2; }

/// A unit in the making.
template <int kR>
struct Unit {
  __m512i keys[kR];  ///< their low bytes, which enter from above: after four codebooks the first is in the lowest byte
  __m512i gain[4][kR];

  LUTC_INLINE Unit() {
#pragma GCC unroll 2
    for (int r = 0; r < kR; ++r) keys[r] = _mm512_setzero_si512();
  }

  LUTC_INLINE void add_key(int r, __m512i key) { keys[r] = _mm512_shrdi_epi32(keys[r], key, 8); }

  /// Stores codes and gains, and adds the gains to sum.
  template <int K, bool kGain>
  LUTC_INLINE void store(__m512i limit, uint8_t* out, int64_t panel_bytes, __m512i (&sum)[kR]) const {
    const __m512i mask = _mm512_set1_epi32((K - 1) * 0x01010101), places = _mm512_set1_epi32(K * 0x03020100);
#pragma GCC unroll 2
    for (int r = 0; r < kR; ++r, out += panel_bytes) {
      // (~keys & mask) | places
      _mm512_store_si512(out, _mm512_ternarylogic_epi32(keys[r], mask, places, 0xae));
      if constexpr (kGain) {
        const __m512i gains = pack_gains({gain[0][r], gain[1][r], gain[2][r], gain[3][r]}, limit);
        _mm512_store_si512(out + 64, gains);
        sum[r] = _mm512_dpbusd_epi32(sum[r], _mm512_set1_epi8(1), gains);
      }
    }
  }
};

/// Codebooks j to j + kC - 1 of a unit, of two features with an AngleTable each. A search is a chain of dependent
/// instructions: several at once fill the time.
template <int kC, int kR>
LUTC_INLINE void by_angle(const __m512i* slots, bool pairs, const uint8_t* tables, const float* mul, int j,
                          Unit<kR>& unit) {
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
    unit.add_key(i % kR, _mm512_permutexvar_epi32(path[i], table(i, 2)));
    const __m512i direction = _mm512_permutexvar_epi32(path[i], table(i, 1));
    unit.gain[j + i / kR][i % kR] = gain_of(_mm512_cvtepi32_ps(_mm512_madd_epi16(q[i], direction)), mul[i / kR]);
  }
}

/// Codebook j of a unit, of kSlots slots.
template <int K, int kSlots, bool kGain, int kR>
LUTC_INLINE void by_scores(const Marks& marks, const __m512i* slots, const uint8_t* directions, const int32_t* start,
                           float mul, int j, Unit<kR>& unit) {
  asm volatile("" : "+r"(directions), "+r"(start));  // no address of an entry is worth a register
  Scorer<kSlots, kGain, kR> scorer{marks, directions, start, {}, {}};
  scorer.load(slots);
  __m512i key[kR];
  scorer.template best<bits_of(K)>(0, K, key);
#pragma GCC unroll 2
  for (int r = 0; r < kR; ++r) {
    unit.add_key(r, key[r]);
    if constexpr (kGain) unit.gain[j][r] = gain_of(score_of(key[r]), mul);
  }
}

/// Pixels of the next panels, fetched while these are scored: as many streams as channels, of which the hardware
/// follows fewer, and more misses than can wait at once where they are all asked for in a row.
struct Ahead {
  const float* x;  ///< null: nothing to fetch
  int64_t stride;  ///< from one feature to the next
  const int32_t* source;

  /// Those of the next `slots` slots of kR panels.
  template <int kR>
  LUTC_INLINE void fetch(int64_t slots) {
    if (x == nullptr) return;
    const int32_t* const end = source + 4 * slots;
    do {
      const float* p = x + *source * stride;
      _mm_prefetch(p, _MM_HINT_T0);
      if constexpr (kR > 1) _mm_prefetch(p + kRows, _MM_HINT_T0);
    } while (++source != end);
  }
};

/// Where kR panels have got to.
template <int kR>
struct Place {
  const __m512i* slots;
  const uint8_t* directions;
  const uint8_t* forms;  ///< of slots
  uint8_t* out;          ///< codes of a unit in the first panel
  int64_t panel_bytes;
  Ahead ahead;
};

/// `units` units from codebook c on, all their codebooks of kSlots slots. A function of its own, for the registers'
/// sake.
template <int K, int kSlots, bool kGain, int kR>
__attribute__((noinline)) void equal_units(const EncodeView& e, int64_t c, int64_t units, Place<kR>& at,
                                           __m512i (&sums)[kR]) {
  const Marks marks = make_marks();
  const __m512i limit = _mm512_set1_epi8(static_cast<char>(e.gain_limit));
  const __m512i* slots = at.slots;
  const uint8_t* directions = at.directions;
  const int32_t* start = e.start + 16 * c;
  const float* mul = e.gain_mul + c;
  uint8_t* out = at.out;
  const int64_t panel_bytes = at.panel_bytes;
  __m512i sum[kR];
  for (int r = 0; r < kR; ++r) sum[r] = sums[r];
  for (const uint8_t* end = out + units * (kGain ? 128 : 64); out != end; out += kGain ? 128 : 64) {
    Unit<kR> unit;
#pragma GCC unroll 1
    for (int j = 0; j < 4; ++j) {
      at.ahead.template fetch<kR>(kSlots);
      by_scores<K, kSlots, kGain, kR>(marks, slots, directions, start, *mul, j, unit);
      slots += kSlots * kR;
      directions += 64 * kSlots;
      start += 16;
      ++mul;
    }
    unit.template store<K, kGain>(limit, out, panel_bytes, sum);
  }
  for (int r = 0; r < kR; ++r) sums[r] = sum[r];
}

/// How many units from codebook c on have only codebooks of as many slots as c, one or two, and none to be searched by
/// angle.
int64_t count_equal_units(const EncodeView& e, int64_t c) {
  const uint8_t slots = e.slot_count[c];
  int64_t end = c;
  while (slots <= 2 && end < e.codebooks && e.slot_count[end] == slots && e.by_angle[end] == 0) ++end;
  return (end - c) / 4;
}

/// A unit of `count` codebooks of any kind.
template <int K, bool kGain, int kR>
__attribute__((noinline)) void mixed_unit(const EncodeView& e, int64_t c0, int count, Place<kR>& at,
                                          __m512i (&sum)[kR]) {
  const Marks marks = make_marks();
  Unit<kR> unit;
  int j = 0;
  int slots = 0;
  for (int i = 0; i < count; ++i) slots += e.slot_count[c0 + i];
  at.ahead.template fetch<kR>(slots);
  const bool by_angle_all = kGain && count == 4 && std::memcmp(e.by_angle + c0, "\1\1\1\1", 4) == 0;
  if (by_angle_all && (at.forms[0] & at.forms[1] & at.forms[2] & at.forms[3] & kPairSlot) != 0) {
    by_angle<4, kR>(at.slots, true, at.directions, e.gain_mul + c0, 0, unit);
    at.slots += 4 * kR;
    at.forms += 4;
    at.directions += 4 * 192;
    j = 4;
  }
  for (; j < count; ++j) {
    const int64_t c = c0 + j;
    const int used = e.slot_count[c];
    if (kGain && e.by_angle[c] != 0) {
      by_angle<1, kR>(at.slots, *at.forms == kPairSlot, at.directions, e.gain_mul + c, j, unit);
      at.directions += 192;
    } else {
      const int32_t* start = e.start + 16 * c;
      const float mul = e.gain_mul[c];
      switch (used) {
        case 1:
          by_scores<K, 1, kGain, kR>(marks, at.slots, at.directions, start, mul, j, unit);
          break;
        case 2:
          by_scores<K, 2, kGain, kR>(marks, at.slots, at.directions, start, mul, j, unit);
          break;
        case 3:
          by_scores<K, 3, kGain, kR>(marks, at.slots, at.directions, start, mul, j, unit);
          break;
        case 4:
          by_scores<K, 4, kGain, kR>(marks, at.slots, at.directions, start, mul, j, unit);
          break;
        default:
          by_scores<K, 8, kGain, kR>(marks, at.slots, at.directions, start, mul, j, unit);
          break;
      }
      at.directions += 64 * used;
    }
    at.slots += used * kR;
    at.forms += used;
  }
  for (; j < 4; ++j) {  // missing codebooks: code 0, gain 0
    for (int r = 0; r < kR; ++r) {
      unit.add_key(r, _mm512_set1_epi32(15));
      unit.gain[j][r] = _mm512_setzero_si512();
    }
  }
  const __m512i limit = _mm512_set1_epi8(static_cast<char>(e.gain_limit));
  unit.template store<K, kGain>(limit, at.out, at.panel_bytes, sum);
  at.out += kGain ? 128 : 64;
}

template <int K, bool kGain, int kR>
void score(const EncodeView& e, const ScoredPanels& p) {
  const __m512i* slots = static_cast<const __m512i*>(p.slots);
  Place<kR> at{
      slots, e.directions, e.slot_features, p.panel + (kGain ? 64 : 0), p.panel_bytes, {p.next, p.stride, e.source}};
  __m512i sum[kR];
  for (int r = 0; r < kR; ++r) sum[r] = _mm512_setzero_si512();
  for (int64_t c = 0; c < e.codebooks;) {
    const int64_t units = count_equal_units(e, c), used = e.slot_count[c];
    if (units == 0) {
      mixed_unit<K, kGain, kR>(e, c, static_cast<int>(e.codebooks - c < 4 ? e.codebooks - c : 4), at, sum);
      c += 4;
      continue;
    }
    used == 1 ? equal_units<K, 1, kGain, kR>(e, c, units, at, sum) : equal_units<K, 2, kGain, kR>(e, c, units, at, sum);
    c += 4 * units;
    at.slots += 4 * units * used * kR;
    at.directions += 4 * units * used * 64;
    at.forms += 4 * units * used;
    at.out += units * (kGain ? 128 : 64);
  }
  for (int r = 0; kGain && r < kR; ++r)
    _mm512_store_si512(p.panel + r * p.panel_bytes, _mm512_mullo_epi32(sum[r], _mm512_set1_epi32(-128)));
}

/// Codes of kR panels.
template <bool kGain, int kR>
void score_entries(const EncodeView& e, const ScoredPanels& p) {
  switch (e.entries) {
    case 16:
      return score<16, kGain, kR>(e, p);
    case 8:
      return score<8, kGain, kR>(e, p);
    default:
      return score<4, kGain, kR>(e, p);
  }
}

template <bool kGain>
void score_panels(const EncodeView& e, const ScoredPanels& p) {
  p.count == 2 ? score_entries<kGain, 2>(e, p) : score_entries<kGain, 1>(e, p);
}

}  // namespace
}  // namespace lutc::kernels
