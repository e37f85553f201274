// where (three broadcast inputs) and clip.
#include "core/ops/common.h"

namespace lutc {
namespace ops {
namespace {

/// c ? x : y by masks, which vectorises where the sizes of c and T differ.
template <class T>
T pick(uint8_t c, T x, T y) {
  const T mask = static_cast<T>(T{0} - static_cast<T>(c != 0));
  return static_cast<T>((x & mask) | (y & static_cast<T>(~mask)));
}

template <class T>
void where_row(const uint8_t* c, int64_t sc, const T* x, int64_t sx, const T* y, int64_t sy, T* out, int64_t n) {
  if (sc == 0) return *c != 0 ? copy_run(x, sx, out, n) : copy_run(y, sy, out, n);
  if (sc == 1 && sx == 1 && sy == 1) {
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) out[i] = pick(c[i], x[i], y[i]);
  } else if (sc == 1 && sx == 1 && sy == 0) {
    const T other = *y;
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) out[i] = pick(c[i], x[i], other);
  } else if (sc == 1 && sx == 0 && sy == 1) {
    const T value = *x;
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) out[i] = pick(c[i], value, y[i]);
  } else if (sc == 1 && sx == 0 && sy == 0) {
    const T value = *x, other = *y;
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) out[i] = pick(c[i], value, other);
  } else {
    for (int64_t i = 0; i < n; ++i) out[i] = c[i * sc] != 0 ? x[i * sx] : y[i * sy];
  }
}

class Where final : public OpBase {
 public:
  static constexpr Arity kArity{3, 3, 1, 1};
  using OpBase::OpBase;

  Status init(const BuildContext&) override {
    if (dtype(0) != DType::kBool) return invalid("the condition must be bool");
    if (dtype(1) != dtype(2)) return invalid("the two values differ in dtype");
    return Status::ok();
  }

  Status infer(InferContext& ctx) const override {
    Shape values, out;
    if (!broadcast(ctx.input_shape(1), ctx.input_shape(2), &values) || !broadcast(ctx.input_shape(0), values, &out)) {
      return invalid("shapes " + ctx.input_shape(0).to_string() + ", " + ctx.input_shape(1).to_string() + " and " +
                     ctx.input_shape(2).to_string() + " do not broadcast");
    }
    LUTC_RETURN_IF_ERROR(ctx.set_output(0, dtype(1), out));
    for (int i = 1; i < 3; ++i) {
      if (ctx.input_shape(i) == out) ctx.may_overwrite(0, i);
    }
    return Status::ok();
  }

  Status run(RunContext& ctx) const override {
    const TensorView &c = ctx.input(0), &x = ctx.input(1), &y = ctx.input(2), &out = ctx.output(0);
    const int64_t total = out.shape.elements();
    if (total == 0) return Status::ok();
    const StridedLoop<3> loop = broadcast_loop<3>(out.shape, {&c.shape, &x.shape, &y.shape});
    visit_bytes(out.dtype, [&](auto t) {
      using T = typename decltype(t)::type;
      parallel(ctx, total, total, 4096, [&](int64_t begin, int64_t end) {
        loop.run(begin, end, [&](int64_t at, const int64_t (&offset)[3], int64_t count) {
          where_row(c.as<uint8_t>() + offset[0], loop.inner_stride(0), x.as<T>() + offset[1], loop.inner_stride(1),
                    y.as<T>() + offset[2], loop.inner_stride(2), out.as_mut<T>() + at, count);
        });
      });
    });
    return Status::ok();
  }
};

class Clip final : public OpBase {
 public:
  static constexpr Arity kArity{1, 3, 1, 1};
  using OpBase::OpBase;

  Status init(const BuildContext&) override {
    if (dtype(0) == DType::kBool) return unsupported_dtype();
    return same_dtypes({1, 2});
  }

  Status infer(InferContext& ctx) const override {
    for (int i = 1; i < ctx.num_inputs(); ++i) {
      if (ctx.has_input(i) && ctx.input_shape(i).elements() != 1) return invalid("a bound is not a scalar");
    }
    LUTC_RETURN_IF_ERROR(ctx.set_output(0, dtype(0), ctx.input_shape(0)));
    ctx.may_overwrite(0, 0);
    return Status::ok();
  }

  Status run(RunContext& ctx) const override {
    const TensorView &x = ctx.input(0), &y = ctx.output(0);
    const int64_t total = x.shape.elements();
    visit_number(x.dtype, [&](auto t) {
      using T = typename decltype(t)::type;
      using Limits = std::numeric_limits<T>;
      const T low = present(1) ? *ctx.input(1).as<T>() : Limits::has_infinity ? -Limits::infinity() : Limits::lowest();
      const T high = present(2) ? *ctx.input(2).as<T>() : Limits::has_infinity ? Limits::infinity() : Limits::max();
      const T* in = x.as<T>();
      T* out = y.as_mut<T>();
      parallel(ctx, total, total, 4096, [&](int64_t begin, int64_t end) {
#pragma GCC ivdep
        for (int64_t i = begin; i < end; ++i) {
          const T raised = in[i] < low ? low : in[i];  // NaN stays NaN
          out[i] = raised > high ? high : raised;
        }
      });
    });
    return Status::ok();
  }
};

}  // namespace
}  // namespace ops

void register_select(OpRegistry& registry) {
  registry.add("where", ops::make<ops::Where>);
  registry.add("clip", ops::make<ops::Clip>);
}

}  // namespace lutc
