// Table layouts: docs/layouts.md. Conversion between the canonical table of docs/operators.md and what the lookup of an
// ISA reads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "core/status.h"
#include "kernels/kernel_table.h"

namespace lutc::kernels {

enum class TableLayout {
  kCkn,   ///< canonical: int8 [C, K, N], or [N, C/group, K, kh, kw] for a convolution
  kRows,  ///< int8 [group][tap][C/group][K][N/group]; the same bytes as ckn in a linear layer
  kPair,  ///< uint8, two codebooks of 16 entries a unit, 4 columns a block (AVX2)
  kQuad,  ///< uint8, four codebooks of K entries a unit, 6 columns a block (AVX-512 VBMI)
};

/// What a table holds: codebooks of one group, K, outputs of all groups.
struct TableShape {
  int64_t codebooks = 0;
  int64_t entries = 0;
  int64_t outputs = 0;
  int64_t taps = 1;    ///< kh * kw
  int64_t groups = 1;  ///< divides outputs
  bool convolution = false;
};

const char* layout_name(TableLayout layout);
/// False when the name is unknown.
[[nodiscard]] bool parse_layout(const std::string& name, TableLayout* layout);
/// Layouts that the kernels of an ISA read in place, best first.
std::vector<TableLayout> layouts_for(Isa isa);

/// Codebooks a unit and columns a block of a layout (kRows and kCkn: 1 and all).
int64_t layout_unit(TableLayout layout);
int64_t layout_columns(TableLayout layout);
/// Bytes of one column of one unit.
int64_t layout_cell(TableLayout layout, int64_t entries);

/// Bytes of a packed table; false when the shape is not positive, the groups do not divide the outputs or the size
/// passes 2^62.
[[nodiscard]] bool table_bytes(TableLayout layout, const TableShape& shape, uint64_t* bytes);
/// Bytes from the table of one convolution group to the next. The shape has passed table_bytes().
int64_t group_bytes(TableLayout layout, const TableShape& shape);

/// Bound of a table's entries, 31, 63 or 127: the least that no magnitude of them passes. Most tables are read no
/// further than their first kilobytes.
int entry_limit(TableLayout layout, const uint8_t* table, uint64_t bytes);

/// Canonical table -> layout and back. Buffers hold table_bytes() bytes; the shape has passed table_bytes().
void pack_table(TableLayout layout, const TableShape& shape, const int8_t* canonical, uint8_t* packed);
void unpack_table(TableLayout layout, const TableShape& shape, const uint8_t* packed, int8_t* canonical);

}  // namespace lutc::kernels
