#include "kernels/expand.h"

#include <algorithm>

namespace lutc::kernels {

extern const ExpandKernels kExpandScalar;
#ifdef LUTC_X86
extern const ExpandKernels kExpandAvx2;
extern const ExpandKernels kExpandAvx512;
#endif

const ExpandKernels* expand_kernels(Isa isa) {
#ifdef LUTC_X86
  if (isa == Isa::kAvx2 || isa == Isa::kAvxVnni) return &kExpandAvx2;
  if (isa == Isa::kAvx512) return &kExpandAvx512;
#endif
  (void)isa;
  return &kExpandScalar;
}

namespace {

bool is_rows(TableLayout layout) { return layout == TableLayout::kRows || layout == TableLayout::kCkn; }

/// One tap of some columns of a group.
class Piece {
 public:
  Piece(Isa isa, TableLayout layout, const TableFactors& factors, int64_t group, int64_t tap, uint8_t* table)
      : f_(factors),
        kernels_(*expand_kernels(isa)),
        layout_(layout),
        group_(group),
        tap_(tap),
        outputs_(factors.shape.outputs / factors.shape.groups),
        table_(table) {}

  /// Columns [column, column + columns) of the group.
  void make(int64_t column, int64_t columns) const {
    const TableShape& s = f_.shape;
    const int64_t unit = layout_unit(layout_), units = (s.codebooks + unit - 1) / unit;
    const int8_t* features[kExpandUnit * kExpandSlots];
    ExpandUnit e;
    e.entries = static_cast<int>(s.entries);
    e.width = static_cast<int>(f_.width);
    e.features = features;
    e.column_step = s.convolution ? f_.features * s.taps : 1;
    e.column_mul = f_.column_mul + group_ * outputs_ + column;
    e.columns = columns;
    for (int64_t u = 0; u < units; ++u) {
      const int64_t first = group_ * s.codebooks + u * unit;
      e.codebooks = static_cast<int>(std::min(unit, s.codebooks - u * unit));
      e.atoms = f_.atoms + first * s.entries * f_.width;
      e.codebook_mul = f_.codebook_mul + first;
      const int32_t* slots = f_.groups + first * f_.width;
      for (int64_t i = 0; i < e.codebooks * f_.width; ++i)
        features[i] = slots[i] < 0 ? nullptr : weight_of(slots[i], column);
      if (is_rows(layout_)) {
        e.step = outputs_;
        e.table = table_ + ((group_ * s.taps + tap_) * s.codebooks + u) * s.entries * outputs_ + column;
        kernels_.rows(e);
      } else {
        cells(e, u, units, column);
      }
    }
  }

 private:
  const int8_t* weight_of(int64_t feature, int64_t column) const {
    if (!f_.shape.convolution) return f_.weight + feature * f_.shape.outputs + column;
    const int64_t output = group_ * outputs_ + column, channel = feature - group_ * f_.features;
    return f_.weight + (output * f_.features + channel) * f_.shape.taps + tap_;
  }

  /// Whole blocks, then the last one if it is narrower.
  void cells(ExpandUnit e, int64_t u, int64_t units, int64_t column) const {
    const int64_t block = layout_columns(layout_), whole = e.columns / block * block, rest = e.columns - whole;
    const int64_t taps = f_.shape.taps;
    e.step = layout_cell(layout_, f_.shape.entries);
    e.stored = static_cast<int>(e.step / layout_unit(layout_));
    uint8_t* base = table_ + group_ * group_bytes(layout_, f_.shape);
    const auto place = [&](int64_t n, int64_t width) {
      return base + ((n * taps + tap_ * width) * units + u * width) * e.step;
    };
    if (whole > 0) {
      e.columns = whole;
      e.block = static_cast<int>(block);
      e.block_step = block * taps * units * e.step;
      e.table = place(column, block);
      kernels_.cells(e);
    }
    if (rest == 0) return;
    const int8_t* features[kExpandUnit * kExpandSlots];
    for (int i = 0; i < e.codebooks * e.width; ++i)
      features[i] = e.features[i] == nullptr ? nullptr : e.features[i] + whole * e.column_step;
    e.features = features;
    e.column_mul += whole;
    e.columns = rest;
    e.block = static_cast<int>(rest);
    e.table = place(column + whole, rest);
    kernels_.cells(e);
  }

  const TableFactors& f_;
  const ExpandKernels& kernels_;
  TableLayout layout_;
  int64_t group_, tap_, outputs_;
  uint8_t* table_;
};

int64_t pieces_of_group(const TableShape& shape) {
  return (shape.outputs / shape.groups + kExpandColumns - 1) / kExpandColumns;
}

}  // namespace

bool can_expand(Isa isa, TableLayout layout, const TableShape& shape) {
  if (layout == TableLayout::kCkn) return !shape.convolution;
  if (layout == TableLayout::kRows) return true;
  const auto own = layouts_for(isa);
  return expand_kernels(isa)->cells != nullptr && std::find(own.begin(), own.end(), layout) != own.end();
}

int64_t expand_pieces(const TableFactors& factors) { return factors.shape.groups * pieces_of_group(factors.shape); }

void expand(Isa isa, TableLayout layout, const TableFactors& factors, int64_t begin, int64_t end, uint8_t* table) {
  const int64_t pieces = pieces_of_group(factors.shape), outputs = factors.shape.outputs / factors.shape.groups;
  for (int64_t i = begin; i < end; ++i) {
    const int64_t column = i % pieces * kExpandColumns;
    for (int64_t tap = 0; tap < factors.shape.taps; ++tap)
      Piece(isa, layout, factors, i / pieces, tap, table).make(column, std::min(kExpandColumns, outputs - column));
  }
}

}  // namespace lutc::kernels
