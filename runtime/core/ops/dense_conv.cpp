// Convolution, 1-D and 2-D, grouped, dilated, with fused bias, residual and activation.
//
// The image is unrolled (im2col) one chunk of pixel panels at a time into scratch that fits L2; the weights, [outputs,
// inputs * taps], are the left matrix as they lie, so that the product lands in NCHW. Depthwise convolutions go row by
// row over a padded plane.
#include "core/ops/dense_gemm.h"
#include "core/ops/window.h"

namespace lutc {
namespace ops {
namespace {

using kernels::DenseKernels;
using kernels::Epilogue;
using kernels::PanelRun;

class Conv : public OpBase {
 public:
  static constexpr Arity kArity{2, 4, 1, 1};
  using OpBase::OpBase;

  Status init(const BuildContext& build) override {
    dense_ = build.kernels->dense;
    vector_ = build.kernels->vector;
    LUTC_RETURN_IF_ERROR(all_f32());
    LUTC_RETURN_IF_ERROR(parse_activation(def_, &activation_));
    activation_after_residual_ = def_.attrs.get_int("activation_after_residual", 0) != 0;
    groups_ = def_.attrs.get_int("group", 1);
    if (groups_ < 1) return invalid("group must be at least 1");
    if (def_.attrs.get_int("ceil_mode", 0) != 0) return invalid("convolutions have no ceil_mode");
    return Status::ok();
  }

  Status infer(InferContext& ctx) const override {
    Plan plan;
    LUTC_RETURN_IF_ERROR(make_plan(ctx.input_shape(0), ctx.input_shape(1), ctx.num_threads(), &plan));
    if (present(2) && ctx.input_shape(2) != Shape{plan.outputs}) {
      return invalid("bias " + ctx.input_shape(2).to_string() + " is not one value per output channel, " +
                     std::to_string(plan.outputs));
    }
    if (present(3) && ctx.input_shape(3) != plan.shape) {
      return invalid("residual " + ctx.input_shape(3).to_string() + " is not of the output's shape " +
                     plan.shape.to_string());
    }
    LUTC_RETURN_IF_ERROR(ctx.set_output(0, DType::kF32, plan.shape));
    if (plan.thread_bytes < 0 || plan.thread_bytes > std::numeric_limits<int64_t>::max() / ctx.num_threads()) {
      return step_error(def_, ErrorCode::kOutOfMemory, "the scratch size overflows");
    }
    if (plan.thread_bytes > 0) ctx.request_scratch(static_cast<size_t>(plan.thread_bytes * ctx.num_threads()));
    return Status::ok();
  }

  Status run(RunContext& ctx) const override {
    Plan plan;
    LUTC_RETURN_IF_ERROR(make_plan(ctx.input(0).shape, ctx.input(1).shape, ctx.num_threads(), &plan));
    if (plan.shape.elements() == 0) return Status::ok();
    const int64_t work = plan.shape.elements() * plan.depth;
    const int threads = work < 8 * kParallelWork ? 1 : ctx.num_threads();
    char* scratch = static_cast<char*>(ctx.scratch());
    ctx.pool().parallel_for(plan.units, 1, threads, [&](int64_t begin, int64_t end, int worker) {
      char* mine = scratch + worker * plan.thread_bytes;
      for (int64_t unit = begin; unit < end; ++unit) {
        switch (plan.method) {
          case Method::kDepthwise:
            depthwise(ctx, plan, unit, mine, unit == begin);
            break;
          case Method::kDot:
            dots(ctx, plan, unit);
            break;
          default:
            chunk(ctx, plan, unit, mine);
        }
      }
    });
    return Status::ok();
  }

 private:
  enum class Method { kPointwise, kUnrolled, kDepthwise, kDot };
  struct Plan {
    Window window;
    Geometry g;
    Shape shape;
    Method method;
    int64_t batch, inputs, outputs;       ///< channels in all
    int64_t group_inputs, group_outputs;  ///< channels of one group
    int64_t taps, depth;                  ///< kh * kw; group_inputs * taps
    int64_t in_pixels, out_pixels;
    int64_t chunk_panels, chunks;  ///< pixel panels done at once; how many such chunks an image has
    int64_t units;                 ///< pieces of work to share out
    int64_t thread_bytes;
    int64_t padded_height, phase_width;  ///< depthwise: the padded plane, its rows split by column modulo the stride
  };

