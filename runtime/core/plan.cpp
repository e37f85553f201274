#include "core/plan.h"

#include <cmath>
#include <set>

#include "core/json.h"

namespace lutc {
namespace {

constexpr size_t kMaxValues = 1000000;
constexpr size_t kMaxSteps = 1000000;
constexpr size_t kMaxName = 4096;
constexpr size_t kMaxOperands = 64;
constexpr size_t kMaxVariadicOperands = 4096;
constexpr size_t kMaxAttributes = 256;
constexpr int64_t kInitVersion = 2;  ///< the first format version whose plans may have init steps
constexpr size_t kExpandInputs = 5;
constexpr const char* kExpandTable = "expand_table";

bool one_of(std::string_view name, std::initializer_list<const char*> names) {
  for (const char* n : names)
    if (name == n) return true;
  return false;
}

bool is_variadic(std::string_view op) { return one_of(op, {"concat", "max", "mean", "min", "split", "sum"}); }

/// Operators whose constants are weights: a NaN or infinity there is damage. Elsewhere (a mask of -inf for `where`, a
/// bound of `clip`) it may be meant.
bool needs_finite_constants(std::string_view op) {
  return one_of(op, {"linear", "conv", "gemm", "mat_mul", "conv_transpose", "lut_encode", "lut_linear", "lut_conv",
                     kExpandTable, "layer_normalization", "rms_normalization", "add_layer_normalization",
                     "batch_normalization", "instance_normalization"});
}

template <class T>
bool all_finite(const TensorView& view) {
  const T* p = view.as<T>();
  const int64_t n = view.shape.elements();
  for (int64_t i = 0; i < n; ++i)
    if (!std::isfinite(p[i])) return false;
  return true;
}

bool is_finite(const TensorView& view) {
  if (view.dtype == DType::kF32) return all_finite<float>(view);
  if (view.dtype == DType::kF64) return all_finite<double>(view);
  return true;
}

class PlanReader {
 public:
  explicit PlanReader(const Artifact& artifact) : artifact_(artifact) {}

  Status read(const Json& root) {
    const Json* inputs = list(root, "inputs");
    const Json* outputs = list(root, "outputs");
    const Json* values = list(root, "values");
    const Json* steps = list(root, "steps");
    if (inputs == nullptr || outputs == nullptr || values == nullptr || steps == nullptr)
      return corrupt("it must hold the lists inputs, outputs, values and steps");
    if (values->size() > kMaxValues) return corrupt(std::to_string(values->size()) + " values; the limit is 1,000,000");
    if (steps->size() > kMaxSteps) return corrupt(std::to_string(steps->size()) + " steps; the limit is 1,000,000");

    plan_.values.resize(values->size());
    written_.resize(values->size());
    from_encode_.resize(values->size());
    from_init_.resize(values->size());
    for (size_t i = 0; i < values->size(); ++i) LUTC_RETURN_IF_ERROR(read_value(i, (*values)[i]));
    LUTC_RETURN_IF_ERROR(read_ports("input", *inputs, &plan_.inputs));
    for (const Port& port : plan_.inputs) {
      if (written_[port.value])
        return corrupt("input " + in_quotes(port.name) + ": value " + std::to_string(port.value) +
                       " is a constant or another input");
      written_[port.value] = true;
    }
    LUTC_RETURN_IF_ERROR(read_init(root));
    plan_.steps.resize(steps->size());
    for (size_t i = 0; i < steps->size(); ++i)
      LUTC_RETURN_IF_ERROR(read_step("step " + std::to_string(i), (*steps)[i], false, &plan_.steps[i]));
    LUTC_RETURN_IF_ERROR(read_ports("output", *outputs, &plan_.outputs));
    if (plan_.outputs.empty()) return corrupt("it has no output");
    for (const Port& port : plan_.outputs) {
      if (!written_[port.value])
        return corrupt("output " + in_quotes(port.name) + ": no step computes value " + std::to_string(port.value));
      if (from_encode_[port.value])
        return corrupt("output " + in_quotes(port.name) + " is the opaque result of lut_encode");
      if (from_init_[port.value]) return corrupt("output " + in_quotes(port.name) + " is the table of an init step");
    }
    return Status::ok();
  }

