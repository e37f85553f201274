// Elementwise maths of one input: abs, exp, sigmoid, not, is_nan ...
#include <cmath>

#include "core/ops/common.h"
#include "kernels/vector.h"

namespace lutc {
namespace ops {
namespace {

/// The attributes an elementwise function may read.
struct Parameters {
  double alpha = 0, beta = 0;
  bool negative = true, positive = true;
};

using UnaryFn = void (*)(const void* x, void* y, int64_t n, const Parameters& parameters);

/// Applies F element by element; x and y may be the same memory, element for element.
template <class F, class X, class Y = X>
void apply(const void* x, void* y, int64_t n, const Parameters& parameters) {
  const X* in = static_cast<const X*>(x);
  Y* out = static_cast<Y*>(y);
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) out[i] = F::run(in[i], parameters);
}

struct Abs {
  template <class T>
  static T run(T x, const Parameters&) {
    if constexpr (std::is_floating_point_v<T>) return std::abs(x);
    return x < T{0} ? wrap_sub(T{0}, x) : x;
  }
};
struct Neg {
  template <class T>
  static T run(T x, const Parameters&) {
    if constexpr (std::is_floating_point_v<T>) return -x;
    return wrap_sub(T{0}, x);
  }
};
struct Sign {
  template <class T>
  static T run(T x, const Parameters&) {
    return x > T{0} ? T{1} : x < T{0} ? static_cast<T>(-1) : x;  // 0 and NaN stay
  }
};
struct Relu {
  template <class T>
  static T run(T x, const Parameters&) {
    return x < T{0} ? T{0} : x;
  }
};
struct Not {
  static uint8_t run(uint8_t x, const Parameters&) { return x == 0; }
};
struct IsNan {
  template <class T>
  static uint8_t run(T x, const Parameters&) {
    return x != x;
  }
};
struct IsInf {
  template <class T>
  static uint8_t run(T x, const Parameters& p) {
    constexpr T kInfinity = std::numeric_limits<T>::infinity();
    return (p.positive && x == kInfinity) || (p.negative && x == -kInfinity);
  }
};

#define LUTC_FLOAT_FUNCTION(Name, expression) \
  struct Name {                               \
    template <class T>                        \
    static T run(T x, const Parameters& p) {  \
      (void)p;                                \
      return static_cast<T>(expression);      \
    }                                         \
  };
LUTC_FLOAT_FUNCTION(Ceil, std::ceil(x))
LUTC_FLOAT_FUNCTION(Cos, std::cos(x))
LUTC_FLOAT_FUNCTION(Erf, std::erf(x))
LUTC_FLOAT_FUNCTION(Exp, std::exp(x))
LUTC_FLOAT_FUNCTION(Floor, std::floor(x))
LUTC_FLOAT_FUNCTION(Log, std::log(x))
LUTC_FLOAT_FUNCTION(Reciprocal, T{1} / x)
LUTC_FLOAT_FUNCTION(Round, std::nearbyint(x))  // ties to even
LUTC_FLOAT_FUNCTION(Sigmoid, T{1} / (T{1} + std::exp(-x)))
LUTC_FLOAT_FUNCTION(Silu, x / (T{1} + std::exp(-x)))
LUTC_FLOAT_FUNCTION(Sin, std::sin(x))
LUTC_FLOAT_FUNCTION(Softplus, x > T{0} ? x + std::log1p(std::exp(-x)) : std::log1p(std::exp(x)))
LUTC_FLOAT_FUNCTION(Sqrt, std::sqrt(x))
LUTC_FLOAT_FUNCTION(Tanh, std::tanh(x))
LUTC_FLOAT_FUNCTION(LeakyRelu, x < T{0} ? x * static_cast<T>(p.alpha) : x)
#undef LUTC_FLOAT_FUNCTION

template <class T>
T hard_sigmoid(T x, double alpha, double beta) {
  const T y = x * static_cast<T>(alpha) + static_cast<T>(beta);
  return y < T{0} ? T{0} : y > T{1} ? T{1} : y;
}
struct HardSigmoid {
  template <class T>
  static T run(T x, const Parameters& p) {
    return hard_sigmoid(x, p.alpha, p.beta);
  }
};
struct HardSwish {
  template <class T>
  static T run(T x, const Parameters&) {
    return x * hard_sigmoid(x, 1.0 / 6, 0.5);
  }
};

template <class F>
UnaryFn on_floats(DType dtype) {
  UnaryFn fn = nullptr;
  visit_float(dtype, [&](auto t) { fn = apply<F, typename decltype(t)::type>; });
  return fn;
}
template <class F>
UnaryFn on_numbers(DType dtype) {
  UnaryFn fn = nullptr;
  visit_number(dtype, [&](auto t) { fn = apply<F, typename decltype(t)::type>; });
  return fn;
}
template <class F>
UnaryFn floats_to_bool(DType dtype) {
  UnaryFn fn = nullptr;
  visit_float(dtype, [&](auto t) { fn = apply<F, typename decltype(t)::type, uint8_t>; });
  return fn;
}
UnaryFn not_bool(DType dtype) { return dtype == DType::kBool ? apply<Not, uint8_t> : nullptr; }

using F32Kernel = kernels::VectorKernels::Unary;

struct Entry {
  const char* op;
  UnaryFn (*select)(DType);
  F32Kernel kernels::VectorKernels::* f32 = nullptr;  ///< the ISA's version for f32, when there is one
  int64_t cost = 1;                                   ///< rough cycles per element, to decide about threads
};

using Table = kernels::VectorKernels;
constexpr Entry kEntries[] = {
    {"abs", on_numbers<Abs>, &Table::abs_f32},
    {"ceil", on_floats<Ceil>},
    {"cos", on_floats<Cos>, nullptr, 8},
    {"erf", on_floats<Erf>, &Table::erf_f32, 4},
    {"exp", on_floats<Exp>, &Table::exp_f32, 4},
    {"floor", on_floats<Floor>},
    {"hard_sigmoid", on_floats<HardSigmoid>},
    {"hard_swish", on_floats<HardSwish>},
    {"is_inf", floats_to_bool<IsInf>},
    {"is_nan", floats_to_bool<IsNan>},
    {"leaky_relu", on_floats<LeakyRelu>},
    {"log", on_floats<Log>, &Table::log_f32, 4},
    {"neg", on_numbers<Neg>},
    {"not", not_bool},
    {"reciprocal", on_floats<Reciprocal>},
    {"relu", on_numbers<Relu>, &Table::relu_f32},
    {"round", on_floats<Round>},
    {"sigmoid", on_floats<Sigmoid>, &Table::sigmoid_f32, 4},
    {"sign", on_numbers<Sign>},
    {"silu", on_floats<Silu>, &Table::silu_f32, 4},
    {"sin", on_floats<Sin>, nullptr, 8},
    {"softplus", on_floats<Softplus>, nullptr, 8},
    {"sqrt", on_floats<Sqrt>, &Table::sqrt_f32},
    {"tanh", on_floats<Tanh>, &Table::tanh_f32, 4},
};

class Unary final : public OpBase {
 public:
  static constexpr Arity kArity{1, 1, 1, 1};
  using OpBase::OpBase;

