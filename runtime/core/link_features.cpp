#include "core/link_features.h"

namespace lutc {
namespace {

constexpr size_t kResidual = 4;    ///< of a lut_linear
constexpr size_t kProjection = 7;  ///< of a lut_encode

bool has_input(const PlanStep& step, size_t i) { return i < step.inputs.size() && step.inputs[i] >= 0; }

bool integer_attention(const PlanStep& step) {
  return step.op == "attention" && step.attrs.get_int("quantised", 0) == 1;
}

/// Whether its output can lie feature by feature.
bool makes(const PlanStep& step) {
  return step.outputs.size() == 1 &&
         ((step.op == "lut_linear" && !has_input(step, kResidual)) || integer_attention(step));
}

/// Whether its first input can.
bool takes(const PlanStep& step) {
  if (step.op == "lut_encode") return step.attrs.get_int("axis", -1) == -1 && !has_input(step, kProjection);
  return integer_attention(step) && step.attrs.has("packed");
}

}  // namespace

void link_features(Plan* plan, kernels::Isa isa) {
  std::vector<PlanStep*> maker(plan->values.size());
  for (PlanStep& step : plan->steps) {
    if (step.op != "lut_linear" && step.op != "lut_encode" && step.op != "attention") continue;
    step.attrs.set("takes_features", int64_t{0});
    step.attrs.set("makes_features", int64_t{0});
    if (makes(step) && isa == kernels::Isa::kAvx512) maker[step.outputs[0]] = &step;
  }
  for (const Port& output : plan->outputs) maker[output.value] = nullptr;
  for (const PlanStep& step : plan->steps) {
    for (size_t i = 0; i < step.inputs.size(); ++i)
      if (step.inputs[i] >= 0 && !(takes(step) && i == 0)) maker[step.inputs[i]] = nullptr;
  }
  for (PlanStep& step : plan->steps) {
    if (!takes(step) || !has_input(step, 0) || maker[step.inputs[0]] == nullptr) continue;
    maker[step.inputs[0]]->attrs.set("makes_features", int64_t{1});
    step.attrs.set("takes_features", int64_t{1});
  }
}

}  // namespace lutc
