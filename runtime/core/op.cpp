#include "core/op.h"

namespace lutc {

OpFactory OpRegistry::find(std::string_view op) const {
  for (const auto& [name, factory] : factories_)
    if (name == op) return factory;
  return nullptr;
}

void OpRegistry::add(const char* op, OpFactory factory) { factories_.emplace_back(op, factory); }

std::vector<std::string> OpRegistry::names() const {
  std::vector<std::string> names;
  names.reserve(factories_.size());
  for (const auto& entry : factories_) names.push_back(entry.first);
  return names;
}

Status step_error(const StepDef& def, ErrorCode code, const std::string& what) {
  return {code, "step '" + def.name + "' (" + def.op + "): " + what};
}

}  // namespace lutc
