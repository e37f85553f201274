#include "core/attributes.h"

namespace lutc {

int64_t Attributes::get_int(std::string_view name, int64_t fallback) const {
  const auto it = values_.find(name);
  if (it == values_.end()) return fallback;
  const auto* v = std::get_if<int64_t>(&it->second);
  return v != nullptr ? *v : fallback;
}

double Attributes::get_float(std::string_view name, double fallback) const {
  const auto it = values_.find(name);
  if (it == values_.end()) return fallback;
  if (const auto* v = std::get_if<double>(&it->second)) return *v;
  // JSON writers may print the float 1.0 as 1.
  if (const auto* v = std::get_if<int64_t>(&it->second)) return static_cast<double>(*v);
  return fallback;
}

std::string Attributes::get_string(std::string_view name, const std::string& fallback) const {
  const auto it = values_.find(name);
  if (it == values_.end()) return fallback;
  const auto* v = std::get_if<std::string>(&it->second);
  return v != nullptr ? *v : fallback;
}

const std::vector<int64_t>* Attributes::find_ints(std::string_view name) const {
  const auto it = values_.find(name);
  return it == values_.end() ? nullptr : std::get_if<std::vector<int64_t>>(&it->second);
}

std::vector<int64_t> Attributes::get_ints(std::string_view name, const std::vector<int64_t>& fallback) const {
  const std::vector<int64_t>* list = find_ints(name);
  return list != nullptr ? *list : fallback;
}

std::vector<double> Attributes::get_floats(std::string_view name, const std::vector<double>& fallback) const {
  const auto it = values_.find(name);
  if (it == values_.end()) return fallback;
  if (const auto* v = std::get_if<std::vector<double>>(&it->second)) return *v;
  // As in get_float; an empty list has no type of its own.
  if (const auto* v = std::get_if<std::vector<int64_t>>(&it->second)) return {v->begin(), v->end()};
  return fallback;
}

}  // namespace lutc
