// One init step: ExpandTable or ExpandConvTable of docs/operators.md.
#pragma once

#include <cstdint>

#include "core/op.h"
#include "core/status.h"
#include "kernels/expand.h"

namespace lutc {

/// An init step whose every shape, index and multiplier has been checked.
struct ExpandStep {
  kernels::TableFactors factors;
  kernels::TableLayout layout = kernels::TableLayout::kCkn;
  uint64_t bytes = 0;  ///< of the table

  /// def has five inputs, all with data.
  static Result<ExpandStep> make(const StepDef& def);
};

}  // namespace lutc
