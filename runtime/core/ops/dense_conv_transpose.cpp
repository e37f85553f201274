// Transposed convolution, 1-D and 2-D: per output channel, a product gives every tap's contribution, which is then
// added into the plane.
#include "core/ops/dense_gemm.h"
#include "core/ops/window.h"

namespace lutc {
namespace ops {
namespace {

class ConvTranspose : public OpBase {
 public:
  static constexpr Arity kArity{2, 3, 1, 1};
  using OpBase::OpBase;

  Status init(const BuildContext& build) override {
    dense_ = build.kernels->dense;
    LUTC_RETURN_IF_ERROR(all_f32());
    groups_ = def_.attrs.get_int("group", 1);
    if (groups_ < 1) return invalid("group must be at least 1");
    padding_ = def_.attrs.get_ints("output_padding", {});
    wanted_ = def_.attrs.get_ints("output_shape", {});
    for (int spatial = 1; spatial <= 2; ++spatial)
      problems_[spatial - 1] = read_window(def_, spatial, &windows_[spatial - 1]);
    return Status::ok();
  }

  Status infer(InferContext& ctx) const override {
    Plan plan;
    LUTC_RETURN_IF_ERROR(make_plan(ctx.input_shape(0), ctx.input_shape(1), &plan));
    if (present(2) && ctx.input_shape(2) != Shape{plan.outputs}) {
      return invalid("bias " + ctx.input_shape(2).to_string() + " is not one value per output channel, " +
                     std::to_string(plan.outputs));
    }
    LUTC_RETURN_IF_ERROR(ctx.set_output(0, DType::kF32, plan.shape));
    return request_scratch(ctx, plan.thread_bytes, ctx.num_threads());
  }

  Status run(RunContext& ctx) const override {
    Plan plan;
    LUTC_RETURN_IF_ERROR(make_plan(ctx.input(0).shape, ctx.input(1).shape, &plan));
    if (plan.shape.elements() == 0) return Status::ok();
    const int threads = plan.shape.elements() * plan.taps < 8 * kParallelWork ? 1 : ctx.num_threads();
    // A unit is one output channel of one image; neighbours share the packed input of their group.
    ctx.pool().parallel_for(plan.batch * plan.outputs, 1, threads, [&](int64_t begin, int64_t end, int worker) {
      Pieces pieces(static_cast<char*>(ctx.scratch()) + worker * plan.thread_bytes);
      const Scratch scratch(plan, *dense_, &pieces);
      int64_t packed_group = -1;
      for (int64_t unit = begin; unit < end; ++unit) {
        const int64_t group = unit / plan.group_outputs;  // counted over images too
        if (group != packed_group) {
          const float* x = ctx.input(0).as<float>() + group * plan.group_inputs * plan.in_pixels;
          dense_->pack(x, plan.in_pixels, 1, plan.group_inputs, plan.in_pixels, scratch.input);
          packed_group = group;
        }
        channel(ctx, plan, unit, scratch);
      }
    });
    return Status::ok();
  }

 private:
  struct Plan {
    Window window;
    int64_t in[2], out[2], pads[2];
    Shape shape;
    int64_t batch, inputs, outputs, group_inputs, group_outputs, taps, in_pixels, out_pixels, thread_bytes;
  };
  struct Scratch {
    float *input, *weight, *taps;
    Scratch(const Plan& plan, const kernels::DenseKernels& dense, Pieces* pieces)
        : input(pieces->floats(kernels::packed_floats(dense, plan.group_inputs, plan.in_pixels))),
          weight(pieces->floats(plan.taps * plan.group_inputs)),
          taps(pieces->floats(plan.taps * plan.in_pixels)) {}
  };

