#include "core/link_entries.h"

#include <algorithm>
#include <vector>

#include "kernels/layout.h"
#include "kernels/lookup.h"

namespace lutc {
namespace {

bool is_lookup(const PlanStep& step) { return step.op == "lut_linear" || step.op == "lut_conv"; }

/// Bound of the entries of a lookup's table; the largest there is where its step is not in order, which is told when it
/// is made.
int64_t limit_of(const PlanStep& step, const TensorView& table) {
  kernels::TableLayout layout;
  if (table.data == nullptr || step.attrs.get_int("gain_limit", 0) == 0 ||
      !kernels::parse_layout(step.attrs.get_string("layout", "ckn"), &layout))
    return kernels::kLargestEntry;
  return kernels::entry_limit(layout, table.as<uint8_t>(), table.bytes());
}

}  // namespace

void link_entries(Plan* plan, const ExpandedTables* tables, kernels::Isa isa) {
  std::vector<TensorView> known(plan->values.size());
  for (size_t v = 0; v < known.size(); ++v) {
    if (plan->values[v].constant) known[v] = plan->values[v].view;
  }
  for (size_t i = 0; i < plan->init.size(); ++i) known[plan->init[i].outputs[0]] = tables->table(i);
  std::vector<int64_t> limit(known.size(), 0);  // by value: of the tables looked up with these codes
  for (const PlanStep& step : plan->steps) {
    if (!is_lookup(step) || step.inputs.size() < 2 || step.inputs[0] < 0 || step.inputs[1] < 0) continue;
    int64_t& most = limit[step.inputs[0]];
    if (isa != kernels::Isa::kAvx2 && isa != kernels::Isa::kAvxVnni) most = kernels::kLargestEntry;
    if (most < kernels::kLargestEntry) most = std::max(most, limit_of(step, known[step.inputs[1]]));
  }
  for (PlanStep& step : plan->steps) {
    int64_t codes = -1;
    if (is_lookup(step) && !step.inputs.empty()) codes = step.inputs[0];
    if (step.op == "lut_encode" && !step.outputs.empty()) codes = step.outputs[0];
    const int64_t most = codes < 0 || limit[codes] == 0 ? kernels::kLargestEntry : limit[codes];
    if (is_lookup(step) || step.op == "lut_encode") step.attrs.set("entry_limit", most);
  }
}

}  // namespace lutc
