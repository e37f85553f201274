// Making tables from their factors: ExpandTable and ExpandConvTable of docs/operators.md, straight into the layout that
// the lookup kernels read. Sums are integers below 2^24, so float32 holds them exactly in any order and every ISA makes
// the same bytes.
#pragma once

#include <cstdint>

#include "kernels/kernel_table.h"
#include "kernels/layout.h"

namespace lutc::kernels {

/// Columns that are made together: whole blocks of every layout.
constexpr int64_t kExpandColumns = 96;
constexpr int kExpandSlots = 32;  ///< most features of a codebook
constexpr int kExpandUnit = 4;    ///< most codebooks of a unit

/// What a table is made from. Whoever fills it in has checked shapes, indices and that multipliers are finite.
struct TableFactors {
  TableShape shape;                     ///< codebooks of one group, outputs of all
  int64_t width = 0;                    ///< V
  int64_t features = 0;                 ///< D, or channels of one group
  const int8_t* atoms = nullptr;        ///< [C of all groups][K][V]
  const int8_t* weight = nullptr;       ///< [D][N], or [N][channels of one group][tap]
  const int32_t* groups = nullptr;      ///< [C of all groups][V], -1: empty
  const float* codebook_mul = nullptr;  ///< [C of all groups]
  const float* column_mul = nullptr;    ///< [N]
};

/// Some columns of a unit of codebooks.
struct ExpandUnit {
  const int8_t* atoms = nullptr;  ///< [codebooks][K][V]
  int codebooks = 0;              ///< those there are; what is missing in a unit becomes zeros
  int entries = 0;
  int width = 0;
  const int8_t* const* features = nullptr;  ///< [codebooks][V]: weight of each slot in the first column, null: empty
  int64_t column_step = 0;                  ///< from a weight to that of the next column
  const float* codebook_mul = nullptr;      ///< [codebooks]
  const float* column_mul = nullptr;
  int64_t columns = 0;  ///< at most kExpandColumns
  uint8_t* table = nullptr;
  int64_t step = 0;        ///< cells: bytes from a column to the next in a block; rows: from an entry to the next
  int block = 0;           ///< cells: columns a block
  int64_t block_step = 0;  ///< cells: bytes from a block to the next
  int stored = 0;          ///< cells: bytes a codebook takes
};

struct ExpandKernels {
  /// The cells of the ISA's own layout, entries + 128; null where that is `rows`.
  void (*cells)(const ExpandUnit&);
  /// Rows of signed entries, one codebook.
  void (*rows)(const ExpandUnit&);
};

const ExpandKernels* expand_kernels(Isa isa);

/// Whether the kernels of an ISA make tables of this layout and shape.
bool can_expand(Isa isa, TableLayout layout, const TableShape& shape);

/// Pieces that a table is made in, each by itself.
int64_t expand_pieces(const TableFactors& factors);

/// Makes pieces [begin, end) of a table of table_bytes() bytes. The ISA can_expand() it.
void expand(Isa isa, TableLayout layout, const TableFactors& factors, int64_t begin, int64_t end, uint8_t* table);

}  // namespace lutc::kernels
