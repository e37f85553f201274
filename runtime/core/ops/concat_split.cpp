// concat and split: runs of bytes along one axis.
#include "core/ops/common.h"

namespace lutc {
namespace ops {
namespace {

class Concat final : public OpBase {
 public:
  static constexpr Arity kArity{1, kMany, 1, 1};
  using OpBase::OpBase;

  Status init(const BuildContext&) override {
    if (!def_.attrs.has("axis")) return invalid("attribute axis is missing");
    for (size_t i = 0; i < def_.inputs.size(); ++i) {
      if (!present(i)) return invalid("input " + std::to_string(i) + " is missing");
      LUTC_RETURN_IF_ERROR(same_dtypes({i}));
    }
    return Status::ok();
  }

  Status infer(InferContext& ctx) const override {
    Shape out = ctx.input_shape(0);
    const Result<int> at = axis(def_.attrs.get_int("axis", 0), out.rank);
    if (!at.is_ok()) return at.status();
    for (int i = 1; i < ctx.num_inputs(); ++i) {
      const Shape& in = ctx.input_shape(i);
      bool fits = in.rank == out.rank;
      for (int d = 0; fits && d < out.rank; ++d) fits = d == at.value() || in[d] == out[d];
      if (!fits)
        return invalid("input " + std::to_string(i) + " is " + in.to_string() + ", input 0 is " +
                       ctx.input_shape(0).to_string());
      if (__builtin_add_overflow(out[at.value()], in[at.value()], &out[at.value()]))
        return invalid("the result is too large");
    }
    LUTC_RETURN_IF_ERROR(ctx.set_output(0, dtype(0), out));
    if (ctx.num_inputs() == 1) ctx.alias(0, 0);
    return Status::ok();
  }

  Status run(RunContext& ctx) const override {
    const TensorView& y = ctx.output(0);
    if (y.shape.elements() == 0) return Status::ok();
    if (def_.inputs.size() == 1) {
      copy_view(ctx);
      return Status::ok();
    }
    const Result<int> at = axis(def_.attrs.get_int("axis", 0), y.shape.rank);
    if (!at.is_ok()) return at.status();
    const int64_t outer = y.shape.product(0, at.value());
    const int64_t inner = y.shape.product(at.value() + 1, y.shape.rank) * static_cast<int64_t>(dtype_size(y.dtype));
    const int64_t stride = y.shape[at.value()] * inner;
    char* to = y.as_mut<char>();
    for (int i = 0; i < static_cast<int>(def_.inputs.size()); ++i) {
      const TensorView& x = ctx.input(i);
      const int64_t run = x.shape[at.value()] * inner;
      copy_rows(ctx, to, stride, x.data, run, run, outer);
      to += run;
    }
    return Status::ok();
  }
};

class Split final : public OpBase {
 public:
  static constexpr Arity kArity{1, 2, 1, kMany};
  using OpBase::OpBase;

  Status infer(InferContext& ctx) const override {
    Shape out = ctx.input_shape(0);
    const Result<int> at = axis(def_.attrs.get_int("axis", 0), out.rank);
    if (!at.is_ok()) return at.status();
    const int64_t dim = out[at.value()], parts = ctx.num_outputs();
    std::vector<int64_t> sizes;
    if (present(1)) {
      Result<std::vector<int64_t>> known = known_ints(ctx, 1, "the list of sizes");
      if (!known.is_ok()) return known.status();
      sizes = known.value();
    } else if (def_.attrs.has("split")) {
      sizes = def_.attrs.get_ints("split", {});
    } else {
      if (def_.attrs.get_int("num_outputs", parts) != parts)
        return invalid("num_outputs differs from the number of outputs");
      const int64_t size = dim / parts + (dim % parts != 0);  // the last part may be smaller
      for (int64_t i = 0; i < parts; ++i) sizes.push_back(std::clamp<int64_t>(dim - i * size, 0, size));
    }
    int64_t sum = 0;
    for (int64_t size : sizes) {
      if (size < 0 || size > dim - sum) return invalid("the sizes do not add up to dim " + std::to_string(dim));
      sum += size;
    }
    if (sum != dim || static_cast<int64_t>(sizes.size()) != parts)
      return invalid("the sizes do not add up to dim " + std::to_string(dim));
    for (int i = 0; i < parts; ++i) {
      out[at.value()] = sizes[static_cast<size_t>(i)];
      LUTC_RETURN_IF_ERROR(ctx.set_output(i, dtype(0), out));
    }
    return Status::ok();
  }

  Status run(RunContext& ctx) const override {
    const TensorView& x = ctx.input(0);
    if (x.shape.elements() == 0) return Status::ok();
    const Result<int> at = axis(def_.attrs.get_int("axis", 0), x.shape.rank);
    if (!at.is_ok()) return at.status();
    const int64_t outer = x.shape.product(0, at.value());
    const int64_t inner = x.shape.product(at.value() + 1, x.shape.rank) * static_cast<int64_t>(dtype_size(x.dtype));
    const int64_t stride = x.shape[at.value()] * inner;
    const char* from = x.as<char>();
    for (int i = 0; i < static_cast<int>(def_.outputs.size()); ++i) {
      const TensorView& y = ctx.output(i);
      const int64_t run = y.shape[at.value()] * inner;
      copy_rows(ctx, y.data, run, from, stride, run, outer);
      from += run;
    }
    return Status::ok();
  }
};

}  // namespace
}  // namespace ops

void register_concat_split(OpRegistry& registry) {
  registry.add("concat", ops::make<ops::Concat>);
  registry.add("split", ops::make<ops::Split>);
}

}  // namespace lutc
