// pad: constant, reflect, edge and wrap. Negative pads crop first.
#include "core/ops/common.h"

namespace lutc {
namespace ops {
namespace {

class Pad final : public OpBase {
 public:
  static constexpr Arity kArity{2, 4, 1, 1};
  using OpBase::OpBase;

  Status init(const BuildContext&) override {
    LUTC_RETURN_IF_ERROR(expect_index_dtype(1));
    LUTC_RETURN_IF_ERROR(expect_index_dtype(3));
    LUTC_RETURN_IF_ERROR(same_dtypes({2}));
    const std::string mode = def_.attrs.get_string("mode", "constant");
    if (mode == "constant")
      mode_ = Mode::kConstant;
    else if (mode == "reflect")
      mode_ = Mode::kReflect;
    else if (mode == "edge")
      mode_ = Mode::kEdge;
    else if (mode == "wrap")
      mode_ = Mode::kWrap;
    else
      return unsupported("mode '" + mode + "'");
    return Status::ok();
  }

  Status infer(InferContext& ctx) const override {
    const Result<std::vector<int64_t>> pads = known_ints(ctx, 1, "pads");
    if (!pads.is_ok()) return pads.status();
    TensorView lists[2] = {view(ctx, 1), {}};
    if (present(3)) {
      const Result<std::vector<int64_t>> axes = known_ints(ctx, 3, "axes");
      if (!axes.is_ok()) return axes.status();
      lists[1] = view(ctx, 3);
    }
    if (present(2) && ctx.input_shape(2).elements() != 1) return invalid("the pad value must be a scalar");
    Shape out;
    int64_t begin[kMaxRank];
    LUTC_RETURN_IF_ERROR(work_out(ctx.input_shape(0), lists[0], lists[1], &out, begin));
    LUTC_RETURN_IF_ERROR(ctx.set_output(0, dtype(0), out));
    if (out.elements() > 0) {  // one source index per output coordinate and axis
      int64_t entries = 0;
      for (int d = 0; d < out.rank; ++d) entries += out[d];
      ctx.request_scratch(static_cast<size_t>(entries) * sizeof(int64_t));
    }
    if (out == ctx.input_shape(0) && std::all_of(begin, begin + out.rank, [](int64_t b) { return b == 0; }))
      ctx.alias(0, 0);
    return Status::ok();
  }

  Status run(RunContext& ctx) const override {
    const TensorView &x = ctx.input(0), &y = ctx.output(0);
    if (x.data == y.data || y.shape.elements() == 0) return Status::ok();
    Shape out;
    int64_t begin[kMaxRank];
    LUTC_RETURN_IF_ERROR(work_out(x.shape, ctx.input(1), present(3) ? ctx.input(3) : TensorView{}, &out, begin));
    if (out != y.shape) return step_error(def_, ErrorCode::kInternal, "the pads changed after the shape was known");
    visit_bytes(x.dtype, [&](auto t) {
      using T = typename decltype(t)::type;
      pad<T>(ctx, x, y, begin, present(2) ? *ctx.input(2).as<T>() : T{0});
    });
    return Status::ok();
  }

 private:
  enum class Mode { kConstant, kReflect, kEdge, kWrap };

  static TensorView view(const InferContext& ctx, int i) {
    TensorView v = ctx.input_value(i);
    v.dtype = ctx.input_dtype(i);
    v.shape = ctx.input_shape(i);
    return v;
  }

  /// begin[d]: coordinate of the output at which the input's first element lies (negative when cropped).
  Status work_out(const Shape& in, const TensorView& pads, const TensorView& axes, Shape* out, int64_t* begin) const {
    *out = in;
    std::fill(begin, begin + kMaxRank, 0);
    const int64_t count = present(3) ? axes.shape.elements() : in.rank;
    if (count > in.rank || pads.shape.elements() != 2 * count) return invalid("two pads per axis are needed");
    bool seen[kMaxRank] = {};
    for (int64_t i = 0; i < count; ++i) {
      const Result<int> at = axis(present(3) ? int_at(axes, i) : i, in.rank);
      if (!at.is_ok()) return at.status();
      const int d = at.value();
      if (seen[d]) return invalid("axis " + std::to_string(d) + " is listed twice");
      seen[d] = true;
      const int64_t before = int_at(pads, i), after = int_at(pads, i + count);
      int64_t dim = in[d];
      if (__builtin_add_overflow(dim, before, &dim) || __builtin_add_overflow(dim, after, &dim) || dim < 0) {
        return invalid("pads " + std::to_string(before) + " and " + std::to_string(after) + " do not fit dim " +
                       std::to_string(in[d]));
      }
      const int64_t kept = in[d] + std::min<int64_t>(before, 0) + std::min<int64_t>(after, 0);
      if (kept < 0) return invalid("pads crop more than dim " + std::to_string(in[d]));
      if (kept == 0 && dim > 0 && mode_ != Mode::kConstant)
        return invalid("nothing to repeat along axis " + std::to_string(d));
      (*out)[d] = dim;
      begin[d] = before;
    }
    return Status::ok();
  }

