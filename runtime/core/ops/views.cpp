// Steps that change a shape and move no byte: reshape, flatten, squeeze, unsqueeze, identity; and shape and size, which
// read no data at all.
#include "core/ops/common.h"

namespace lutc {
namespace ops {
namespace {

/// Output 0 is input 0 under another shape.
class View : public OpBase {
 public:
  using OpBase::OpBase;

  Status infer(InferContext& ctx) const override {
    Shape out;
    LUTC_RETURN_IF_ERROR(view(ctx, &out));
    LUTC_RETURN_IF_ERROR(ctx.set_output(0, dtype(0), out));
    ctx.alias(0, 0);
    return Status::ok();
  }
  Status run(RunContext& ctx) const override {
    copy_view(ctx);
    return Status::ok();
  }

 protected:
  virtual Status view(const InferContext& ctx, Shape* out) const = 0;

  /// Marks the listed axes of a tensor of this rank; each may be listed once.
  Status mark_axes(const std::vector<int64_t>& axes, int rank, bool* mask) const {
    for (int64_t value : axes) {
      Result<int> a = axis(value, rank);
      if (!a.is_ok()) return a.status();
      if (mask[a.value()]) return invalid("axis " + std::to_string(value) + " is listed twice");
      mask[a.value()] = true;
    }
    return Status::ok();
  }
};

class Identity final : public View {
 public:
  static constexpr Arity kArity{1, 1, 1, 1};
  using View::View;

 protected:
  Status view(const InferContext& ctx, Shape* out) const override {
    *out = ctx.input_shape(0);
    return Status::ok();
  }
};

class Reshape final : public View {
 public:
  static constexpr Arity kArity{2, 2, 1, 1};
  using View::View;

 protected:
  Status view(const InferContext& ctx, Shape* out) const override {
    Result<std::vector<int64_t>> known = known_ints(ctx, 1, "the shape");
    if (!known.is_ok()) return known.status();
    const std::vector<int64_t>& dims = known.value();
    const Shape& in = ctx.input_shape(0);
    if (dims.size() > kMaxRank)
      return unsupported("rank " + std::to_string(dims.size()) + " is above " + std::to_string(kMaxRank));
    const bool keep_zero = def_.attrs.get_int("allowzero", 0) != 0;
    Shape shape;
    shape.rank = static_cast<int>(dims.size());
    int free_dim = -1;
    for (int d = 0; d < shape.rank; ++d) {
      shape[d] = dims[static_cast<size_t>(d)];
      if (shape[d] == 0 && !keep_zero) {
        if (d >= in.rank)
          return invalid("dim " + std::to_string(d) + " of the new shape is 0, which copies a dim the input has not");
        shape[d] = in[d];
      } else if (shape[d] == -1) {
        if (free_dim >= 0) return invalid("more than one dim is -1");
        free_dim = d;
        shape[d] = 1;
      }
    }
    const Result<int64_t> rest = checked_elements(shape);
    if (!rest.is_ok()) return invalid("bad shape " + shape.to_string());
    const int64_t total = in.elements();
    if (free_dim >= 0 && rest.value() > 0) shape[free_dim] = total / rest.value();
    if (free_dim >= 0 && rest.value() == 0 && total == 0) return invalid("-1 is ambiguous in a shape with a zero");
    if (checked_elements(shape).value() != total) {
      return invalid("cannot reshape " + in.to_string() + " to " + shape.to_string());
    }
    *out = shape;
    return Status::ok();
  }
};

class Flatten final : public View {
 public:
  static constexpr Arity kArity{1, 1, 1, 1};
  using View::View;

 protected:
  Status view(const InferContext& ctx, Shape* out) const override {
    const Shape& in = ctx.input_shape(0);
    int64_t at = def_.attrs.get_int("axis", 1);
    if (at < -in.rank || at > in.rank)
      return invalid("axis " + std::to_string(at) + " is outside rank " + std::to_string(in.rank));
    if (at < 0) at += in.rank;
    *out = {in.product(0, static_cast<int>(at)), in.product(static_cast<int>(at), in.rank)};
    return Status::ok();
  }
};

class Squeeze final : public View {
 public:
  static constexpr Arity kArity{1, 2, 1, 1};
  using View::View;

