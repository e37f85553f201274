// Poolings: average and maximum over windows, and over whole images.
#include "core/ops/common.h"
#include "core/ops/window.h"
#include "kernels/dense.h"
#include "kernels/kernel_table.h"
#include "kernels/vector.h"

namespace lutc {
namespace ops {
namespace {

using kernels::VectorKernels;

/// How windows fold: a start value and a vectorised step. NaN in a window makes its result NaN.
struct Maximum {
  static constexpr float kStart = -std::numeric_limits<float>::infinity();
  static VectorKernels::Binary step(const VectorKernels& vector) { return vector.maximum_f32; }
};
struct Sum {
  static constexpr float kStart = 0.0f;
  static VectorKernels::Binary step(const VectorKernels& vector) { return vector.add_f32; }
};

template <class Fold>
class Pool : public OpBase {
 public:
  static constexpr bool kAverage = std::is_same_v<Fold, Sum>;
  static constexpr Arity kArity{1, 1, 1, 1};
  using OpBase::OpBase;

  Status init(const BuildContext& build) override {
    fold_ = Fold::step(*build.kernels->vector);
    dense_ = build.kernels->dense;
    if (dtype(0) != DType::kF32) return unsupported_dtype();
    if (!def_.attrs.has("kernel_shape")) return invalid("the attribute kernel_shape is missing");
    if (def_.attrs.get_int("storage_order", 0) != 0) return unsupported("storage_order must be 0");
    LUTC_RETURN_IF_ERROR(read_window(def_, spatial_dims(def_), &window_));
    count_include_pad_ = def_.attrs.get_int("count_include_pad", 0) != 0;
    if (window_.auto_pad == Window::Auto::kNotSet) {
      for (int i = 0; i < 4; ++i) {
        if (window_.pads[i] >= window_.kernel[i % 2] && window_.pads[i] > 0)
          return invalid("pads must be smaller than the kernel");
      }
    }
    return Status::ok();
  }

  Status infer(InferContext& ctx) const override {
    Geometry g;
    const Shape& x = ctx.input_shape(0);
    LUTC_RETURN_IF_ERROR(geometry(x, &g));
    Shape y = x;
    for (int d = 0; d < window_.spatial; ++d) y[2 + d] = g.out[2 - window_.spatial + d];
    LUTC_RETURN_IF_ERROR(ctx.set_output(0, DType::kF32, y));
    ctx.request_scratch(static_cast<size_t>(2 * row_floats(g)) * sizeof(float) *
                        static_cast<size_t>(ctx.num_threads()));
    return Status::ok();
  }

  Status run(RunContext& ctx) const override {
    Geometry g;
    const Shape& s = ctx.input(0).shape;
    LUTC_RETURN_IF_ERROR(geometry(s, &g));
    const int64_t planes = s[0] * s[1], in_size = g.in[0] * g.in[1], out_size = g.out[0] * g.out[1];
    const float* x = ctx.input(0).as<float>();
    float* y = ctx.output(0).as_mut<float>();
    const int64_t work = planes * out_size * window_.kernel[0] * window_.kernel[1];
    const int threads = work < kParallelWork ? 1 : ctx.num_threads();
    ctx.pool().parallel_for(planes, 1, threads, [&](int64_t begin, int64_t end, int worker) {
      float* rows = static_cast<float*>(ctx.scratch()) + worker * 2 * row_floats(g);
      for (int64_t p = begin; p < end; ++p) plane(g, x + p * in_size, y + p * out_size, rows, rows + row_floats(g));
    });
    return Status::ok();
  }

 private:
  Status geometry(const Shape& x, Geometry* g) const {
    if (x.rank != 2 + window_.spatial) {
      return invalid("input " + x.to_string() + " does not fit a kernel of " + std::to_string(window_.spatial) +
                     " dims");
    }
    return place_window(def_, window_, window_.spatial == 2 ? x[2] : 1, x[x.rank - 1], g);
  }

  /// Outputs [first, last) of dim d whose tap at `offset` (in pixels from the window's start) falls inside the image.
  void range(const Geometry& g, int d, int64_t offset, int64_t* first, int64_t* last) const {
    const int64_t stride = window_.strides[d], start = offset - g.pads[d];
    *first = start >= 0 ? 0 : (-start + stride - 1) / stride;
    *last = start >= g.in[d] ? 0 : std::min(g.out[d], (g.in[d] - 1 - start) / stride + 1);
  }

