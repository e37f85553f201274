// Convolution, 1-D and 2-D, grouped, dilated, with fused bias, residual and activation.
#include "core/ops/conv_direct.h"
#include "core/ops/conv_shallow.h"
#include "core/ops/conv_winograd.h"

namespace lutc {
namespace ops {
namespace {

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
    return pack_weights();
  }

  Status infer(InferContext& ctx) const override {
    ConvShape shape;
    LUTC_RETURN_IF_ERROR(make_shape(ctx.input_shape(0), ctx.input_shape(1), &shape));
    if (present(2) && ctx.input_shape(2) != Shape{shape.outputs}) {
      return invalid("bias " + ctx.input_shape(2).to_string() + " is not one value per output channel, " +
                     std::to_string(shape.outputs));
    }
    if (present(3) && ctx.input_shape(3) != shape.output) {
      return invalid("residual " + ctx.input_shape(3).to_string() + " is not of the output's shape " +
                     shape.output.to_string());
    }
    LUTC_RETURN_IF_ERROR(ctx.set_output(0, DType::kF32, shape.output));
    if (shape.output.elements() == 0 || is_dot(shape) || is_depthwise(shape) || use_shallow(shape)) {
      return Status::ok();
    }
    const int threads = this->threads(shape, ctx.num_threads());
    const int64_t bytes = use_winograd(shape) ? WinogradConv(shape, *dense_, threads).bytes()
                                              : DirectConv(shape, *dense_, !packed_.empty(), threads).bytes();
    return request_scratch(ctx, bytes);
  }

  Status run(RunContext& ctx) const override {
    ConvShape shape;
    LUTC_RETURN_IF_ERROR(make_shape(ctx.input(0).shape, ctx.input(1).shape, &shape));
    if (shape.output.elements() == 0) return Status::ok();
    const bool shallow = use_shallow(shape), winograd = use_winograd(shape);
    const PackedMatrix& packed = shallow ? shallow_ : winograd ? transformed_ : packed_;
    const ConvOperands operands{ctx.input(0).as<float>(),
                                ctx.input(1).as<float>(),
                                packed.empty() ? nullptr : packed.data(),
                                present(2) ? ctx.input(2).as<float>() : nullptr,
                                present(3) ? ctx.input(3).as<float>() : nullptr,
                                ctx.output(0).as_mut<float>(),
                                activation_,
                                activation_after_residual_};
    const int threads = this->threads(shape, ctx.num_threads());
    if (is_dot(shape)) {
      ctx.pool().parallel_for(shape.batch * groups_, 1, threads, [&](int64_t begin, int64_t end, int) {
        for (int64_t unit = begin; unit < end; ++unit) dots(shape, operands, unit);
      });
    } else if (shallow) {
      ShallowConv::run(ctx, *dense_, shape, operands, threads);
    } else if (is_depthwise(shape)) {
      ctx.pool().parallel_for(shape.batch * shape.outputs, 1, threads,
                              [&](int64_t begin, int64_t end, int) { depthwise(shape, operands, begin, end); });
    } else if (winograd) {
      WinogradConv(shape, *dense_, threads).run(ctx, operands, threads);
    } else {
      DirectConv(shape, *dense_, !packed_.empty(), threads).run(ctx, operands, threads);
    }
    return Status::ok();
  }

 private:
  Status pack_weights() {
    const StepDef::Input& w = def_.inputs[1];
    if (!w.constant || w.tensor.data == nullptr || w.tensor.shape.rank < 3) return Status::ok();
    const Shape& shape = w.tensor.shape;
    LUTC_RETURN_IF_ERROR(read_window(def_, shape.rank - 2, &window_));
    window_rank_ = shape.rank;
    const int64_t outputs = shape[0], elements = shape.elements();
    if (elements == 0 || outputs % groups_ != 0) return Status::ok();  // infer() says what is wrong
    const float* data = w.tensor.as<float>();
    if (!packed_.allocate(elements)) return no_memory();
    DirectConv::pack(*dense_, data, outputs, groups_, elements / outputs, packed_.data_mut());
    Window window = window_;
    for (int d = 2; d < shape.rank; ++d) window.kernel[d + 2 - shape.rank] = shape[d];
    if (shape.rank != 4) return Status::ok();
    if (ShallowConv::suits(*dense_, window, shape[1], outputs / groups_)) {
      if (!shallow_.allocate(elements)) return no_memory();
      ShallowConv::pack(*dense_, data, outputs, elements / outputs, shallow_.data_mut());
    }
    if (!WinogradConv::suits(window, shape[1], outputs / groups_)) return Status::ok();
    if (!transformed_.allocate(WinogradConv::packed_floats(outputs, shape[1]))) return no_memory();
    WinogradConv::pack(*dense_, data, outputs, groups_, shape[1], transformed_.data_mut());
    return Status::ok();
  }
  Status no_memory() const { return step_error(def_, ErrorCode::kOutOfMemory, "no memory for the packed weight"); }
  bool use_shallow(const ConvShape& shape) const { return !shallow_.empty() && ShallowConv::suits(*dense_, shape); }
  bool use_winograd(const ConvShape& shape) const { return !transformed_.empty() && WinogradConv::suits(shape); }

