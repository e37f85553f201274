// gather, gather_elements, gather_nd. Indices may be negative; one out of range is an error that names it.
#include "core/ops/common.h"

namespace lutc {
namespace ops {
namespace {

class GatherBase : public OpBase {
 public:
  using OpBase::OpBase;
  Status init(const BuildContext&) override { return expect_index_dtype(1); }

 protected:
  Status out_of_range(int64_t index, int64_t dim) const {
    return invalid("index " + std::to_string(index) + " is outside [-" + std::to_string(dim) + ", " +
                   std::to_string(dim) + ")");
  }
  /// Checked before any copy, so that threads need no way to report.
  Status check_indices(const TensorView& indices, int64_t dim) const {
    const int64_t n = indices.shape.elements();
    for (int64_t i = 0; i < n; ++i) {
      const int64_t index = int_at(indices, i);
      if (index < -dim || index >= dim) return out_of_range(index, dim);
    }
    return Status::ok();
  }
};

class Gather final : public GatherBase {
 public:
  static constexpr Arity kArity{2, 2, 1, 1};
  using GatherBase::GatherBase;

  Status infer(InferContext& ctx) const override {
    const Shape &data = ctx.input_shape(0), &indices = ctx.input_shape(1);
    const Result<int> at = axis(def_.attrs.get_int("axis", 0), data.rank);
    if (!at.is_ok()) return at.status();
    if (data.rank - 1 + indices.rank > kMaxRank)
      return unsupported("the result's rank is above " + std::to_string(kMaxRank));
    Shape out;
    for (int d = 0; d < at.value(); ++d) out[out.rank++] = data[d];
    for (int d = 0; d < indices.rank; ++d) out[out.rank++] = indices[d];
    for (int d = at.value() + 1; d < data.rank; ++d) out[out.rank++] = data[d];
    return ctx.set_output(0, dtype(0), out);
  }

  Status run(RunContext& ctx) const override {
    const TensorView &data = ctx.input(0), &indices = ctx.input(1), &y = ctx.output(0);
    const Result<int> at = axis(def_.attrs.get_int("axis", 0), data.shape.rank);
    if (!at.is_ok()) return at.status();
    const int64_t dim = data.shape[at.value()];
    LUTC_RETURN_IF_ERROR(check_indices(indices, dim));
    if (y.shape.elements() == 0) return Status::ok();
    const int64_t outer = data.shape.product(0, at.value()), picks = indices.shape.elements();
    const int64_t inner = data.shape.product(at.value() + 1, data.shape.rank);
    visit_bytes(data.dtype, [&](auto t) {
      using T = typename decltype(t)::type;
      const T* from = data.as<T>();
      T* to = y.as_mut<T>();
      parallel(ctx, outer * picks, outer * picks * inner, 16, [&](int64_t begin, int64_t end) {
        const auto source = [&](int64_t r) {
          const int64_t index = int_at(indices, r % picks);
          return from + (r / picks * dim + (index < 0 ? index + dim : index)) * inner;
        };
        for (int64_t r = begin; r < end; ++r) {
          const T* row = source(r);
          if (inner == 1) {
            to[r] = *row;
          } else {
            // The rows of a large table lie anywhere in memory: asked for in time, several arrive at once.
            if (r + kRowsAhead < end && inner >= 64)
              prefetch(source(r + kRowsAhead), inner * static_cast<int64_t>(sizeof(T)));
            std::memcpy(to + r * inner, row, static_cast<size_t>(inner) * sizeof(T));
          }
        }
      });
    });
    return Status::ok();
  }

 private:
  static constexpr int64_t kRowsAhead = 4;

  static void prefetch(const void* row, int64_t bytes) {
    constexpr int64_t kLine = 64, kMost = 4096;
    for (int64_t i = 0; i < std::min(bytes, kMost); i += kLine) __builtin_prefetch(static_cast<const char*>(row) + i);
  }
};

class GatherElements final : public GatherBase {
 public:
  static constexpr Arity kArity{2, 2, 1, 1};
  using GatherBase::GatherBase;

  Status infer(InferContext& ctx) const override {
    const Shape &data = ctx.input_shape(0), &indices = ctx.input_shape(1);
    const Result<int> at = axis(def_.attrs.get_int("axis", 0), data.rank);
    if (!at.is_ok()) return at.status();
    bool fits = data.rank == indices.rank;
    for (int d = 0; fits && d < data.rank; ++d) fits = d == at.value() || indices[d] <= data[d];
    if (!fits) return invalid("indices " + indices.to_string() + " do not fit data " + data.to_string());
    return ctx.set_output(0, dtype(0), indices);
  }

