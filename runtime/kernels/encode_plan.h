// Owner of a prepared encode: checks the tensors of a lut_encode step and lays them out for an ISA.
#pragma once

#include <vector>

#include "core/status.h"
#include "kernels/lookup.h"

namespace lutc::kernels {

/// The tensors of docs/operators.md, LutLinear inputs 1 to 6 and Project's; sizes are the caller's to fill, contents
/// are checked by prepare().
struct EncodeSource {
  int64_t features = 0;   ///< D of offset and inv_scale
  int64_t codebooks = 0;  ///< C
  int64_t width = 0;      ///< V
  int64_t entries = 0;    ///< K
  int64_t gain_limit = 0;
  int64_t entry_limit = kLargestEntry;
  const float* offset = nullptr;
  const float* inv_scale = nullptr;
  const int32_t* groups = nullptr;
  const int8_t* directions = nullptr;
  const int32_t* code_bias = nullptr;
  const float* gain_mul = nullptr;
  // Projection; inputs == 0: none. `features` is then its number of columns.
  int64_t inputs = 0;
  const float* proj_offset = nullptr;
  const float* proj_inv_scale = nullptr;
  const int8_t* matrix = nullptr;
  const float* mul = nullptr;
  std::vector<int64_t> blocks;  ///< rows0, cols0, rows1, cols1, ...; empty: one block
};

class EncodePlan {
 public:
  EncodePlan() = default;
  EncodePlan(const EncodePlan&) = delete;
  EncodePlan& operator=(const EncodePlan&) = delete;

  /// Every message says which tensor breaks which rule of docs/operators.md.
  Status prepare(const EncodeSource& source, DirectionForm form);
  const EncodeView& view() const { return view_; }

 private:
  Status check(const EncodeSource& source) const;
  void lay_out_slots(const EncodeSource& source, DirectionForm form);
  void find_windows(DirectionForm form);
  /// avx512: the pairs that may be packed as such, and the runs; nothing where features are too far apart.
  void find_runs();
  Status prepare_projection(const EncodeSource& source);

  EncodeView view_;
  std::vector<float> offset_, inv_scale_, gain_mul_, proj_offset_, proj_inv_scale_, mul_;
  std::vector<int32_t> source_, window_, start_;
  std::vector<uint8_t> window_index_, slot_count_, directions_, by_angle_, slot_features_;
  std::vector<SlotRun> runs_;
  std::vector<int64_t> blocks_;
  std::vector<std::vector<int8_t>> matrices_;
  std::vector<std::vector<int32_t>> matrix_starts_;
  std::vector<const int8_t*> matrix_pointers_;
  std::vector<const int32_t*> start_pointers_;
};

}  // namespace lutc::kernels
