// Normalisations (layer, add + layer, RMS, batch, instance), softmax and GELU.
#include <cmath>

#include "core/ops/common.h"
#include "kernels/kernel_table.h"
#include "kernels/vector.h"

namespace lutc {
namespace ops {
namespace {

using kernels::VectorKernels;

class FloatOp : public OpBase {
 public:
  using OpBase::OpBase;
  Status init(const BuildContext& build) override {
    vector_ = build.kernels->vector;
    LUTC_RETURN_IF_ERROR(all_f32());
    return Status::ok();
  }

 protected:
  /// A vector of `n` values, whatever its leading ones.
  Status expect_vector(const InferContext& ctx, int input, int64_t n, const char* what) const {
    const Shape& s = ctx.input_shape(input);
    if (s.elements() == n) return Status::ok();
    return invalid(std::string(what) + " has shape " + s.to_string() + ", not " + std::to_string(n) + " values");
  }
  float epsilon() const { return static_cast<float>(def_.attrs.get_float("epsilon", 1e-5)); }

  const VectorKernels* vector_ = nullptr;
};

/// Rows of a tensor whose dims from `axis` on are one row.
struct Rows {
  int64_t count, length;
  Rows(const Shape& shape, int axis) : count(shape.product(0, axis)), length(shape.product(axis, shape.rank)) {}
};

enum class Norm { kLayer, kAddLayer, kRms };

template <Norm kNorm>
class RowNorm : public FloatOp {
 public:
  static constexpr int kScale = kNorm == Norm::kAddLayer ? 2 : 1;
  static constexpr Arity kArity = kNorm == Norm::kLayer      ? Arity{2, 3, 1, 3}
                                  : kNorm == Norm::kAddLayer ? Arity{3, 4, 1, 2}
                                                             : Arity{2, 2, 1, 1};
  using FloatOp::FloatOp;

  Status init(const BuildContext& build) override {
    LUTC_RETURN_IF_ERROR(FloatOp::init(build));
    axis_ = def_.attrs.get_int("axis", -1);
    if (def_.attrs.get_int("stash_type", 1) != 1) return unsupported("stash_type must be 1 (float32)");
    return Status::ok();
  }

  Status infer(InferContext& ctx) const override {
    const Shape& x = ctx.input_shape(0);
    const Result<int> at = axis(axis_, x.rank);
    if (!at.is_ok()) return at.status();
    const Rows rows(x, at.value());
    if (kNorm == Norm::kAddLayer && ctx.input_shape(1) != x) {
      return invalid("inputs " + x.to_string() + " and " + ctx.input_shape(1).to_string() + " differ");
    }
    LUTC_RETURN_IF_ERROR(expect_vector(ctx, kScale, rows.length, "scale"));
    if (has_bias(ctx)) LUTC_RETURN_IF_ERROR(expect_vector(ctx, kScale + 1, rows.length, "bias"));
    LUTC_RETURN_IF_ERROR(ctx.set_output(0, DType::kF32, x));
    if (kNorm == Norm::kAddLayer && ctx.num_outputs() > 1) return ctx.set_output(1, DType::kF32, x);
    Shape reduced = x;
    for (int d = at.value(); d < x.rank; ++d) reduced.dims[d] = 1;
    for (int i = 1; i < ctx.num_outputs(); ++i) LUTC_RETURN_IF_ERROR(ctx.set_output(i, DType::kF32, reduced));
    // Element by element, and what was just written is near: the residual is not.
    if (ctx.num_outputs() == 1) ctx.may_overwrite(0, 0);
    if (kNorm == Norm::kAddLayer && ctx.num_outputs() == 1) ctx.may_overwrite(0, 1);
    return Status::ok();
  }

  Status run(RunContext& ctx) const override {
    const TensorView& x = ctx.input(0);
    const Rows rows(x.shape, axis(axis_, x.shape.rank).value());
    const int64_t d = rows.length;
    if (d == 0) return Status::ok();
    const float *a = x.as<float>(), *scale = ctx.input(kScale).as<float>();
    const float* b = kNorm == Norm::kAddLayer ? ctx.input(1).as<float>() : nullptr;
    const float* bias = kNorm != Norm::kRms && present(kScale + 1) ? ctx.input(kScale + 1).as<float>() : nullptr;
    float* y = ctx.output(0).as_mut<float>();
    float* sum = kNorm == Norm::kAddLayer && def_.outputs.size() > 1 ? ctx.output(1).as_mut<float>() : nullptr;
    if (kNorm == Norm::kLayer && def_.outputs.size() > 1) statistics(ctx, a, rows);
    parallel(ctx, rows.count, 4 * rows.count * d, 1, [&](int64_t begin, int64_t end) {
      const int64_t at = begin * d;
      if (kNorm == Norm::kRms) {
        vector_->rms_norm_rows(a + at, scale, epsilon(), y + at, end - begin, d);
      } else {
        vector_->layer_norm_rows(a + at, b == nullptr ? nullptr : b + at, scale, bias, epsilon(),
                                 sum == nullptr ? nullptr : sum + at, y + at, end - begin, d);
      }
    });
    return Status::ok();
  }

