// The tables that a plan's init steps make when a model is loaded (docs/format.md): checked, then made in one piece of
// memory in the layouts that this ISA's kernels read.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/aligned_buffer.h"
#include "core/artifact.h"
#include "core/plan.h"
#include "core/status.h"
#include "core/tensor.h"
#include "kernels/kernel_table.h"

namespace lutc {

/// Makes init steps and the lookups that read their tables agree on a layout of `isa`, whatever the artifact was
/// written for. A canonical table of a linear layer stays so: few rows are looked up in it as it is.
Status link_tables(Plan* plan, kernels::Isa isa);

class ExpandedTables {
 public:
  /// Checks every init step before anything is allocated, then makes their tables on up to `threads` threads of the
  /// process's pool. Sessions of one mapped file on one ISA share them. Null when there are none.
  static Result<std::shared_ptr<const ExpandedTables>> make(const Plan& plan, const Artifact& artifact,
                                                            kernels::Isa isa, int threads, uint64_t memory_limit);

  /// The table of an init step.
  const TensorView& table(size_t step) const { return tables_[step]; }
  uint64_t bytes() const { return bytes_; }

 private:
  ExpandedTables() = default;

  AlignedBuffer memory_;
  std::vector<TensorView> tables_;
  uint64_t bytes_ = 0;
};

}  // namespace lutc
