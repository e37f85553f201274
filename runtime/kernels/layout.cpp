#include "kernels/layout.h"

#include <algorithm>
#include <cstring>

#include "core/checked.h"

namespace lutc::kernels {
namespace {

/// Entries of the SIMD layouts are unsigned: a byte is the entry plus this.
constexpr int kEntryOffset = 128;

/// Entries a codebook takes in a cell.
int64_t stored_entries(TableLayout layout, int64_t entries) { return layout == TableLayout::kPair ? 16 : entries; }

/// Calls body(canonical index, packed index) for every entry. Columns innermost within a block, so that packed bytes
/// are walked nearly in order.
template <class Body>
void for_each_entry(TableLayout layout, const TableShape& s, const Body& body) {
  const int64_t outputs = s.outputs / s.groups, unit = layout_unit(layout);
  const int64_t block = layout_columns(layout) == 0 ? outputs : layout_columns(layout);
  const int64_t units = (s.codebooks + unit - 1) / unit, cell = layout_cell(layout, s.entries);
  const int64_t stored = stored_entries(layout, s.entries);
  const bool rows = layout == TableLayout::kRows;
  // Canonical strides of (output, codebook, entry, tap).
  const int64_t tap_step = 1, entry_step = s.convolution ? s.taps : s.outputs, codebook_step = entry_step * s.entries;
  const int64_t output_step = s.convolution ? codebook_step * s.codebooks : 1;
  for (int64_t g = 0; g < s.groups; ++g) {
    for (int64_t n0 = 0; n0 < outputs; n0 += block) {
      const int64_t width = std::min(block, outputs - n0);
      for (int64_t t = 0; t < s.taps; ++t) {
        for (int64_t c = 0; c < s.codebooks; ++c) {
          const int64_t place = rows ? ((g * s.taps + t) * s.codebooks + c) * s.entries * outputs
                                     : g * group_bytes(layout, s) + (n0 * s.taps + t * width) * units * cell +
                                           c / unit * width * cell + c % unit * stored;
          for (int64_t k = 0; k < s.entries; ++k) {
            const int64_t from = (g * outputs + n0) * output_step + c * codebook_step + k * entry_step + t * tap_step;
            const int64_t to = rows ? place + k * outputs : place + k;
            const int64_t to_step = rows ? 1 : cell;
            for (int64_t n = 0; n < width; ++n) body(from + n * output_step, to + n * to_step);
          }
        }
      }
    }
  }
}

bool is_canonical(TableLayout layout, const TableShape& shape) {
  return layout == TableLayout::kCkn || (layout == TableLayout::kRows && !shape.convolution);
}

}  // namespace

const char* layout_name(TableLayout layout) {
  switch (layout) {
    case TableLayout::kCkn:
      return "ckn";
    case TableLayout::kRows:
      return "rows";
    case TableLayout::kPair:
      return "pair16x4";
    case TableLayout::kQuad:
      return "quad6";
  }
  return "";
}

bool parse_layout(const std::string& name, TableLayout* layout) {
  for (TableLayout l : {TableLayout::kCkn, TableLayout::kRows, TableLayout::kPair, TableLayout::kQuad}) {
    if (name == layout_name(l)) {
      *layout = l;
      return true;
    }
  }
  return false;
}

std::vector<TableLayout> layouts_for(Isa isa) {
  switch (isa) {
    case Isa::kAvx512:
      return {TableLayout::kQuad};
    case Isa::kAvx2:
    case Isa::kAvxVnni:
      return {TableLayout::kPair};
    default:
      return {TableLayout::kRows};
  }
}

int64_t layout_unit(TableLayout layout) {
  return layout == TableLayout::kQuad ? 4 : layout == TableLayout::kPair ? 2 : 1;
}

int64_t layout_columns(TableLayout layout) {
  return layout == TableLayout::kQuad ? 6 : layout == TableLayout::kPair ? 4 : 0;
}

int64_t layout_cell(TableLayout layout, int64_t entries) {
  return layout_unit(layout) * stored_entries(layout, entries);
}

bool table_bytes(TableLayout layout, const TableShape& s, uint64_t* bytes) {
  if (s.codebooks < 1 || s.entries < 1 || s.entries > 16 || s.outputs < 1 || s.taps < 1 || s.groups < 1) return false;
  if (s.outputs % s.groups != 0 || s.codebooks > INT64_MAX - 4) return false;
  const int64_t unit = layout_unit(layout);
  uint64_t n = static_cast<uint64_t>((s.codebooks + unit - 1) / unit);
  if (!checked_mul(n, static_cast<uint64_t>(layout_cell(layout, s.entries)), &n)) return false;
  if (!checked_mul(n, static_cast<uint64_t>(s.outputs), &n)) return false;
  if (!checked_mul(n, static_cast<uint64_t>(s.taps), &n)) return false;
  if (n > (uint64_t{1} << 62)) return false;
  *bytes = n;
  return true;
}

int64_t group_bytes(TableLayout layout, const TableShape& s) {
  const int64_t unit = layout_unit(layout);
  return (s.codebooks + unit - 1) / unit * layout_cell(layout, s.entries) * (s.outputs / s.groups) * s.taps;
}

int entry_limit(TableLayout layout, const uint8_t* table, uint64_t bytes) {
  constexpr uint64_t kPiece = 4096;
  const bool is_signed = layout == TableLayout::kCkn || layout == TableLayout::kRows;
  const uint8_t flip = is_signed ? kEntryOffset : 0;  // to bytes as the other layouts hold them
  uint8_t low = kEntryOffset, high = kEntryOffset;
  int most = 0;
  for (uint64_t i = 0; i < bytes && most <= 63;) {
    for (const uint64_t end = std::min(i + kPiece, bytes); i < end; ++i) {
      const uint8_t entry = table[i] ^ flip;
      low = std::min(low, entry);
      high = std::max(high, entry);
    }
    most = std::max(high - kEntryOffset, kEntryOffset - low);
  }
  return most <= 31 ? 31 : most <= 63 ? 63 : 127;
}

void pack_table(TableLayout layout, const TableShape& shape, const int8_t* canonical, uint8_t* packed) {
  uint64_t bytes = 0;
  if (!table_bytes(layout, shape, &bytes)) return;
  if (is_canonical(layout, shape)) {
    std::memcpy(packed, canonical, bytes);
    return;
  }
  const int offset = layout == TableLayout::kRows ? 0 : kEntryOffset;
  std::memset(packed, offset, bytes);  // empty codebooks and entries are zeros
  for_each_entry(layout, shape,
                 [&](int64_t from, int64_t to) { packed[to] = static_cast<uint8_t>(canonical[from] + offset); });
}

void unpack_table(TableLayout layout, const TableShape& shape, const uint8_t* packed, int8_t* canonical) {
  uint64_t bytes = 0;
  if (!table_bytes(layout, shape, &bytes)) return;
  if (is_canonical(layout, shape)) {
    std::memcpy(canonical, packed, bytes);
    return;
  }
  const int offset = layout == TableLayout::kRows ? 0 : kEntryOffset;
  for_each_entry(layout, shape,
                 [&](int64_t from, int64_t to) { canonical[from] = static_cast<int8_t>(packed[to] - offset); });
}

}  // namespace lutc::kernels
