#include "core/attributes.h"

namespace lutc {

int64_t Attributes::get_int(const std::string& name, int64_t fallback) const {
  const auto it = values_.find(name);
  if (it == values_.end()) return fallback;
  const auto* v = std::get_if<int64_t>(&it->second);
  return v != nullptr ? *v : fallback;
}

double Attributes::get_float(const std::string& name, double fallback) const {
  const auto it = values_.find(name);
  if (it == values_.end()) return fallback;
  if (const auto* v = std::get_if<double>(&it->second)) return *v;
  // JSON writers may print the float 1.0 as 1.
  if (const auto* v = std::get_if<int64_t>(&it->second)) return static_cast<double>(*v);
  return fallback;
}

std::string Attributes::get_string(const std::string& name, const std::string& fallback) const {
  const auto it = values_.find(name);
  if (it == values_.end()) return fallback;
  const auto* v = std::get_if<std::string>(&it->second);
  return v != nullptr ? *v : fallback;
}

std::vector<int64_t> Attributes::get_ints(const std::string& name, const std::vector<int64_t>& fallback) const {
  const auto it = values_.find(name);
  if (it == values_.end()) return fallback;
  const auto* v = std::get_if<std::vector<int64_t>>(&it->second);
  return v != nullptr ? *v : fallback;
}

std::vector<double> Attributes::get_floats(const std::string& name, const std::vector<double>& fallback) const {
  const auto it = values_.find(name);
  if (it == values_.end()) return fallback;
  if (const auto* v = std::get_if<std::vector<double>>(&it->second)) return *v;
  // As in get_float; an empty list has no type of its own.
  if (const auto* v = std::get_if<std::vector<int64_t>>(&it->second)) return {v->begin(), v->end()};
  return fallback;
}

}  // namespace lutc