  static int64_t row_floats(const Geometry& g) { return (std::max(g.in[1], g.out[1]) + 15) / 16 * 16; }

  /// Rows first: the window's rows fold into one, `folded`, whose columns then fold into the output.
  void plane(const Geometry& g, const float* x, float* y, float* folded, float* taken) const {
    const int64_t stride = window_.strides[1];
    for (int64_t i = 0; i < g.out[0]; ++i, y += g.out[1]) {
      const float* row = nullptr;
      for (int64_t u = 0; u < window_.kernel[0]; ++u) {
        const int64_t h = i * window_.strides[0] - g.pads[0] + u * window_.dilations[0];
        if (h < 0 || h >= g.in[0]) continue;
        const float* next = x + h * g.in[1];
        if (row != nullptr) fold_(row, next, folded, g.in[1]);
        row = row == nullptr ? next : folded;
      }
      std::fill(y, y + g.out[1], Fold::kStart);
      for (int64_t v = 0; row != nullptr && v < window_.kernel[1]; ++v) {
        int64_t first, last;
        range(g, 1, v * window_.dilations[1], &first, &last);
        if (first >= last) continue;
        const float* from = row + first * stride + v * window_.dilations[1] - g.pads[1];
        if (stride != 1) {
          dense_->gather_strided(from, stride, taken, last - first);
          from = taken;
        }
        fold_(y + first, from, y + first, last - first);
      }
      if constexpr (kAverage) {
        const int64_t rows = taps(g, 0, i);
        for (int64_t j = 0; j < g.out[1]; ++j) y[j] /= static_cast<float>(std::max<int64_t>(1, rows * taps(g, 1, j)));
      }
    }
  }

  /// How many taps of window i along dim d count in the average: those inside the image, or inside the padded image.
  int64_t taps(const Geometry& g, int d, int64_t i) const {
    const int64_t start = i * window_.strides[d] - g.pads[d], step = window_.dilations[d], n = window_.kernel[d];
    const int64_t low = count_include_pad_ ? -g.pads[d] : 0, high = g.in[d] + (count_include_pad_ ? g.pads[2 + d] : 0);
    const int64_t first = start >= low ? 0 : (low - start + step - 1) / step;
    const int64_t last = start >= high ? 0 : std::min(n, (high - 1 - start) / step + 1);
    return std::max<int64_t>(0, last - first);
  }

  const kernels::DenseKernels* dense_ = nullptr;
  VectorKernels::Binary fold_ = nullptr;
  Window window_;
  bool count_include_pad_ = false;
};

template <bool kAverage>
class GlobalPool : public OpBase {
 public:
  static constexpr Arity kArity{1, 1, 1, 1};
  using OpBase::OpBase;

  Status init(const BuildContext& build) override {
    vector_ = build.kernels->vector;
    return dtype(0) == DType::kF32 ? Status::ok() : unsupported_dtype();
  }
  Status infer(InferContext& ctx) const override {
    const Shape& x = ctx.input_shape(0);
    if (x.rank < 3) return invalid("input " + x.to_string() + " has no image dims");
    Shape y = x;
    for (int d = 2; d < x.rank; ++d) y[d] = 1;
    if (x.product(2, x.rank) == 0) return invalid("input " + x.to_string() + " has empty images");
    return ctx.set_output(0, DType::kF32, y);
  }
  Status run(RunContext& ctx) const override {
    const Shape& s = ctx.input(0).shape;
    const int64_t size = s.product(2, s.rank);
    const float* x = ctx.input(0).as<float>();
    float* y = ctx.output(0).as_mut<float>();
    parallel(ctx, s[0] * s[1], s.elements(), 1, [&](int64_t begin, int64_t end) {
      for (int64_t p = begin; p < end; ++p) {
        y[p] = kAverage ? vector_->sum_f32(x + p * size, size) / static_cast<float>(size)
                        : vector_->max_f32(x + p * size, size);
      }
    });
    return Status::ok();
  }

 private:
  const kernels::VectorKernels* vector_ = nullptr;
};

}  // namespace
}  // namespace ops

void register_dense_pool(OpRegistry& registry) {
  registry.add("average_pool", ops::make<ops::Pool<ops::Sum>>);
  registry.add("max_pool", ops::make<ops::Pool<ops::Maximum>>);
  registry.add("global_average_pool", ops::make<ops::GlobalPool<true>>);
  registry.add("global_max_pool", ops::make<ops::GlobalPool<false>>);
}

}  // namespace lutc
