// What lut_encode hands to lut_linear and lut_conv: a header and panels of codes (kernels/lookup.h), image after image.
#pragma once

#include <cstdint>
#include <mutex>

#include "core/aligned_buffer.h"
#include "core/ops/common.h"
#include "kernels/layout.h"
#include "kernels/lookup.h"
#include "kernels/vector.h"

namespace lutc::ops {

/// What follows the header of a codes value: panels of pixels, panels of rows (kernels may lay out such panels for
/// lut_linear alone), or the planes of an image (code_planes.h).
enum class CodesForm : int32_t { kPixels, kRows, kPlanes };

/// First 64 bytes of a codes value; a consumer refuses codes that were not made for it.
struct CodesHeader {
  static constexpr uint64_t kMagic = 0x314c444554554c43;  // "CLUTEDL1"
  uint64_t magic = kMagic;
  int64_t codebooks = 0;
  int64_t entries = 0;
  int64_t gain_limit = 0;
  int64_t images = 0;      ///< 1 for rows
  int64_t rows = 0;        ///< rows, or pixels of an image
  int64_t has_offset = 0;  ///< zeros are not encoded as zeros, so padding would be wrong
  CodesForm form = CodesForm::kPixels;
  int32_t entry_limit = 0;
};
static_assert(sizeof(CodesHeader) == 64);

/// Sizes of a codes value on an ISA.
struct CodesGeometry {
  const kernels::LookupKernels* kernels = nullptr;
  int64_t codebooks = 0;
  int64_t gain_limit = 0;
  int64_t entry_limit = kernels::kLargestEntry;
  int64_t units = 0;
  int64_t window_units = 0;
  int64_t start_bytes = 0;      ///< in front of a panel
  int64_t code_unit_bytes = 0;  ///< codes of a unit
  int64_t gain_unit_bytes = 0;  ///< gains of a unit, 0 in the plain form
  int64_t panel_bytes = 0;

  CodesGeometry() = default;
  CodesGeometry(const kernels::LookupKernels* k, int64_t codebooks, int64_t gain_limit, int64_t entry_limit);
  int64_t unit_bytes() const { return code_unit_bytes + gain_unit_bytes; }
  int64_t panels(int64_t rows) const { return (rows + kernels->panel_rows - 1) / kernels->panel_rows; }
  /// Header and panels; false on overflow.
  [[nodiscard]] bool bytes(int64_t images, int64_t rows, int64_t* total) const;
  /// Code and gain (1 in the plain form) of one row of a panel.
  void extract(const uint8_t* panel, int64_t row, int64_t entries, int64_t codebook, uint8_t* code, int8_t* gain) const;
};

/// Whether the rows that a step writes ("makes_features") or reads ("takes_features") lie feature by feature:
/// [feature][row]. Both sides ask (link_features.h).
inline bool by_features(const StepDef& def, const char* side, const kernels::LookupKernels& kernels, int64_t rows) {
  return def.attrs.get_int(side, 0) == 1 && rows > kernels.gather_rows && rows >= kernels.panel_rows;
}

/// Bound of the entries of all tables that are looked up with the same codes (link_entries.h).
inline int64_t entry_limit(const StepDef& def) {
  return std::clamp<int64_t>(def.attrs.get_int("entry_limit", kernels::kLargestEntry), 31, kernels::kLargestEntry);
}

/// The part that lut_linear and lut_conv share: attributes, table, scale, bias and activation.
class LutConsumer : public OpBase {
 public:
  using OpBase::OpBase;

 protected:
  /// Reads and checks codebooks, entries, outputs, gain_limit, activation, scale and bias.
  Status init_common(const BuildContext& build);
  /// Finds the table in the layout of the kernels: the mapped bytes when they are in it, else a private copy. shape_ is
  /// set. A canonical table of a linear layer serves small batches as it is: its copy waits for need_table().
  Status init_table(const BuildContext& build);
  /// Called while shapes are prepared, before any run that reads table_.
  Status need_table() const;
  /// The codes value is one of this step's encode, in panels or, where `planes_bytes` is not zero, planes of that size.
  Status check_codes(const TensorView& codes, int64_t images, int64_t rows, int64_t planes_bytes = 0) const;
  bool is_simple() const {
    return activation_ == kernels::Activation::kNone || activation_ == kernels::Activation::kRelu;
  }

  const kernels::LookupKernels* kernels_ = nullptr;
  const kernels::VectorKernels* vector_ = nullptr;
  int64_t codebooks_ = 0, entries_ = 0, outputs_ = 0, gain_limit_ = 0, entry_limit_ = kernels::kLargestEntry;
  kernels::Activation activation_ = kernels::Activation::kNone;
  kernels::TableShape shape_;
  kernels::TableLayout layout_ = kernels::TableLayout::kCkn;  ///< of table_
  mutable const uint8_t* table_ = nullptr;
  const int8_t* rows_table_ = nullptr;  ///< the canonical table of a linear layer when it is at hand, for small batches
  mutable AlignedBuffer private_table_;
  mutable std::mutex table_mutex_;
  const float* scale_ = nullptr;
  const float* bias_ = nullptr;
};

}  // namespace lutc::ops