  /// Source coordinate of output coordinate i along an axis, or -1 for the pad value.
  int64_t source(int64_t i, int64_t in, int64_t out, int64_t begin) const {
    const int64_t first = std::max<int64_t>(-begin, 0);      // cropped in front
    const int64_t kept = std::min(in, out - begin) - first;  // what is left of the input
    int64_t at = i - std::max<int64_t>(begin, 0);            // coordinate within the kept part
    if (at >= 0 && at < kept) return first + at;
    switch (mode_) {
      case Mode::kConstant:
        return -1;
      case Mode::kEdge:
        return first + std::clamp<int64_t>(at, 0, kept - 1);
      case Mode::kWrap:
        return first + ((at % kept) + kept) % kept;
      case Mode::kReflect: {
        if (kept == 1) return first;
        const int64_t period = 2 * (kept - 1);
        at = ((at % period) + period) % period;
        return first + (at < kept ? at : period - at);
      }
    }
    return -1;
  }

  template <class T>
  void pad(RunContext& ctx, const TensorView& x, const TensorView& y, const int64_t* begin, T value) const {
    const T* from = x.as<T>();
    T* to = y.as_mut<T>();
    if (y.shape.rank == 0) {
      *to = *from;
      return;
    }
    // Trailing axes that keep all their elements are one axis with the last that does not.
    const bool constant = mode_ == Mode::kConstant;
    Shape in = x.shape, out_shape = y.shape;
    int last = out_shape.rank - 1;
    int64_t inner = 1;
    for (; constant && last > 0 && begin[last] == 0 && in[last] == out_shape[last]; --last) inner *= in[last];
    const int64_t shift = begin[last] * inner;
    in[last] *= inner;
    out_shape[last] *= inner;
    int64_t* maps[kMaxRank];
    int64_t* next = static_cast<int64_t*>(ctx.scratch());
    for (int d = 0; d < (constant ? last : last + 1); ++d) {
      maps[d] = next;
      for (int64_t i = 0; i < out_shape[d]; ++i) *next++ = source(i, in[d], out_shape[d], begin[d]);
    }
    const int64_t width = out_shape[last], rows = y.shape.elements() / width;
    // The part of a row that is a plain copy.
    const int64_t copy_to = std::max<int64_t>(shift, 0), copy_from = std::max<int64_t>(-shift, 0);
    const int64_t run = std::max<int64_t>(0, std::min(in[last], width - shift) - copy_from);
    parallel(ctx, rows, rows * width, 1, [&](int64_t row_begin, int64_t row_end) {
      for (int64_t r = row_begin; r < row_end; ++r) {
        T* row = to + r * width;
        int64_t rest = r, offset = 0, stride = in[last];
        bool inside = true;
        for (int d = last - 1; d >= 0; --d) {
          const int64_t at = maps[d][rest % out_shape[d]];
          inside = inside && at >= 0;
          offset += at * stride;
          stride *= in[d];
          rest /= out_shape[d];
        }
        if (!inside || run == 0) {
          std::fill_n(row, width, value);
          continue;
        }
        const T* source_row = from + offset;
        const auto edge = [&](int64_t first, int64_t end) {
          if (constant) return static_cast<void>(std::fill(row + first, row + end, value));
          for (int64_t i = first; i < end; ++i) row[i] = maps[last][i] < 0 ? value : source_row[maps[last][i]];
        };
        edge(0, copy_to);
        std::memcpy(row + copy_to, source_row + copy_from, static_cast<size_t>(run) * sizeof(T));
        edge(copy_to + run, width);
      }
    });
  }

  Mode mode_ = Mode::kConstant;
};

}  // namespace
}  // namespace ops

void register_pad(OpRegistry& registry) { registry.add("pad", ops::make<ops::Pad>); }

}  // namespace lutc
