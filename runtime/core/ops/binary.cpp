// Elementwise maths of two or more broadcast inputs: arithmetic, comparisons, logic, and the variadic max, min, sum and
// mean.
#include <cmath>

#include "core/ops/common.h"
#include "kernels/vector.h"

namespace lutc {
namespace ops {
namespace {

/// One run of outputs; sa and sb are 0 or 1 in nearly every model, any stride is right.
using RowFn = void (*)(const void* a, int64_t sa, const void* b, int64_t sb, void* y, int64_t n);

template <class F, class A, class B = A, class Y = A>
void row(const void* a_data, int64_t sa, const void* b_data, int64_t sb, void* y_data, int64_t n) {
  const A* a = static_cast<const A*>(a_data);
  const B* b = static_cast<const B*>(b_data);
  Y* y = static_cast<Y*>(y_data);
  // y may be a or b, element for element: no iteration reads what another writes.
  if (sa == 1 && sb == 1) {
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) y[i] = F::run(a[i], b[i]);
  } else if (sa == 1 && sb == 0) {
    const B scalar = *b;
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) y[i] = F::run(a[i], scalar);
  } else if (sa == 0 && sb == 1) {
    const A scalar = *a;
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) y[i] = F::run(scalar, b[i]);
  } else {
    for (int64_t i = 0; i < n; ++i) y[i] = F::run(a[i * sa], b[i * sb]);
  }
}

struct Add {
  template <class T>
  static T run(T a, T b) {
    return wrap_add(a, b);
  }
};
struct Sub {
  template <class T>
  static T run(T a, T b) {
    return wrap_sub(a, b);
  }
};
struct Mul {
  template <class T>
  static T run(T a, T b) {
    return wrap_mul(a, b);
  }
};
// Division and remainder of integers: run() has refused zero divisors; min / -1 wraps.
struct Div {
  template <class T>
  static T run(T a, T b) {
    if constexpr (std::is_integral_v<T> && std::is_signed_v<T>) {
      if (b == T{-1}) return wrap_sub(T{0}, a);
    }
    return static_cast<T>(a / b);
  }
};
/// Remainder with the sign of the divisor (Python's %).
struct Mod {
  template <class T>
  static T run(T a, T b) {
    if constexpr (std::is_floating_point_v<T>) {
      const T r = std::fmod(a, b);
      return r != T{0} && (r < T{0}) != (b < T{0}) ? r + b : r;
    } else {
      if constexpr (std::is_signed_v<T>) {
        if (b == T{-1}) return T{0};
      }
      const T r = static_cast<T>(a % b);
      return r != T{0} && (r < T{0}) != (b < T{0}) ? static_cast<T>(r + b) : r;
    }
  }
};
/// Remainder with the sign of the dividend (C's fmod).
struct Fmod {
  template <class T>
  static T run(T a, T b) {
    if constexpr (std::is_floating_point_v<T>) {
      return std::fmod(a, b);
    } else {
      if constexpr (std::is_signed_v<T>) {
        if (b == T{-1}) return T{0};
      }
      return static_cast<T>(a % b);
    }
  }
};
struct PRelu {
  template <class T>
  static T run(T x, T slope) {
    return x < T{0} ? wrap_mul(x, slope) : x;
  }
};
// NaN wins, as in NumPy.
struct Max {
  template <class T>
  static T run(T a, T b) {
    return a > b || a != a ? a : b;
  }
};
struct Min {
  template <class T>
  static T run(T a, T b) {
    return a < b || a != a ? a : b;
  }
};
/// The result has the type of the base.
struct Pow {
  template <class A, class B>
  static A run(A a, B b) {
    if constexpr (std::is_integral_v<A> && std::is_integral_v<B>) {
      if (b < B{0}) return a == A{1} ? A{1} : a == static_cast<A>(-1) ? (b % 2 == 0 ? A{1} : a) : A{0};
      A result = 1;
      for (; b > 0; b /= 2, a = wrap_mul(a, a)) {
        if (b % 2 != 0) result = wrap_mul(result, a);
      }
      return result;
    } else if constexpr (std::is_same_v<A, float> && std::is_same_v<B, float>) {
      if (b == 2.0f) return a * a;
      return std::pow(a, b);
    } else {
      return saturate<A>(std::pow(static_cast<double>(a), static_cast<double>(b)));
    }
  }
};
/// x^0.5, x^2 and x^3 are most of the powers in the world.
struct PowF32 {
  static float run(float a, float b) { return std::pow(a, b); }
};
void pow_f32_row(const void* a_data, int64_t sa, const void* b_data, int64_t sb, void* y_data, int64_t n) {
  const float* a = static_cast<const float*>(a_data);
  float* y = static_cast<float*>(y_data);
  const float b = *static_cast<const float*>(b_data);
  if (sa == 1 && sb == 0 && b == 2.0f) {
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) y[i] = a[i] * a[i];
  } else if (sa == 1 && sb == 0 && b == 3.0f) {
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) y[i] = a[i] * a[i] * a[i];
  } else if (sa == 1 && sb == 0 && b == 0.5f) {
    // pow(-inf, 0.5) is inf and pow(-0, 0.5) is +0.
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) {
      y[i] = a[i] == -std::numeric_limits<float>::infinity() ? -a[i] : std::sqrt(a[i] + 0.0f);
    }
  } else {
    row<PowF32, float>(a_data, sa, b_data, sb, y_data, n);
  }
}

