// scatter_elements and scatter_nd with their reductions. Updates are applied in order, on one thread: indices may
// repeat.
#include "core/ops/common.h"

namespace lutc {
namespace ops {
namespace {

enum class Reduction { kNone, kAdd, kMul, kMax, kMin };

/// out[i] = out[i] op updates[i] for one run.
using CombineFn = void (*)(void* out, int64_t at, const void* updates, int64_t from, int64_t count);

template <class T, Reduction kReduction>
void combine(void* out, int64_t at, const void* updates, int64_t from, int64_t count) {
  T* y = static_cast<T*>(out) + at;
  const T* u = static_cast<const T*>(updates) + from;
  for (int64_t i = 0; i < count; ++i) {
    if constexpr (kReduction == Reduction::kNone) y[i] = u[i];
    if constexpr (kReduction == Reduction::kAdd) y[i] = wrap_add(y[i], u[i]);
    if constexpr (kReduction == Reduction::kMul) y[i] = wrap_mul(y[i], u[i]);
    if constexpr (kReduction == Reduction::kMax) y[i] = u[i] > y[i] || u[i] != u[i] ? u[i] : y[i];
    if constexpr (kReduction == Reduction::kMin) y[i] = u[i] < y[i] || u[i] != u[i] ? u[i] : y[i];
  }
}

class Scatter : public OpBase {
 public:
  static constexpr Arity kArity{3, 3, 1, 1};
  using OpBase::OpBase;

  Status init(const BuildContext&) override {
    LUTC_RETURN_IF_ERROR(expect_index_dtype(1));
    LUTC_RETURN_IF_ERROR(same_dtypes({2}));
    const std::string reduction = def_.attrs.get_string("reduction", "none");
    if (reduction == "none") {
      visit_bytes(dtype(0), [&](auto t) { combine_ = combine<typename decltype(t)::type, Reduction::kNone>; });
      return Status::ok();
    }
    visit_number(dtype(0), [&](auto t) {
      using T = typename decltype(t)::type;
      if (reduction == "add") combine_ = combine<T, Reduction::kAdd>;
      if (reduction == "mul") combine_ = combine<T, Reduction::kMul>;
      if (reduction == "max") combine_ = combine<T, Reduction::kMax>;
      if (reduction == "min") combine_ = combine<T, Reduction::kMin>;
    });
    return combine_ != nullptr ? Status::ok() : unsupported("reduction '" + reduction + "' of " + dtype_name(dtype(0)));
  }

 protected:
  Status declare(InferContext& ctx) const {
    LUTC_RETURN_IF_ERROR(ctx.set_output(0, dtype(0), ctx.input_shape(0)));
    // Not when the data could be the same value as the indices or the updates: these are read while the output is
    // written.
    const int64_t n = ctx.input_shape(0).elements();
    if (ctx.input_shape(1).elements() != n && ctx.input_shape(2).elements() != n) ctx.may_overwrite(0, 0);
    return Status::ok();
  }
  Status out_of_range(int64_t index, int64_t dim) const {
    return invalid("index " + std::to_string(index) + " is outside [-" + std::to_string(dim) + ", " +
                   std::to_string(dim) + ")");
  }

  CombineFn combine_ = nullptr;
};

class ScatterElements final : public Scatter {
 public:
  using Scatter::Scatter;

  Status infer(InferContext& ctx) const override {
    const Shape &data = ctx.input_shape(0), &indices = ctx.input_shape(1), &updates = ctx.input_shape(2);
    const Result<int> at = axis(def_.attrs.get_int("axis", 0), data.rank);
    if (!at.is_ok()) return at.status();
    bool fits = data.rank == indices.rank && indices == updates;
    for (int d = 0; fits && d < data.rank; ++d) fits = d == at.value() || indices[d] <= data[d];
    if (!fits)
      return invalid("indices " + indices.to_string() + " or updates " + updates.to_string() + " do not fit data " +
                     data.to_string());
    return declare(ctx);
  }

  Status run(RunContext& ctx) const override {
    const TensorView &indices = ctx.input(1), &updates = ctx.input(2), &y = ctx.output(0);
    copy_view(ctx);
    const int64_t total = indices.shape.elements();
    if (total == 0) return Status::ok();
    const Result<int> at = axis(def_.attrs.get_int("axis", 0), y.shape.rank);
    if (!at.is_ok()) return at.status();
    const int64_t dim = y.shape[at.value()];
    for (int64_t i = 0; i < total; ++i) {
      const int64_t index = int_at(indices, i);
      if (index < -dim || index >= dim) return out_of_range(index, dim);
    }
    int64_t strides[kMaxRank];
    row_major_strides(y.shape, strides);
    StridedLoop<1> loop;
    for (int d = 0; d < y.shape.rank; ++d) loop.push(indices.shape[d], {d == at.value() ? 0 : strides[d]});
    loop.run(0, total, [&](int64_t pos, const int64_t (&offset)[1], int64_t count) {
      for (int64_t i = 0; i < count; ++i) {
        int64_t index = int_at(indices, pos + i);
        if (index < 0) index += dim;
        combine_(y.data, offset[0] + i * loop.inner_stride(0) + index * strides[at.value()], updates.data, pos + i, 1);
      }
    });
    return Status::ok();
  }
};

class ScatterNd final : public Scatter {
 public:
  using Scatter::Scatter;

  Status infer(InferContext& ctx) const override {
    const Shape &data = ctx.input_shape(0), &indices = ctx.input_shape(1), &updates = ctx.input_shape(2);
    const int64_t tuple = indices.rank < 1 ? -1 : indices[indices.rank - 1];
    if (tuple < 1 || tuple > data.rank)
      return invalid("indices " + indices.to_string() + " do not fit data " + data.to_string());
    bool fits = updates.rank == indices.rank - 1 + data.rank - static_cast<int>(tuple);
    for (int d = 0; fits && d < updates.rank; ++d) {
      fits = updates[d] == (d < indices.rank - 1 ? indices[d] : data[d - (indices.rank - 1) + static_cast<int>(tuple)]);
    }
    if (!fits)
      return invalid("updates " + updates.to_string() + " do not fit indices " + indices.to_string() + " and data " +
                     data.to_string());
    return declare(ctx);
  }

  Status run(RunContext& ctx) const override {
    const TensorView &indices = ctx.input(1), &updates = ctx.input(2), &y = ctx.output(0);
    copy_view(ctx);
    const int tuple = static_cast<int>(indices.shape[indices.shape.rank - 1]);
    const int64_t tuples = indices.shape.product(0, indices.shape.rank - 1);
    for (int64_t i = 0; i < tuples * tuple; ++i) {
      const int64_t index = int_at(indices, i), dim = y.shape[static_cast<int>(i % tuple)];
      if (index < -dim || index >= dim) return out_of_range(index, dim);
    }
    if (updates.shape.elements() == 0) return Status::ok();
    const int64_t inner = y.shape.product(tuple, y.shape.rank);
    for (int64_t r = 0; r < tuples; ++r) {
      int64_t at = 0;
      for (int k = 0; k < tuple; ++k) {
        const int64_t index = int_at(indices, r * tuple + k);
        at = at * y.shape[k] + (index < 0 ? index + y.shape[k] : index);
      }
      combine_(y.data, at * inner, updates.data, r * inner, inner);
    }
    return Status::ok();
  }
};

}  // namespace
}  // namespace ops

void register_scatter(OpRegistry& registry) {
  registry.add("scatter_elements", ops::make<ops::ScatterElements>);
  registry.add("scatter_nd", ops::make<ops::ScatterNd>);
}

}  // namespace lutc
