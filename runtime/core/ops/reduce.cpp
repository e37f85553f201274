// reduce_*: any axes. Neighbouring axes of one kind (kept or reduced) count as one, so that the inner loop is either a
// sum along a run or an addition of a run to the output row.
#include <cmath>

#include "core/ops/common.h"

namespace lutc {
namespace ops {
namespace {

// One reduction each: start(), the step, and what is done to the finished value (n = how many were reduced).
template <class T>
struct Plain {
  static T map(T x) { return x; }
  static T finish(T x, int64_t) { return x; }
};
template <class T>
struct Sum : Plain<T> {
  static T start() { return T{0}; }
  static T combine(T a, T b) { return wrap_add(a, b); }
};
template <class T>
struct Mean : Sum<T> {
  static T finish(T x, int64_t n) {
    if constexpr (std::is_floating_point_v<T>) return x / static_cast<T>(n);
    return n == 0 ? T{0} : static_cast<T>(static_cast<int64_t>(x) / n);
  }
};
template <class T>
struct L1 : Sum<T> {
  static T map(T x) { return x < T{0} ? wrap_sub(T{0}, x) : x; }
};
template <class T>
struct L2 : Sum<T> {
  static T map(T x) { return wrap_mul(x, x); }
  static T finish(T x, int64_t) {
    return saturate<T>(std::sqrt(static_cast<std::conditional_t<std::is_same_v<T, float>, float, double>>(x)));
  }
};
template <class T>
struct Prod : Plain<T> {
  static T start() { return T{1}; }
  static T combine(T a, T b) { return wrap_mul(a, b); }
};
template <class T>
struct Max : Plain<T> {
  static T start() {
    return std::numeric_limits<T>::has_infinity ? -std::numeric_limits<T>::infinity()
                                                : std::numeric_limits<T>::lowest();
  }
  static T combine(T a, T b) { return a > b || a != a ? a : b; }
};
template <class T>
struct Min : Plain<T> {
  static T start() {
    return std::numeric_limits<T>::has_infinity ? std::numeric_limits<T>::infinity() : std::numeric_limits<T>::max();
  }
  static T combine(T a, T b) { return a < b || a != a ? a : b; }
};

/// The input seen as kept and reduced groups, outermost first.
struct Layout {
  StridedLoop<1> kept, reduced;  ///< without the innermost group
  int64_t kept_count = 1, reduced_count = 1;
  int64_t run = 1;           ///< length of the innermost group
  bool run_reduced = false;  ///< and its kind
  int64_t reduced_total = 1;
};

/// Reduces a contiguous run in 16 partial results, which vectorises and keeps rounding errors small.
template <class T, class R>
T reduce_run(const T* x, int64_t n) {
  constexpr int kLanes = 16;
  T lanes[kLanes];
  for (T& lane : lanes) lane = R::start();
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int k = 0; k < kLanes; ++k) lanes[k] = R::combine(lanes[k], R::map(x[i + k]));
  }
  for (int k = 0; i < n; ++i, ++k) lanes[k] = R::combine(lanes[k], R::map(x[i]));
  for (int half = kLanes / 2; half > 0; half /= 2) {
    for (int k = 0; k < half; ++k) lanes[k] = R::combine(lanes[k], lanes[k + half]);
  }
  return lanes[0];
}

using ReduceFn = void (*)(RunContext& ctx, const Layout& layout, const void* x, void* y);

template <class T, class R>
void reduce(RunContext& ctx, const Layout& layout, const void* x_data, void* y_data) {
  const T* x = static_cast<const T*>(x_data);
  T* y = static_cast<T*>(y_data);
  const int64_t work = layout.kept_count * layout.reduced_count * layout.run;
  parallel(ctx, layout.kept_count, work, 1, [&](int64_t begin, int64_t end) {
    layout.kept.run(begin, end, [&](int64_t first, const int64_t (&base)[1], int64_t count) {
      for (int64_t i = 0; i < count; ++i) {
        const T* from = x + base[0] + i * layout.kept.inner_stride(0);
        if (layout.run_reduced) {
          T result = R::start();
          layout.reduced.run(0, layout.reduced_count, [&](int64_t, const int64_t (&offset)[1], int64_t n) {
            for (int64_t k = 0; k < n; ++k) {
              result = R::combine(result,
                                  reduce_run<T, R>(from + offset[0] + k * layout.reduced.inner_stride(0), layout.run));
            }
          });
          y[first + i] = R::finish(result, layout.reduced_total);
        } else {
          T* row = y + (first + i) * layout.run;
          std::fill_n(row, layout.run, R::start());
          layout.reduced.run(0, layout.reduced_count, [&](int64_t, const int64_t (&offset)[1], int64_t n) {
            for (int64_t k = 0; k < n; ++k) {
              const T* in = from + offset[0] + k * layout.reduced.inner_stride(0);
              for (int64_t j = 0; j < layout.run; ++j) row[j] = R::combine(row[j], R::map(in[j]));
            }
          });
          for (int64_t j = 0; j < layout.run; ++j) row[j] = R::finish(row[j], layout.reduced_total);
        }
      }
    });
  });
}

template <template <class> class R>
ReduceFn on_numbers(DType dtype) {
  ReduceFn fn = nullptr;
  visit_number(dtype, [&](auto t) {
    using T = typename decltype(t)::type;
    fn = reduce<T, R<T>>;
  });
  return fn;
}

template <template <class> class R>
ReduceFn with_bool(DType dtype) {
  return on_numbers<R>(dtype == DType::kBool ? DType::kU8 : dtype);
}

struct Entry {
  const char* op;
  ReduceFn (*select)(DType);
};
constexpr Entry kEntries[] = {
    {"reduce_l1", on_numbers<L1>},     {"reduce_l2", on_numbers<L2>},  {"reduce_max", with_bool<Max>},
    {"reduce_mean", on_numbers<Mean>}, {"reduce_min", with_bool<Min>}, {"reduce_prod", on_numbers<Prod>},
    {"reduce_sum", on_numbers<Sum>},
};

class Reduce final : public OpBase {
 public:
  static constexpr Arity kArity{1, 2, 1, 1};
  using OpBase::OpBase;