#define LUTC_COMPARISON(Name, op)          \
  struct Name {                            \
    template <class T>                     \
    static uint8_t run(T a, T b) {         \
      return static_cast<uint8_t>(a op b); \
    }                                      \
  };
LUTC_COMPARISON(Equal, ==)
LUTC_COMPARISON(Greater, >)
LUTC_COMPARISON(GreaterOrEqual, >=)
LUTC_COMPARISON(Less, <)
LUTC_COMPARISON(LessOrEqual, <=)
#undef LUTC_COMPARISON

struct And {
  static uint8_t run(uint8_t a, uint8_t b) { return (a != 0) & (b != 0); }
};
struct Or {
  static uint8_t run(uint8_t a, uint8_t b) { return (a | b) != 0; }
};
struct Xor {
  static uint8_t run(uint8_t a, uint8_t b) { return (a != 0) != (b != 0); }
};

template <class F>
RowFn arithmetic(DType a, DType) {
  RowFn fn = nullptr;
  visit_number(a, [&](auto t) { fn = row<F, typename decltype(t)::type>; });
  return fn;
}
template <class F>
RowFn comparison(DType a, DType) {
  RowFn fn = nullptr;
  visit_number(a, [&](auto t) { fn = row<F, typename decltype(t)::type, typename decltype(t)::type, uint8_t>; });
  return fn;
}
RowFn equality(DType a, DType) { return comparison<Equal>(a == DType::kBool ? DType::kU8 : a, a); }
template <class F>
RowFn logic(DType a, DType) {
  return a == DType::kBool ? row<F, uint8_t> : nullptr;
}
RowFn power(DType a, DType b) {
  if (a == DType::kF32 && b == DType::kF32) return pow_f32_row;
  RowFn fn = nullptr;
  visit_number(a, [&](auto ta) {
    visit_number(b, [&](auto tb) {
      fn = row<Pow, typename decltype(ta)::type, typename decltype(tb)::type, typename decltype(ta)::type>;
    });
  });
  return fn;
}

struct Entry {
  const char* op;
  RowFn (*select)(DType a, DType b);
  bool to_bool = false;
};
constexpr Entry kEntries[] = {
    {"add", arithmetic<Add>},
    {"and", logic<And>},
    {"div", arithmetic<Div>},
    {"equal", equality, true},
    {"greater", comparison<Greater>, true},
    {"greater_or_equal", comparison<GreaterOrEqual>, true},
    {"less", comparison<Less>, true},
    {"less_or_equal", comparison<LessOrEqual>, true},
    {"mod", arithmetic<Mod>},
    {"mul", arithmetic<Mul>},
    {"or", logic<Or>},
    {"p_relu", arithmetic<PRelu>},
    {"pow", power},
    {"sub", arithmetic<Sub>},
    {"xor", logic<Xor>},
};