  Status make_plan(const Shape& x, const Shape& w, int threads, Plan* plan) const {
    if (x.rank != w.rank || x.rank < 3)
      return invalid("input " + x.to_string() + " does not fit weight " + w.to_string());
    LUTC_RETURN_IF_ERROR(read_window(def_, x.rank - 2, &plan->window));
    for (int d = 2; d < w.rank; ++d) {
      int64_t& kernel = plan->window.kernel[d + 2 - w.rank];
      if (w[d] < 1 || (def_.attrs.has("kernel_shape") && kernel != w[d]))
        return invalid("kernel_shape does not fit weight " + w.to_string());
      kernel = w[d];
    }
    plan->batch = x[0];
    plan->inputs = x[1];
    plan->outputs = w[0];
    if (w[1] < 1 || x[1] % groups_ != 0 || x[1] / groups_ != w[1] || w[0] < 1 || w[0] % groups_ != 0) {
      return invalid("input " + x.to_string() + ", weight " + w.to_string() + " and " + std::to_string(groups_) +
                     " groups do not fit");
    }
    const int64_t height = x.rank == 4 ? x[2] : 1;
    Geometry& g = plan->g;
    LUTC_RETURN_IF_ERROR(place_window(def_, plan->window, height, x[x.rank - 1], &g));
    plan->shape = x;
    plan->shape[1] = plan->outputs;
    for (int d = 2; d < x.rank; ++d) plan->shape[d] = g.out[d + 2 - x.rank];
    const Result<int64_t> elements = checked_elements(plan->shape);
    if (!elements.is_ok()) return invalid(elements.status().message());

    plan->group_inputs = w[1];
    plan->group_outputs = plan->outputs / groups_;
    plan->taps = plan->window.kernel[0] * plan->window.kernel[1];
    plan->depth = plan->taps * plan->group_inputs;
    plan->in_pixels = g.in[0] * g.in[1];
    plan->out_pixels = g.out[0] * g.out[1];
    const bool unpadded = g.pads[0] + g.pads[1] + g.pads[2] + g.pads[3] == 0;
    const bool pointwise = plan->taps == 1 && plan->window.strides[0] == 1 && plan->window.strides[1] == 1 && unpadded;
    Pieces pieces;
    if (plan->group_inputs == 1 && plan->taps > 1 && plan->group_outputs <= 4) {
      plan->method = Method::kDepthwise;
      plan->padded_height = g.in[0] + g.pads[0] + g.pads[2];
      plan->phase_width = (g.in[1] + g.pads[1] + g.pads[3]) / plan->window.strides[1] + 1;
      plan->units = plan->batch * plan->outputs;
      Depthwise(*plan, &pieces);
    } else if (pointwise && plan->in_pixels == 1) {
      plan->method = Method::kDot;
      plan->units = plan->batch * groups_;
    } else {
      plan->method = pointwise ? Method::kPointwise : Method::kUnrolled;
      split_pixels(threads, plan);
      Unrolled(*plan, *dense_, &pieces);
    }
    plan->thread_bytes = pieces.bytes();
    return Status::ok();
  }

  /// Chunks small enough for L2 and many enough for the threads.
  void split_pixels(int threads, Plan* plan) const {
    constexpr int64_t kChunkFloats = 64 * 1024;
    const int64_t panels = (plan->out_pixels + dense_->panel_columns - 1) / dense_->panel_columns;
    int64_t chunk = std::max<int64_t>(1, kChunkFloats / (plan->depth * dense_->panel_columns));
    const int64_t images = plan->batch * groups_;
    if (threads > 1 && images < threads) chunk = std::min(chunk, (panels + threads - 1) / threads);
    plan->chunk_panels = std::max<int64_t>(1, std::min(chunk, panels));
    plan->chunks = (panels + plan->chunk_panels - 1) / plan->chunk_panels;
    plan->units = images * plan->chunks;
  }

  /// Scratch of a thread: the unrolled chunk and the runs that fill one panel (at most one per tap and column, and one
  /// that zeroes each tap).
  struct Unrolled {
    float* panels;
    PanelRun* runs = nullptr;
    Unrolled(const Plan& plan, const DenseKernels& dense, Pieces* pieces)
        : panels(pieces->floats(plan.chunk_panels * dense.panel_columns * plan.depth)) {
      if (plan.method == Method::kUnrolled) {
        static_assert(sizeof(PanelRun) == 3 * sizeof(int64_t), "runs are laid out in words");
        runs = reinterpret_cast<PanelRun*>(pieces->ints(3 * plan.taps * dense.panel_columns));
      }
    }
  };
  struct Depthwise {
    float* plane;
    const float** rows;
    int64_t* tap_offsets;
    Depthwise(const Plan& plan, Pieces* pieces)
        : plane(pieces->floats(plan.padded_height * plan.phase_width * plan.window.strides[1])),
          rows(reinterpret_cast<const float**>(pieces->ints(plan.window.kernel[0]))),
          tap_offsets(pieces->ints(plan.window.kernel[1])) {}
  };