  Plan take() { return std::move(plan_); }

 private:
  static Status corrupt(const std::string& what) { return {ErrorCode::kCorrupt, "plan: " + what}; }

  static const Json* list(const Json& object, const char* key) {
    const Json* value = json_member(object, key);
    return value != nullptr && value->is_array() ? value : nullptr;
  }

  static bool read_dtype(const Json& object, DType* out) {
    const Json* value = json_member(object, "dtype");
    const std::string* text = value != nullptr ? json_string(*value) : nullptr;
    return text != nullptr && parse_dtype(*text, out);
  }

  /// An index into values, or -1 where `optional`.
  bool read_index(const Json& value, bool optional, int* out) const {
    int64_t index = 0;
    if (!json_int(value, &index) || index < (optional ? -1 : 0) || index >= static_cast<int64_t>(plan_.values.size()))
      return false;
    *out = static_cast<int>(index);
    return true;
  }

  Status read_value(size_t index, const Json& entry) {
    const std::string where = "value " + std::to_string(index);
    PlanValue& value = plan_.values[index];
    if (!entry.is_object() || !read_dtype(entry, &value.dtype))
      return corrupt(where + ": not an object with a known dtype");
    const Json* tensor = json_member(entry, "tensor");
    if (tensor == nullptr) return Status::ok();

    const std::string* name = json_string(*tensor);
    if (name == nullptr) return corrupt(where + ": its tensor is not a name");
    const TensorView* view = artifact_.tensor(*name);
    const std::string what = where + " (tensor " + in_quotes(*name) + ")";
    if (view == nullptr) return corrupt(what + ": the artifact holds no tensor of this name");
    if (view->dtype != value.dtype)
      return corrupt(what + ": declared " + dtype_name(value.dtype) + ", stored as " + dtype_name(view->dtype));
    const Json* shape = list(entry, "shape");
    Shape declared;
    bool good = shape != nullptr && shape->size() <= kMaxRank;
    for (size_t i = 0; good && i < shape->size(); ++i) good = json_int((*shape)[i], &declared.dims[declared.rank++]);
    if (!good) return corrupt(what + ": its shape must be a list of at most 8 integers");
    if (declared != view->shape)
      return corrupt(what + ": declared with shape " + declared.to_string() + ", stored with " +
                     view->shape.to_string());
    value.constant = true;
    value.view = *view;
    written_[index] = true;
    return Status::ok();
  }

  Status read_ports(const char* kind, const Json& entries, std::vector<Port>* ports) {
    std::set<std::string> names;
    for (size_t i = 0; i < entries.size(); ++i) {
      const Json& entry = entries[i];
      Port port;
      const Json* name = json_member(entry, "name");
      const std::string* text = name != nullptr ? json_string(*name) : nullptr;
      if (text == nullptr || text->empty() || text->size() > kMaxName)
        return corrupt(std::string(kind) + " " + std::to_string(i) + ": it needs a name of 1 .. 4096 bytes");
      port.name = *text;
      const std::string where = std::string(kind) + " " + in_quotes(port.name);
      if (!names.insert(port.name).second) return corrupt(where + ": two have this name");
      const Json* value = json_member(entry, "value");
      if (value == nullptr || !read_index(*value, false, &port.value))
        return corrupt(where + ": its value is not an index of values");
      if (!read_dtype(entry, &port.dtype)) return corrupt(where + ": unknown dtype");
      if (port.dtype != plan_.values[port.value].dtype)
        return corrupt(where + ": declared " + dtype_name(port.dtype) + ", its value is " +
                       dtype_name(plan_.values[port.value].dtype));
      const Json* shape = list(entry, "shape");
      if (shape == nullptr || shape->size() > kMaxRank)
        return corrupt(where + ": its shape must be a list of at most 8 dimensions");
      for (const Json& d : *shape) {
        Dim dim;
        if (const std::string* symbol = json_string(d)) {
          if (symbol->empty() || symbol->size() > kMaxName)
            return corrupt(where + ": a symbolic dimension needs a name of 1 .. 4096 bytes");
          dim.symbol = *symbol;
        } else if (!json_int(d, &dim.size) || dim.size < 0) {
          return corrupt(where + ": a dimension is neither a non-negative integer nor a name");
        }
        port.shape.push_back(std::move(dim));
      }
      ports->push_back(std::move(port));
    }
    return Status::ok();
  }

