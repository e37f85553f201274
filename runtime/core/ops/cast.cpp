// Cast between dtypes. Floats go to i64 and i32 with saturation (NaN becomes 0), to i8 and u8 through i64 and its low
// byte, as C compilers do.
#include "core/ops/common.h"

namespace lutc {
namespace ops {
namespace {

constexpr DType kAll[] = {DType::kF32, DType::kF64, DType::kI64, DType::kI32, DType::kI8, DType::kU8, DType::kBool};

using CastFn = void (*)(const void* x, void* y, int64_t begin, int64_t end);

template <class X, class Y, bool kToBool>
void convert(const void* x, void* y, int64_t begin, int64_t end) {
  const X* in = static_cast<const X*>(x);
  Y* out = static_cast<Y*>(y);
  for (int64_t i = begin; i < end; ++i) {
    if constexpr (kToBool) {
      out[i] = static_cast<Y>(in[i] != X{0});
    } else if constexpr (std::is_floating_point_v<X> && std::is_integral_v<Y> && sizeof(Y) == 1) {
      out[i] = static_cast<Y>(saturate<int64_t>(in[i]));
    } else {
      out[i] = saturate<Y>(in[i]);
    }
  }
}

CastFn select(DType from, DType to) {
  CastFn fn = nullptr;
  visit_number(from == DType::kBool ? DType::kU8 : from, [&](auto tx) {
    using X = typename decltype(tx)::type;
    if (to == DType::kBool) fn = convert<X, uint8_t, true>;
    visit_number(to, [&](auto ty) { fn = convert<X, typename decltype(ty)::type, false>; });
  });
  return fn;
}

class Cast final : public OpBase {
 public:
  static constexpr Arity kArity{1, 1, 1, 1};
  using OpBase::OpBase;

  Status init(const BuildContext&) override {
    const std::string to = def_.attrs.get_string("to", "");
    for (DType d : kAll) {
      if (to == dtype_name(d)) fn_ = select(dtype(0), to_ = d);
    }
    return fn_ != nullptr ? Status::ok() : unsupported("cast to '" + to + "'");
  }

  Status infer(InferContext& ctx) const override {
    LUTC_RETURN_IF_ERROR(ctx.set_output(0, to_, ctx.input_shape(0)));
    if (to_ == dtype(0)) ctx.alias(0, 0);
    return Status::ok();
  }

  Status run(RunContext& ctx) const override {
    const TensorView &x = ctx.input(0), &y = ctx.output(0);
    if (x.dtype == y.dtype) {
      copy_view(ctx);
      return Status::ok();
    }
    const int64_t total = x.shape.elements();
    parallel(ctx, total, total, 4096, [&](int64_t begin, int64_t end) { fn_(x.data, y.data, begin, end); });
    return Status::ok();
  }

 private:
  DType to_ = DType::kF32;
  CastFn fn_ = nullptr;
};

}  // namespace
}  // namespace ops

void register_cast(OpRegistry& registry) { registry.add("cast", ops::make<ops::Cast>); }

}  // namespace lutc
