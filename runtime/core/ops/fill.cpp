// Tensors made from little: constant_of_shape, range, one_hot, trilu.
#include <cmath>

#include "core/ops/common.h"

namespace lutc {
namespace ops {
namespace {

/// The attribute `value` is one number; the dtype is that of the output.
class ConstantOfShape final : public OpBase {
 public:
  static constexpr Arity kArity{1, 1, 1, 1};
  using OpBase::OpBase;

  Status infer(InferContext& ctx) const override {
    const Result<std::vector<int64_t>> dims = known_ints(ctx, 0, "the shape");
    if (!dims.is_ok()) return dims.status();
    if (dims.value().size() > kMaxRank)
      return unsupported("rank " + std::to_string(dims.value().size()) + " is above " + std::to_string(kMaxRank));
    Shape out;
    for (int64_t dim : dims.value()) out[out.rank++] = dim;
    if (!checked_elements(out).is_ok()) return invalid("bad shape " + out.to_string());
    return ctx.set_output(0, def_.outputs[0], out);
  }

  Status run(RunContext& ctx) const override {
    const TensorView& y = ctx.output(0);
    const int64_t whole = def_.attrs.get_int("value", 0);
    const double real = def_.attrs.get_float("value", static_cast<double>(whole));
    const int64_t n = y.shape.elements();
    if (y.dtype == DType::kBool) {
      std::fill_n(y.as_mut<uint8_t>(), n, static_cast<uint8_t>(whole != 0 || real != 0));
      return Status::ok();
    }
    visit_float(y.dtype, [&](auto t) {
      using T = typename decltype(t)::type;
      std::fill_n(y.as_mut<T>(), n, static_cast<T>(real));
    });
    visit_integer(y.dtype, [&](auto t) {
      using T = typename decltype(t)::type;
      std::fill_n(y.as_mut<T>(), n, whole != 0 ? static_cast<T>(whole) : saturate<T>(real));
    });
    return Status::ok();
  }
};

class Range final : public OpBase {
 public:
  static constexpr Arity kArity{3, 3, 1, 1};
  using OpBase::OpBase;

  Status init(const BuildContext&) override {
    if (dtype(0) == DType::kBool || dtype_size(dtype(0)) == 1) return unsupported_dtype();
    return same_dtypes({1, 2});
  }

  Status infer(InferContext& ctx) const override {
    for (int i = 0; i < 3; ++i) {
      if (ctx.input_shape(i).elements() != 1) return invalid("start, limit and delta must be scalars");
      if (!is_known(ctx, i)) return unsupported("the length depends on the data of the inputs");
    }
    const TensorView start = ctx.input_value(0), limit = ctx.input_value(1), delta = ctx.input_value(2);
    int64_t length = 0;
    if (dtype(0) == DType::kF32 || dtype(0) == DType::kF64) {
      const double step = number_at(delta, 0);
      const double count = std::ceil((number_at(limit, 0) - number_at(start, 0)) / step);
      if (step == 0 || !std::isfinite(count)) return invalid("delta is 0 or a bound is not finite");
      length = saturate<int64_t>(std::max(count, 0.0));
    } else {
      const int64_t from = int_at(start, 0), to = int_at(limit, 0), step = int_at(delta, 0);
      if (step == 0) return invalid("delta is 0");
      const bool up = step > 0;
      if (up ? to > from : to < from) {
        // The distance and the pace as unsigned numbers: neither can overflow.
        const uint64_t distance = up ? static_cast<uint64_t>(to) - static_cast<uint64_t>(from)
                                     : static_cast<uint64_t>(from) - static_cast<uint64_t>(to);
        const uint64_t pace = up ? static_cast<uint64_t>(step) : uint64_t{0} - static_cast<uint64_t>(step);
        length =
            static_cast<int64_t>(std::min<uint64_t>((distance - 1) / pace + 1, std::numeric_limits<int64_t>::max()));
      }
    }
    return ctx.set_output(0, dtype(0), {length});
  }

  Status run(RunContext& ctx) const override {
    const TensorView& y = ctx.output(0);
    visit_number(y.dtype, [&](auto t) {
      using T = typename decltype(t)::type;
      const T start = *ctx.input(0).as<T>(), delta = *ctx.input(2).as<T>();
      T* out = y.as_mut<T>();
      for (int64_t i = 0, n = y.shape.elements(); i < n; ++i)
        out[i] = wrap_add(start, wrap_mul(static_cast<T>(i), delta));
    });
    return Status::ok();
  }
};

class OneHot final : public OpBase {
 public:
  static constexpr Arity kArity{3, 3, 1, 1};
  using OpBase::OpBase;

  Status init(const BuildContext&) override { return dtype(0) == DType::kBool ? unsupported_dtype() : Status::ok(); }

