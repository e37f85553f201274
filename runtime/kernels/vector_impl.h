// The algorithms behind VectorKernels, once for every ISA. A per-ISA file defines Simd (simd.h) and then includes this
// one; everything has internal linkage, so each copy keeps its own instructions.
#pragma once

#include <limits>

#include "kernels/vector.h"

namespace lutc::kernels {
namespace {

using V = Simd;
using Float = Simd::Float;
constexpr int W = Simd::kWidth;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// c[0] + c[1] x + ... by Horner; the coefficients are least-maximum fits in double precision, rounded to float.
template <int kCount>
LUTC_INLINE Float polynomial(Float x, const float (&c)[kCount]) {
  Float p = V::set1(c[kCount - 1]);
  for (int i = kCount - 2; i >= 0; --i) p = V::fma(p, x, V::set1(c[i]));
  return p;
}

/// exp for x in [-104, 88.8] or NaN: x = n ln 2 + r, and 2^n (1 + r + r^2 P(r)).
LUTC_INLINE Float exp_in_range(Float x) {
  static constexpr float kP[] = {0.49999994f, 0.16666520f, 0.041668404f, 0.0083688991f, 0.0013814222f};
  const Float n = V::round(V::mul(x, V::set1(1.44269504f)));
  Float r = V::fnma(n, V::set1(0.693359375f), x);  // ln 2 in two parts; n times the first is exact
  r = V::fnma(n, V::set1(-2.12194440e-4f), r);
  const Float y = V::add(V::fma(V::mul(r, r), polynomial(r, kP), r), V::set1(1.0f));
  return V::ldexp(y, n);
}

/// 2^x for x in [-252, 127] or NaN, to 1e-7 of its value.
LUTC_INLINE Float exp2_in_range(Float x) {
  static constexpr float kP[] = {1.0f, 0.693146967f, 0.240221196f, 0.0555071328f, 0.00967554537f, 0.00132764836f};
  const Float n = V::round(x);
  return V::ldexp(polynomial(V::sub(x, n), kP), n);
}

struct Exp {
  LUTC_INLINE Float apply(Float x) {
    return exp_in_range(V::max(V::set1(-104.0f), V::min(V::set1(88.8f), x)));  // constants first: NaN passes
  }
};

struct Log {
  LUTC_INLINE Float apply(Float x) {
    static constexpr float kP[] = {0.33333331f, -0.25000823f, 0.20001221f, -0.16623327f,
                                   0.14201882f, -0.13160631f, 0.12760857f, -0.076322757f};
    const auto tiny = V::lt(x, V::set1(1.17549435e-38f));
    const Float normal = V::select(tiny, V::mul(x, V::set1(8388608.0f)), x);
    // normal = 2^e m with m in [sqrt(1/2), sqrt(2))
    const auto bits = V::add_int(V::as_int(normal), V::set1_int(-0x3f3504f3));
    Float e = V::to_float(V::template shift_right<23>(bits));
    e = V::select(tiny, V::sub(e, V::set1(23.0f)), e);
    const Float m = V::as_float(V::add_int(V::and_int(bits, V::set1_int(0x007fffff)), V::set1_int(0x3f3504f3)));
    const Float f = V::sub(m, V::set1(1.0f));
    const Float f2 = V::mul(f, f);
    Float y = V::mul(V::mul(f2, f), polynomial(f, kP));
    y = V::fma(e, V::set1(-2.12194440e-4f), y);
    y = V::fnma(V::set1(0.5f), f2, y);
    y = V::fma(e, V::set1(0.693359375f), V::add(f, y));
    y = V::select(V::lt(x, V::set1(kInfinity)), y, x);  // infinity and NaN
    y = V::select(V::lt(x, V::zero()), V::set1(std::numeric_limits<float>::quiet_NaN()), y);
    return V::select(V::eq(x, V::zero()), V::set1(-kInfinity), y);
  }
};

/// Odd polynomial near 0; 1 - exp(-t P(t)) beyond (a fit of -log erfc), which is 1 in float from 4 on.
struct Erf {
  LUTC_INLINE Float apply(Float x) {
    static constexpr float kNear[] = {0.12837917f,   -0.37612626f,    0.11283585f,    -0.026853813f,
                                      0.0051883277f, -0.00080101937f, 0.000078538615f};
    static constexpr float kFar[] = {-1.1285107f,  -0.63573098f,   -0.10524463f,
                                     0.022878589f, -0.0032113108f, 0.00021353202f};
    const Float a = V::abs(x);
    const Float t = V::min(V::set1(4.0f), a);
    const Float near = V::fma(x, polynomial(V::mul(x, x), kNear), x);
    const Float far = V::sub(V::set1(1.0f), exp_in_range(V::mul(t, polynomial(t, kFar))));
    return V::select(V::lt(a, V::set1(0.95f)), near, V::copysign(far, x));
  }
};

struct Tanh {
  LUTC_INLINE Float apply(Float x) {
    static constexpr float kNear[] = {-0.33333281f, 0.13331442f, -0.053739715f, 0.020639086f, -0.0057049869f};
    const Float a = V::abs(x);
    const Float s = V::mul(x, x);
    const Float near = V::fma(V::mul(x, s), polynomial(s, kNear), x);
    const Float e = exp_in_range(V::min(V::set1(20.0f), V::add(a, a)));
    const Float far = V::sub(V::set1(1.0f), V::div(V::set1(2.0f), V::add(e, V::set1(1.0f))));
    return V::select(V::lt(a, V::set1(0.625f)), near, V::copysign(far, x));
  }
};

struct Sigmoid {
  LUTC_INLINE Float apply(Float x) { return V::div(V::set1(1.0f), V::add(V::set1(1.0f), Exp::apply(V::neg(x)))); }
};

struct Silu {
  LUTC_INLINE Float apply(Float x) { return V::div(x, V::add(V::set1(1.0f), Exp::apply(V::neg(x)))); }
};

#ifndef LUTC_OWN_GELU  // the ISA has no better one
/// max(x, 0) - |x| Phi(-|x|), the normal tail as 2^P(|x|): a fit of log2 Phi that counts errors as the result shows
/// them, and that makes the tail 0 from 11.5 on.
struct Gelu {
  LUTC_INLINE Float apply(Float x) {
    static constexpr float kP[] = {-1.0f,           -1.15111101f,     -0.459162146f,    -0.0526276119f,
                                   0.00724542094f,  -0.000272075617f, -0.000131473265f, 2.80569475e-05f,
                                   -1.90206617e-06f};
    const Float t = V::min(V::set1(11.5f), V::abs(x));  // constant first: NaN passes
    return V::fnma(t, exp2_in_range(polynomial(t, kP)), V::max(V::zero(), x));
  }
};

struct GeluTanh {
  LUTC_INLINE Float apply(Float x) {
    const Float half = V::mul(V::set1(0.5f), x);
    const Float u = V::mul(x, V::fma(V::mul(x, x), V::set1(0.0356774081f), V::set1(0.797884561f)));
    return V::fma(half, Tanh::apply(u), half);
  }
};
#endif

struct Relu {
  LUTC_INLINE Float apply(Float x) { return V::max(V::zero(), x); }
};
struct Abs {
  LUTC_INLINE Float apply(Float x) { return V::abs(x); }
};
struct Sqrt {
  LUTC_INLINE Float apply(Float x) { return V::sqrt(x); }
};
struct Copy {
  LUTC_INLINE Float apply(Float x) { return x; }
};

/// y[i] = body(vector of index i ...), the tail under a mask. Body: Float(int64_t i, loader) with loader(p) reading p[i
/// ...].
template <class Body>
LUTC_INLINE void map(int64_t n, float* y, const Body& body) {
  int64_t i = 0;
  for (; i + W <= n; i += W) V::store(y + i, body([i](const float* p) { return V::load(p + i); }));
  if (i < n) V::store_n(y + i, body([i, n](const float* p) { return V::load_n(p + i, n - i); }), n - i);
}

template <class F>
void unary(const float* x, float* y, int64_t n) {
  map(n, y, [=](auto at) { return F::apply(at(x)); });
}

void add(const float* a, const float* b, float* y, int64_t n) {
  map(n, y, [=](auto at) { return V::add(at(a), at(b)); });
}
void sub(const float* a, const float* b, float* y, int64_t n) {
  map(n, y, [=](auto at) { return V::sub(at(a), at(b)); });
}
void mul(const float* a, const float* b, float* y, int64_t n) {
  map(n, y, [=](auto at) { return V::mul(at(a), at(b)); });
}
void div(const float* a, const float* b, float* y, int64_t n) {
  map(n, y, [=](auto at) { return V::div(at(a), at(b)); });
}
void maximum(const float* a, const float* b, float* y, int64_t n) {
  map(n, y, [=](auto at) {
    const Float x = at(a);
    return V::select(V::is_nan(x), x, V::max(x, at(b)));
  });
}
void add_scalar(const float* a, float b, float* y, int64_t n) {
  const Float s = V::set1(b);
  map(n, y, [=](auto at) { return V::add(at(a), s); });
}
void mul_scalar(const float* a, float b, float* y, int64_t n) {
  const Float s = V::set1(b);
  map(n, y, [=](auto at) { return V::mul(at(a), s); });
}

template <class F>
void finish_sums(const SumColumns& columns) {
  const SumColumns s = columns;  // which nothing stored here changes
  for (int64_t n = 0; n < s.columns; ++n) {
    const float* sums = reinterpret_cast<const float*>(s.sums + n * s.stride);
    const Float scale = V::set1(s.scale[n]), bias = V::set1(s.bias[n]);
    map(s.rows, s.y + n * s.y_stride,
        [=](auto at) { return F::apply(V::fma(V::to_float(V::as_int(at(sums))), scale, bias)); });
  }
}

/// fn(function of that name); none is a copy.
template <class Fn>
LUTC_INLINE void with_function(Activation activation, const Fn& fn) {
  switch (activation) {
    case Activation::kNone:
      return fn(Copy());
    case Activation::kRelu:
      return fn(Relu());
    case Activation::kGelu:
      return fn(Gelu());
    case Activation::kGeluTanh:
      return fn(GeluTanh());
    case Activation::kSilu:
      return fn(Silu());
    case Activation::kTanh:
      return fn(Tanh());
    case Activation::kSigmoid:
      return fn(Sigmoid());
  }
}

void activate(Activation activation, const float* x, float* y, int64_t n) {
  if (activation == Activation::kNone && x == y) return;
  with_function(activation, [=](auto function) { unary<decltype(function)>(x, y, n); });
}

void activate_sums(Activation activation, const SumColumns& columns) {
  with_function(activation, [&](auto function) { finish_sums<decltype(function)>(columns); });
}

float max_of(const float* x, int64_t n) {
  Float m0 = V::set1(-kInfinity), m1 = m0;
  auto nan = V::none();
  int64_t i = 0;
  for (; i + 2 * W <= n; i += 2 * W) {
    const Float a = V::load(x + i), b = V::load(x + i + W);
    nan = V::either(nan, V::either(V::is_nan(a), V::is_nan(b)));
    m0 = V::max(a, m0);  // the running maximum second: a NaN is dropped here, and seen above
    m1 = V::max(b, m1);
  }
  for (; i < n; i += W) {
    const Float a = i + W <= n ? V::load(x + i) : V::load_n(x + i, n - i, -kInfinity);
    nan = V::either(nan, V::is_nan(a));
    m0 = V::max(a, m0);
  }
  return V::any(nan) ? std::numeric_limits<float>::quiet_NaN() : V::greatest(V::max(m0, m1));
}

/// Sum of body(vector) over a row, in four partial sums. Body: Float(Float value, int64_t index).
template <class Body>
LUTC_INLINE float accumulate(const float* x, int64_t n, const Body& body) {
  Float s0 = V::zero(), s1 = V::zero(), s2 = V::zero(), s3 = V::zero();
  int64_t i = 0;
  for (; i + 4 * W <= n; i += 4 * W) {
    s0 = V::add(s0, body(V::load(x + i)));
    s1 = V::add(s1, body(V::load(x + i + W)));
    s2 = V::add(s2, body(V::load(x + i + 2 * W)));
    s3 = V::add(s3, body(V::load(x + i + 3 * W)));
  }
  for (; i + W <= n; i += W) s0 = V::add(s0, body(V::load(x + i)));
  float tail = 0.0f;
  if (i < n) {
    float lanes[W];
    V::store(lanes, body(V::load_n(x + i, n - i)));
    for (int64_t j = 0; j < n - i; ++j) tail += lanes[j];
  }
  return V::sum(V::add(V::add(s0, s1), V::add(s2, s3))) + tail;
}

float sum_of(const float* x, int64_t n) {
  return accumulate(x, n, [](Float v) { return v; });
}

/// The greatest of body(i, loader), NaN passed over: what follows turns it into NaN again.
template <class Body>
LUTC_INLINE Float greatest_of(int64_t n, const Body& body) {
  Float m0 = V::set1(-kInfinity), m1 = m0;
  int64_t i = 0;
  for (; i + 2 * W <= n; i += 2 * W) {
    m0 = V::max(body(i, [i](const float* p) { return V::load(p + i); }), m0);
    m1 = V::max(body(i + W, [i](const float* p) { return V::load(p + i + W); }), m1);
  }
  if (i + W <= n) {
    m0 = V::max(body(i, [i](const float* p) { return V::load(p + i); }), m0);
    i += W;
  }
  float tail = -kInfinity;
  if (i < n) {
    float lanes[W];
    V::store(lanes, body(i, [i, n](const float* p) { return V::load_n(p + i, n - i); }));
    for (int64_t j = 0; j < n - i; ++j) tail = lanes[j] > tail ? lanes[j] : tail;
  }
  return V::max(V::set1(tail), V::set1(V::greatest(V::max(m0, m1))));
}

float exp_row(const float* x, const float* mask, float scale, float* y, int64_t n) {
  const Float factor = V::set1(scale);
  // Without a mask and with a positive factor the maximum needs no intermediate row.
  const bool direct = mask == nullptr && scale > 0.0f;
  Float top;
  if (direct) {
    top = V::mul(factor, greatest_of(n, [=](int64_t, auto at) { return at(x); }));
  } else {
    top = greatest_of(n, [=](int64_t i, auto at) {
      const Float s = mask != nullptr ? V::fma(at(x), factor, at(mask)) : V::mul(at(x), factor);
      i + W <= n ? V::store(y + i, s) : V::store_n(y + i, s, n - i);
      return s;
    });
  }
  const float* from = direct ? x : y;
  const Float by = direct ? factor : V::set1(1.0f);
  const auto body = [=](Float v) __attribute__((always_inline)) {
    const Float z = V::mul(V::sub(V::mul(v, by), top), V::set1(1.44269504f));  // at most 0, but for rounding
    return exp2_in_range(V::max(V::set1(-150.0f), z));                         // constant first: NaN passes
  };
  Float s0 = V::zero(), s1 = V::zero();
  int64_t i = 0;
  for (; i + 2 * W <= n; i += 2 * W) {
    const Float a = body(V::load(from + i)), b = body(V::load(from + i + W));
    V::store(y + i, a);
    V::store(y + i + W, b);
    s0 = V::add(s0, a);
    s1 = V::add(s1, b);
  }
  for (; i + W <= n; i += W) {
    const Float a = body(V::load(from + i));
    V::store(y + i, a);
    s0 = V::add(s0, a);
  }
  float total = V::sum(V::add(s0, s1));
  if (i < n) {
    V::store_n(y + i, body(V::load_n(from + i, n - i)), n - i);
    for (; i < n; ++i) total += y[i];
  }
  return total;
}

void softmax_row(const float* x, float* y, int64_t n) {
  const float total = exp_row(x, nullptr, 1.0f, y, n);
  mul_scalar(y, 1.0f / total, y, n);
}

void log_softmax_row(const float* x, float* y, int64_t n) {
  const Float top = greatest_of(n, [=](int64_t, auto at) { return at(x); });
  const float total = accumulate(x, n, [=](Float v) { return Exp::apply(V::sub(v, top)); });
  float log_total;
  unary<Log>(&total, &log_total, 1);
  const Float shift = V::set1(log_total);
  map(n, y, [=](auto at) { return V::sub(V::sub(at(x), top), shift); });
}

/// t = a + b (of one row), or a alone where total, to which t goes, is null; the sum of t.
LUTC_INLINE float add_and_sum(const float* a, const float* b, float* total, int64_t n) {
  if (total == nullptr) return sum_of(a, n);
  Float s0 = V::zero(), s1 = V::zero();
  const auto t = [=](int64_t i, auto load) __attribute__((always_inline)) {
    return b == nullptr ? load(a + i) : V::add(load(a + i), load(b + i));
  };
  const auto whole = [](const float* p) __attribute__((always_inline)) { return V::load(p); };
  int64_t i = 0;
  for (; i + 2 * W <= n; i += 2 * W) {
    const Float x0 = t(i, whole), x1 = t(i + W, whole);
    V::store(total + i, x0);
    V::store(total + i + W, x1);
    s0 = V::add(s0, x0);
    s1 = V::add(s1, x1);
  }
  for (; i < n; i += W) {
    const int64_t some = n - i < W ? n - i : W;
    const Float x = t(i, [=](const float* p) __attribute__((always_inline)) { return V::load_n(p, some); });
    V::store_n(total + i, x, some);
    s0 = V::add(s0, x);
  }
  return V::sum(V::add(s0, s1));
}

/// What a row's sums and its square root make wait is filled by the next row's additions.
void layer_norm_rows(const float* a, const float* b, const float* scale, const float* bias, float epsilon, float* sum,
                     float* y, int64_t rows, int64_t d) {
  const float inv_d = 1.0f / static_cast<float>(d);
  const auto begin = [=, first = y](int64_t row) __attribute__((always_inline)) {
    const int64_t at = row * d;
    float* const total = sum != nullptr ? sum + at : b != nullptr ? first + at : nullptr;
    return add_and_sum(a + at, b == nullptr ? nullptr : b + at, total, d);
  };
  const float* t = sum != nullptr ? sum : b != nullptr ? y : a;
  float next = rows > 0 ? begin(0) : 0.0f;
  for (int64_t row = 0; row < rows; ++row, t += d, y += d) {
    const Float mean = V::set1(next * inv_d);
    const float variance = inv_d * accumulate(t, d, [=](Float v) {
                             const Float c = V::sub(v, mean);
                             return V::mul(c, c);
                           });
    if (row + 1 < rows) next = begin(row + 1);
    const Float inverse = V::div(V::set1(1.0f), V::sqrt(V::set1(variance + epsilon)));
    if (bias != nullptr) {
      map(d, y, [=](auto at) { return V::fma(V::mul(V::sub(at(t), mean), inverse), at(scale), at(bias)); });
    } else {
      map(d, y, [=](auto at) { return V::mul(V::mul(V::sub(at(t), mean), inverse), at(scale)); });
    }
  }
}

void rms_norm_rows(const float* a, const float* scale, float epsilon, float* y, int64_t rows, int64_t d) {
  for (int64_t row = 0; row < rows; ++row, a += d, y += d) {
    const float square = accumulate(a, d, [](Float v) { return V::mul(v, v); }) / static_cast<float>(d);
    const Float inverse = V::div(V::set1(1.0f), V::sqrt(V::set1(square + epsilon)));
    map(d, y, [=](auto at) { return V::mul(V::mul(at(a), inverse), at(scale)); });
  }
}

void scale_shift(const float* x, const float* scale, const float* shift, float* y, int64_t n) {
  if (scale != nullptr && shift != nullptr) {
    map(n, y, [=](auto at) { return V::fma(at(x), at(scale), at(shift)); });
  } else if (scale != nullptr) {
    mul(x, scale, y, n);
  } else if (shift != nullptr) {
    add(x, shift, y, n);
  } else if (x != y) {
    unary<Copy>(x, y, n);
  }
}

void epilogue_row(const float* x, const float* bias, const float* residual, Activation activation,
                  bool activation_after_residual, float* y, int64_t n) {
  scale_shift(x, nullptr, bias, y, n);
  if (residual != nullptr && activation_after_residual) add(y, residual, y, n);
  activate(activation, y, y, n);
  if (residual != nullptr && !activation_after_residual) add(y, residual, y, n);
}

constexpr VectorKernels make_vector_kernels() {
  return {unary<Exp>,
          unary<Log>,
          unary<Erf>,
          unary<Tanh>,
          unary<Sigmoid>,
          unary<Silu>,
          unary<Gelu>,
          unary<GeluTanh>,
          unary<Relu>,
          unary<Abs>,
          unary<Sqrt>,
          add,
          sub,
          mul,
          div,
          add_scalar,
          mul_scalar,
          activate,
          max_of,
          sum_of,
          softmax_row,
          log_softmax_row,
          exp_row,
          layer_norm_rows,
          rms_norm_rows,
          scale_shift,
          epilogue_row,
          maximum,
          activate_sums};
}

}  // namespace
}  // namespace lutc::kernels