  Status run(RunContext& ctx) const override {
    const TensorView &data = ctx.input(0), &indices = ctx.input(1), &y = ctx.output(0);
    const Result<int> at = axis(def_.attrs.get_int("axis", 0), data.shape.rank);
    if (!at.is_ok()) return at.status();
    const int64_t dim = data.shape[at.value()], total = y.shape.elements();
    LUTC_RETURN_IF_ERROR(check_indices(indices, dim));
    if (total == 0) return Status::ok();
    int64_t strides[kMaxRank];
    row_major_strides(data.shape, strides);
    const int64_t along = strides[at.value()];
    StridedLoop<1> loop;
    for (int d = 0; d < y.shape.rank; ++d) loop.push(y.shape[d], {d == at.value() ? 0 : strides[d]});
    const int64_t step = loop.inner_stride(0);
    visit_bytes(data.dtype, [&](auto t) {
      using T = typename decltype(t)::type;
      const T* from = data.as<T>();
      T* to = y.as_mut<T>();
      parallel(ctx, total, total, 1024, [&](int64_t begin, int64_t end) {
        loop.run(begin, end, [&](int64_t pos, const int64_t (&offset)[1], int64_t count) {
          for (int64_t i = 0; i < count; ++i) {
            int64_t index = int_at(indices, pos + i);
            if (index < 0) index += dim;
            to[pos + i] = from[offset[0] + i * step + index * along];
          }
        });
      });
    });
    return Status::ok();
  }
};

class GatherNd final : public GatherBase {
 public:
  static constexpr Arity kArity{2, 2, 1, 1};
  using GatherBase::GatherBase;

  Status infer(InferContext& ctx) const override {
    const Shape &data = ctx.input_shape(0), &indices = ctx.input_shape(1);
    const int64_t batch = def_.attrs.get_int("batch_dims", 0);
    if (indices.rank < 1 || batch < 0 || batch >= std::min(data.rank, indices.rank))
      return invalid("batch_dims does not fit the ranks");
    const int64_t tuple = indices[indices.rank - 1];
    if (tuple < 1 || tuple > data.rank - batch)
      return invalid("index tuples of " + std::to_string(tuple) + " do not fit data " + data.to_string());
    for (int d = 0; d < batch; ++d) {
      if (data[d] != indices[d]) return invalid("batch dims of data and indices differ");
    }
    const int inner = static_cast<int>(batch + tuple);
    if (indices.rank - 1 + data.rank - inner > kMaxRank)
      return unsupported("the result's rank is above " + std::to_string(kMaxRank));
    Shape out;
    for (int d = 0; d < indices.rank - 1; ++d) out[out.rank++] = indices[d];
    for (int d = inner; d < data.rank; ++d) out[out.rank++] = data[d];
    return ctx.set_output(0, dtype(0), out);
  }

  Status run(RunContext& ctx) const override {
    const TensorView &data = ctx.input(0), &indices = ctx.input(1), &y = ctx.output(0);
    if (indices.shape.elements() == 0) return Status::ok();
    const int batch = static_cast<int>(def_.attrs.get_int("batch_dims", 0)), last = indices.shape.rank - 1;
    const int tuple = static_cast<int>(indices.shape[last]);
    const int64_t tuples = indices.shape.product(0, last);
    for (int64_t i = 0; i < tuples * tuple; ++i) {
      const int64_t index = int_at(indices, i), dim = data.shape[batch + static_cast<int>(i % tuple)];
      if (index < -dim || index >= dim) return out_of_range(index, dim);
    }
    if (y.shape.elements() == 0) return Status::ok();
    const int64_t per_batch = tuples / std::max<int64_t>(1, data.shape.product(0, batch));
    const int64_t inner = data.shape.product(batch + tuple, data.shape.rank);
    const int64_t bytes = inner * static_cast<int64_t>(dtype_size(data.dtype));
    parallel(ctx, tuples, tuples * inner, 16, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        int64_t at = r / per_batch;
        for (int k = 0; k < tuple; ++k) {
          const int64_t dim = data.shape[batch + k], index = int_at(indices, r * tuple + k);
          at = at * dim + (index < 0 ? index + dim : index);
        }
        std::memcpy(y.as_mut<char>() + r * bytes, data.as<char>() + at * bytes, static_cast<size_t>(bytes));
      }
    });
    return Status::ok();
  }
};

}  // namespace
}  // namespace ops

void register_gather(OpRegistry& registry) {
  registry.add("gather", ops::make<ops::Gather>);
  registry.add("gather_elements", ops::make<ops::GatherElements>);
  registry.add("gather_nd", ops::make<ops::GatherNd>);
}

}  // namespace lutc