/// The ISA's f32 kernels, for runs of equal shapes and of one scalar.
struct F32Kernels {
  kernels::VectorKernels::Binary binary = nullptr;
  kernels::VectorKernels::BinaryScalar scalar = nullptr;  ///< commutative
};

class BroadcastOp : public OpBase {
 public:
  using OpBase::OpBase;

 protected:
  /// y = fn(a, b) with a and b broadcast to y.
  void apply(RunContext& ctx, RowFn fn, const TensorView& a, const TensorView& b, const TensorView& y) const {
    const int64_t total = y.shape.elements();
    if (total == 0) return;
    const StridedLoop<2> loop = broadcast_loop<2>(y.shape, {&a.shape, &b.shape});
    const int64_t sa = loop.inner_stride(0), sb = loop.inner_stride(1);
    const size_t a_size = dtype_size(a.dtype), b_size = dtype_size(b.dtype), y_size = dtype_size(y.dtype);
    parallel(ctx, total, total, 4096, [&](int64_t begin, int64_t end) {
      loop.run(begin, end, [&](int64_t at, const int64_t (&offset)[2], int64_t count) {
        const char* from_a = a.as<char>() + offset[0] * static_cast<int64_t>(a_size);
        const char* from_b = b.as<char>() + offset[1] * static_cast<int64_t>(b_size);
        char* to = y.as_mut<char>() + at * static_cast<int64_t>(y_size);
        if (f32_.binary != nullptr && sa == 1 && sb == 1) {
          f32_.binary(as_floats(from_a), as_floats(from_b), reinterpret_cast<float*>(to), count);
        } else if (f32_.scalar != nullptr && sa == 1 && sb == 0) {
          f32_.scalar(as_floats(from_a), *as_floats(from_b), reinterpret_cast<float*>(to), count);
        } else if (f32_.scalar != nullptr && sa == 0 && sb == 1) {
          f32_.scalar(as_floats(from_b), *as_floats(from_a), reinterpret_cast<float*>(to), count);
        } else {
          fn(from_a, sa, from_b, sb, to, count);
        }
      });
    });
  }

  void pick_kernels(const BuildContext& build) {
    const kernels::VectorKernels* table = build.kernels->vector;
    if (table == nullptr || dtype(0) != DType::kF32) return;
    if (def_.op == "add" || def_.op == "sum") f32_ = {table->add_f32, table->add_scalar_f32};
    if (def_.op == "mul") f32_ = {table->mul_f32, table->mul_scalar_f32};
    if (def_.op == "sub") f32_ = {table->sub_f32, nullptr};
    if (def_.op == "div") f32_ = {table->div_f32, nullptr};
  }

 private:
  static const float* as_floats(const char* bytes) { return reinterpret_cast<const float*>(bytes); }

  F32Kernels f32_;
};

class Binary final : public BroadcastOp {
 public:
  static constexpr Arity kArity{2, 2, 1, 1};
  using BroadcastOp::BroadcastOp;

  Status init(const BuildContext& build) override {
    if (def_.op != "pow") LUTC_RETURN_IF_ERROR(same_dtypes({1}));
    for (const Entry& entry : kEntries) {
      if (def_.op != entry.op) continue;
      fn_ = entry.select(dtype(0), dtype(1));
      out_ = entry.to_bool ? DType::kBool : dtype(0);
    }
    const bool integers = dtype(0) != DType::kF32 && dtype(0) != DType::kF64;
    if (def_.op == "mod" && def_.attrs.get_int("fmod", 0) != 0) fn_ = arithmetic<Fmod>(dtype(0), dtype(0));
    if (fn_ == nullptr) return unsupported_dtype();
    divides_ = integers && (def_.op == "div" || def_.op == "mod");
    pick_kernels(build);
    return Status::ok();
  }

  Status infer(InferContext& ctx) const override {
    const Shape &a = ctx.input_shape(0), &b = ctx.input_shape(1);
    Shape out;
    const bool fits = broadcast(a, b, &out) && (def_.op != "p_relu" || out == a);
    if (!fits) return invalid("shapes " + a.to_string() + " and " + b.to_string() + " do not broadcast");
    LUTC_RETURN_IF_ERROR(ctx.set_output(0, out_, out));
    for (int i = 0; i < 2; ++i) {
      if (ctx.input_shape(i) == out && dtype_size(ctx.input_dtype(i)) == dtype_size(out_)) ctx.may_overwrite(0, i);
    }
    return Status::ok();
  }