  Status infer(InferContext& ctx) const override {
    const Shape& indices = ctx.input_shape(0);
    if (ctx.input_shape(1).elements() != 1) return invalid("depth must be a scalar");
    if (ctx.input_shape(2).rank != 1 || ctx.input_shape(2)[0] != 2) return invalid("values must be [off, on]");
    if (!is_known(ctx, 1)) return unsupported("depth depends on the data of the inputs");
    if (indices.rank == kMaxRank) return unsupported("the result's rank is above " + std::to_string(kMaxRank));
    const int64_t depth = saturate<int64_t>(number_at(ctx.input_value(1), 0));
    if (depth < 1) return invalid("depth " + std::to_string(depth) + " is below 1");
    const Result<int> at = axis(def_.attrs.get_int("axis", -1), indices.rank + 1);
    if (!at.is_ok()) return at.status();
    Shape out;
    for (int d = 0; d <= indices.rank; ++d)
      out[out.rank++] = d == at.value() ? depth : indices[d < at.value() ? d : d - 1];
    return ctx.set_output(0, ctx.input_dtype(2), out);
  }

  Status run(RunContext& ctx) const override {
    const TensorView &indices = ctx.input(0), &values = ctx.input(2), &y = ctx.output(0);
    if (y.shape.elements() == 0) return Status::ok();
    const Result<int> at = axis(def_.attrs.get_int("axis", -1), y.shape.rank);
    if (!at.is_ok()) return at.status();
    const int64_t depth = y.shape[at.value()], inner = y.shape.product(at.value() + 1, y.shape.rank);
    const int64_t picks = indices.shape.elements();
    visit_bytes(y.dtype, [&](auto t) {
      using T = typename decltype(t)::type;
      const T off = values.as<T>()[0], on = values.as<T>()[1];
      T* out = y.as_mut<T>();
      parallel(ctx, picks, picks * depth, inner, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end;) {  // one row of `inner` picks makes `depth` rows
          const int64_t row = i / inner, column = i % inner, count = std::min(inner - column, end - i);
          T* block = out + row * depth * inner + column;
          for (int64_t d = 0; d < depth; ++d) std::fill_n(block + d * inner, count, off);
          for (int64_t k = 0; k < count; ++k) {
            int64_t index = pick(indices, i + k);
            if (index < 0) index += depth;
            if (index >= 0 && index < depth) block[index * inner + k] = on;
          }
          i += count;
        }
      });
    });
    return Status::ok();
  }

 private:
  static int64_t pick(const TensorView& t, int64_t i) {
    return t.dtype == DType::kI64 || t.dtype == DType::kI32 ? int_at(t, i) : saturate<int64_t>(number_at(t, i));
  }
};

/// Keeps the upper (or lower) triangle of the last two axes, from the k-th diagonal on.
class Trilu final : public OpBase {
 public:
  static constexpr Arity kArity{1, 2, 1, 1};
  using OpBase::OpBase;

  Status init(const BuildContext&) override { return expect_index_dtype(1); }

  Status infer(InferContext& ctx) const override {
    if (ctx.input_shape(0).rank < 2) return invalid("needs rank 2 or more");
    if (present(1) && ctx.input_shape(1).elements() != 1) return invalid("k must be a scalar");
    LUTC_RETURN_IF_ERROR(ctx.set_output(0, dtype(0), ctx.input_shape(0)));
    ctx.may_overwrite(0, 0);
    return Status::ok();
  }

  Status run(RunContext& ctx) const override {
    const TensorView &x = ctx.input(0), &y = ctx.output(0);
    const Shape& shape = x.shape;
    if (shape.elements() == 0) return Status::ok();
    const bool upper = def_.attrs.get_int("upper", 1) != 0;
    const int64_t rows = shape[shape.rank - 2], cols = shape[shape.rank - 1];
    const int64_t k = std::clamp<int64_t>(present(1) ? int_at(ctx.input(1), 0) : 0, -rows - 1, cols + 1);
    copy_view(ctx);
    const size_t size = dtype_size(x.dtype);
    char* out = y.as_mut<char>();
    for (int64_t r = 0, n = shape.elements() / cols; r < n; ++r) {
      // The diagonal passes through column `edge` of this row.
      const int64_t edge = r % rows + k;
      const int64_t from = upper ? 0 : std::clamp<int64_t>(edge + 1, 0, cols),
                    to = upper ? std::clamp<int64_t>(edge, 0, cols) : cols;
      std::memset(out + static_cast<size_t>(r * cols + from) * size, 0, static_cast<size_t>(to - from) * size);
    }
    return Status::ok();
  }
};

}  // namespace
}  // namespace ops

void register_fill(OpRegistry& registry) {
  registry.add("constant_of_shape", ops::make<ops::ConstantOfShape>);
  registry.add("range", ops::make<ops::Range>);
  registry.add("one_hot", ops::make<ops::OneHot>);
  registry.add("trilu", ops::make<ops::Trilu>);
}

}  // namespace lutc
