// cum_sum along one axis, exclusive or reverse.
#include "core/ops/common.h"

namespace lutc {
namespace ops {
namespace {

class CumSum final : public OpBase {
 public:
  static constexpr Arity kArity{2, 2, 1, 1};
  using OpBase::OpBase;

  Status init(const BuildContext&) override {
    LUTC_RETURN_IF_ERROR(expect_index_dtype(1));
    return dtype(0) == DType::kBool ? unsupported_dtype() : Status::ok();
  }

  Status infer(InferContext& ctx) const override {
    if (ctx.input_shape(1).elements() != 1) return invalid("axis must be a scalar");
    return ctx.set_output(0, dtype(0), ctx.input_shape(0));
  }

  Status run(RunContext& ctx) const override {
    const TensorView &x = ctx.input(0), &y = ctx.output(0);
    const Shape& shape = x.shape;
    const Result<int> at = axis(int_at(ctx.input(1), 0), shape.rank);
    if (!at.is_ok()) return at.status();
    if (shape.elements() == 0) return Status::ok();
    const bool exclusive = def_.attrs.get_int("exclusive", 0) != 0, reverse = def_.attrs.get_int("reverse", 0) != 0;
    const int64_t dim = shape[at.value()], inner = shape.product(at.value() + 1, shape.rank),
                  outer = shape.product(0, at.value());
    visit_number(x.dtype, [&](auto t) {
      using T = typename decltype(t)::type;
      const int64_t step = reverse ? -inner : inner;
      for (int64_t o = 0; o < outer; ++o) {
        const int64_t first = o * dim * inner + (reverse ? (dim - 1) * inner : 0);
        const T* in = x.as<T>() + first;
        T* out = y.as_mut<T>() + first;
        for (int64_t i = 0; i < inner; ++i) out[i] = exclusive ? T{0} : in[i];
        for (int64_t k = 1; k < dim; ++k) {
          const int64_t here = k * step, addend = exclusive ? here - step : here;
          for (int64_t i = 0; i < inner; ++i) out[here + i] = wrap_add(out[here - step + i], in[addend + i]);
        }
      }
    });
    return Status::ok();
  }
};

}  // namespace
}  // namespace ops

void register_cum_sum(OpRegistry& registry) { registry.add("cum_sum", ops::make<ops::CumSum>); }

}  // namespace lutc