  Status make_shape(const Shape& x, const Shape& w, ConvShape* shape) const {
    if (x.rank != w.rank || x.rank < 3)
      return invalid("input " + x.to_string() + " does not fit weight " + w.to_string());
    if (x.rank == window_rank_) {
      shape->window = window_;
    } else {
      LUTC_RETURN_IF_ERROR(read_window(def_, x.rank - 2, &shape->window));
    }
    const bool kernel_given = shape->window.kernel_given;
    for (int d = 2; d < w.rank; ++d) {
      int64_t& kernel = shape->window.kernel[d + 2 - w.rank];
      if (w[d] < 1 || (kernel_given && kernel != w[d]))
        return invalid("kernel_shape does not fit weight " + w.to_string());
      kernel = w[d];
    }
    if (w[1] < 1 || x[1] % groups_ != 0 || x[1] / groups_ != w[1] || w[0] < 1 || w[0] % groups_ != 0) {
      return invalid("input " + x.to_string() + ", weight " + w.to_string() + " and " + std::to_string(groups_) +
                     " groups do not fit");
    }
    const int64_t height = x.rank == 4 ? x[2] : 1;
    Geometry& g = shape->g;
    LUTC_RETURN_IF_ERROR(place_window(def_, shape->window, height, x[x.rank - 1], &g));
    shape->batch = x[0];
    shape->inputs = x[1];
    shape->outputs = w[0];
    shape->groups = groups_;
    shape->output = x;
    shape->output[1] = shape->outputs;
    for (int d = 2; d < x.rank; ++d) shape->output[d] = g.out[d + 2 - x.rank];
    const Result<int64_t> elements = checked_elements(shape->output);
    if (!elements.is_ok()) return invalid(elements.status().message());
    shape->group_inputs = w[1];
    shape->group_outputs = shape->outputs / groups_;
    shape->taps = shape->window.kernel[0] * shape->window.kernel[1];
    shape->depth = shape->taps * shape->group_inputs;
    shape->in_pixels = g.in[0] * g.in[1];
    shape->out_pixels = g.out[0] * g.out[1];
    return Status::ok();
  }

  /// Threads worth waking.
  static int threads(const ConvShape& shape, int available) {
    return shape.output.elements() * shape.depth < 8 * kParallelWork ? 1 : available;
  }

  /// One input channel for an output channel (or a few: many read their image better together), and a window that
  /// DenseKernels::depthwise knows.
  static bool is_depthwise(const ConvShape& s) {
    const Window& w = s.window;
    return s.group_inputs == 1 && s.group_outputs < 4 && w.kernel[0] == w.kernel[1] &&
           (w.kernel[0] == 3 || w.kernel[0] == 5) && w.strides[0] == w.strides[1] && w.strides[0] <= 2 &&
           w.dilations[0] == 1 && w.dilations[1] == 1;
  }

  /// Output planes [begin, end).
  void depthwise(const ConvShape& s, const ConvOperands& operands, int64_t begin, int64_t end) const {
    const Geometry& g = s.g;
    const kernels::DepthwisePlane plane{g.in[0], g.in[1], g.pads[0], g.pads[1], g.out[0], g.out[1]};
    for (int64_t next = begin; next < end;) {
      const int64_t channel = next % s.outputs, offset = next * s.out_pixels;
      const int64_t planes = s.group_outputs == 1 ? std::min(end - next, s.outputs - channel) : 1;
      dense_->depthwise(operands.x + next / s.group_outputs * s.in_pixels, operands.w + channel * s.taps,
                        s.window.kernel[0], s.window.strides[0], plane, planes, operands.y + offset,
                        operands.epilogue(s, channel, offset));
      next += planes;
    }
  }

  /// One output position that reads whole channels: a dot product per output channel.
  static bool is_dot(const ConvShape& shape) {
    return shape.in_pixels == 1 && shape.taps == 1 && shape.out_pixels == 1;
  }

  void dots(const ConvShape& shape, const ConvOperands& operands, int64_t unit) const {
    const int64_t n = shape.group_outputs, channel = unit % groups_ * n, offset = unit * n;
    const float* x = operands.x + unit * shape.depth;
    const float* w = operands.w + channel * shape.depth;
    float* y = operands.y + offset;
    for (int64_t i = 0; i < n; ++i) {
      y[i] = dense_->dot(w + i * shape.depth, x, shape.depth) +
             (operands.bias == nullptr ? 0.0f : operands.bias[channel + i]);
    }
    if (operands.residual == nullptr && activation_ == kernels::Activation::kNone) return;
    vector_->epilogue_row(y, nullptr, operands.residual == nullptr ? nullptr : operands.residual + offset, activation_,
                          activation_after_residual_, y, n);
  }

  const kernels::DenseKernels* dense_ = nullptr;
  const kernels::VectorKernels* vector_ = nullptr;
  PackedMatrix packed_;       ///< constant weights, as DirectConv wants them
  PackedMatrix shallow_;      ///< the same for ShallowConv, where that suits
  PackedMatrix transformed_;  ///< the same for WinogradConv, where that suits
  Window window_;             ///< read at load, for inputs of rank window_rank_
  int window_rank_ = -1;
  kernels::Activation activation_ = kernels::Activation::kNone;
  bool activation_after_residual_ = false;
  int64_t groups_ = 1;
};

}  // namespace
}  // namespace ops

void register_dense_conv(OpRegistry& registry) { registry.add("conv", ops::make<ops::Conv>); }

}  // namespace lutc
