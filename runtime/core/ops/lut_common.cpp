#include "core/ops/lut_common.h"

#include <cmath>

#include "core/checked.h"

namespace lutc::ops {

CodesGeometry::CodesGeometry(const kernels::LookupKernels* k, int64_t codebooks_in, int64_t gain_limit_in,
                             int64_t entry_limit_in)
    : kernels(k), codebooks(codebooks_in), gain_limit(gain_limit_in), entry_limit(entry_limit_in) {
  const int reach = static_cast<int>(gain_limit * entry_limit);
  units = (codebooks + k->unit - 1) / k->unit;
  window_units = k->window_units(units, reach);
  start_bytes = k->start_bytes(units, reach);
  code_unit_bytes = int64_t{1} * k->panel_rows * k->code_planes * k->code_bytes;
  gain_unit_bytes = gain_limit > 0 ? int64_t{1} * k->panel_rows * k->gain_bytes : 0;
  panel_bytes = start_bytes + units * unit_bytes();
}

bool CodesGeometry::bytes(int64_t images, int64_t rows, int64_t* total) const {
  int64_t n = 0;
  return checked_mul(images, panels(rows), &n) && checked_mul(n, panel_bytes, &n) &&
         checked_add(n, static_cast<int64_t>(sizeof(CodesHeader)), total);
}

void CodesGeometry::extract(const uint8_t* panel, int64_t row, int64_t entries, int64_t codebook, uint8_t* code,
                            int8_t* gain) const {
  const int64_t unit = codebook / kernels->unit, j = codebook % kernels->unit;
  const uint8_t* codes = panel + start_bytes + unit * unit_bytes();
  // Two codebooks a unit with a plane each, or all in the bytes of one position.
  const int64_t at = kernels->code_planes > 1 ? j * kernels->panel_rows + row : row * kernels->code_bytes + j;
  *code = static_cast<uint8_t>(codes[at] & (entries - 1));
  *gain = gain_limit > 0 ? static_cast<int8_t>(codes[code_unit_bytes + row * kernels->gain_bytes + j]) : int8_t{1};
}

Status LutConsumer::init_common(const BuildContext& build) {
  kernels_ = build.kernels->lookup;
  vector_ = build.kernels->vector;
  if (kernels_ == nullptr || vector_ == nullptr)
    return step_error(def_, ErrorCode::kInternal, "this build has no lookup kernels");
  for (const char* name : {"gain_limit", "codebooks", "entries", "outputs"}) {
    if (!def_.attrs.has(name)) return invalid(std::string("attribute '") + name + "' is missing");
  }
  codebooks_ = def_.attrs.get_int("codebooks", 0);
  entries_ = def_.attrs.get_int("entries", 0);
  outputs_ = def_.attrs.get_int("outputs", 0);
  gain_limit_ = def_.attrs.get_int("gain_limit", 0);
  if (codebooks_ < 1 || codebooks_ > (int64_t{1} << 28)) return invalid("codebooks must be in 1 .. 2^28");
  if (entries_ != 4 && entries_ != 8 && entries_ != 16) return invalid("entries must be 4, 8 or 16");
  if (outputs_ < 1) return invalid("outputs must be positive");
  if (gain_limit_ < 0 || gain_limit_ > 127) return invalid("gain_limit must be in 0 .. 127");
  entry_limit_ = entry_limit(def_);
  const std::string activation = def_.attrs.get_string("activation", "none");
  const char* const names[] = {"none", "relu", "gelu", "gelu_tanh", "silu", "tanh", "sigmoid"};
  int found = -1;
  for (int i = 0; i < 7; ++i) {
    if (activation == names[i]) found = i;
  }
  if (found < 0) return unsupported("activation '" + activation + "' is unknown");
  activation_ = static_cast<kernels::Activation>(found);

  if (dtype(0) != DType::kU8) return invalid("codes must be u8");
  for (int i : {1, 2, 3}) {
    const StepDef::Input& input = def_.inputs[i];
    if (!input.constant || input.tensor.data == nullptr)
      return invalid("input " + std::to_string(i) + " must be a constant");
    if (i == 1) continue;
    if (input.tensor.dtype != DType::kF32 || input.tensor.shape.elements() != outputs_)
      return invalid(std::string(i == 2 ? "scale" : "bias") + " must be f32 [outputs]");
    const float* values = input.tensor.as<float>();
    if (!std::all_of(values, values + outputs_, [](float v) { return std::isfinite(v); }))
      return step_error(def_, ErrorCode::kCorrupt, std::string(i == 2 ? "scale" : "bias") + " must be finite");
  }
  if (present(4) && dtype(4) != DType::kF32) return invalid("residual must be f32");
  scale_ = def_.inputs[2].tensor.as<float>();
  bias_ = def_.inputs[3].tensor.as<float>();
  return Status::ok();
}

Status LutConsumer::init_table(const BuildContext& build) {
  const StepDef::Input& input = def_.inputs[1];
  const std::string name = def_.attrs.get_string("layout", "ckn");
  kernels::TableLayout stored;
  if (!kernels::parse_layout(name, &stored))
    return unsupported("table layout '" + name + "' is unknown to this runtime");
  // Canonical entries are signed numbers, the other layouts bytes in an order of their own.
  const bool canonical = stored == kernels::TableLayout::kCkn;
  if (input.tensor.dtype != (canonical ? DType::kI8 : DType::kU8))
    return invalid("table must be i8 in layout ckn, u8 in any other");
  uint64_t stored_bytes = 0, bytes = 0;
  if (!kernels::table_bytes(stored, shape_, &stored_bytes) ||
      stored_bytes != static_cast<uint64_t>(input.tensor.shape.elements()))
    return step_error(def_, ErrorCode::kCorrupt,
                      "the table's size is not that of " + std::to_string(shape_.codebooks) + " codebooks, " +
                          std::to_string(entries_) + " entries and " + std::to_string(outputs_) +
                          " outputs in layout " + name);
  const auto wanted = kernels::layouts_for(build.kernels->isa);
  const bool linear = !shape_.convolution;
  const bool canonical_rows = linear && (stored == kernels::TableLayout::kCkn || stored == kernels::TableLayout::kRows);
  if (canonical_rows) rows_table_ = input.tensor.as<int8_t>();
  layout_ = wanted.front();
  for (kernels::TableLayout layout : wanted) {
    if (stored == layout || (layout == kernels::TableLayout::kRows && canonical_rows)) {
      layout_ = layout;
      table_ = input.tensor.as<uint8_t>();
      return Status::ok();
    }
  }
  if (!kernels::table_bytes(layout_, shape_, &bytes))
    return step_error(def_, ErrorCode::kCorrupt, "the table is too large");
  if (canonical && linear) return Status::ok();
  if (!private_table_.allocate(bytes)) return step_error(def_, ErrorCode::kOutOfMemory, "no memory for the table");
  uint8_t* packed = static_cast<uint8_t*>(private_table_.data());
  if (canonical) {
    kernels::pack_table(layout_, shape_, input.tensor.as<int8_t>(), packed);
  } else {
    uint64_t canonical_bytes = 0;
    if (!kernels::table_bytes(kernels::TableLayout::kCkn, shape_, &canonical_bytes))
      return step_error(def_, ErrorCode::kCorrupt, "the table is too large");
    std::vector<int8_t> entries(canonical_bytes);
    kernels::unpack_table(stored, shape_, input.tensor.as<uint8_t>(), entries.data());
    kernels::pack_table(layout_, shape_, entries.data(), packed);
  }
  table_ = packed;
  if (linear && layout_ == kernels::TableLayout::kRows) rows_table_ = static_cast<const int8_t*>(private_table_.data());
  return Status::ok();
}

Status LutConsumer::need_table() const {
  const std::lock_guard<std::mutex> lock(table_mutex_);
  if (table_ != nullptr) return Status::ok();
  uint64_t bytes = 0;
  if (!kernels::table_bytes(layout_, shape_, &bytes) || !private_table_.allocate(bytes))
    return step_error(def_, ErrorCode::kOutOfMemory, "no memory for the table");
  uint8_t* packed = static_cast<uint8_t*>(private_table_.data());
  kernels::pack_table(layout_, shape_, rows_table_, packed);
  table_ = packed;
  return Status::ok();
}

Status LutConsumer::check_codes(const TensorView& codes, int64_t images, int64_t rows, int64_t planes_bytes) const {
  const CodesGeometry geometry(kernels_, codebooks_, gain_limit_, entry_limit_);
  int64_t bytes = 0;
  const bool fits = planes_bytes == 0 ? geometry.bytes(images, rows, &bytes)
                                      : checked_mul(images, planes_bytes, &bytes) &&
                                            checked_add(bytes, static_cast<int64_t>(sizeof(CodesHeader)), &bytes);
  if (!fits || bytes > static_cast<int64_t>(codes.bytes()))
    return invalid("the codes value is too small for this layer");
  CodesHeader header;
  std::memcpy(&header, codes.data, sizeof(header));
  if (header.magic != CodesHeader::kMagic || header.codebooks != codebooks_ || header.entries != entries_ ||
      header.gain_limit != gain_limit_ || header.entry_limit != entry_limit_ || header.images != images ||
      header.rows != rows || (header.form == CodesForm::kPlanes) != (planes_bytes != 0))
    return invalid("the codes come from no lut_encode step with the same codebooks, entries and gain_limit");
  return Status::ok();
}

}  // namespace lutc::ops
