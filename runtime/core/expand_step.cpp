#include "core/expand_step.h"

#include <algorithm>
#include <cmath>

#include "core/checked.h"

namespace lutc {
namespace {

constexpr int64_t kMaxCodebooks = int64_t{1} << 28;
constexpr int64_t kMaxTaps = 1 << 16;
/// Two of these times the largest sum (32 * 128 * 128) stay finite.
constexpr float kLargestMul = 1e15f;

class Checker {
 public:
  explicit Checker(const StepDef& def) : def_(def) {}

  Result<ExpandStep> run() {
    LUTC_RETURN_IF_ERROR(read_factors());
    LUTC_RETURN_IF_ERROR(check_groups());
    LUTC_RETURN_IF_ERROR(check_multipliers(3, "codebook_mul", step_.factors.shape.codebooks * shape().groups));
    LUTC_RETURN_IF_ERROR(check_multipliers(4, "column_mul", shape().outputs));
    const std::string layout = def_.attrs.get_string("layout", "");
    if (!kernels::parse_layout(layout, &step_.layout))
      return step_error(def_, ErrorCode::kUnsupported, "table layout '" + layout + "' is unknown to this runtime");
    if (!kernels::table_bytes(step_.layout, shape(), &step_.bytes)) return corrupt("the table is too large");
    return step_;
  }

 private:
  Status corrupt(const std::string& what) const { return step_error(def_, ErrorCode::kCorrupt, what); }
  const TensorView& input(int i) const { return def_.inputs[i].tensor; }
  const kernels::TableShape& shape() const { return step_.factors.shape; }

  Status read_factors() {
    kernels::TableFactors& f = step_.factors;
    const Shape& atoms = input(0).shape;
    const Shape& weight = input(1).shape;
    if (input(0).dtype != DType::kI8 || atoms.rank != 3) return corrupt("atoms must be i8 [C, K, V]");
    const int64_t codebooks = atoms[0], entries = atoms[1], width = atoms[2];
    if (codebooks < 1 || codebooks > kMaxCodebooks) return corrupt("atoms must hold 1 .. 2^28 codebooks");
    if (entries != 4 && entries != 8 && entries != 16) return corrupt("atoms must hold 4, 8 or 16 entries");
    if (width < 1 || width > kernels::kExpandSlots) return corrupt("atoms must hold 1 .. 32 features");
    if (input(1).dtype != DType::kI8 || (weight.rank != 2 && weight.rank != 4))
      return corrupt("weight must be i8 [D, N] or [N, Cin/group, kh, kw]");
    const bool convolution = weight.rank == 4;
    const int64_t groups = def_.attrs.get_int("group", 1), outputs = convolution ? weight[0] : weight[1];
    if (groups < 1 || (!convolution && groups != 1) || codebooks % groups != 0 || outputs % groups != 0)
      return corrupt("group must divide codebooks and outputs");
    f.shape.convolution = convolution;
    f.shape.groups = groups;
    f.shape.codebooks = codebooks / groups;
    f.shape.entries = entries;
    f.shape.outputs = outputs;
    f.shape.taps = 1;
    if (convolution && (!checked_mul(weight[2], weight[3], &f.shape.taps) || f.shape.taps > kMaxTaps))
      return corrupt("the kernel has more than 2^16 taps");
    f.width = width;
    f.features = convolution ? weight[1] : weight[0];
    if (outputs < 1 || f.shape.taps < 1 || f.features < 1) return corrupt("weight must not be empty");
    int64_t all = 0;
    if (!checked_mul(f.features, groups, &all) || all > INT32_MAX) return corrupt("weight has too many features");
    f.atoms = input(0).as<int8_t>();
    f.weight = input(1).as<int8_t>();
    return Status::ok();
  }

  Status check_groups() {
    kernels::TableFactors& f = step_.factors;
    const int64_t codebooks = f.shape.codebooks * f.shape.groups;
    if (input(2).dtype != DType::kI32 || input(2).shape != Shape{codebooks, f.width})
      return corrupt("groups must be i32 [C, V]");
    f.groups = input(2).as<int32_t>();
    for (int64_t c = 0; c < codebooks; ++c) {
      const int64_t first = c / f.shape.codebooks * f.features;
      for (int64_t v = 0; v < f.width; ++v) {
        const int64_t feature = f.groups[c * f.width + v];
        if (feature != -1 && (feature < first || feature >= first + f.features))
          return corrupt("groups: codebook " + std::to_string(c) + " reads feature " + std::to_string(feature) +
                         ", which is none of its group");
      }
    }
    return Status::ok();
  }

  Status check_multipliers(int i, const char* name, int64_t count) {
    if (input(i).dtype != DType::kF32 || input(i).shape != Shape{count})
      return corrupt(std::string(name) + " must be f32 [" + std::to_string(count) + "]");
    const float* values = input(i).as<float>();
    if (!std::all_of(values, values + count, [](float v) { return std::fabs(v) <= kLargestMul; }))
      return corrupt(std::string(name) + " must be finite and at most 1e15");
    (i == 3 ? step_.factors.codebook_mul : step_.factors.column_mul) = values;
    return Status::ok();
  }

  const StepDef& def_;
  ExpandStep step_;
};

}  // namespace

Result<ExpandStep> ExpandStep::make(const StepDef& def) { return Checker(def).run(); }

}  // namespace lutc
