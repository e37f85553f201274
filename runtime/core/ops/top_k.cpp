// arg_max, arg_min and top_k along one axis. Ties go to the lowest index (the highest for select_last_index); NaN
// counts as the largest.
#include "core/ops/common.h"

namespace lutc {
namespace ops {
namespace {

template <class T>
bool greater(T a, T b) {
  return a > b || (a != a && b == b);
}

class ArgMax final : public OpBase {
 public:
  static constexpr Arity kArity{1, 1, 1, 1};
  using OpBase::OpBase;

  Status init(const BuildContext&) override { return dtype(0) == DType::kBool ? unsupported_dtype() : Status::ok(); }

  Status infer(InferContext& ctx) const override {
    const Shape& in = ctx.input_shape(0);
    const Result<int> at = axis(def_.attrs.get_int("axis", 0), in.rank);
    if (!at.is_ok()) return at.status();
    if (in[at.value()] == 0) return invalid("axis " + std::to_string(at.value()) + " is empty");
    Shape out;
    const bool keep = def_.attrs.get_int("keepdims", 1) != 0;
    for (int d = 0; d < in.rank; ++d) {
      if (d != at.value()) out[out.rank++] = in[d];
      if (d == at.value() && keep) out[out.rank++] = 1;
    }
    return ctx.set_output(0, DType::kI64, out);
  }

  Status run(RunContext& ctx) const override {
    const TensorView &x = ctx.input(0), &y = ctx.output(0);
    const Result<int> at = axis(def_.attrs.get_int("axis", 0), x.shape.rank);
    if (!at.is_ok()) return at.status();
    if (x.shape.elements() == 0) return Status::ok();
    const bool largest = def_.op == "arg_max", last = def_.attrs.get_int("select_last_index", 0) != 0;
    const int64_t dim = x.shape[at.value()], inner = x.shape.product(at.value() + 1, x.shape.rank);
    int64_t* out = y.as_mut<int64_t>();
    visit_number(x.dtype, [&](auto t) {
      using T = typename decltype(t)::type;
      parallel(ctx, y.shape.elements(), x.shape.elements(), 1, [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r) {
          const T* in = x.as<T>() + r / inner * dim * inner + r % inner;
          int64_t best = 0;
          for (int64_t k = 1; k < dim; ++k) {
            const T a = in[k * inner], b = in[best * inner];
            const bool wins = largest ? greater(a, b) : greater(b, a);
            if (wins || (last && !(largest ? greater(b, a) : greater(a, b)))) best = k;
          }
          out[r] = best;
        }
      });
    });
    return Status::ok();
  }
};

class TopK final : public OpBase {
 public:
  static constexpr Arity kArity{2, 2, 2, 2};
  using OpBase::OpBase;

  Status init(const BuildContext&) override {
    LUTC_RETURN_IF_ERROR(expect_index_dtype(1));
    return dtype(0) == DType::kBool ? unsupported_dtype() : Status::ok();
  }

  Status infer(InferContext& ctx) const override {
    const Result<std::vector<int64_t>> k = known_ints(ctx, 1, "k");
    if (!k.is_ok()) return k.status();
    if (k.value().size() != 1) return invalid("k must be one number");
    Shape out = ctx.input_shape(0);
    const Result<int> at = axis(def_.attrs.get_int("axis", -1), out.rank);
    if (!at.is_ok()) return at.status();
    int64_t& dim = out[at.value()];
    if (k.value()[0] < 0 || k.value()[0] > dim)
      return invalid("k " + std::to_string(k.value()[0]) + " is outside [0, " + std::to_string(dim) + "]");
    ctx.request_scratch(static_cast<size_t>(dim) * sizeof(int64_t));
    dim = k.value()[0];
    LUTC_RETURN_IF_ERROR(ctx.set_output(0, dtype(0), out));
    return ctx.set_output(1, DType::kI64, out);
  }

  Status run(RunContext& ctx) const override {
    const TensorView &x = ctx.input(0), &values = ctx.output(0), &indices = ctx.output(1);
    if (values.shape.elements() == 0) return Status::ok();
    const Result<int> at = axis(def_.attrs.get_int("axis", -1), x.shape.rank);
    if (!at.is_ok()) return at.status();
    const bool largest = def_.attrs.get_int("largest", 1) != 0;
    const int64_t dim = x.shape[at.value()], k = values.shape[at.value()],
                  inner = x.shape.product(at.value() + 1, x.shape.rank);
    const int64_t rows = x.shape.elements() / dim;
    int64_t* order = static_cast<int64_t*>(ctx.scratch());
    visit_number(x.dtype, [&](auto t) {
      using T = typename decltype(t)::type;
      for (int64_t r = 0; r < rows; ++r) {
        const T* in = x.as<T>() + r / inner * dim * inner + r % inner;
        const int64_t to = r / inner * k * inner + r % inner;
        for (int64_t i = 0; i < dim; ++i) order[i] = i;
        std::partial_sort(order, order + k, order + dim, [&](int64_t a, int64_t b) {
          const T u = in[a * inner], v = in[b * inner];
          if (greater(u, v)) return largest;
          if (greater(v, u)) return !largest;
          return a < b;
        });
        for (int64_t i = 0; i < k; ++i) {
          values.as_mut<T>()[to + i * inner] = in[order[i] * inner];
          indices.as_mut<int64_t>()[to + i * inner] = order[i];
        }
      }
    });
    return Status::ok();
  }
};

}  // namespace
}  // namespace ops

void register_top_k(OpRegistry& registry) {
  registry.add("arg_max", ops::make<ops::ArgMax>);
  registry.add("arg_min", ops::make<ops::ArgMax>);
  registry.add("top_k", ops::make<ops::TopK>);
}

}  // namespace lutc
