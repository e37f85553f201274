// A loaded model: plan, operators and constants, plus what was worked out for the input shapes seen lately.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "core/artifact.h"
#include "core/expanded_tables.h"
#include "core/op.h"
#include "core/plan.h"
#include "core/status.h"
#include "core/tensor.h"

namespace lutc {

class Prepared;
class Preparation;
struct RunState;

struct SessionOptions {
  int threads = 0;  ///< 0: every CPU granted to the process; more than that is cut to it
  std::string isa;  ///< "scalar", "avx2", "avx512"; empty: LUTC_ISA, else the best this CPU has
  /// Bytes of constants folded, arena and outputs for one run; 0: the memory granted to the process.
  uint64_t memory_limit = 0;
  bool map = true;        ///< map the file; false: read it into private memory (see core/file_map.h)
  int cached_shapes = 8;  ///< combinations of input shapes kept prepared
};

/// What one step cost, over all profiled runs, and what it read and wrote in the last.
struct StepProfile {
  struct Operand {
    DType dtype = DType::kF32;
    Shape shape;
    bool constant = false;
    bool present = false;
  };
  std::string name;
  std::string op;
  uint64_t calls = 0;
  double microseconds = 0;  ///< in total
  uint64_t bytes = 0;       ///< read and written, in total
  std::vector<Operand> inputs, outputs;
};

/// Thread-safe: any number of threads may call every const method at once. Each concurrent run() has an arena of its
/// own; they share the process's thread pool, and a run that finds it taken computes on its caller's thread alone.
class Session {
 public:
  static Result<std::unique_ptr<Session>> open(const std::string& path, const SessionOptions& options = {});
  static Result<std::unique_ptr<Session>> from_memory(const void* data, size_t bytes,
                                                      const SessionOptions& options = {});
  ~Session();

  const std::vector<Port>& inputs() const { return plan_.inputs; }
  const std::vector<Port>& outputs() const { return plan_.outputs; }
  const Artifact& artifact() const { return *artifact_; }
  const char* isa() const;
  int threads() const { return threads_; }

  /// Index of an input or output; kInvalidArgument lists the right names and shows the call.
  Result<int> find_input(const std::string& name) const;
  Result<int> find_output(const std::string& name) const;

  /// Checks the inputs' dtypes and shapes (data is not looked at) and works out everything that depends on them, or
  /// finds it prepared already. inputs: one view per inputs() entry, in order.
  Result<std::shared_ptr<const Prepared>> prepare(const TensorView* inputs) const;

  /// Runs. inputs as given to prepare(), now with data; outputs: one view per outputs() entry with the caller's memory
  /// in data, null where the output is not wanted (dtype and shape are ignored: they are prepared.output()'s). Data
  /// must be aligned to its element size; outputs overlap nothing. After the first run of a combination of shapes,
  /// allocates nothing.
  Status run(const Prepared& prepared, const TensorView* inputs, const TensorView* outputs) const;

  void set_profiling(bool on) const;
  /// One entry per step that ran since profiling was switched on, in plan order.
  std::vector<StepProfile> profile() const;

 private:
  friend class Preparation;
  struct StepTotals {
    uint64_t calls = 0, bytes = 0;
    double microseconds = 0;
    std::shared_ptr<const Prepared> prepared;  ///< of the last run
  };

  Session() = default;
  static Result<std::unique_ptr<Session>> build(std::unique_ptr<Artifact> artifact, const SessionOptions& options);
  Status build_steps();
  Status check_inputs(const TensorView* inputs) const;
  std::unique_ptr<RunState> acquire_state(const Prepared& prepared) const;
  Status run_steps(const Prepared& prepared, RunState& state) const;

  SessionOptions options_;
  std::unique_ptr<Artifact> artifact_;
  Plan plan_;
  const kernels::KernelTable* kernels_ = nullptr;
  int threads_ = 1;

  std::vector<StepDef> defs_;
  std::vector<std::unique_ptr<Op>> ops_;
  std::vector<TensorView> known_;  ///< by value: constants and what follows from constants alone; data null elsewhere
  std::vector<AlignedBuffer> folded_;  ///< memory of the latter
  std::shared_ptr<const ExpandedTables> tables_;
  uint64_t folded_bytes_ = 0;

  mutable std::mutex mutex_;                                     ///< guards what follows
  mutable std::list<std::shared_ptr<const Prepared>> prepared_;  ///< latest used first
  mutable std::vector<std::unique_ptr<RunState>> idle_;
  mutable bool profiling_ = false;
  mutable std::vector<StepTotals> totals_;
};

}  // namespace lutc
