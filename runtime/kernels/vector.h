// Vectorised elementwise maths and row reductions, one table per ISA.
//
// Every function accepts any n >= 0, any alignment, and y == x (in place). NaN goes in, NaN comes out; infinities give
// the limits that the C library gives. Errors are the largest found over all of float32 against double precision
// (vector_test).
#pragma once

#include <cstdint>

#include "kernels/kernel_table.h"

namespace lutc::kernels {

enum class Activation : int { kNone, kRelu, kGelu, kGeluTanh, kSilu, kTanh, kSigmoid };

/// Integer sums [column][row], and where what they become goes.
struct SumColumns {
  const int32_t* sums;
  int64_t stride;  ///< from one column to the next
  const float *scale, *bias;
  float* y;
  int64_t y_stride;
  int64_t columns, rows;
};

struct VectorKernels {
  using Unary = void (*)(const float* x, float* y, int64_t n);
  using Binary = void (*)(const float* a, const float* b, float* y, int64_t n);
  using BinaryScalar = void (*)(const float* a, float b, float* y, int64_t n);

  Unary exp_f32;        ///< <= 1 ulp; flushes below 2^-149 to zero, overflows to infinity
  Unary log_f32;        ///< <= 1 ulp; log(0) = -inf, log(x < 0) = NaN, subnormals handled
  Unary erf_f32;        ///< <= 1.2 ulp
  Unary tanh_f32;       ///< <= 1.4 ulp
  Unary sigmoid_f32;    ///< <= 2.5 ulp for x > -87
  Unary silu_f32;       ///< x * sigmoid(x)
  Unary gelu_f32;       ///< x/2 * (1 + erf(x / sqrt 2)), <= 5e-7 absolute
  Unary gelu_tanh_f32;  ///< x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3))), <= 5e-7 absolute
  Unary relu_f32;       ///< max(x, 0); NaN stays NaN
  Unary abs_f32;
  Unary sqrt_f32;  ///< correctly rounded

  Binary add_f32;
  Binary sub_f32;
  Binary mul_f32;
  Binary div_f32;
  BinaryScalar add_scalar_f32;  ///< y = a + b
  BinaryScalar mul_scalar_f32;  ///< y = a * b

  /// The function above named by the activation; kNone copies (nothing when y == x).
  void (*activate)(Activation activation, const float* x, float* y, int64_t n);

  float (*max_f32)(const float* x, int64_t n);  ///< NaN if any is NaN; -inf when n == 0
  float (*sum_f32)(const float* x, int64_t n);  ///< in several partial sums; 0 when n == 0

  /// One contiguous row each. A row of -inf only gives NaN, as in ONNX.
  void (*softmax_row)(const float* x, float* y, int64_t n);
  void (*log_softmax_row)(const float* x, float* y, int64_t n);
  /// y = exp(x * scale + mask - max) and returns the sum, so that the caller may scale its product instead of the row;
  /// mask (n values) may be null.
  float (*exp_row)(const float* x, const float* mask, float scale, float* y, int64_t n);

  /// y = (t - mean) / sqrt(var + epsilon) * scale + bias with t = a + b, over rows of d contiguous values. b (then t =
  /// a), bias, and sum (where t goes) may be null. Two passes: the variance is that of the centred values.
  void (*layer_norm_rows)(const float* a, const float* b, const float* scale, const float* bias, float epsilon,
                          float* sum, float* y, int64_t rows, int64_t d);
  /// y = a / sqrt(mean(a^2) + epsilon) * scale.
  void (*rms_norm_rows)(const float* a, const float* scale, float epsilon, float* y, int64_t rows, int64_t d);

  /// y = x * scale[i] + shift[i]; scale and shift have n values and may be null.
  void (*scale_shift)(const float* x, const float* scale, const float* shift, float* y, int64_t n);
  /// y = activation(x + bias[i]) + residual[i], or activation(x + bias[i] + residual[i]) when
  /// activation_after_residual. bias, residual may be null.
  void (*epilogue_row)(const float* x, const float* bias, const float* residual, Activation activation,
                       bool activation_after_residual, float* y, int64_t n);

  Binary maximum_f32;  ///< NaN where either is NaN

  /// y = activation(float(sum) * scale[column] + bias[column]), the multiply-add fused where the ISA does.
  void (*activate_sums)(Activation activation, const SumColumns& columns);
};

/// Never null; falls back to the scalar table when the library was built without this ISA.
const VectorKernels* vector_kernels(Isa isa);

}  // namespace lutc::kernels
