#include "core/link_signs.h"

#include <algorithm>

namespace lutc {
namespace {

bool is_one_of(const std::string& op, std::initializer_list<const char*> names) {
  return std::find(names.begin(), names.end(), op) != names.end();
}

/// Whether its output has no negative number; `known` tells of its inputs.
bool nonnegative(const PlanStep& step, const std::vector<char>& known) {
  const auto input = [&](size_t i) { return i < step.inputs.size() && step.inputs[i] >= 0; };
  if (is_one_of(step.op, {"relu", "sigmoid", "softmax"})) return true;
  if (is_one_of(step.op, {"average_pool", "global_average_pool", "global_max_pool", "slice", "identity"}))
    return input(0) && known[step.inputs[0]] != 0;
  const bool lookup_or_int8 = is_one_of(step.op, {"int8_conv", "lut_conv"});
  if (!lookup_or_int8 && step.op != "conv") return false;
  if (step.attrs.get_string("activation", "none") != "relu") return false;
  const size_t residual = lookup_or_int8 ? 4 : 3;
  return !input(residual) || step.attrs.get_int("activation_after_residual", 0) != 0 ||
         known[step.inputs[residual]] != 0;
}

}  // namespace

void link_signs(Plan* plan) {
  std::vector<char> known(plan->values.size(), 0);  // by value: has no negative number
  for (PlanStep& step : plan->steps) {
    if (step.op == "int8_conv") {
      const bool marked = !step.inputs.empty() && step.inputs[0] >= 0 && known[step.inputs[0]] != 0;
      step.attrs.set("nonnegative", int64_t{marked});
    }
    if (!step.outputs.empty() && step.outputs[0] >= 0) known[step.outputs[0]] = nonnegative(step, known);
  }
}

}  // namespace lutc