 private:
  bool has_bias(const InferContext& ctx) const {
    return kNorm != Norm::kRms && ctx.num_inputs() > kScale + 1 && present(kScale + 1);
  }

  /// ONNX LayerNormalization's optional outputs: the mean and 1 / standard deviation of each row.
  void statistics(RunContext& ctx, const float* x, const Rows& rows) const {
    for (int64_t r = 0; r < rows.count; ++r, x += rows.length) {
      double sum = 0, square = 0;
      for (int64_t i = 0; i < rows.length; ++i) sum += x[i];
      const double mean = sum / static_cast<double>(rows.length);
      for (int64_t i = 0; i < rows.length; ++i) square += (x[i] - mean) * (x[i] - mean);
      ctx.output(1).as_mut<float>()[r] = static_cast<float>(mean);
      if (def_.outputs.size() > 2) {
        ctx.output(2).as_mut<float>()[r] =
            static_cast<float>(1.0 / std::sqrt(square / static_cast<double>(rows.length) + epsilon()));
      }
    }
  }

  int64_t axis_ = -1;
};

/// y = x * scale[c] + shift[c] for the planes of [N, C, ...]; scale and shift folded from the statistics at each run.
class BatchNorm : public FloatOp {
 public:
  static constexpr Arity kArity{5, 5, 1, 1};
  using FloatOp::FloatOp;

  Status init(const BuildContext& build) override {
    if (def_.attrs.get_int("training_mode", 0) != 0) return unsupported("training_mode is not supported");
    return FloatOp::init(build);
  }
  Status infer(InferContext& ctx) const override {
    const Shape& x = ctx.input_shape(0);
    if (x.rank < 2) return invalid("input " + x.to_string() + " has no channel axis");
    for (int i = 1; i < 5; ++i) LUTC_RETURN_IF_ERROR(expect_vector(ctx, i, x[1], "a statistic"));
    LUTC_RETURN_IF_ERROR(ctx.set_output(0, DType::kF32, x));
    ctx.may_overwrite(0, 0);
    return Status::ok();
  }
  Status run(RunContext& ctx) const override {
    const Shape& s = ctx.input(0).shape;
    const int64_t channels = s[1], size = s.product(2, s.rank);
    const float* x = ctx.input(0).as<float>();
    float* y = ctx.output(0).as_mut<float>();
    parallel(ctx, s[0] * channels, s.elements(), 1, [&](int64_t begin, int64_t end) {
      for (int64_t plane = begin; plane < end; ++plane) {
        const int64_t c = plane % channels;
        const float inverse = ctx.input(1).as<float>()[c] / std::sqrt(ctx.input(4).as<float>()[c] + epsilon());
        const float shift = ctx.input(2).as<float>()[c] - ctx.input(3).as<float>()[c] * inverse;
        vector_->mul_scalar_f32(x + plane * size, inverse, y + plane * size, size);
        vector_->add_scalar_f32(y + plane * size, shift, y + plane * size, size);
      }
    });
    return Status::ok();
  }
};

class InstanceNorm : public FloatOp {
 public:
  static constexpr Arity kArity{3, 3, 1, 1};
  using FloatOp::FloatOp;

  Status infer(InferContext& ctx) const override {
    const Shape& x = ctx.input_shape(0);
    if (x.rank < 2) return invalid("input " + x.to_string() + " has no channel axis");
    LUTC_RETURN_IF_ERROR(expect_vector(ctx, 1, x[1], "scale"));
    LUTC_RETURN_IF_ERROR(expect_vector(ctx, 2, x[1], "bias"));
    LUTC_RETURN_IF_ERROR(ctx.set_output(0, DType::kF32, x));
    return Status::ok();
  }
  Status run(RunContext& ctx) const override {
    const Shape& s = ctx.input(0).shape;
    const int64_t channels = s[1], size = s.product(2, s.rank);
    if (size == 0) return Status::ok();
    parallel(ctx, s[0] * channels, 4 * s.elements(), 1, [&](int64_t begin, int64_t end) {
      for (int64_t plane = begin; plane < end; ++plane) {
        const float* x = ctx.input(0).as<float>() + plane * size;
        float* y = ctx.output(0).as_mut<float>() + plane * size;
        const int64_t c = plane % channels;
        const float mean = vector_->sum_f32(x, size) / static_cast<float>(size);
        vector_->add_scalar_f32(x, -mean, y, size);
        double square = 0;
        for (int64_t i = 0; i < size; ++i) square += static_cast<double>(y[i]) * y[i];
        const float inverse = static_cast<float>(1.0 / std::sqrt(square / static_cast<double>(size) + epsilon()));
        vector_->mul_scalar_f32(y, inverse * ctx.input(1).as<float>()[c], y, size);
        vector_->add_scalar_f32(y, ctx.input(2).as<float>()[c], y, size);
      }
    });
    return Status::ok();
  }
};

template <bool kLog>
class Softmax : public FloatOp {
 public:
  static constexpr Arity kArity{1, 1, 1, 1};
  using FloatOp::FloatOp;