  Epilogue epilogue(RunContext& ctx, const Plan& plan, int64_t channel, int64_t output_offset) const {
    Epilogue e;
    if (present(2)) e.row_bias = ctx.input(2).as<float>() + channel;
    if (present(3)) e.residual = ctx.input(3).as<float>() + output_offset;
    e.residual_stride = plan.out_pixels;
    e.activation = activation_;
    e.activation_after_residual = activation_after_residual_;
    return e;
  }

  void chunk(RunContext& ctx, const Plan& plan, int64_t unit, char* memory) const {
    Pieces pieces(memory);
    const Unrolled scratch(plan, *dense_, &pieces);
    const int64_t image = unit / plan.chunks, group = image % groups_, columns = dense_->panel_columns;
    const int64_t first = unit % plan.chunks * plan.chunk_panels * columns;
    const int64_t pixels = std::min(plan.chunk_panels * columns, plan.out_pixels - first);
    const float* x = ctx.input(0).as<float>() + image * plan.group_inputs * plan.in_pixels;
    const float* w = ctx.input(1).as<float>() + group * plan.group_outputs * plan.depth;
    if (plan.method == Method::kPointwise) {
      dense_->pack(x + first, plan.in_pixels, 1, plan.depth, pixels, scratch.panels);
    } else {
      for (int64_t p = 0; p < pixels; p += columns) {
        const int64_t runs = find_runs(plan, first + p, std::min(columns, pixels - p), scratch.runs);
        dense_->fill_panel(x, plan.in_pixels, plan.group_inputs, plan.taps, scratch.runs, runs, plan.window.strides[1],
                           scratch.panels + p * plan.depth);
      }
    }
    const int64_t offset = image * plan.group_outputs * plan.out_pixels + first;
    dense_->gemm(w, plan.depth, scratch.panels, plan.group_outputs, pixels, plan.depth,
                 ctx.output(0).as_mut<float>() + offset, plan.out_pixels,
                 epilogue(ctx, plan, group * plan.group_outputs, offset));
  }

  /// Consecutive output pixels of one row that fall into one vector of a panel.
  struct Segment {
    int32_t vector, lane, length;
    int64_t i, j;  ///< the first pixel
  };
  static constexpr int64_t kMostColumns = 64;  ///< of a panel, on any ISA

  /// What fills the panel of output pixels [first, first + count), for one channel.
  int64_t find_runs(const Plan& plan, int64_t first, int64_t count, PanelRun* runs) const {
    const Geometry& g = plan.g;
    const Window& window = plan.window;
    const int64_t lanes = dense_->lanes, stride = window.strides[1];
    Segment segments[kMostColumns];
    int segment_count = 0;
    int64_t i = first / g.out[1], j = first % g.out[1];
    for (int64_t done = 0; done < count;) {
      const int64_t lane = done % lanes, length = std::min({count - done, lanes - lane, g.out[1] - j});
      segments[segment_count++] = {static_cast<int32_t>(done / lanes), static_cast<int32_t>(lane),
                                   static_cast<int32_t>(length), i, j};
      done += length;
      j += length;
      if (j == g.out[1]) {
        j = 0;
        ++i;
      }
    }
    PanelRun* out = runs;
    for (int64_t v = 0; v < window.kernel[1]; ++v) {
      const int64_t left = v * window.dilations[1] - g.pads[1];
      const int64_t low = left >= 0 ? 0 : (-left + stride - 1) / stride;             // first j whose tap is inside
      const int64_t high = left >= g.in[1] ? 0 : (g.in[1] - 1 - left) / stride + 1;  // one past the last
      for (int64_t u = 0; u < window.kernel[0]; ++u) {
        const int64_t up = u * window.dilations[0] - g.pads[0];
        const int64_t place = (u * window.kernel[1] + v) * dense_->panel_columns;
        for (int s = 0; s < segment_count; ++s) {
          const Segment& segment = segments[s];
          const bool fresh = segment.lane == 0;
          const int64_t h = segment.i * window.strides[0] + up;
          const int64_t from = std::max(segment.j, low), to = std::min(segment.j + segment.length, high);
          PanelRun run{static_cast<int32_t>(place + segment.vector * lanes), 0, 0, fresh, 0};
          if (h >= 0 && h < g.in[0] && from < to) {
            run.low = static_cast<int32_t>(segment.lane + from - segment.j);
            run.high = static_cast<int32_t>(segment.lane + to - segment.j);
            run.offset = h * g.in[1] + (segment.j - segment.lane) * stride + left;
          } else if (!fresh) {
            continue;
          }
          *out++ = run;
        }
      }
    }
    return out - runs;
  }