  /// Init steps make tables from constants; nothing else may be one.
  Status read_init(const Json& root) {
    const Json* entries = json_member(root, "init");
    if (entries == nullptr) return Status::ok();
    if (!entries->is_array()) return corrupt("init is not a list");
    if (entries->size() > kMaxSteps)
      return corrupt(std::to_string(entries->size()) + " init steps; the limit is 1,000,000");
    if (!entries->empty() && artifact_.version() < kInitVersion)
      return corrupt("init steps need format version " + std::to_string(kInitVersion));
    plan_.init.resize(entries->size());
    for (size_t i = 0; i < entries->size(); ++i) {
      const std::string label = "init step " + std::to_string(i);
      PlanStep& step = plan_.init[i];
      LUTC_RETURN_IF_ERROR(read_step(label, (*entries)[i], true, &step));
      const std::string where = label + " " + in_quotes(step.name);
      if (step.inputs.size() != kExpandInputs || step.outputs.size() != 1)
        return corrupt(where + ": it needs 5 inputs and 1 output");
      for (const int value : step.inputs)
        if (value < 0 || !plan_.values[value].constant) return corrupt(where + ": its inputs must be constants");
      from_init_[step.outputs[0]] = true;
    }
    return Status::ok();
  }

  /// `label` is the step's place, for messages.
  Status read_step(const std::string& label, const Json& entry, bool init, PlanStep* out) {
    PlanStep& step = *out;
    const Json* op = json_member(entry, "op");
    const Json* name = json_member(entry, "name");
    const std::string* op_text = op != nullptr ? json_string(*op) : nullptr;
    const std::string* name_text = name != nullptr ? json_string(*name) : nullptr;
    if (op_text == nullptr || op_text->empty() || op_text->size() > kMaxName || name_text == nullptr ||
        name_text->size() > kMaxName)
      return corrupt(label + ": it needs op and name, strings of up to 4096 bytes");
    step.op = *op_text;
    step.name = *name_text;
    const std::string where = label + " " + in_quotes(step.name) + " (" + in_quotes(step.op) + ")";
    if (init != (step.op == kExpandTable))
      return corrupt(where + (init ? ": an init step must be " : ": only an init step can be ") + kExpandTable);

    const Json* inputs = list(entry, "inputs");
    const Json* outputs = list(entry, "outputs");
    if (inputs == nullptr || outputs == nullptr) return corrupt(where + ": it needs the lists inputs and outputs");
    const size_t limit = is_variadic(step.op) ? kMaxVariadicOperands : kMaxOperands;
    if (inputs->size() > limit || outputs->size() > limit)
      return corrupt(where + ": more than " + std::to_string(limit) + " inputs or outputs");
    if (outputs->empty()) return corrupt(where + ": it has no output");

    for (size_t i = 0; i < inputs->size(); ++i) {
      int value = -1;
      const std::string input = "input " + std::to_string(i);
      if (!read_index((*inputs)[i], true, &value)) return corrupt(where + ": " + input + " is not an index of values");
      step.inputs.push_back(value);
      if (value < 0) continue;
      if (!written_[value])
        return corrupt(where + ": " + input + " reads value " + std::to_string(value) +
                       ", which nothing before this step computes");
      const bool takes_codes = i == 0 && one_of(step.op, {"lut_linear", "lut_conv"});
      if (from_encode_[value] != takes_codes)
        return corrupt(where + ": " + input + (takes_codes ? " must be" : " cannot be") +
                       " the result of a lut_encode step");
      if (from_init_[value] && !(i == 1 && one_of(step.op, {"lut_linear", "lut_conv"})))
        return corrupt(where + ": " + input + " cannot be the table of an init step");
      if (needs_finite_constants(step.op) && plan_.values[value].constant && !is_finite(plan_.values[value].view))
        return corrupt(where + ": " + input + " (a constant of shape " + plan_.values[value].view.shape.to_string() +
                       ") holds NaN or infinity");
    }
    for (size_t i = 0; i < outputs->size(); ++i) {
      int value = -1;
      if (!read_index((*outputs)[i], false, &value))
        return corrupt(where + ": output " + std::to_string(i) + " is not an index of values");
      step.outputs.push_back(value);
      if (written_[value])
        return corrupt(where + ": it writes value " + std::to_string(value) +
                       ", which is a constant, an input or written before");
      written_[value] = true;
      from_encode_[value] = step.op == "lut_encode";
    }
    return read_attributes(where, entry, &step.attrs);
  }

