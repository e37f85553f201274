// The attributes of a plan step: a small typed map, filled by the plan reader, read by operator factories.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "core/status.h"

namespace lutc {

using AttributeValue = std::variant<int64_t, double, std::string, std::vector<int64_t>, std::vector<double>>;

class Attributes {
 public:
  void set(const std::string& name, AttributeValue value) { values_[name] = std::move(value); }
  bool has(std::string_view name) const { return values_.find(name) != values_.end(); }
  /// Each getter returns the fallback when the attribute is absent or has another type; get_* of a required attribute
  /// is checked by the factory with has(). Numbers may be read during a run: no getter of one allocates.
  int64_t get_int(std::string_view name, int64_t fallback) const;
  double get_float(std::string_view name, double fallback) const;
  std::string get_string(std::string_view name, const std::string& fallback) const;
  /// A list of integers where it lies, or null: for whoever reads it during a run, in which nothing may be allocated.
  const std::vector<int64_t>* find_ints(std::string_view name) const;
  std::vector<int64_t> get_ints(std::string_view name, const std::vector<int64_t>& fallback) const;
  std::vector<double> get_floats(std::string_view name, const std::vector<double>& fallback) const;

 private:
  std::map<std::string, AttributeValue, std::less<>> values_;
};

}  // namespace lutc