  Status infer(InferContext& ctx) const override {
    const Shape& x = ctx.input_shape(0);
    const Result<int> at = axis(def_.attrs.get_int("axis", -1), x.rank);
    if (!at.is_ok()) return at.status();
    LUTC_RETURN_IF_ERROR(ctx.set_output(0, DType::kF32, x));
    if (inner(x, at.value()) > 1) {
      ctx.request_scratch(static_cast<size_t>(x[at.value()]) * sizeof(float) * static_cast<size_t>(ctx.num_threads()));
    }
    ctx.may_overwrite(0, 0);
    return Status::ok();
  }
  Status run(RunContext& ctx) const override {
    const Shape& s = ctx.input(0).shape;
    const int at = axis(def_.attrs.get_int("axis", -1), s.rank).value();
    const int64_t n = s[at], stride = inner(s, at), rows = s.product(0, at) * stride;
    if (s.elements() == 0) return Status::ok();
    const float* x = ctx.input(0).as<float>();
    float* y = ctx.output(0).as_mut<float>();
    const auto function = kLog ? vector_->log_softmax_row : vector_->softmax_row;
    const int threads = 4 * s.elements() < kParallelWork ? 1 : ctx.num_threads();
    ctx.pool().parallel_for(rows, 1, threads, [&](int64_t begin, int64_t end, int worker) {
      if (stride == 1 && n < kShort && !kLog) {
        short_rows(x + begin * n, y + begin * n, end - begin, n);
        return;
      }
      if (stride == 1) {
        for (int64_t r = begin; r < end; ++r) function(x + r * n, y + r * n, n);
        return;
      }
      float* row = static_cast<float*>(ctx.scratch()) + worker * n;
      for (int64_t r = begin; r < end; ++r) {
        const int64_t first = r / stride * stride * n + r % stride;
        for (int64_t i = 0; i < n; ++i) row[i] = x[first + i * stride];
        function(row, row, n);
        for (int64_t i = 0; i < n; ++i) y[first + i * stride] = row[i];
      }
    });
    return Status::ok();
  }

 private:
  static constexpr int64_t kShort = 16;  ///< values of a vector

  /// Rows that do not fill a vector: one exponential over many of them.
  void short_rows(const float* x, float* y, int64_t rows, int64_t n) const {
    const int64_t most = 512 / n;
    for (int64_t first = 0; first < rows; first += most) {
      const int64_t count = std::min(most, rows - first);
      float* to = y + first * n;
      for (int64_t i = 0; i < count * n; i += n) {
        const float* from = x + first * n + i;
        float largest = from[0];
        for (int64_t j = 1; j < n; ++j) largest = from[j] > largest ? from[j] : largest;
        for (int64_t j = 0; j < n; ++j) to[i + j] = from[j] - largest;
      }
      vector_->exp_f32(to, to, count * n);
      for (int64_t i = 0; i < count * n; i += n) {
        float sum = 0.0f;
        for (int64_t j = 0; j < n; ++j) sum += to[i + j];
        for (int64_t j = 0; j < n; ++j) to[i + j] /= sum;
      }
    }
  }
  static int64_t inner(const Shape& s, int axis) { return s.product(axis + 1, s.rank); }
};

class Gelu : public FloatOp {
 public:
  static constexpr Arity kArity{1, 1, 1, 1};
  using FloatOp::FloatOp;

  Status init(const BuildContext& build) override {
    LUTC_RETURN_IF_ERROR(FloatOp::init(build));
    const std::string form = def_.attrs.get_string("approximate", "none");
    if (form != "none" && form != "tanh") return unsupported("unknown approximation '" + form + "'");
    function_ = form == "tanh" ? vector_->gelu_tanh_f32 : vector_->gelu_f32;
    return Status::ok();
  }
  Status infer(InferContext& ctx) const override {
    LUTC_RETURN_IF_ERROR(ctx.set_output(0, DType::kF32, ctx.input_shape(0)));
    ctx.may_overwrite(0, 0);
    return Status::ok();
  }
  Status run(RunContext& ctx) const override {
    const int64_t n = ctx.input(0).shape.elements();
    parallel(ctx, n, 8 * n, 1024, [&](int64_t begin, int64_t end) {
      function_(ctx.input(0).as<float>() + begin, ctx.output(0).as_mut<float>() + begin, end - begin);
    });
    return Status::ok();
  }

 private:
  VectorKernels::Unary function_ = nullptr;
};

}  // namespace
}  // namespace ops

void register_dense_norm(OpRegistry& registry) {
  registry.add("layer_normalization", ops::make<ops::RowNorm<ops::Norm::kLayer>>);
  registry.add("add_layer_normalization", ops::make<ops::RowNorm<ops::Norm::kAddLayer>>);
  registry.add("rms_normalization", ops::make<ops::RowNorm<ops::Norm::kRms>>);
  registry.add("batch_normalization", ops::make<ops::BatchNorm>);
  registry.add("instance_normalization", ops::make<ops::InstanceNorm>);
  registry.add("softmax", ops::make<ops::Softmax<false>>);
  registry.add("log_softmax", ops::make<ops::Softmax<true>>);
  registry.add("gelu", ops::make<ops::Gelu>);
}

}  // namespace lutc