  static Status read_attributes(const std::string& where, const Json& entry, Attributes* attributes) {
    const Json* attrs = json_member(entry, "attrs");
    if (attrs == nullptr) return Status::ok();
    if (!attrs->is_object() || attrs->size() > kMaxAttributes)
      return corrupt(where + ": attrs must be an object of at most 256 members");
    for (const auto& [key, value] : attrs->items()) {
      AttributeValue attribute;
      if (!read_attribute(value, &attribute))
        return corrupt(where + ": attribute " + in_quotes(key) +
                       " is not an integer, a float, a string, or a list of integers or floats");
      attributes->set(key, std::move(attribute));
    }
    return Status::ok();
  }

  static bool read_attribute(const Json& value, AttributeValue* out) {
    int64_t integer = 0;
    if (json_int(value, &integer)) {
      *out = integer;
      return true;
    }
    if (const auto* number = value.get_ptr<const Json::number_float_t*>()) {
      *out = *number;
      return true;
    }
    if (const std::string* text = json_string(value)) {
      *out = *text;
      return true;
    }
    if (!value.is_array()) return false;
    std::vector<int64_t> integers;
    std::vector<double> floats;
    bool all_integers = true;
    for (const Json& item : value) {
      if (json_int(item, &integer)) {
        integers.push_back(integer);
        floats.push_back(static_cast<double>(integer));
      } else if (const auto* number = item.get_ptr<const Json::number_float_t*>()) {
        floats.push_back(*number);
        all_integers = false;
      } else {
        return false;
      }
    }
    if (all_integers) {
      *out = std::move(integers);
    } else {
      *out = std::move(floats);
    }
    return true;
  }

  const Artifact& artifact_;
  Plan plan_;
  std::vector<bool> written_;      ///< by value: a constant, an input, or computed by a step read already
  std::vector<bool> from_encode_;  ///< by value: opaque codes
  std::vector<bool> from_init_;    ///< by value: a table
};

}  // namespace

Result<Plan> read_plan(std::string_view text, const Artifact& artifact) {
  const Result<Json> root = parse_json(text, "plan");
  if (!root.is_ok()) return root.status();
  PlanReader reader(artifact);
  LUTC_RETURN_IF_ERROR(reader.read(root.value()));
  return reader.take();
}

std::string port_text(const Port& port) {
  std::string s = in_quotes(port.name) + ": " + dtype_name(port.dtype) + "[";
  for (size_t i = 0; i < port.shape.size(); ++i) {
    if (i != 0) s += ", ";
    s += port.shape[i].symbol.empty() ? std::to_string(port.shape[i].size) : port.shape[i].symbol;
  }
  return s + "]";
}

}  // namespace lutc
