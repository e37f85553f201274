// Composes plans for tests: each call adds a value or a step and returns the value's index.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>
#include <vector>

#include "tiny_artifact.h"

namespace lutc_test {

class PlanBuilder {
 public:
  using Dims = std::vector<int64_t>;

  /// A model input; -1 is a symbolic dim.
  int input(const std::string& name, const std::string& dtype, const Dims& dims) {
    const int value = add_value("{\"dtype\":\"" + dtype + "\"}");
    append(&inputs_, port(name, value, dtype, dims));
    return value;
  }

  template <class T>
  int constant(const Dims& dims, const std::vector<T>& values) {
    const std::string name = "c" + std::to_string(count_);
    const char* const dtype = std::is_same_v<T, float>     ? "f32"
                              : std::is_same_v<T, int64_t> ? "i64"
                              : std::is_same_v<T, int32_t> ? "i32"
                              : std::is_same_v<T, int8_t>  ? "i8"
                                                           : "u8";
    std::string upper = dtype;
    upper[0] = static_cast<char>(upper[0] - 'a' + 'A');
    store(name, upper, text(dims), values.data(), values.size() * sizeof(T));
    return add_value(std::string("{\"dtype\":\"") + dtype + "\",\"tensor\":\"" + name + "\",\"shape\":" + text(dims) +
                     "}");
  }
  int ints(const Dims& values) { return constant<int64_t>({static_cast<int64_t>(values.size())}, values); }
  int scalar(int64_t value) { return constant<int64_t>({}, {value}); }
  /// Small numbers of both signs, the same at every call.
  int weights(const Dims& dims) {
    int64_t n = 1;
    for (const int64_t d : dims) n *= d;
    std::vector<float> values(static_cast<size_t>(n));
    for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i * 37 % 101) * 0.002f - 0.1f;
    return constant(dims, values);
  }

  /// attrs: JSON members, such as "\"axis\":1". -1 is an omitted input.
  int step(const std::string& op, const std::vector<int>& inputs, const std::string& attrs = "",
           const std::string& dtype = "f32") {
    return steps(op, inputs, attrs, {dtype})[0];
  }
  std::vector<int> steps(const std::string& op, const std::vector<int>& inputs, const std::string& attrs,
                         const std::vector<std::string>& dtypes) {
    std::vector<int> outputs;
    for (const std::string& dtype : dtypes) outputs.push_back(add_value("{\"dtype\":\"" + dtype + "\"}"));
    append(&steps_, "{\"op\":\"" + op + "\",\"name\":\"" + op + std::to_string(count_) + "\",\"inputs\":" +
                        text(inputs) + ",\"outputs\":" + text(outputs) + ",\"attrs\":{" + attrs + "}}");
    return outputs;
  }

  /// Makes a value an output of the model, of any shape.
  void output(int value, const std::string& dtype = "f32") {
    const int flat = step("flatten", {value}, "\"axis\":0", dtype);
    append(&outputs_, "{\"name\":\"o" + std::to_string(flat) + "\",\"value\":" + std::to_string(flat) +
                          ",\"dtype\":\"" + dtype + "\",\"shape\":[1,\"n" + std::to_string(flat) + "\"]}");
  }

  std::string image() const {
    return lutc_test::image("{\"inputs\":[" + inputs_ + "],\"outputs\":[" + outputs_ + "],\"values\":[" + values_ +
                                "],\"steps\":[" + steps_ + "]}",
                            tensors_, data_);
  }

 private:
  template <class T>
  static std::string text(const std::vector<T>& numbers) {
    std::string list;
    for (const T n : numbers) list += (list.empty() ? "" : ",") + std::to_string(n);
    return "[" + list + "]";
  }
  static void append(std::string* list, const std::string& entry) { *list += (list->empty() ? "" : ",") + entry; }

  static std::string port(const std::string& name, int value, const std::string& dtype, const Dims& dims) {
    std::string shape;
    for (size_t d = 0; d < dims.size(); ++d)
      append(&shape, dims[d] < 0 ? "\"" + name + std::to_string(d) + "\"" : std::to_string(dims[d]));
    return "{\"name\":\"" + name + "\",\"value\":" + std::to_string(value) + ",\"dtype\":\"" + dtype +
           "\",\"shape\":[" + shape + "]}";
  }

  int add_value(const std::string& entry) {
    append(&values_, entry);
    return count_++;
  }

  void store(const std::string& name, const std::string& dtype, const std::string& shape, const void* bytes,
             size_t size) {
    const size_t begin = data_.size();
    data_.append(static_cast<const char*>(bytes), size);
    header(name, dtype, shape, begin);
    const size_t end = data_.size();
    if (end % 64 == 0) return;
    data_.resize((end + 63) / 64 * 64);
    header("_pad." + std::to_string(end), "U8", "[" + std::to_string(data_.size() - end) + "]", end);
  }
  void header(const std::string& name, const std::string& dtype, const std::string& shape, size_t begin) {
    append(&tensors_, "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape + ",\"data_offsets\":[" +
                          std::to_string(begin) + "," + std::to_string(data_.size()) + "]}");
  }

  std::string inputs_, outputs_, values_, steps_, tensors_, data_;
  int count_ = 0;
};

}  // namespace lutc_test
