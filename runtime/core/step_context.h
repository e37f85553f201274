// The executor's side of InferContext and RunContext.
#pragma once

#include <cstdint>
#include <vector>

#include "core/aligned_buffer.h"
#include "core/op.h"
#include "core/plan.h"
#include "core/tensor.h"

namespace lutc {

/// One step's inference over a table of views indexed by value. Output views are written to the table as they are
/// declared.
class StepInference final : public InferContext {
 public:
  /// Views of values whose shape is not known yet are never read: plan order sees to that.
  StepInference(const PlanStep& step, const StepDef& def, std::vector<TensorView>& views, uint64_t memory_limit,
                int threads)
      : step_(step),
        def_(def),
        views_(views),
        memory_limit_(memory_limit),
        threads_(threads),
        alias_(step.outputs.size(), -1),
        declared_(step.outputs.size()) {}

  int num_inputs() const override { return static_cast<int>(step_.inputs.size()); }
  bool has_input(int i) const override { return i >= 0 && i < num_inputs() && step_.inputs[i] >= 0; }
  DType input_dtype(int i) const override { return input_value(i).dtype; }
  const Shape& input_shape(int i) const override;
  TensorView input_value(int i) const override;
  int num_outputs() const override { return static_cast<int>(step_.outputs.size()); }
  Status set_output(int i, DType dtype, const Shape& shape) override;
  void alias(int output, int input) override;
  void may_overwrite(int output, int input) override;
  void request_scratch(size_t bytes) override { scratch_ = bytes > scratch_ ? bytes : scratch_; }
  int num_threads() const override { return threads_; }

  /// Runs the operator's infer() and checks that it kept the contract.
  Status infer(const Op& op);

  /// Input whose bytes output i is, or -1.
  int alias_of(int i) const { return alias_[i]; }
  bool all_aliased() const;
  struct Overwrite {
    int output;
    int input;
  };
  const std::vector<Overwrite>& overwrites() const { return overwrites_; }
  uint64_t scratch() const { return scratch_; }

 private:
  const PlanStep& step_;
  const StepDef& def_;
  std::vector<TensorView>& views_;
  uint64_t memory_limit_;
  int threads_;
  std::vector<int> alias_;
  std::vector<bool> declared_;
  std::vector<Overwrite> overwrites_;
  uint64_t scratch_ = 0;
  Status problem_;
};

/// One step's run over the same table, every view now with data.
class StepRun final : public RunContext {
 public:
  StepRun(const std::vector<TensorView>& views, ThreadPool& pool, int threads)
      : views_(views.data()), pool_(pool), threads_(threads) {}
  void bind(const PlanStep& step, void* scratch) {
    step_ = &step;
    scratch_ = scratch;
  }

  bool has_input(int i) const override {
    return i >= 0 && i < static_cast<int>(step_->inputs.size()) && step_->inputs[i] >= 0;
  }
  const TensorView& input(int i) const override { return views_[step_->inputs[i]]; }
  const TensorView& output(int i) const override { return views_[step_->outputs[i]]; }
  void* scratch() const override { return scratch_; }
  ThreadPool& pool() const override { return pool_; }
  int num_threads() const override { return threads_; }

 private:
  const TensorView* views_;
  ThreadPool& pool_;
  int threads_;
  const PlanStep* step_ = nullptr;
  void* scratch_ = nullptr;
};

/// Runs an inferred step at once and keeps its outputs in fresh memory, appended to `kept`; *kept_bytes grows by their
/// sizes up to memory_limit.
Status run_now(const Op& op, const StepDef& def, const PlanStep& step, const StepInference& inference,
               std::vector<TensorView>& views, uint64_t memory_limit, int threads, std::vector<AlignedBuffer>* kept,
               uint64_t* kept_bytes);

/// Whether every input that the operator reads is known: `shape` and `size` read no bytes at all.
bool inputs_known(const PlanStep& step, const std::vector<TensorView>& views);

}  // namespace lutc
