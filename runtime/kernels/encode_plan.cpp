#include "kernels/encode_plan.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <string>

#include "kernels/angle_search.h"

namespace lutc::kernels {
namespace {

constexpr int64_t kMaxWidth = 32;
constexpr int64_t kScoreLimit = int64_t{1} << 24;

Status bad(const std::string& what) { return {ErrorCode::kCorrupt, what}; }

bool all_finite(const float* x, int64_t n, bool non_negative) {
  return std::all_of(x, x + n, [=](float v) { return std::isfinite(v) && (!non_negative || v >= 0.0f); });
}

bool any_nonzero(const float* x, int64_t n) {
  return std::any_of(x, x + n, [](float v) { return v != 0.0f; });
}

int64_t group_size(const int32_t* group, int64_t width) {
  int64_t n = 0;
  while (n < width && group[n] >= 0) ++n;
  return n;
}

/// Slots of a codebook: the counts the kernels are written for.
int64_t slots_for(int64_t features) {
  const int64_t slots = (features + 3) / 4;
  return slots <= 4 ? slots : 8;
}

int64_t direction_bytes(DirectionForm form) { return form == DirectionForm::kPairs ? 128 : 64; }

/// Writes direction k of a slot, four int8, in the form's order.
void store_direction(DirectionForm form, bool gain, int64_t entries, int64_t k, const int8_t* d, uint8_t* slot) {
  if (form == DirectionForm::kPairs) {
    // Int16 times 16, so that a score arrives with room for the index of its entry in its low four bits.
    const int16_t even[2] = {static_cast<int16_t>(d[0] * 16), static_cast<int16_t>(d[2] * 16)};
    const int16_t odd[2] = {static_cast<int16_t>(d[1] * 16), static_cast<int16_t>(d[3] * 16)};
    std::memcpy(slot + 4 * k, even, 4);
    std::memcpy(slot + 64 + 4 * k, odd, 4);
    return;
  }
  const int offset = form == DirectionForm::kQuads && gain ? 128 : 0;
  if (form == DirectionForm::kQuads) k = entries - 1 - k;
  for (int v = 0; v < 4; ++v) slot[4 * k + v] = static_cast<uint8_t>(d[v] + offset);
}

}  // namespace

Status EncodePlan::check(const EncodeSource& s) const {
  if (s.features < 1 || s.codebooks < 1 || s.width < 1 || s.width > kMaxWidth)
    return bad("groups must be [C, V] with C >= 1 and V in 1 .. 32");
  if (s.features > (int64_t{1} << 30) || s.codebooks > (int64_t{1} << 28))
    return bad("more features or codebooks than this runtime takes");
  if (s.entries != 4 && s.entries != 8 && s.entries != 16) return bad("entries must be 4, 8 or 16");
  if (s.gain_limit < 0 || s.gain_limit > 127) return bad("gain_limit must be in 0 .. 127");
  if (s.codebooks * std::max<int64_t>(s.gain_limit, 1) * 127 >= (int64_t{1} << 31))
    return bad("codebooks * gain_limit * 127 must stay below 2^31");
  if (!all_finite(s.offset, s.features, false)) return bad("offset must be finite");
  if (!all_finite(s.inv_scale, s.features, true)) return bad("inv_scale must be finite and not negative");
  if (!all_finite(s.gain_mul, s.codebooks, false)) return bad("gain_mul must be finite");
  for (int64_t c = 0; c < s.codebooks; ++c) {
    const int32_t* group = s.groups + c * s.width;
    const int64_t size = group_size(group, s.width);
    const std::string where = " (codebook " + std::to_string(c) + ")";
    if (size == 0) return bad("groups has an empty codebook" + where);
    for (int64_t v = 0; v < s.width; ++v) {
      if (v < size ? group[v] >= s.features : group[v] != -1) return bad("groups must hold features, then -1" + where);
    }
    for (int64_t k = 0; k < s.entries; ++k) {
      const int8_t* direction = s.directions + (c * s.entries + k) * s.width;
      int64_t bound = std::abs(static_cast<int64_t>(s.code_bias[c * s.entries + k]));
      if (s.gain_limit > 0 && bound != 0) return bad("code_bias must be zero in the gain-shape form" + where);
      for (int64_t v = 0; v < s.width; ++v) {
        if (v >= size && direction[v] != 0) return bad("directions must be zero in empty slots" + where);
        bound += 127 * std::abs(static_cast<int64_t>(direction[v]));
      }
      if (bound >= kScoreLimit) return bad("scores must stay below 2^24" + where);
    }
  }
  return Status::ok();
}

Status EncodePlan::prepare(const EncodeSource& s, DirectionForm form) {
  LUTC_RETURN_IF_ERROR(check(s));
  view_.features = s.features;
  view_.codebooks = s.codebooks;
  view_.entries = static_cast<int>(s.entries);
  view_.gain_limit = static_cast<int>(s.gain_limit);
  view_.entry_limit = static_cast<int>(s.entry_limit);
  // Padded to whole vectors, so that kernels may load past the last feature.
  const auto padded = [](const float* x, int64_t n) {
    std::vector<float> copy(x, x + n);
    copy.resize(static_cast<size_t>((n + 63) / 64 * 64), 0.0f);
    return copy;
  };
  offset_ = padded(s.offset, s.features);
  inv_scale_ = padded(s.inv_scale, s.features);
  // 256 takes every score but 0 past any limit, as more would, and keeps products within integers.
  gain_mul_.assign(s.gain_mul, s.gain_mul + s.codebooks);
  for (float& mul : gain_mul_) mul = std::clamp(mul, -256.0f, 256.0f);
  view_.has_offset = any_nonzero(s.offset, s.features);
  view_.offset = offset_.data();
  view_.inv_scale = inv_scale_.data();
  view_.gain_mul = gain_mul_.data();
  lay_out_slots(s, form);
  find_windows(form);
  if (form == DirectionForm::kQuads) find_runs();
  if (s.inputs > 0) {
    view_.row_by_row = false;
    proj_offset_ = padded(s.proj_offset, s.inputs);
    proj_inv_scale_ = padded(s.proj_inv_scale, s.inputs);
    LUTC_RETURN_IF_ERROR(prepare_projection(s));
  }
  return Status::ok();
}

void EncodePlan::lay_out_slots(const EncodeSource& s, DirectionForm form) {
  const bool gain = s.gain_limit > 0;
  const int64_t bytes = direction_bytes(form);
  slot_count_.resize(static_cast<size_t>(s.codebooks));
  by_angle_.assign(static_cast<size_t>(s.codebooks), 0);
  start_.assign(static_cast<size_t>(s.codebooks) * 16, 0);
  for (int64_t c = 0; c < s.codebooks; ++c) {
    const int32_t* group = s.groups + c * s.width;
    const int64_t size = group_size(group, s.width), slots = slots_for(size);
    slot_count_[c] = static_cast<uint8_t>(slots);
    for (int64_t slot = 0; slot < slots; ++slot) {
      for (int64_t v = 4 * slot; v < 4 * slot + 4; ++v) {
        source_.push_back(v < size ? group[v] : group[size - 1]);  // near its neighbours; its direction is zero
      }
      slot_features_.push_back(static_cast<uint8_t>(std::clamp<int64_t>(size - 4 * slot, 1, 4)));
      AngleTable angles;
      if (form == DirectionForm::kQuads && gain && size == 2 &&
          make_angle_table(s.directions + c * s.entries * s.width, s.width, s.entries, &angles)) {
        by_angle_[c] = 1;
        const uint8_t* table = reinterpret_cast<const uint8_t*>(&angles);
        directions_.insert(directions_.end(), table, table + sizeof(angles));
        continue;
      }
      directions_.resize(directions_.size() + static_cast<size_t>(bytes), 0);
      for (int64_t k = 0; k < s.entries; ++k) {
        int8_t d[4] = {};
        for (int64_t v = 4 * slot; v < std::min(size, 4 * slot + 4); ++v)
          d[v % 4] = s.directions[(c * s.entries + k) * s.width + v];
        store_direction(form, gain, s.entries, k, d, directions_.data() + directions_.size() - bytes);
      }
    }
    for (int64_t k = 0; k < s.entries; ++k) {
      int32_t start = s.code_bias[c * s.entries + k];
      if (form == DirectionForm::kPairs) start = start * 16 + static_cast<int32_t>(15 - k);
      if (form == DirectionForm::kQuads && !gain) {
        for (int64_t v = 0; v < size; ++v) start -= 128 * s.directions[(c * s.entries + k) * s.width + v];
      }
      start_[c * 16 + (form == DirectionForm::kQuads ? s.entries - 1 - k : k)] = start;
    }
  }
  view_.slots = static_cast<int64_t>(source_.size()) / 4;
  // Whole blocks of 16 slots, the last ones reading what the last real one reads.
  while (source_.size() % 64 != 0) source_.push_back(source_[source_.size() - 4]);
  view_.source = source_.data();
  view_.slot_count = slot_count_.data();
  view_.directions = directions_.data();
  view_.start = start_.data();
  view_.by_angle = by_angle_.data();
  view_.slot_features = slot_features_.data();
}

void EncodePlan::find_windows(DirectionForm form) {
  const size_t bytes = form == DirectionForm::kPairs ? 16 : 64;
  const size_t windows = source_.size() / bytes;
  window_.resize(windows);
  window_index_.resize(source_.size());
  for (size_t w = 0; w < windows; ++w) {
    const int32_t* source = source_.data() + w * bytes;
    const int32_t first = *std::min_element(source, source + bytes), last = *std::max_element(source, source + bytes);
    if (last - first >= static_cast<int32_t>(bytes)) return;  // scattered features: the kernels gather bytes
    window_[w] = first;
    for (size_t i = 0; i < bytes; ++i) window_index_[w * bytes + i] = static_cast<uint8_t>(source[i] - first);
  }
  view_.window = window_.data();
  view_.window_index = window_index_.data();
}

void EncodePlan::find_runs() {
  view_.row_by_row = view_.entries == 16 && std::count(by_angle_.begin(), by_angle_.end(), 1) == 0;
  for (int64_t slot = 0; slot < view_.slots; ++slot) {
    const int32_t* source = source_.data() + 4 * slot;
    for (int i = 1; i < slot_features_[slot]; ++i)
      if (source[i] != source[0] + i) view_.row_by_row = false;
  }
  // Which slots hold pairs depends on the runs, and the kernels' other ways to make slots follow.
  std::vector<SlotRun> runs;
  std::vector<uint8_t> forms = slot_features_;
  std::vector<int64_t> codebook;  // of a slot
  for (int64_t c = 0; c < view_.codebooks; ++c) codebook.insert(codebook.end(), slot_count_[c], c);
  const int64_t slots = view_.slots;
  const auto is_pair = [&](int64_t slot) { return slot >= slots || by_angle_[codebook[slot]] != 0; };
  const auto add_run = [&](int64_t slot, bool pairs) {
    SlotRun run{};
    int32_t feature[16];
    for (int lane = 0; lane < 16; ++lane) {
      const int64_t at = pairs ? slot + lane / 2 : slot + lane / 4;
      feature[lane] = at < slots ? source_[4 * at + (pairs ? lane % 2 : lane % 4)] : source_[4 * slots - 1];
    }
    run.first = *std::min_element(feature, feature + 16);
    if (*std::max_element(feature, feature + 16) - run.first > 15) return false;
    run.last_lane = static_cast<int32_t>(std::min<int64_t>(15, view_.features - 1 - run.first));
    run.pairs = pairs ? 1 : 0;
    run.in_order = 1;
    for (int lane = 0; lane < 16; ++lane) {
      run.order[lane] = feature[lane] - run.first;
      if (run.order[lane] != lane) run.in_order = 0;
      const int32_t scaled = pairs ? feature[lane] : run.first + std::min(lane, run.last_lane);
      run.offset[lane] = offset_[scaled];
      run.inv_scale[lane] = inv_scale_[scaled];
      const int32_t from = run.order[lane];
      for (int r = 0; r < 4; ++r)
        run.bytes[lane / 4 * 16 + r * 4 + lane % 4] = static_cast<uint8_t>(from / 4 * 16 + r * 4 + from % 4);
    }
    runs.push_back(run);
    return true;
  };
  for (int64_t slot = 0; slot < slots;) {
    bool pairs = true;
    for (int64_t i = 0; i < 8; ++i) pairs = pairs && is_pair(slot + i);
    if (pairs && add_run(slot, true)) {
      std::fill(forms.begin() + slot, forms.begin() + std::min(slots, slot + 8), kPairSlot);
      slot += 8;
    } else if (add_run(slot, false)) {
      slot += 4;
    } else {
      return;
    }
  }
  runs_ = std::move(runs);
  slot_features_ = std::move(forms);
  view_.runs = runs_.data();
  view_.run_count = static_cast<int64_t>(runs_.size());
  view_.slot_features = slot_features_.data();
}

Status EncodePlan::prepare_projection(const EncodeSource& s) {
  if (s.inputs > (int64_t{1} << 30) || s.inputs * 127 * 127 >= (int64_t{1} << 31))
    return bad("the projection's D * 127 * 127 must stay below 2^31");
  if (!all_finite(s.proj_offset, s.inputs, false)) return bad("the projection's offset must be finite");
  if (!all_finite(s.proj_inv_scale, s.inputs, true))
    return bad("the projection's inv_scale must be finite and not negative");
  if (!all_finite(s.mul, s.features, false)) return bad("the projection's mul must be finite");
  std::vector<int64_t> sizes = s.blocks;
  if (sizes.empty()) sizes = {s.inputs, s.features};
  if (sizes.size() % 2 != 0) return bad("blocks must list rows and columns alternately");
  int64_t row = 0, column = 0;
  for (size_t b = 0; b < sizes.size(); b += 2) {
    const int64_t rows = sizes[b], columns = sizes[b + 1];
    if (rows < 1 || columns < 1 || rows > s.inputs - row || columns > s.features - column)
      return bad("blocks must cover the matrix exactly");
    const int64_t padded = (rows + 3) / 4 * 4;
    std::vector<int8_t> matrix(static_cast<size_t>(padded * columns), 0);
    std::vector<int32_t> start(static_cast<size_t>(columns), 0);
    for (int64_t j = 0; j < columns; ++j) {
      for (int64_t d = 0; d < rows; ++d) {
        const int8_t m = s.matrix[(row + d) * s.features + column + j];
        matrix[j * padded + d] = m;
        start[j] -= 128 * m;
      }
    }
    matrices_.push_back(std::move(matrix));
    matrix_starts_.push_back(std::move(start));
    for (int64_t value : {row, rows, column, columns}) blocks_.push_back(value);
    row += rows;
    column += columns;
  }
  if (row != s.inputs || column != s.features) return bad("blocks must cover the matrix exactly");
  for (size_t b = 0; b < matrices_.size(); ++b) {
    matrix_pointers_.push_back(matrices_[b].data());
    start_pointers_.push_back(matrix_starts_[b].data());
  }
  // Outside the blocks everything is zero.
  for (int64_t d = 0; d < s.inputs; ++d) {
    for (size_t b = 0; b < matrices_.size(); ++b) {
      const int64_t* block = blocks_.data() + 4 * b;
      if (d >= block[0] && d < block[0] + block[1]) {
        const int8_t* line = s.matrix + d * s.features;
        const auto nonzero = [](int8_t m) { return m != 0; };
        if (std::any_of(line, line + block[2], nonzero) ||
            std::any_of(line + block[2] + block[3], line + s.features, nonzero))
          return bad("the projection's matrix is not zero outside its blocks");
      }
    }
  }
  mul_.assign(s.mul, s.mul + s.features);
  view_.projected = true;
  view_.inputs = s.inputs;
  view_.has_proj_offset = any_nonzero(s.proj_offset, s.inputs);
  view_.proj_offset = proj_offset_.data();
  view_.proj_inv_scale = proj_inv_scale_.data();
  view_.blocks = blocks_.data();
  view_.block_count = static_cast<int64_t>(matrices_.size());
  view_.block_matrix = matrix_pointers_.data();
  view_.block_start = start_pointers_.data();
  view_.mul = mul_.data();
  return Status::ok();
}

}  // namespace lutc::kernels
