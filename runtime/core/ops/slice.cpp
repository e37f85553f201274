// slice (starts, ends, axes, steps; negative steps and clamping as in NumPy), expand and tile: strided views made real.
#include "core/ops/common.h"

namespace lutc {
namespace ops {
namespace {

class Slice final : public OpBase {
 public:
  static constexpr Arity kArity{3, 5, 1, 1};
  using OpBase::OpBase;

  Status init(const BuildContext&) override {
    for (size_t i = 1; i < 5; ++i) LUTC_RETURN_IF_ERROR(expect_index_dtype(i));
    return Status::ok();
  }

  Status infer(InferContext& ctx) const override {
    static constexpr const char* kNames[] = {"", "starts", "ends", "axes", "steps"};
    TensorView lists[5];
    for (int i = 1; i < 5; ++i) {
      if (!present(static_cast<size_t>(i))) continue;
      const Result<std::vector<int64_t>> known = known_ints(ctx, i, kNames[i]);
      if (!known.is_ok()) return known.status();
      lists[i] = ctx.input_value(i);
      lists[i].shape = ctx.input_shape(i);
      lists[i].dtype = ctx.input_dtype(i);
    }
    Plan plan;
    LUTC_RETURN_IF_ERROR(work_out(ctx.input_shape(0), lists, &plan));
    LUTC_RETURN_IF_ERROR(ctx.set_output(0, dtype(0), plan.out));
    if (plan.out == ctx.input_shape(0) && plan.forward) ctx.alias(0, 0);
    return Status::ok();
  }

  Status run(RunContext& ctx) const override {
    const TensorView &x = ctx.input(0), &y = ctx.output(0);
    if (x.data == y.data || y.shape.elements() == 0) return Status::ok();
    TensorView lists[5];
    for (int i = 1; i < 5; ++i) {
      if (present(static_cast<size_t>(i))) lists[i] = ctx.input(i);
    }
    Plan plan;
    LUTC_RETURN_IF_ERROR(work_out(x.shape, lists, &plan));
    if (plan.out != y.shape)
      return step_error(def_, ErrorCode::kInternal, "the slice changed after its shape was known");
    int64_t strides[kMaxRank], offset = 0;
    row_major_strides(x.shape, strides);
    StridedLoop<1> loop;
    for (int d = 0; d < y.shape.rank; ++d) {
      offset += plan.start[d] * strides[d];
      loop.push(y.shape[d], {y.shape[d] == 1 ? 0 : plan.step[d] * strides[d]});
    }
    strided_copy(ctx, loop, y.dtype, x.as<char>() + offset * static_cast<int64_t>(dtype_size(y.dtype)), y);
    return Status::ok();
  }

 private:
  struct Plan {
    Shape out;
    int64_t start[kMaxRank] = {}, step[kMaxRank] = {};
    bool forward = true;  ///< every step is positive
  };

  Status work_out(const Shape& in, const TensorView (&lists)[5], Plan* plan) const {
    plan->out = in;
    for (int d = 0; d < in.rank; ++d) plan->step[d] = 1;
    const int64_t count = lists[1].shape.elements();
    for (int i = 2; i < 5; ++i) {
      if (present(static_cast<size_t>(i)) && lists[i].shape.elements() != count)
        return invalid("starts, ends, axes and steps differ in length");
    }
    bool seen[kMaxRank] = {};
    for (int64_t i = 0; i < count; ++i) {
      const Result<int> at = axis(present(3) ? int_at(lists[3], i) : i, in.rank);
      if (!at.is_ok()) return at.status();
      const int d = at.value();
      if (seen[d]) return invalid("axis " + std::to_string(d) + " is listed twice");
      seen[d] = true;
      const int64_t dim = in[d], step = present(4) ? int_at(lists[4], i) : 1;
      if (step == 0) return invalid("a step is 0");
      if (step == std::numeric_limits<int64_t>::min()) return invalid("a step is out of range");
      int64_t start = int_at(lists[1], i), end = int_at(lists[2], i);
      if (start < 0) start += dim;
      if (end < 0) end += dim;
      start =
          step > 0 ? std::clamp<int64_t>(start, 0, dim) : std::clamp<int64_t>(start, 0, std::max<int64_t>(dim - 1, 0));
      end = step > 0 ? std::clamp<int64_t>(end, 0, dim) : std::clamp<int64_t>(end, -1, std::max<int64_t>(dim - 1, -1));
      const int64_t length = step > 0 ? end - start : start - end, pace = step > 0 ? step : -step;
      plan->out[d] = dim == 0 || length <= 0 ? 0 : (length - 1) / pace + 1;
      plan->start[d] = start;
      plan->step[d] = plan->out[d] <= 1 ? 1 : step;
      plan->forward = plan->forward && step > 0;
    }
    return Status::ok();
  }
};

class Expand final : public OpBase {
 public:
  static constexpr Arity kArity{2, 2, 1, 1};
  using OpBase::OpBase;