  Status make_plan(const Shape& x, const Shape& w, Plan* plan) const {
    if (x.rank != w.rank || x.rank < 3)
      return invalid("input " + x.to_string() + " does not fit weight " + w.to_string());
    const int spatial = x.rank - 2;
    Window& window = plan->window;
    if (spatial > 2) return read_window(def_, spatial, &window);  // refuses
    LUTC_RETURN_IF_ERROR(problems_[spatial - 1]);
    window = windows_[spatial - 1];
    for (int d = 0; d < spatial; ++d) {
      int64_t& kernel = window.kernel[2 - spatial + d];
      if (w[2 + d] < 1 || (def_.attrs.has("kernel_shape") && kernel != w[2 + d]))
        return invalid("kernel_shape does not fit weight " + w.to_string());
      kernel = w[2 + d];
    }
    if (w[0] != x[1] || x[1] < 1 || w[1] < 1 || x[1] % groups_ != 0) {
      return invalid("input " + x.to_string() + ", weight " + w.to_string() + " and " + std::to_string(groups_) +
                     " groups do not fit");
    }
    plan->batch = x[0];
    plan->inputs = x[1];
    plan->group_inputs = x[1] / groups_;
    plan->group_outputs = w[1];
    plan->outputs = w[1] * groups_;
    plan->taps = window.kernel[0] * window.kernel[1];
    const size_t dims = static_cast<size_t>(spatial);
    if ((!padding_.empty() && padding_.size() != dims) || (!wanted_.empty() && wanted_.size() != dims))
      return invalid("output_padding or output_shape has a wrong length");
    plan->shape = x;
    plan->shape[1] = plan->outputs;
    for (int d = 0; d < 2; ++d) {
      const int at = d - (2 - spatial);
      plan->in[d] = at < 0 ? 1 : x[2 + at];
      if (plan->in[d] < 1) return invalid("input " + x.to_string() + " has empty images");
      const int64_t more = at < 0 || padding_.empty() ? 0 : padding_[static_cast<size_t>(at)];
      if (more < 0 || more >= std::max(window.strides[d], window.dilations[d])) {
        if (more != 0) return invalid("output_padding must be smaller than the stride or the dilation");
      }
      const int64_t full = (plan->in[d] - 1) * window.strides[d] + window.extent(d) + more;
      const bool same = window.auto_pad == Window::Auto::kSameUpper || window.auto_pad == Window::Auto::kSameLower;
      if (!wanted_.empty() || same) {
        // The pads follow from the wanted size; the odd one goes to the end (SAME_UPPER) or to the start.
        plan->out[d] = at < 0             ? 1
                       : !wanted_.empty() ? wanted_[static_cast<size_t>(at)]
                                          : plan->in[d] * window.strides[d];
        const int64_t total = std::max<int64_t>(0, full - plan->out[d]);
        plan->pads[d] = window.auto_pad == Window::Auto::kSameUpper ? total / 2 : total - total / 2;
        if (plan->out[d] < 1 || plan->out[d] > full + more) return invalid("output_shape is out of range");
      } else {
        const bool valid = window.auto_pad == Window::Auto::kValid;
        plan->pads[d] = valid ? 0 : window.pads[d];
        plan->out[d] = full - plan->pads[d] - (valid ? 0 : window.pads[2 + d]);
        if (plan->out[d] < 1) return invalid("pads leave no output pixel");
      }
      if (at >= 0) plan->shape[2 + at] = plan->out[d];
    }
    const Result<int64_t> elements = checked_elements(plan->shape);
    if (!elements.is_ok()) return invalid(elements.status().message());
    plan->in_pixels = plan->in[0] * plan->in[1];
    plan->out_pixels = plan->out[0] * plan->out[1];
    Pieces pieces;
    Scratch(*plan, *dense_, &pieces);
    plan->thread_bytes = pieces.bytes();
    return Status::ok();
  }

  void channel(RunContext& ctx, const Plan& plan, int64_t unit, const Scratch& scratch) const {
    const Window& window = plan.window;
    const int64_t output = unit % plan.outputs, group = output / plan.group_outputs;
    const int64_t first_input = group * plan.group_inputs, local = output % plan.group_outputs;
    const float* w = ctx.input(1).as<float>() + (first_input * plan.group_outputs + local) * plan.taps;
    for (int64_t c = 0; c < plan.group_inputs; ++c) {
      for (int64_t t = 0; t < plan.taps; ++t)
        scratch.weight[t * plan.group_inputs + c] = w[c * plan.group_outputs * plan.taps + t];
    }
    dense_->gemm(scratch.weight, plan.group_inputs, scratch.input, plan.taps, plan.in_pixels, plan.group_inputs,
                 scratch.taps, plan.in_pixels, kernels::Epilogue());
    float* y = ctx.output(0).as_mut<float>() + unit * plan.out_pixels;
    std::fill(y, y + plan.out_pixels, present(2) ? ctx.input(2).as<float>()[output] : 0.0f);
    for (int64_t t = 0; t < plan.taps; ++t) {
      const int64_t up = t / window.kernel[1] * window.dilations[0] - plan.pads[0];
      const int64_t left = t % window.kernel[1] * window.dilations[1] - plan.pads[1], stride = window.strides[1];
      const int64_t low = left >= 0 ? 0 : (-left + stride - 1) / stride;
      const int64_t high = left >= plan.out[1] ? 0 : std::min(plan.in[1], (plan.out[1] - 1 - left) / stride + 1);
      const float* from = scratch.taps + t * plan.in_pixels;
      for (int64_t i = 0; i < plan.in[0]; ++i, from += plan.in[1]) {
        const int64_t h = i * window.strides[0] + up;
        if (h < 0 || h >= plan.out[0]) continue;
        float* row = y + h * plan.out[1] + left;
        for (int64_t j = low; j < high; ++j) row[j * stride] += from[j];
      }
    }
  }

  const kernels::DenseKernels* dense_ = nullptr;
  int64_t groups_ = 1;
  Window windows_[2];   ///< of one and of two spatial dims
  Status problems_[2];  ///< why there is none
  std::vector<int64_t> padding_, wanted_;
};

}  // namespace
}  // namespace ops

void register_dense_conv_transpose(OpRegistry& registry) {
  registry.add("conv_transpose", ops::make<ops::ConvTranspose>);
}

}  // namespace lutc