  Status run(RunContext& ctx) const override {
    if (divides_ && ctx.output(0).shape.elements() > 0) LUTC_RETURN_IF_ERROR(check_divisor(ctx.input(1)));
    apply(ctx, fn_, ctx.input(0), ctx.input(1), ctx.output(0));
    return Status::ok();
  }

 private:
  Status check_divisor(const TensorView& b) const {
    int64_t zeros = 0;
    visit_integer(b.dtype, [&](auto t) {
      const auto* data = b.as<typename decltype(t)::type>();
      for (int64_t i = 0, n = b.shape.elements(); i < n; ++i) zeros += data[i] == 0;
    });
    return zeros == 0 ? Status::ok() : invalid("integer division by zero");
  }

  RowFn fn_ = nullptr;
  DType out_ = DType::kF32;
  bool divides_ = false;
};

/// max, min, sum, mean of any number of inputs, folded from the left.
class Variadic final : public BroadcastOp {
 public:
  static constexpr Arity kArity{1, kMany, 1, 1};
  using BroadcastOp::BroadcastOp;

  Status init(const BuildContext& build) override {
    for (size_t i = 0; i < def_.inputs.size(); ++i) {
      if (!present(i)) return invalid("input " + std::to_string(i) + " is missing");
      LUTC_RETURN_IF_ERROR(same_dtypes({i}));
    }
    mean_ = def_.op == "mean";
    fn_ = def_.op == "max"   ? arithmetic<Max>(dtype(0), dtype(0))
          : def_.op == "min" ? arithmetic<Min>(dtype(0), dtype(0))
                             : arithmetic<Add>(dtype(0), dtype(0));
    if (fn_ == nullptr || (mean_ && dtype(0) != DType::kF32 && dtype(0) != DType::kF64)) return unsupported_dtype();
    pick_kernels(build);
    return Status::ok();
  }

  Status infer(InferContext& ctx) const override {
    Shape out = ctx.input_shape(0);
    for (int i = 1; i < ctx.num_inputs(); ++i) {
      const Shape before = out;
      if (!broadcast(before, ctx.input_shape(i), &out)) {
        return invalid("shapes " + before.to_string() + " and " + ctx.input_shape(i).to_string() + " do not broadcast");
      }
    }
    LUTC_RETURN_IF_ERROR(ctx.set_output(0, dtype(0), out));
    // With three or more inputs the first result would overwrite an input that a later one may share.
    for (int i = 0; ctx.num_inputs() <= 2 && i < ctx.num_inputs(); ++i) {
      if (ctx.input_shape(i) == out) ctx.may_overwrite(0, i);
    }
    return Status::ok();
  }

  Status run(RunContext& ctx) const override {
    const TensorView& y = ctx.output(0);
    const int inputs = static_cast<int>(def_.inputs.size());
    if (y.shape.elements() == 0) return Status::ok();
    if (inputs == 1) {
      copy_view(ctx);
    } else {
      apply(ctx, fn_, ctx.input(0), ctx.input(1), y);
    }
    for (int i = 2; i < inputs; ++i) apply(ctx, fn_, y, ctx.input(i), y);
    if (mean_ && inputs > 1) {
      visit_float(y.dtype, [&](auto t) {
        using T = typename decltype(t)::type;
        T* data = y.as_mut<T>();
        for (int64_t i = 0, n = y.shape.elements(); i < n; ++i) data[i] /= static_cast<T>(inputs);
      });
    }
    return Status::ok();
  }

 private:
  RowFn fn_ = nullptr;
  bool mean_ = false;
};

}  // namespace
}  // namespace ops

void register_binary(OpRegistry& registry) {
  for (const ops::Entry& entry : ops::kEntries) registry.add(entry.op, ops::make<ops::Binary>);
  for (const char* op : {"max", "mean", "min", "sum"}) registry.add(op, ops::make<ops::Variadic>);
}

}  // namespace lutc
