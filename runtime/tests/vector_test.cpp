// The elementwise functions against double precision, over float32's whole range, on every ISA of this CPU: the errors
// that vector.h states.
#include "kernels/vector.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "check.h"

namespace {

using lutc::kernels::VectorKernels;

constexpr int kBlock = 4096;
constexpr uint64_t kStep = 4099;  // bit patterns between samples: a prime, so that all exponents and mantissas are met

struct Case {
  const char* name;
  VectorKernels::Unary function;
  double (*exact)(double);
  double ulps;      ///< allowed where the result is normal; 0 when only the absolute error counts
  double absolute;  ///< allowed in any case
  float least;      ///< smallest argument that is judged
};

void check(const Case& c, const char* isa) {
  std::vector<float> x(kBlock), y(kBlock);
  double worst_ulps = 0, worst_absolute = 0;
  int wrong = 0;
  for (uint64_t start = 0; start < (uint64_t{1} << 32); start += kBlock * kStep) {
    for (int i = 0; i < kBlock; ++i) {
      const uint32_t bits = static_cast<uint32_t>(start + static_cast<uint64_t>(i) * kStep);
      std::memcpy(&x[i], &bits, sizeof bits);
    }
    const int n = kBlock - static_cast<int>(start / kStep % 17);
    c.function(x.data(), y.data(), n);
    for (int i = 0; i < n; ++i) {
      if (std::isinf(x[i]) || x[i] < c.least) continue;
      const double exact = c.exact(x[i]);
      const float nearest = static_cast<float>(exact);
      if (std::isnan(nearest) || std::isnan(y[i])) {
        wrong += std::isnan(nearest) != std::isnan(y[i]);
      } else if (std::isinf(nearest) || std::isinf(y[i])) {
        wrong += nearest != y[i];
      } else {
        const double error = std::fabs(y[i] - exact);
        if (c.ulps == 0) worst_absolute = std::fmax(worst_absolute, error / std::fmax(1.0, std::fabs(exact)));
        if (std::fabs(exact) >= std::numeric_limits<float>::min()) {
          worst_ulps = std::fmax(worst_ulps, error / std::ldexp(1.0, std::ilogb(exact) - 23));
        }
      }
    }
  }
  if (wrong != 0 || worst_absolute > c.absolute || (c.ulps != 0 && worst_ulps > c.ulps)) {
    std::fprintf(stderr, "%s on %s: %.2f ulp, %.2e absolute, %d wrong\n", c.name, isa, worst_ulps, worst_absolute,
                 wrong);
  }
  CHECK(wrong == 0);
  CHECK(c.ulps == 0 || worst_ulps <= c.ulps);
  CHECK(c.ulps != 0 || worst_absolute <= c.absolute);
}

double gelu(double x) { return 0.5 * x * std::erfc(-x / std::sqrt(2.0)); }
double gelu_tanh(double x) {
  return 0.5 * x * (1 + std::tanh(std::sqrt(2 / std::acos(-1.0)) * (x + 0.044715 * x * x * x)));
}

void reductions(const VectorKernels& k) {
  const float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
  for (int64_t n = 0; n <= 70; ++n) {
    std::vector<float> x(static_cast<size_t>(n));
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += x[i] = static_cast<float>((i * 37) % 11 - 20);
    CHECK(k.sum_f32(x.data(), n) == static_cast<float>(sum));
    float top = -infinity;
    for (const float v : x) top = std::fmax(top, v);
    CHECK(k.max_f32(x.data(), n) == top);
    for (int64_t i = 0; i < n; ++i) {
      const float kept = x[i];
      x[i] = nan;
      CHECK(std::isnan(k.max_f32(x.data(), n)));
      x[i] = kept;
    }
  }
}

/// Integer sums become outputs in one go as they do in two, and nothing else is written.
void sums(const VectorKernels& k) {
  using lutc::kernels::Activation;
  constexpr Activation kAll[] = {Activation::kNone, Activation::kRelu, Activation::kGelu,   Activation::kGeluTanh,
                                 Activation::kSilu, Activation::kTanh, Activation::kSigmoid};
  // powers of two: fused or not, one rounding
  const float scale[] = {0x1p-13f, -0x1p-15f, 0x1p-12f}, bias[] = {0.3f, -0.7f, 0.0f};
  for (const Activation activation : kAll) {
    for (int64_t rows = 1; rows <= 50; ++rows) {
      const int64_t stride = rows + 5, y_stride = rows + 3;
      std::vector<int32_t> x(static_cast<size_t>(3 * stride));
      std::vector<float> y(static_cast<size_t>(3 * y_stride), 7.0f), one(static_cast<size_t>(rows)), expected = one;
      for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<int32_t>(i * 7919 % 40001) - 20000;
      k.activate_sums(activation, {x.data(), stride, scale, bias, y.data(), y_stride, 3, rows});
      for (int64_t n = 0; n < 3; ++n) {
        for (int64_t r = 0; r < rows; ++r)
          one[static_cast<size_t>(r)] =
              std::fma(static_cast<float>(x[static_cast<size_t>(n * stride + r)]), scale[n], bias[n]);
        k.activate(activation, one.data(), expected.data(), rows);
        CHECK(std::memcmp(y.data() + n * y_stride, expected.data(), static_cast<size_t>(rows) * 4) == 0);
        for (int64_t r = rows; r < y_stride; ++r) CHECK(y[static_cast<size_t>(n * y_stride + r)] == 7.0f);
      }
    }
  }
}

}  // namespace

int main() {
  for (const lutc::kernels::Isa isa : lutc::kernels::available_isas()) {
    const VectorKernels& k = *lutc::kernels::vector_kernels(isa);
    const float lowest = std::numeric_limits<float>::lowest();
    const Case cases[] = {
        {"exp", k.exp_f32, [](double x) { return std::exp(x); }, 1.0, 0, lowest},
        {"log", k.log_f32, [](double x) { return std::log(x); }, 1.0, 0, lowest},
        {"erf", k.erf_f32, [](double x) { return std::erf(x); }, 1.2, 0, lowest},
        {"tanh", k.tanh_f32, [](double x) { return std::tanh(x); }, 1.4, 0, lowest},
        {"sigmoid", k.sigmoid_f32, [](double x) { return 1 / (1 + std::exp(-x)); }, 2.5, 0, -87.0f},
        {"sqrt", k.sqrt_f32, [](double x) { return std::sqrt(x); }, 0.5, 0, lowest},
        {"gelu", k.gelu_f32, gelu, 0, 5e-7, lowest},
        {"gelu_tanh", k.gelu_tanh_f32, gelu_tanh, 0, 5e-7, lowest},
    };
    for (const Case& c : cases) check(c, lutc::kernels::isa_name(isa));
    reductions(k);
    sums(k);
  }
  return lutc_test::result();
}
