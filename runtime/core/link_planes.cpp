#include "core/link_planes.h"

#include <map>

#include "core/ops/code_planes.h"

namespace lutc {
namespace {

/// Whether the step is a convolution that can read dense planes.
bool takes(const PlanStep& step, ops::CodeWindow* window) {
  if (step.op != "lut_conv" || step.attrs.get_int("group", 1) != 1 || !window->read(step.attrs)) return false;
  return window->strides[0] == 1 && window->strides[1] == 1 &&
         window->pads[1] + window->pads[3] == window->dilations[1] * (window->kernel[1] - 1);
}

bool same(const ops::CodeWindow& a, const ops::CodeWindow& b) {
  return a.kernel == b.kernel && a.dilations == b.dilations && a.pads == b.pads;
}

}  // namespace

void link_planes(Plan* plan, kernels::Isa isa) {
  struct Codes {
    PlanStep* encode = nullptr;
    std::vector<PlanStep*> readers;
    ops::CodeWindow window;
  };
  std::map<int, Codes> linked;  // by value
  for (PlanStep& step : plan->steps) {
    if (step.op != "lut_encode" && step.op != "lut_conv") continue;
    step.attrs.set("planes", int64_t{0});
    if (isa == kernels::Isa::kAvx512 && step.op == "lut_encode" && step.outputs.size() == 1 &&
        step.attrs.get_int("axis", -1) == 1)
      linked[step.outputs[0]].encode = &step;
  }
  for (const Port& output : plan->outputs) linked.erase(output.value);
  for (PlanStep& step : plan->steps) {
    for (size_t i = 0; i < step.inputs.size(); ++i) {
      const auto found = linked.find(step.inputs[i]);
      if (found == linked.end()) continue;
      Codes& codes = found->second;
      ops::CodeWindow window;
      if (i != 0 || !takes(step, &window) || (!codes.readers.empty() && !same(window, codes.window))) {
        linked.erase(found);
        continue;
      }
      codes.readers.push_back(&step);
      codes.window = std::move(window);
    }
  }
  for (auto& [value, codes] : linked) {
    if (codes.readers.empty()) continue;
    Attributes& attrs = codes.encode->attrs;
    attrs.set("planes", int64_t{1});
    attrs.set("kernel_shape", codes.window.kernel);
    attrs.set("strides", codes.window.strides);
    attrs.set("dilations", codes.window.dilations);
    attrs.set("pads", codes.window.pads);
    for (PlanStep* step : codes.readers) step->attrs.set("planes", int64_t{1});
  }
}

}  // namespace lutc
