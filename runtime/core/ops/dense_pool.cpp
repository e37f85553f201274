// Poolings: average and maximum over windows, and over whole images.
#include "core/ops/dense_gemm.h"
#include "core/ops/window.h"
#include "kernels/dense.h"
#include "kernels/kernel_table.h"
#include "kernels/vector.h"

namespace lutc {
namespace ops {
namespace {

template <bool kAverage>
class Pool : public OpBase {
 public:
  static constexpr Arity kArity{1, 1, 1, 1};
  using OpBase::OpBase;

  Status init(const BuildContext& build) override {
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
    Pieces pieces;
    Scratch(plane(g), dense_->lanes, ctx.num_threads(), &pieces);
    return request_scratch(ctx, pieces.bytes());
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
    const kernels::PoolPlane shape = plane(g);
    Pieces pieces(ctx.scratch());
    const Scratch scratch(shape, dense_->lanes, threads, &pieces);
    for (int64_t i = 0; i < g.out[0]; ++i) scratch.row_shares[i] = share(g, 0, i);
    for (int64_t j = 0; j < g.out[1]; ++j) scratch.column_shares[j] = share(g, 1, j);
    ctx.pool().parallel_for(planes, 1, threads, [&](int64_t begin, int64_t end, int worker) {
      for (int64_t p = begin; p < end; ++p) {
        dense_->pool(x + p * in_size, shape, kAverage ? scratch.row_shares : nullptr, scratch.column_shares,
                     y + p * out_size, scratch.buffers + worker * scratch.buffer);
      }
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

  kernels::PoolPlane plane(const Geometry& g) const {
    return {g.in[0],
            g.in[1],
            g.pads[0],
            g.pads[1],
            g.out[0],
            g.out[1],
            {window_.kernel[0], window_.kernel[1]},
            {window_.strides[0], window_.strides[1]},
            {window_.dilations[0], window_.dilations[1]}};
  }

  /// What sums are multiplied by, and a folded row for each thread.
  struct Scratch {
    float *row_shares, *column_shares;
    int64_t buffer;
    float* buffers;
    Scratch(const kernels::PoolPlane& p, int64_t lanes, int threads, Pieces* pieces)
        : row_shares(pieces->floats(p.out_height)),
          column_shares(pieces->floats(p.out_width)),
          buffer((kernels::pool_floats(p, lanes) + 15) / 16 * 16),
          buffers(pieces->floats(buffer * threads)) {}
  };

  /// How many taps of window i along dim d count in the average: those inside the image, or inside the padded image.
  int64_t taps(const Geometry& g, int d, int64_t i) const {
    const int64_t start = i * window_.strides[d] - g.pads[d], step = window_.dilations[d], n = window_.kernel[d];
    const int64_t low = count_include_pad_ ? -g.pads[d] : 0, high = g.in[d] + (count_include_pad_ ? g.pads[2 + d] : 0);
    const int64_t first = start >= low ? 0 : (low - start + step - 1) / step;
    const int64_t last = start >= high ? 0 : std::min(n, (high - 1 - start) / step + 1);
    return std::max<int64_t>(0, last - first);
  }

  float share(const Geometry& g, int d, int64_t i) const {
    return 1.0f / static_cast<float>(std::max<int64_t>(1, taps(g, d, i)));
  }

  const kernels::DenseKernels* dense_ = nullptr;
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
  registry.add("average_pool", ops::make<ops::Pool<true>>);
  registry.add("max_pool", ops::make<ops::Pool<false>>);
  registry.add("global_average_pool", ops::make<ops::GlobalPool<true>>);
  registry.add("global_max_pool", ops::make<ops::GlobalPool<false>>);
}

}  // namespace lutc
