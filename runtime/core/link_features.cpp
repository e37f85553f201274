#include "core/link_features.h"

namespace lutc {
namespace {

constexpr size_t kResidual = 4;    ///< of a lut_linear
constexpr size_t kProjection = 7;  ///< of a lut_encode

bool has_input(const PlanStep& step, size_t i) { return i < step.inputs.size() && step.inputs[i] >= 0; }

}  // namespace

void link_features(Plan* plan, kernels::Isa isa) {
  std::vector<PlanStep*> maker(plan->values.size());
  for (PlanStep& step : plan->steps) {
    if (step.op != "lut_linear" && step.op != "lut_encode") continue;
    step.attrs.set("by_features", int64_t{0});
    if (step.op == "lut_linear" && step.outputs.size() == 1 && !has_input(step, kResidual) &&
        isa == kernels::Isa::kAvx512)
      maker[step.outputs[0]] = &step;
  }
  for (const Port& output : plan->outputs) maker[output.value] = nullptr;
  for (const PlanStep& step : plan->steps) {
    const bool encode =
        step.op == "lut_encode" && step.attrs.get_int("axis", -1) == -1 && !has_input(step, kProjection);
    for (size_t i = 0; i < step.inputs.size(); ++i)
      if (step.inputs[i] >= 0 && !(encode && i == 0)) maker[step.inputs[i]] = nullptr;
  }
  for (PlanStep& step : plan->steps) {
    if (step.op != "lut_encode" || !has_input(step, 0) || maker[step.inputs[0]] == nullptr) continue;
    maker[step.inputs[0]]->attrs.set("by_features", int64_t{1});
    step.attrs.set("by_features", int64_t{1});
  }
}

}  // namespace lutc