  Status init(const BuildContext& build) override {
    for (const Entry& entry : kEntries) {
      if (def_.op != entry.op) continue;
      fn_ = entry.select(dtype(0));
      cost_ = entry.cost;
      to_bool_ = entry.select == floats_to_bool<IsNan> || entry.select == floats_to_bool<IsInf>;
      if (dtype(0) == DType::kF32 && entry.f32 != nullptr && build.kernels->vector != nullptr) {
        f32_ = build.kernels->vector->*entry.f32;
      }
    }
    if (fn_ == nullptr) return unsupported_dtype();
    parameters_.alpha = def_.attrs.get_float("alpha", def_.op == "leaky_relu" ? 0.01 : 0.2);
    parameters_.beta = def_.attrs.get_float("beta", 0.5);
    parameters_.negative = def_.attrs.get_int("detect_negative", 1) != 0;
    parameters_.positive = def_.attrs.get_int("detect_positive", 1) != 0;
    return Status::ok();
  }

  Status infer(InferContext& ctx) const override {
    LUTC_RETURN_IF_ERROR(ctx.set_output(0, to_bool_ ? DType::kBool : dtype(0), ctx.input_shape(0)));
    if (!to_bool_) ctx.may_overwrite(0, 0);
    return Status::ok();
  }

  Status run(RunContext& ctx) const override {
    const TensorView &x = ctx.input(0), &y = ctx.output(0);
    const size_t in_size = dtype_size(x.dtype), out_size = dtype_size(y.dtype);
    const int64_t total = x.shape.elements();
    parallel(ctx, total, total * cost_, 4096, [&](int64_t begin, int64_t end) {
      const char* from = x.as<char>() + static_cast<size_t>(begin) * in_size;
      char* to = y.as_mut<char>() + static_cast<size_t>(begin) * out_size;
      if (f32_ != nullptr) {
        f32_(reinterpret_cast<const float*>(from), reinterpret_cast<float*>(to), end - begin);
      } else {
        fn_(from, to, end - begin, parameters_);
      }
    });
    return Status::ok();
  }

 private:
  UnaryFn fn_ = nullptr;
  F32Kernel f32_ = nullptr;
  int64_t cost_ = 1;
  bool to_bool_ = false;
  Parameters parameters_;
};

}  // namespace
}  // namespace ops

void register_unary(OpRegistry& registry) {
  for (const ops::Entry& entry : ops::kEntries) registry.add(entry.op, ops::make<ops::Unary>);
}

}  // namespace lutc
