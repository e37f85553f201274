#include "core/step_context.h"

#include "core/checked.h"
#include "core/thread_pool.h"

namespace lutc {

const Shape& StepInference::input_shape(int i) const {
  static const Shape none;
  return has_input(i) ? views_[step_.inputs[i]].shape : none;
}

TensorView StepInference::input_value(int i) const { return has_input(i) ? views_[step_.inputs[i]] : TensorView{}; }

Status StepInference::set_output(int i, DType dtype, const Shape& shape) {
  const auto fail = [this](ErrorCode code, const std::string& what) { return problem_ = step_error(def_, code, what); };
  if (i < 0 || i >= num_outputs()) return fail(ErrorCode::kCorrupt, "it has no output " + std::to_string(i));
  const std::string output = "output " + std::to_string(i);
  if (dtype != def_.outputs[i])
    return fail(ErrorCode::kCorrupt,
                output + " is " + dtype_name(dtype) + ", the plan declares " + dtype_name(def_.outputs[i]));
  const Result<int64_t> elements = checked_elements(shape);
  if (!elements.is_ok()) return fail(ErrorCode::kInvalidArgument, output + ": " + elements.status().message());
  uint64_t bytes = 0;
  if (!checked_mul(static_cast<uint64_t>(elements.value()), static_cast<uint64_t>(dtype_size(dtype)), &bytes) ||
      bytes > memory_limit_)
    return fail(ErrorCode::kOutOfMemory, output + " of shape " + shape.to_string() +
                                             " would pass the memory limit of " + std::to_string(memory_limit_) +
                                             " bytes");
  views_[step_.outputs[i]] = {dtype, shape, nullptr};
  declared_[i] = true;
  return Status::ok();
}

void StepInference::alias(int output, int input) {
  const bool possible = output >= 0 && output < num_outputs() && has_input(input) && declared_[output];
  if (possible && views_[step_.outputs[output]].bytes() == views_[step_.inputs[input]].bytes()) {
    alias_[output] = input;
  } else if (problem_.is_ok()) {
    problem_ = step_error(def_, ErrorCode::kInternal,
                          "output " + std::to_string(output) + " cannot be a view of input " + std::to_string(input));
  }
}

void StepInference::may_overwrite(int output, int input) {
  if (output >= 0 && output < num_outputs() && has_input(input)) overwrites_.push_back({output, input});
}

Status StepInference::infer(const Op& op) {
  LUTC_RETURN_IF_ERROR(op.infer(*this));
  LUTC_RETURN_IF_ERROR(problem_);
  for (int i = 0; i < num_outputs(); ++i)
    if (!declared_[i]) return step_error(def_, ErrorCode::kCorrupt, "it does not produce output " + std::to_string(i));
  if (scratch_ > memory_limit_)
    return step_error(def_, ErrorCode::kOutOfMemory,
                      std::to_string(scratch_) + " bytes of scratch would pass the memory limit of " +
                          std::to_string(memory_limit_) + " bytes");
  return Status::ok();
}

bool StepInference::all_aliased() const {
  for (const int input : alias_)
    if (input < 0) return false;
  return true;
}

Status run_now(const Op& op, const StepDef& def, const PlanStep& step, const StepInference& inference,
               std::vector<TensorView>& views, uint64_t memory_limit, int threads, std::vector<AlignedBuffer>* kept,
               uint64_t* kept_bytes) {
  for (size_t i = 0; i < step.outputs.size(); ++i) {
    TensorView& view = views[step.outputs[i]];
    const int alias = inference.alias_of(static_cast<int>(i));
    if (alias >= 0) {
      view.data = views[step.inputs[alias]].data;
      continue;
    }
    AlignedBuffer buffer;
    const uint64_t bytes = view.bytes();
    if (bytes > memory_limit - *kept_bytes || !buffer.allocate(bytes))
      return step_error(def, ErrorCode::kOutOfMemory,
                        "no memory for its constant result of " + std::to_string(bytes) + " bytes (the limit is " +
                            std::to_string(memory_limit) + " in all)");
    *kept_bytes += bytes;
    view.data = buffer.data();
    kept->push_back(std::move(buffer));
  }
  if (inference.all_aliased()) return Status::ok();
  AlignedBuffer scratch;
  if (!scratch.allocate(inference.scratch())) return step_error(def, ErrorCode::kOutOfMemory, "no memory for scratch");
  StepRun run(views, ThreadPool::shared(), threads);
  run.bind(step, scratch.data());
  return op.run(run);
}

bool inputs_known(const PlanStep& step, const std::vector<TensorView>& views) {
  if (step.op == "shape" || step.op == "size") return true;
  for (const int value : step.inputs)
    if (value >= 0 && views[value].data == nullptr) return false;
  return true;
}

}  // namespace lutc