 protected:
  Status view(const InferContext& ctx, Shape* out) const override {
    const Shape& in = ctx.input_shape(0);
    bool drop[kMaxRank] = {};
    if (present(1)) {
      Result<std::vector<int64_t>> axes = known_ints(ctx, 1, "the list of axes");
      if (!axes.is_ok()) return axes.status();
      LUTC_RETURN_IF_ERROR(mark_axes(axes.value(), in.rank, drop));
    } else if (def_.attrs.has("axes")) {
      LUTC_RETURN_IF_ERROR(mark_axes(def_.attrs.get_ints("axes", {}), in.rank, drop));
    } else {
      for (int d = 0; d < in.rank; ++d) drop[d] = in[d] == 1;
    }
    Shape shape;
    for (int d = 0; d < in.rank; ++d) {
      if (drop[d] && in[d] != 1) return invalid("axis " + std::to_string(d) + " of " + in.to_string() + " is not 1");
      if (!drop[d]) shape[shape.rank++] = in[d];
    }
    *out = shape;
    return Status::ok();
  }
};

class Unsqueeze final : public View {
 public:
  static constexpr Arity kArity{1, 2, 1, 1};
  using View::View;

 protected:
  Status view(const InferContext& ctx, Shape* out) const override {
    std::vector<int64_t> axes = def_.attrs.get_ints("axes", {});
    if (present(1)) {
      Result<std::vector<int64_t>> known = known_ints(ctx, 1, "the list of axes");
      if (!known.is_ok()) return known.status();
      axes = known.value();
    }
    const Shape& in = ctx.input_shape(0);
    if (axes.size() > static_cast<size_t>(kMaxRank - in.rank))
      return unsupported("the result's rank is above " + std::to_string(kMaxRank));
    Shape shape;
    shape.rank = in.rank + static_cast<int>(axes.size());
    bool fresh[kMaxRank] = {};
    LUTC_RETURN_IF_ERROR(mark_axes(axes, shape.rank, fresh));
    for (int d = 0, from = 0; d < shape.rank; ++d) shape[d] = fresh[d] ? 1 : in[from++];
    *out = shape;
    return Status::ok();
  }
};

/// shape and size: their value follows from the input's shape alone.
class ShapeOf final : public OpBase {
 public:
  static constexpr Arity kArity{1, 1, 1, 1};
  using OpBase::OpBase;

  Status infer(InferContext& ctx) const override {
    if (def_.op == "size") return ctx.set_output(0, DType::kI64, {});
    int from, to;
    range(ctx.input_shape(0).rank, &from, &to);
    return ctx.set_output(0, DType::kI64, {to - from});
  }

  Status run(RunContext& ctx) const override {
    const Shape& in = ctx.input(0).shape;
    int64_t* out = ctx.output(0).as_mut<int64_t>();
    if (def_.op == "size") {
      *out = in.elements();
      return Status::ok();
    }
    int from, to;
    range(in.rank, &from, &to);
    for (int d = from; d < to; ++d) out[d - from] = in[d];
    return Status::ok();
  }

 private:
  /// The dims asked for: start and end count from the back when negative and are clamped.
  void range(int rank, int* from, int* to) const {
    const auto clamp = [rank](int64_t v) {
      return static_cast<int>(std::clamp<int64_t>(v < 0 ? v + rank : v, 0, rank));
    };
    *from = clamp(def_.attrs.get_int("start", 0));
    *to = std::max(*from, clamp(def_.attrs.get_int("end", rank)));
  }
};

}  // namespace
}  // namespace ops

void register_views(OpRegistry& registry) {
  registry.add("identity", ops::make<ops::Identity>);
  registry.add("reshape", ops::make<ops::Reshape>);
  registry.add("flatten", ops::make<ops::Flatten>);
  registry.add("squeeze", ops::make<ops::Squeeze>);
  registry.add("unsqueeze", ops::make<ops::Unsqueeze>);
  registry.add("shape", ops::make<ops::ShapeOf>);
  registry.add("size", ops::make<ops::ShapeOf>);
}

}  // namespace lutc
