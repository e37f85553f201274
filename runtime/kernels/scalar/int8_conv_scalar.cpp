// Int8 convolution in plain C++: pairs of int16, eight positions at a time in arrays that compilers can vectorise.
#include <cmath>
#include <cstring>

#include "kernels/int8_conv.h"

namespace lutc::kernels {
namespace {

constexpr int kUnit = 2;
constexpr int kLanes = 8;
constexpr int kColumns = 4;

float max_abs(const float* x, int64_t n) {
  float most = 0;
  for (int64_t i = 0; i < n; ++i) {
    const float a = std::fabs(x[i]);
    most = a > most ? a : most;
  }
  return most;
}

int16_t quantise_one(float x, float inv) {
  float v = x * inv;
  v = v > -127.0f ? v : -127.0f;  // NaN too
  v = v < 127.0f ? v : 127.0f;
  constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to the nearest integer, ties to even
  return static_cast<int16_t>((v + kMagic) - kMagic);
}

void quantise(const float* x, int64_t channel_stride, int channels, float inv, int64_t n, uint32_t* words) {
  for (int64_t i = 0; i < n; ++i) {
    const int16_t pair[kUnit] = {quantise_one(x[i], inv),
                                 channels == kUnit ? quantise_one(x[channel_stride + i], inv) : int16_t{0}};
    std::memcpy(words + i, pair, sizeof(pair));
  }
}

void finish(const Int8ConvBlock& b, const ConvVector& v, int column, const int32_t* acc) {
  const float scale = b.unit_value * b.scale[column], bias = b.bias[column];
  const int64_t at = column * b.y_stride + v.output;
  for (int i = 0; i < v.count; ++i) {
    float y = static_cast<float>(acc[v.lanes[i]]) * scale + bias;
    if (b.residual != nullptr && b.residual_first) y += b.residual[at + i];
    if (b.relu) y = y < 0.0f ? 0.0f : y;
    if (b.residual != nullptr && !b.residual_first) y += b.residual[at + i];
    b.y[at + i] = y;
    if (b.largest != nullptr && std::fabs(y) > *b.largest) *b.largest = std::fabs(y);
  }
}

void sum(const Int8ConvBlock& b, const ConvVector& v) {
  int32_t acc[kColumns][kLanes];
  for (int n = 0; n < b.columns; ++n) {
    for (int l = 0; l < kLanes; ++l) acc[n][l] = b.starts[n];
  }
  const uint8_t* at = b.pixels + 4 * v.position;
  const uint8_t* weights = b.weights;
  for (int64_t i = 0; i < b.step_count; ++i) {
    int16_t pixels[kLanes * kUnit];
    std::memcpy(pixels, at + b.steps[i], sizeof(pixels));
    for (int n = 0; n < b.columns; ++n, weights += 4) {
      int16_t w[kUnit];
      std::memcpy(w, weights, sizeof(w));
      for (int l = 0; l < kLanes; ++l) acc[n][l] += pixels[2 * l] * w[0] + pixels[2 * l + 1] * w[1];
    }
  }
  for (int n = 0; n < b.columns; ++n) finish(b, v, n, acc[n]);
}

void block(const Int8ConvBlock& b) {
  for (int i = 0; i < b.vector_count; ++i) sum(b, b.vectors[i]);
}

}  // namespace

extern const Int8ConvKernels kInt8ConvScalar;
const Int8ConvKernels kInt8ConvScalar = {kUnit, kLanes, 1, kColumns, max_abs, quantise, block};

}  // namespace lutc::kernels
