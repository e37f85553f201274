// Lookup kernels: quantise and encode sub-vectors to codes and gains, sum table entries, scale the sums.
//
// docs/operators.md says what is computed, docs/layouts.md how codes and tables are stored. Everything up to the int32
// sums is integer and gives the same bits on every ISA.
//
// The unit of work of the encode is a *panel*: panel_rows rows (or pixels) in the lanes of vectors. A panel of codes is
//   [starts][unit 0: codes, gains][unit 1: codes, gains] ...
// where a *unit* is `unit` consecutive codebooks; gains are absent in the plain form. A lookup reads codes through
// strides, so that the same inner loop serves panels (linear layers) and image planes (convolutions, one run over the
// codes for every tap).
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/kernel_table.h"

namespace lutc::kernels {

/// Directions of one slot as the encode of an ISA wants them: scalar: int8 [16][4]; avx2: int16 pairs [2][16][2], times
/// 16, slots (0, 2) then (1, 3); avx512: [16][4], uint8 offset by 128 in the gain form, int8 in the plain form, entry k
/// at place K - 1 - k; or an AngleTable.
enum class DirectionForm { kBytes, kPairs, kQuads };

constexpr uint8_t kPairSlot = 16;

constexpr int kLargestEntry = 127;  ///< of any table

/// Lanes of a row that are loaded, quantised and packed together: the features of four slots of bytes or eight of
/// pairs.
struct SlotRun {
  int32_t first;      ///< feature
  int32_t pairs;      ///< 1: eight slots of pairs
  int32_t in_order;   ///< lanes read first, first + 1, ...; else first + order[lane]
  int32_t last_lane;  ///< of those that are read: 15, or fewer at the end of a row
  int32_t order[16];
  /// The same for bytes of four rows, where dword r of 128-bit lane l has lanes 4 l .. 4 l + 3 of row r.
  uint8_t bytes[64];
  /// Of the lanes' features (pairs), or of features first, first + 1, ...
  float offset[16];
  float inv_scale[16];
};

/// A prepared encode: plain pointers into the storage of an EncodePlan. A *slot* is four bytes of a sub-vector, so a
/// codebook of V features has ceil(V / 4) slots (8 where that is 5 to 7); missing features have direction 0.
struct EncodeView {
  int64_t features = 0;              ///< D (columns of the projection when there is one: r)
  int64_t codebooks = 0;             ///< C
  int entries = 0;                   ///< K
  int gain_limit = 0;                ///< G, 0 in the plain form
  int entry_limit = kLargestEntry;   ///< largest magnitude of an entry that the codes will look up, at least 31
  int64_t slots = 0;                 ///< all codebooks together
  bool has_offset = false;           ///< some offset is nonzero
  const float* offset = nullptr;     ///< [D]
  const float* inv_scale = nullptr;  ///< [D]
  const int32_t* source = nullptr;   ///< [slots][4] feature
  /// First feature of the bytes from which the slots of a vector are permuted: 16 slots from 64 bytes (avx2: 4 from
  /// 16). Null: features are too far apart, gather.
  const int32_t* window = nullptr;
  const uint8_t* window_index = nullptr;  ///< [slots, padded to 16][4] place in the window
  const uint8_t* slot_count = nullptr;    ///< [C] 1 .. 4 or 8
  /// avx512: how a codebook is searched: 0 by scores, else by angle (angle_search.h), and the form of a slot: 1 .. 4
  /// features in bytes, or kPairSlot, two features in int16.
  const uint8_t* by_angle = nullptr;       ///< [C]
  const uint8_t* slot_features = nullptr;  ///< [slots]
  /// avx512: runs of 16 features of a row that make four slots of bytes or eight of pairs. Null: too far apart.
  const SlotRun* runs = nullptr;
  int64_t run_count = 0;
  /// avx512: rows can be encoded one by one: K = 16, no search by angle, the features of every slot consecutive.
  bool row_by_row = false;
  const uint8_t* directions = nullptr;  ///< [slots][direction_bytes of the form]
  const int32_t* start = nullptr;       ///< [C][16] what a score starts at (see EncodePlan)
  const float* gain_mul = nullptr;      ///< [C]
  // Projection in front: matrix int8 [D, r], block-diagonal.
  bool projected = false;
  int64_t inputs = 0;  ///< D of the projection
  bool has_proj_offset = false;
  const float* proj_offset = nullptr;     ///< [D]
  const float* proj_inv_scale = nullptr;  ///< [D]
  const int64_t* blocks = nullptr;        ///< [block_count][4]: first row, rows, first column, columns
  int64_t block_count = 0;
  const int8_t* const* block_matrix = nullptr;  ///< per block: [columns][rows rounded up to 4] int8
  const int32_t* const* block_start = nullptr;  ///< per block: [columns] minus 128 times the column's sum
  const float* mul = nullptr;                   ///< [r]
};

/// Where the rows of an encode come from: x[row * row_stride + feature * feature_stride]; one of the strides is 1.
struct EncodeInput {
  const float* x = nullptr;
  int64_t row_stride = 0;
  int64_t feature_stride = 1;
  int64_t rows = 0;  ///< at least 1; the codes of the last panel's missing rows are unspecified but in range
};

/// Where an encode of pixels writes what a convolution reads, instead of panels: planes of codes, position after
/// position, and of gains, once for every column of the kernel. Pointers are to the first pixel that is encoded.
struct PixelPlanes {
  uint8_t* codes = nullptr;
  int64_t code_unit_step = 0;  ///< bytes from one unit to the next
  uint8_t* gains = nullptr;    ///< null: none are wanted
  int64_t gain_unit_step = 0;
  int64_t copies = 0;                ///< of the gains
  const int64_t* copy = nullptr;     ///< [copies] bytes from gains to those of the copy, displaced as it is
  const uint16_t* inside = nullptr;  ///< [period][copies] lanes of a panel that the copy keeps; others are zero there
  int64_t period = 1;                ///< in panels
  int64_t phase = 0;                 ///< of the first panel
};

struct FinishBlock;

/// A tile of outputs (LookupKernels::stage_columns of them) that lies in scratch as its kernel wants it, activated or
/// not, and is copied to y, plus a residual, a line at a time.
struct StagedTile {
  const float* stage = nullptr;
  int64_t rows = 0;
  int64_t groups_done = 0;  ///< the kernel's count
  const float* residual = nullptr;
  float* y = nullptr;
  int64_t y_stride = 0;  ///< of y and residual, in elements
};

/// One call of the inner loop: `panels` panels times `columns` outputs over all taps and units, written as
/// acc[column][position].
struct LookupBlock {
  int panels = 0;      ///< 1 .. LookupKernels::block_panels, or more where many_blocks
  int columns = 0;     ///< 1 .. LookupKernels::block_columns, or a multiple of it where many_blocks
  int entries = 0;     ///< K
  int gain_limit = 0;  ///< 0: plain, and there are no gains
  int64_t units = 0;
  int64_t codebooks = 0;  ///< used where a unit is one codebook
  const uint8_t* codes = nullptr;
  int64_t code_panel_step = 0;  ///< bytes from one panel to the next
  int64_t code_unit_step = 0;   ///< bytes from one unit to the next
  int64_t code_half_step = 0;   ///< avx2: bytes from a unit's first codebook to its second
  const uint8_t* gains = nullptr;
  int64_t gain_panel_step = 0;
  int64_t gain_unit_step = 0;
  const uint8_t* starts = nullptr;  ///< avx512: int32 [position] minus 128 times the sum of all gains; avx2: int16
                                    ///< [window][position], minus 128 times the window's gains
  int64_t start_panel_step = 0;
  int64_t start_window_step = 0;  ///< avx2
  int64_t window_units = 0;       ///< avx2: LookupKernels::window_units of the codes
  bool of_rows = false;           ///< codes and gains of rows (lut_linear), as the encode of rows lays them out
  const int64_t* taps = nullptr;  ///< [tap_count] displacement in positions
  int64_t tap_count = 0;
  /// Convolutions, avx512 and avx2: [2][tap_count][units] bytes from codes to a step's, and from gains to a step's
  const int64_t* steps = nullptr;
  const uint8_t* table = nullptr;     ///< first byte of the column block
  int64_t table_unit_step = 0;        ///< bytes from one unit to the next; taps follow each other
  int64_t table_entry_step = 0;       ///< scalar ("rows" layout): bytes from one entry to the next
  const uint8_t* prefetch = nullptr;  ///< what a later call reads, fetched meanwhile
  int prefetch_lines = 0;             ///< cache lines of it a unit
  int32_t* acc = nullptr;
  int64_t acc_stride = 0;  ///< from one column to the next, in elements
  /// Where LookupKernels::finishes: planes (or features of rows) to which the sums go at once (its `acc`, `lines` and
  /// `columns` are not read), and the row and column of them where this block begins.
  const FinishBlock* finish = nullptr;
  int64_t finish_row = 0;
  int64_t finish_column = 0;
  /// Where LookupKernels::stage_columns: the stage to which a tile's outputs go instead, sums * scale + bias. The block
  /// is the tile then: all of its panels and columns.
  float* stage = nullptr;
  const float* scale = nullptr;
  const float* bias = nullptr;
  bool relu = false;
  StagedTile* pending = nullptr;  ///< another tile, which is copied meanwhile, as far as there is time
  int64_t pending_every = 1;      ///< units from one group of its lines to the next
};

/// acc -> y for a tile: y = relu?(float(acc) * scale + bias) [+ residual]. With columns_contiguous (rows of a matrix)
/// element (row, column) lies at y[row * y_stride + column], else (planes of an image) at y[column * y_stride + row].
struct FinishBlock {
  const int32_t* acc = nullptr;
  bool scaled = false;  ///< acc holds floats: scale and bias are in them
  int64_t acc_stride = 0;
  int64_t rows = 0;
  int64_t columns = 0;
  const float* scale = nullptr;
  const float* bias = nullptr;
  bool relu = false;
  bool residual_first = false;  ///< the residual is added before the relu
  const float* residual = nullptr;
  float* y = nullptr;
  int64_t y_stride = 0;  ///< of y and residual
  /// Planes only, where LookupKernels::plane_lines: this many lines of `rows` elements each, `acc_line_step` apart in
  /// acc and following each other in y and residual.
  int64_t lines = 1;
  int64_t acc_line_step = 0;
};

/// Rows of a small batch on the canonical table: acc[n] = sum over c of gain[c] * table[c][code[c]][n].
struct GatherRow {
  const uint8_t* codes = nullptr;  ///< [C]
  const int8_t* gains = nullptr;   ///< [C], null in the plain form
  int64_t codebooks = 0;
  int entries = 0;
  int gain_limit = 0;
  const int8_t* table = nullptr;  ///< [C][K][N], at the first wanted column
  int64_t outputs = 0;            ///< N
  int64_t columns = 0;            ///< wanted columns
  int32_t* acc = nullptr;         ///< [columns, and room up to a multiple of 64]
};

struct LookupKernels {
  const char* layout;  ///< the table layout lookup() reads
  DirectionForm direction_form;
  int panel_rows;     ///< positions a panel holds
  int unit;           ///< codebooks a unit
  int encode_panels;  ///< most panels of one encode() call
  int code_planes;    ///< byte planes a unit's codes consist of (2: one a codebook)
  int code_bytes;     ///< bytes of a position in a code plane
  int gain_bytes;     ///< bytes of a position in a unit's gain plane
  int start_element;  ///< bytes of a position's start: 4 (one for all units and taps), 2 (one a window), 0 (none)
  int block_panels;   ///< most panels of a LookupBlock
  int block_columns;  ///< most columns of a LookupBlock, and the width of the layout's column blocks
  int gather_rows;    ///< up to this many rows gather_row() is faster than lookup() (measured)
  /// Bytes of starts in front of a panel's units: one vector of panel_rows positions, or one a window. reach: largest
  /// magnitude of a gain * entry, 0 in the plain form.
  int64_t (*start_bytes)(int64_t units, int reach);
  /// Codebook units that share one starts vector, at least (avx2's 16-bit windows); the others return units.
  int64_t (*window_units)(int64_t units, int reach);
  /// Bytes of scratch one encode() call needs, 64-byte aligned.
  size_t (*encode_scratch)(const EncodeView& view);
  /// Encodes up to encode_panels panels of rows, panel_bytes apart, 64-byte aligned.
  void (*encode)(const EncodeView& view, const EncodeInput& input, uint8_t* panels, int64_t panel_bytes, void* scratch);
  void (*lookup)(const LookupBlock& block);
  void (*finish_rows)(const FinishBlock& block);
  void (*finish_planes)(const FinishBlock& block);
  void (*gather_row)(const GatherRow& row);
  /// acc -> float(acc) * scale + bias in place, so that an activation can run over a whole tile before finish_rows()
  /// (rows up to a multiple of panel_rows are written). Null: finish_rows() knows no `scaled`.
  void (*scale_columns)(const FinishBlock& block) = nullptr;
  bool plane_lines = false;  ///< finish_planes() takes many lines at once
  /// Gain form: where a panel of rows holds the code of each row; null: in order.
  const uint8_t* row_places = nullptr;
  bool many_blocks = false;  ///< lookup() takes more panels and columns than one block has: column block after block
  bool finishes = false;     ///< lookup() takes LookupBlock::finish
  /// lookup() takes LookupBlock::stage for tiles of so many columns (a stage is floats, up to a multiple of panel_rows
  /// rows), from which groups of so many elements are copied at a time.
  int stage_columns = 0;
  int stage_group = 0;
  void (*unstage)(StagedTile* tile) = nullptr;  ///< copies what is left of a tile
  /// Encodes any number of pixels, panel after panel. Null: encode() only. Codes and gains of missing pixels of the
  /// last panel are written: whatever, and zero.
  void (*encode_pixels)(const EncodeView& view, const EncodeInput& input, const PixelPlanes& planes,
                        void* scratch) = nullptr;
  /// The second stage of encode() by itself, for measurement: codes of encode_panels panels from the integers that
  /// encode() left in scratch. Null: not apart.
  void (*score)(const EncodeView& view, const void* scratch, uint8_t* panels, int64_t panel_bytes) = nullptr;
  /// starts[position] = -128 times the sum of the position's gains at all `offsets` (bytes), up to a multiple of
  /// panel_rows positions. Where lookup() takes steps.
  void (*sum_gains)(const uint8_t* gains, const int64_t* offsets, int64_t count, int64_t positions,
                    int32_t* starts) = nullptr;
  /// avx2: starts of windows of `window` steps of a convolution, int16, from the gains at all offsets (bytes) and from
  /// each position on, up to a multiple of 16 positions. Null: one start for all steps, or none.
  void (*window_starts)(const uint8_t* gains, const int64_t* offsets, int64_t count, int64_t window, int64_t positions,
                        uint8_t* starts, int64_t window_step) = nullptr;
};

const LookupKernels* lookup_kernels(Isa isa);

}  // namespace lutc::kernels