  void finish_row(const Epilogue& e, float* y, int64_t offset, int64_t n) const {
    if (e.residual == nullptr && e.activation == kernels::Activation::kNone) return;
    vector_->epilogue_row(y, nullptr, e.residual == nullptr ? nullptr : e.residual + offset, e.activation,
                          e.activation_after_residual, y, n);
  }

  void depthwise(RunContext& ctx, const Plan& plan, int64_t unit, char* memory, bool first) const {
    Pieces pieces(memory);
    const Depthwise scratch(plan, &pieces);
    const Geometry& g = plan.g;
    const Window& window = plan.window;
    const int64_t channel = unit % plan.outputs, image = unit / plan.outputs, stride = window.strides[1];
    const int64_t plane = image * plan.inputs + channel / plan.group_outputs, width = plan.phase_width * stride;
    const float* x = ctx.input(0).as<float>() + plane * plan.in_pixels;
    if (first) {
      std::fill(scratch.plane, scratch.plane + plan.padded_height * width, 0.0f);
      for (int64_t v = 0; v < window.kernel[1]; ++v) {
        const int64_t column = v * window.dilations[1];
        scratch.tap_offsets[v] = column % stride * plan.phase_width + column / stride;
      }
    }
    if (first || channel % plan.group_outputs == 0) {
      for (int64_t h = 0; h < g.in[0]; ++h)
        split_phases(plan, x + h * g.in[1], scratch.plane + (h + g.pads[0]) * width);
    }
    const int64_t offset = unit * plan.out_pixels;
    float* y = ctx.output(0).as_mut<float>() + offset;
    const Epilogue e = epilogue(ctx, plan, channel, offset);
    const float bias = e.row_bias == nullptr ? 0.0f : *e.row_bias;
    const float* w = ctx.input(1).as<float>() + channel * plan.taps;
    for (int64_t i = 0; i < g.out[0]; ++i) {
      for (int64_t u = 0; u < window.kernel[0]; ++u) {
        scratch.rows[u] = scratch.plane + (i * window.strides[0] + u * window.dilations[0]) * width;
      }
      float* row = y + i * g.out[1];
      dense_->depthwise_row(scratch.rows, w, window.kernel[0], window.kernel[1], scratch.tap_offsets, bias, row,
                            g.out[1]);
      finish_row(e, row, i * g.out[1], g.out[1]);
    }
  }

  /// Column c of the padded row goes to place c / stride of part c % stride: what a tap reads for neighbouring outputs
  /// then lies side by side.
  void split_phases(const Plan& plan, const float* x, float* row) const {
    const int64_t stride = plan.window.strides[1], pad = plan.g.pads[1], n = plan.g.in[1];
    for (int64_t phase = 0; phase < stride; ++phase) {
      const int64_t first = ((phase - pad) % stride + stride) % stride;
      if (first >= n) continue;
      dense_->gather_strided(x + first, stride, row + phase * plan.phase_width + (first + pad) / stride,
                             (n - first + stride - 1) / stride);
    }
  }

  /// A 1 x 1 convolution of a 1 x 1 image: one dot product per output channel.
  void dots(RunContext& ctx, const Plan& plan, int64_t unit) const {
    const int64_t group = unit % groups_, offset = unit * plan.group_outputs;
    const float* x = ctx.input(0).as<float>() + unit * plan.depth;
    const float* w = ctx.input(1).as<float>() + group * plan.group_outputs * plan.depth;
    float* y = ctx.output(0).as_mut<float>() + offset;
    const Epilogue e = epilogue(ctx, plan, group * plan.group_outputs, offset);
    for (int64_t n = 0; n < plan.group_outputs; ++n) {
      y[n] = dense_->dot(w + n * plan.depth, x, plan.depth) + (e.row_bias == nullptr ? 0.0f : e.row_bias[n]);
    }
    finish_row(e, y, 0, plan.group_outputs);
  }

  const DenseKernels* dense_ = nullptr;
  const kernels::VectorKernels* vector_ = nullptr;
  kernels::Activation activation_ = kernels::Activation::kNone;
  bool activation_after_residual_ = false;
  int64_t groups_ = 1;
};

}  // namespace
}  // namespace ops

void register_dense_conv(OpRegistry& registry) { registry.add("conv", ops::make<ops::Conv>); }

}  // namespace lutc
