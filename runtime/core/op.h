// The one interface between the plan executor (core/session) and the operators (core/ops/*).
//
// A step of the plan becomes one Op, made once at load by the factory registered under the step's op name. Then, for
// each new combination of input shapes, infer() is called once per step in plan order (this is where shapes are worked
// out, scratch is asked for and views are declared), and run() for every inference. run() allocates nothing and reads
// no plan.
//
// Shape arithmetic needs no special path: when every input value of a step is known already at infer time (constants,
// shapes and what follows from them), the executor runs the step right there and its outputs become constants of that
// shape combination.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/attributes.h"
#include "core/status.h"
#include "core/tensor.h"

namespace lutc {

class ThreadPool;
namespace kernels {
struct KernelTable;
}

/// What is known of a step when it is built, before any input shape is.
struct StepDef {
  std::string op;    ///< "matmul", "add", ... : docs/format.md lists them
  std::string name;  ///< the source node, for messages
  Attributes attrs;
  /// One entry per input. data is set for constants (mapped from the artifact, alive as long as the Op); otherwise null
  /// with only the dtype meaningful. present is false for an omitted optional input.
  struct Input {
    bool present = false;
    bool constant = false;
    TensorView tensor;
  };
  std::vector<Input> inputs;
  std::vector<DType> outputs;  ///< declared dtypes; infer() must agree
};

/// The tables of a plan in the order in which steps read them. Many come from memory at every run: a step can fetch the
/// beginning of the next one while it is at work itself.
struct TableLink {
  const uint8_t* table = nullptr;  ///< null where there is nothing to fetch
  int64_t bytes = 0;               ///< what its step reads before it fetches for itself
  const TableLink* next = nullptr;
};

/// Facts about the machine and session that factories may use (to pick kernels, to pack weights).
struct BuildContext {
  const kernels::KernelTable* kernels = nullptr;  ///< the table chosen for this ISA; never null
  int64_t table_bytes = 0;           ///< of all lookup tables of the plan: many of them come from memory at every run
  TableLink** last_table = nullptr;  ///< that of the steps built so far, to which the next one is linked; may be null
};

class InferContext {
 public:
  virtual ~InferContext() = default;
  virtual int num_inputs() const = 0;
  virtual bool has_input(int i) const = 0;
  virtual DType input_dtype(int i) const = 0;
  virtual const Shape& input_shape(int i) const = 0;
  /// The value of input i when it is known at infer time, else a view with null data.
  virtual TensorView input_value(int i) const = 0;
  virtual int num_outputs() const = 0;
  /// Declares output i; checks sizes for overflow and the session's byte budget.
  virtual Status set_output(int i, DType dtype, const Shape& shape) = 0;
  /// Output i is input j's bytes under another shape (Reshape, Squeeze, Identity ...): nothing is allocated, run() is
  /// not called if this is the only output. Call after set_output.
  virtual void alias(int output, int input) = 0;
  /// Output i may be written over input j (same bytes, elementwise); the planner decides.
  virtual void may_overwrite(int output, int input) = 0;
  /// Bytes of 64-byte-aligned scratch that run() finds in RunContext::scratch(), shared by all threads of the step.
  virtual void request_scratch(size_t bytes) = 0;
  virtual int num_threads() const = 0;
};

class RunContext {
 public:
  virtual ~RunContext() = default;
  virtual bool has_input(int i) const = 0;
  virtual const TensorView& input(int i) const = 0;
  virtual const TensorView& output(int i) const = 0;
  virtual void* scratch() const = 0;
  virtual ThreadPool& pool() const = 0;
  virtual int num_threads() const = 0;  ///< threads this session may use; pass it to ThreadPool::parallel_for
};

class Op {
 public:
  virtual ~Op() = default;
  virtual Status infer(InferContext& ctx) const = 0;
  virtual Status run(RunContext& ctx) const = 0;
};

using OpFactory = Result<std::unique_ptr<Op>> (*)(const StepDef& def, const BuildContext& build);

/// Factory registered for an op name, or null. Each file in core/ops/ offers `void register_<file>(OpRegistry&)`;
/// core/ops/registry.cpp calls them all.
class OpRegistry {
 public:
  static const OpRegistry& instance();
  OpFactory find(std::string_view op) const;
  void add(const char* op, OpFactory factory);
  std::vector<std::string> names() const;

 private:
  std::vector<std::pair<std::string, OpFactory>> factories_;
};

/// Helper for messages: "step 'encoder/add_3' (add): " + what.
Status step_error(const StepDef& def, ErrorCode code, const std::string& what);

}  // namespace lutc
