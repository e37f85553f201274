// Lookup kernels in plain C++: the reference for the others, and the only ones where no SIMD ISA is known. Codes and
// gains are bytes, one plane a codebook; tables are in the "rows" layout, so that the inner loop runs over columns and
// compilers can vectorise it.
#include <cmath>

#include "kernels/lookup.h"

namespace lutc::kernels {
namespace {

constexpr int kPanelRows = 16;
constexpr int kColumns = 64;

int8_t quantise(float x, float offset, float inv_scale) {
  float v = (x - offset) * inv_scale;
  v = v > -127.0f ? v : -127.0f;  // NaN becomes -127
  v = v < 127.0f ? v : 127.0f;
  return static_cast<int8_t>(std::nearbyint(v));
}

/// One row of the projection: p = q * matrix, z = p * mul, quantised again.
void project_row(const EncodeView& e, const int8_t* q, int8_t* z) {
  for (int64_t b = 0; b < e.block_count; ++b) {
    const int64_t row = e.blocks[4 * b], rows = e.blocks[4 * b + 1], column = e.blocks[4 * b + 2],
                  columns = e.blocks[4 * b + 3];
    const int64_t padded = (rows + 3) / 4 * 4;
    for (int64_t j = 0; j < columns; ++j) {
      const int8_t* matrix = e.block_matrix[b] + j * padded;
      int32_t sum = 0;
      for (int64_t d = 0; d < rows; ++d) sum += q[row + d] * matrix[d];
      const int64_t f = column + j;
      z[f] = quantise(static_cast<float>(sum) * e.mul[f], e.offset[f], e.inv_scale[f]);
    }
  }
}

size_t encode_scratch(const EncodeView& e) { return static_cast<size_t>((e.features + e.inputs + 63) / 64 * 64); }

void encode(const EncodeView& e, const EncodeInput& in, uint8_t* panel, int64_t, void* scratch) {
  int8_t* q = static_cast<int8_t*>(scratch);
  int8_t* before = q + e.features;
  const int64_t unit_bytes = (e.gain_limit > 0 ? 2 : 1) * kPanelRows;
  for (int64_t row = 0; row < kPanelRows; ++row) {
    if (row >= in.rows) {
      for (int64_t c = 0; c < e.codebooks; ++c) {
        panel[c * unit_bytes + row] = 0;
        if (e.gain_limit > 0) panel[c * unit_bytes + kPanelRows + row] = 0;
      }
      continue;
    }
    const float* x = in.x + row * in.row_stride;
    if (e.projected) {
      for (int64_t d = 0; d < e.inputs; ++d)
        before[d] = quantise(x[d * in.feature_stride], e.proj_offset[d], e.proj_inv_scale[d]);
      project_row(e, before, q);
    } else {
      for (int64_t d = 0; d < e.features; ++d) q[d] = quantise(x[d * in.feature_stride], e.offset[d], e.inv_scale[d]);
    }
    const int8_t* directions = reinterpret_cast<const int8_t*>(e.directions);
    const int32_t* source = e.source;
    for (int64_t c = 0; c < e.codebooks; ++c) {
      const int slots = e.slot_count[c];
      int32_t best_score = 0, best_rank = 0;
      int code = 0;
      for (int k = 0; k < e.entries; ++k) {
        int32_t score = e.start[c * 16 + k];
        for (int slot = 0; slot < slots; ++slot) {
          for (int v = 0; v < 4; ++v) score += q[source[4 * slot + v]] * directions[slot * 64 + 4 * k + v];
        }
        const int32_t rank = e.gain_limit > 0 && score < 0 ? -score : score;
        if (k == 0 || rank > best_rank) {
          best_rank = rank;
          best_score = score;
          code = k;
        }
      }
      source += 4 * slots;
      directions += 64 * slots;
      panel[c * unit_bytes + row] = static_cast<uint8_t>(code);
      if (e.gain_limit == 0) continue;
      const float limit = static_cast<float>(e.gain_limit);
      float gain = static_cast<float>(best_score) * e.gain_mul[c];
      gain = gain > -limit ? gain : -limit;
      gain = gain < limit ? gain : limit;
      panel[c * unit_bytes + kPanelRows + row] = static_cast<uint8_t>(static_cast<int8_t>(std::nearbyint(gain)));
    }
  }
}

void lookup(const LookupBlock& b) {
  for (int p = 0; p < b.panels; ++p) {
    for (int row = 0; row < kPanelRows; ++row) {
      int32_t sums[kColumns] = {};
      const int8_t* table = reinterpret_cast<const int8_t*>(b.table);
      for (int64_t t = 0; t < b.tap_count; ++t) {
        const uint8_t* code = b.codes + p * b.code_panel_step + row + b.taps[t];
        const uint8_t* gain = b.gains + p * b.gain_panel_step + row + b.taps[t];
        for (int64_t u = 0; u < b.units; ++u, table += b.table_unit_step) {
          const int8_t* entry = table + (code[u * b.code_unit_step] & (b.entries - 1)) * b.table_entry_step;
          const int32_t g = b.gain_limit > 0 ? static_cast<int8_t>(gain[u * b.gain_unit_step]) : 1;
          for (int n = 0; n < b.columns; ++n) sums[n] += g * entry[n];
        }
      }
      for (int n = 0; n < b.columns; ++n) b.acc[n * b.acc_stride + p * kPanelRows + row] = sums[n];
    }
  }
}

void gather_row(const GatherRow& r) {
  for (int64_t n = 0; n < r.columns; ++n) r.acc[n] = 0;
  for (int64_t c = 0; c < r.codebooks; ++c) {
    const int8_t* entry = r.table + (c * r.entries + (r.codes[c] & (r.entries - 1))) * r.outputs;
    const int32_t g = r.gains != nullptr ? r.gains[c] : 1;
    for (int64_t n = 0; n < r.columns; ++n) r.acc[n] += g * entry[n];
  }
}

float finish(const FinishBlock& f, int64_t column, int64_t row, int64_t at) {
  float y = static_cast<float>(f.acc[column * f.acc_stride + row]) * f.scale[column] + f.bias[column];
  if (f.residual != nullptr && f.residual_first) y += f.residual[at];
  if (f.relu) y = y > 0.0f ? y : 0.0f;
  if (f.residual != nullptr && !f.residual_first) y += f.residual[at];
  return y;
}

void finish_rows(const FinishBlock& f) {
  for (int64_t row = 0; row < f.rows; ++row) {
    for (int64_t n = 0; n < f.columns; ++n) f.y[row * f.y_stride + n] = finish(f, n, row, row * f.y_stride + n);
  }
}

void finish_planes(const FinishBlock& f) {
  for (int64_t n = 0; n < f.columns; ++n) {
    for (int64_t row = 0; row < f.rows; ++row) f.y[n * f.y_stride + row] = finish(f, n, row, n * f.y_stride + row);
  }
}

}  // namespace

extern const LookupKernels kLookupScalar;
const LookupKernels kLookupScalar = {
    "rows",
    DirectionForm::kBytes,
    kPanelRows,
    /*unit=*/1,
    /*encode_panels=*/1,
    /*code_planes=*/1,
    /*code_bytes=*/1,
    /*gain_bytes=*/1,
    /*start_element=*/0,
    /*block_panels=*/4,
    /*block_columns=*/kColumns,
    /*gather_rows=*/1 << 30,
    [](int64_t, int) -> int64_t { return 0; },
    [](int64_t units, int) -> int64_t { return units; },
    encode_scratch,
    encode,
    lookup,
    finish_rows,
    finish_planes,
    gather_row,
};

}  // namespace lutc::kernels
