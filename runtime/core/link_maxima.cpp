#include "core/link_maxima.h"

namespace lutc {
namespace {

constexpr size_t kLargestInput = 5;  ///< of an int8_conv

}  // namespace

void link_maxima(Plan* plan) {
  std::vector<int> maker(plan->values.size(), -1);  // by value: the int8_conv that makes it
  for (size_t i = 0; i < plan->steps.size(); ++i) {
    PlanStep& step = plan->steps[i];
    if (step.op != "int8_conv" || step.inputs.empty() || step.inputs[0] < 0) continue;
    const int producer = maker[step.inputs[0]];
    if (producer >= 0 && step.inputs.size() <= kLargestInput) {
      std::vector<int>& outputs = plan->steps[producer].outputs;
      if (outputs.size() == 1) {
        outputs.push_back(static_cast<int>(plan->values.size()));
        plan->values.emplace_back();
      }
      step.inputs.resize(kLargestInput, -1);
      step.inputs.push_back(outputs[1]);
    }
    if (step.outputs.size() == 1) maker[step.outputs[0]] = static_cast<int>(i);
  }
}

}  // namespace lutc