  Status init(const BuildContext&) override {
    LUTC_RETURN_IF_ERROR(expect_index_dtype(1));
    axes_ = def_.attrs.get_ints("axes", {});
    for (const Entry& entry : kEntries) {
      if (def_.op == entry.op) fn_ = entry.select(dtype(0));
    }
    return fn_ != nullptr ? Status::ok() : unsupported_dtype();
  }

  Status infer(InferContext& ctx) const override {
    const Shape& in = ctx.input_shape(0);
    TensorView axes;
    if (present(1)) {
      const Result<std::vector<int64_t>> known = known_ints(ctx, 1, "the list of axes");
      if (!known.is_ok()) return known.status();
      axes = ctx.input_value(1);
      axes.dtype = ctx.input_dtype(1);
      axes.shape = ctx.input_shape(1);
    }
    bool drop[kMaxRank];
    LUTC_RETURN_IF_ERROR(mark(axes, in.rank, drop));
    const bool keep = def_.attrs.get_int("keepdims", 1) != 0;
    Shape out;
    for (int d = 0; d < in.rank; ++d) {
      if (!drop[d]) out[out.rank++] = in[d];
      if (drop[d] && keep) out[out.rank++] = 1;
    }
    return ctx.set_output(0, dtype(0), out);
  }

  Status run(RunContext& ctx) const override {
    const TensorView &x = ctx.input(0), &y = ctx.output(0);
    if (y.shape.elements() == 0) return Status::ok();
    bool drop[kMaxRank];
    LUTC_RETURN_IF_ERROR(mark(present(1) ? ctx.input(1) : TensorView{}, x.shape.rank, drop));
    Layout layout;
    int64_t strides[kMaxRank], dims[kMaxRank], steps[kMaxRank];
    bool reduced[kMaxRank];
    row_major_strides(x.shape, strides);
    int rank = 0;  // groups
    for (int d = 0; d < x.shape.rank; ++d) {
      if (drop[d]) layout.reduced_total *= x.shape[d];
      if (x.shape[d] == 1) continue;
      const bool merge = rank > 0 && reduced[rank - 1] == drop[d];
      const int at = merge ? rank - 1 : rank++;
      dims[at] = merge ? dims[at] * x.shape[d] : x.shape[d];
      steps[at] = strides[d];
      reduced[at] = drop[d];
    }
    if (rank > 0) {
      layout.run = dims[rank - 1];
      layout.run_reduced = reduced[rank - 1];
    }
    for (int g = 0; g < rank - 1; ++g) {
      (reduced[g] ? layout.reduced : layout.kept).push(dims[g], {steps[g]});
      (reduced[g] ? layout.reduced_count : layout.kept_count) *= dims[g];
    }
    fn_(ctx, layout, x.data, y.data);
    return Status::ok();
  }

 private:
  Status mark(const TensorView& axes, int rank, bool* drop) const {
    std::fill(drop, drop + kMaxRank, false);
    const int64_t count = present(1) ? axes.shape.elements() : static_cast<int64_t>(axes_.size());
    for (int64_t i = 0; i < count; ++i) {
      const Result<int> at = axis(present(1) ? int_at(axes, i) : axes_[static_cast<size_t>(i)], rank);
      if (!at.is_ok()) return at.status();
      drop[at.value()] = true;
    }
    if (count == 0 && def_.attrs.get_int("noop_with_empty_axes", 0) == 0) std::fill(drop, drop + kMaxRank, true);
    return Status::ok();
  }

  ReduceFn fn_ = nullptr;
  std::vector<int64_t> axes_;  ///< of the attribute that opsets before 18 have in place of input 1
};

}  // namespace
}  // namespace ops

void register_reduce(OpRegistry& registry) {
  for (const ops::Entry& entry : ops::kEntries) registry.add(entry.op, ops::make<ops::Reduce>);
}

}  // namespace lutc