  Status infer(InferContext& ctx) const override {
    const Result<std::vector<int64_t>> known = known_ints(ctx, 1, "the shape");
    if (!known.is_ok()) return known.status();
    if (known.value().size() > kMaxRank) return unsupported("the result's rank is above " + std::to_string(kMaxRank));
    Shape target, out;
    for (int64_t dim : known.value()) target[target.rank++] = dim;
    if (!checked_elements(target).is_ok() || !broadcast(ctx.input_shape(0), target, &out)) {
      return invalid("cannot expand " + ctx.input_shape(0).to_string() + " to " + target.to_string());
    }
    LUTC_RETURN_IF_ERROR(ctx.set_output(0, dtype(0), out));
    if (out.elements() == ctx.input_shape(0).elements()) ctx.alias(0, 0);
    return Status::ok();
  }

  Status run(RunContext& ctx) const override {
    const TensorView &x = ctx.input(0), &y = ctx.output(0);
    if (x.data == y.data || y.shape.elements() == 0) return Status::ok();
    strided_copy(ctx, broadcast_loop<1>(y.shape, {&x.shape}), y.dtype, x.data, y);
    return Status::ok();
  }
};

class Tile final : public OpBase {
 public:
  static constexpr Arity kArity{2, 2, 1, 1};
  using OpBase::OpBase;

  Status infer(InferContext& ctx) const override {
    const Result<std::vector<int64_t>> repeats = known_ints(ctx, 1, "the list of repeats");
    if (!repeats.is_ok()) return repeats.status();
    const Shape& in = ctx.input_shape(0);
    if (repeats.value().size() != static_cast<size_t>(in.rank)) return invalid("one repeat per dim is needed");
    Shape out = in;
    for (int d = 0; d < in.rank; ++d) {
      const int64_t repeat = repeats.value()[static_cast<size_t>(d)];
      if (repeat < 0 || __builtin_mul_overflow(in[d], repeat, &out[d])) {
        return invalid("repeat " + std::to_string(repeat) + " of axis " + std::to_string(d) + " is out of range");
      }
    }
    LUTC_RETURN_IF_ERROR(ctx.set_output(0, dtype(0), out));
    if (out == in) ctx.alias(0, 0);
    return Status::ok();
  }

  Status run(RunContext& ctx) const override {
    const TensorView &x = ctx.input(0), &y = ctx.output(0);
    if (x.data == y.data || y.shape.elements() == 0) return Status::ok();
    int64_t strides[kMaxRank];
    row_major_strides(x.shape, strides);
    StridedLoop<1> loop;  // [repeat 0, dim 0, repeat 1, dim 1, ...]
    for (int d = 0; d < y.shape.rank; ++d) {
      loop.push(y.shape[d] / x.shape[d], {0});
      loop.push(x.shape[d], {strides[d]});
    }
    strided_copy(ctx, loop, y.dtype, x.data, y);
    return Status::ok();
  }
};

}  // namespace
}  // namespace ops

void register_slice(OpRegistry& registry) {
  registry.add("slice", ops::make<ops::Slice>);
  registry.add("expand", ops::make<ops::Expand>);
  registry.add("tile", ops::make<ops::Tile>);
}

}  // namespace lutc
