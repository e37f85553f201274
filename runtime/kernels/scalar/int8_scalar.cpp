// Dense int8 products in plain C++: the reference for the other ISAs. Packed rows are int8, one after the other.
#include <cmath>
#include <limits>

#include "kernels/int8.h"

namespace lutc::kernels {
namespace {

/// 127 / a, finite, 0 for a row of zeros.
float inverse_of(float a) {
  const float inv = a > 0.0f ? 127.0f / a : 0.0f;
  return inv < std::numeric_limits<float>::max() ? inv : std::numeric_limits<float>::max();
}

void quantise(const float* x, int64_t stride, int64_t rows, int64_t features, uint8_t* packed, float* steps,
              int32_t* starts) {
  const int64_t padded = (features + 3) / 4 * 4;
  for (int64_t r = 0; r < rows; ++r, x += stride, packed += padded) {
    float a = 0.0f;
    for (int64_t d = 0; d < features; ++d) {
      const float magnitude = std::fabs(x[d]);
      a = magnitude > a ? magnitude : a;
    }
    const float inv = inverse_of(a);
    int8_t* q = reinterpret_cast<int8_t*>(packed);
    int32_t sum = 0;
    for (int64_t d = 0; d < padded; ++d) {
      float v = d < features ? x[d] * inv : 0.0f;
      v = v > -127.0f ? v : -127.0f;  // NaN becomes -127
      v = v < 127.0f ? v : 127.0f;
      q[d] = static_cast<int8_t>(std::nearbyint(v));
      sum += q[d];
    }
    steps[r] = a / 127.0f;
    starts[r] = static_cast<int32_t>(-128u * static_cast<uint32_t>(sum));
  }
}

void finish(const Int8Product& p, const uint32_t* acc, int64_t row, int64_t column, int64_t columns) {
  const int64_t at = row * p.y_stride + column;
  for (int64_t j = 0; j < columns; ++j) {
    const float step = p.steps[row] * p.scale[column + j];
    float y = static_cast<float>(static_cast<int32_t>(acc[j])) * step + p.bias[column + j];
    if (p.relu) y = y > 0.0f ? y : 0.0f;
    if (p.residual != nullptr) y += p.residual[at + j];
    p.y[at + j] = y;
  }
}

void product(const Int8Product& p) {
  const int64_t groups = (p.features + 3) / 4;
  for (int64_t column = 0; column < p.columns; column += kInt8PanelColumns) {
    const uint8_t* panel = p.weight + column * groups * 4;
    const int64_t columns = p.columns - column < kInt8PanelColumns ? p.columns - column : kInt8PanelColumns;
    for (int64_t r = 0; r < p.row_count; ++r) {
      const int8_t* q = reinterpret_cast<const int8_t*>(p.rows) + r * groups * 4;
      uint32_t acc[kInt8PanelColumns];  // the offset of the weights may carry sums beyond int32 and back
      for (uint32_t& sum : acc) sum = static_cast<uint32_t>(p.starts[r]);
      for (int64_t g = 0; g < groups; ++g) {
        const uint8_t* w = panel + g * 64;
        for (int64_t j = 0; j < kInt8PanelColumns; ++j)
          for (int64_t i = 0; i < 4; ++i) acc[j] += static_cast<uint32_t>(q[4 * g + i] * w[4 * j + i]);
      }
      finish(p, acc, r, column, columns);
    }
  }
}

}  // namespace

extern const Int8Kernels kInt8Scalar;
const Int8Kernels kInt8Scalar = {1, 1, quantise, product};

}  // namespace lutc::kernels
