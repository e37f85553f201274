// resize: nearest, linear and cubic, with or without antialiasing, along any axes. Every axis becomes a table of taps
// (source index, weight); an output row is first blended from source rows, then along itself.
#include <cmath>

#include "core/ops/common.h"

namespace lutc {
namespace ops {
namespace {

struct Tap {
  int64_t index;  ///< -1: the output lies outside the image (tf_crop_and_resize)
  float weight;
};

/// Taps of one axis: `taps` for each of `out` coordinates.
struct AxisTable {
  int64_t in = 1, out = 1, taps = 1;
  float scale = 1, roi_start = 0, roi_end = 1;
  Tap* data = nullptr;
};

enum class Mode { kNearest, kLinear, kCubic };
enum class Coordinates {
  kHalfPixel,
  kHalfPixelSymmetric,
  kPytorchHalfPixel,
  kAlignCorners,
  kAsymmetric,
  kTfCropAndResize
};
enum class Rounding { kPreferFloor, kPreferCeil, kFloor, kCeil };

/// Position of a name in a list, or -1.
template <size_t N>
int find_name(const char* const (&names)[N], const std::string& name) {
  for (size_t i = 0; i < N; ++i) {
    if (name == names[i]) return static_cast<int>(i);
  }
  return -1;
}
constexpr const char* kModes[] = {"nearest", "linear", "cubic"};
constexpr const char* kCoordinates[] = {"half_pixel",    "half_pixel_symmetric", "pytorch_half_pixel",
                                        "align_corners", "asymmetric",           "tf_crop_and_resize"};
constexpr const char* kRoundings[] = {"round_prefer_floor", "round_prefer_ceil", "floor", "ceil"};
constexpr const char* kPolicies[] = {"stretch", "not_larger", "not_smaller"};
constexpr int64_t kMaxTaps = 1024;

class Resize final : public OpBase {
 public:
  static constexpr Arity kArity{1, 4, 1, 1};
  using OpBase::OpBase;

  Status init(const BuildContext&) override {
    const int mode = find_name(kModes, def_.attrs.get_string("mode", kModes[0]));
    const int coordinates =
        find_name(kCoordinates, def_.attrs.get_string("coordinate_transformation_mode", kCoordinates[0]));
    const int rounding = find_name(kRoundings, def_.attrs.get_string("nearest_mode", kRoundings[0]));
    policy_ = find_name(kPolicies, def_.attrs.get_string("keep_aspect_ratio_policy", kPolicies[0]));
    if (mode < 0 || coordinates < 0 || rounding < 0 || policy_ < 0)
      return unsupported("an attribute's value is not one of ONNX's");
    mode_ = static_cast<Mode>(mode);
    coordinates_ = static_cast<Coordinates>(coordinates);
    rounding_ = static_cast<Rounding>(rounding);
    antialias_ = def_.attrs.get_int("antialias", 0) != 0;
    exclude_outside_ = def_.attrs.get_int("exclude_outside", 0) != 0;
    cubic_a_ = static_cast<float>(def_.attrs.get_float("cubic_coeff_a", -0.75));
    axes_ = def_.attrs.get_ints("axes", {});
    extrapolation_ = static_cast<float>(def_.attrs.get_float("extrapolation_value", 0));
    if (mode_ != Mode::kNearest && dtype(0) != DType::kF32) return unsupported_dtype();
    if (present(3)) return expect_index_dtype(3);
    return Status::ok();
  }

  Status infer(InferContext& ctx) const override {
    TensorView lists[4];
    for (int i = 1; i < 4; ++i) {
      if (!present(static_cast<size_t>(i))) continue;
      if (!is_known(ctx, i)) return unsupported("the size depends on the data of the inputs");
      lists[i] = ctx.input_value(i);
      lists[i].shape = ctx.input_shape(i);
      lists[i].dtype = ctx.input_dtype(i);
    }
    AxisTable axes[kMaxRank];
    const Shape& in = ctx.input_shape(0);
    LUTC_RETURN_IF_ERROR(work_out(in, lists, axes));
    Shape out = in;
    for (int d = 0; d < in.rank; ++d) out[d] = axes[d].out;
    LUTC_RETURN_IF_ERROR(ctx.set_output(0, dtype(0), out));
    if (out.elements() == 0) return Status::ok();
    if (in.elements() == 0) return invalid("cannot enlarge " + in.to_string());
    int64_t taps = 0;
    for (int d = 0; d < in.rank; ++d) {
      int64_t n = 0;
      if (__builtin_mul_overflow(axes[d].out, axes[d].taps, &n) || n > int64_t{1} << 32)
        return unsupported("the table of weights is too large");
      taps += n;
    }
    const int64_t row = in.rank == 0 ? 1 : in[in.rank - 1];
    ctx.request_scratch(static_cast<size_t>(taps) * sizeof(Tap) +
                        static_cast<size_t>(row * ctx.num_threads()) * sizeof(float));
    return Status::ok();
  }

  Status run(RunContext& ctx) const override {
    const TensorView &x = ctx.input(0), &y = ctx.output(0);
    if (y.shape.elements() == 0) return Status::ok();
    TensorView lists[4];
    for (int i = 1; i < 4; ++i) {
      if (present(static_cast<size_t>(i))) lists[i] = ctx.input(i);
    }
    AxisTable axes[kMaxRank];
    LUTC_RETURN_IF_ERROR(work_out(x.shape, lists, axes));
    Tap* next = static_cast<Tap*>(ctx.scratch());
    for (int d = 0; d < x.shape.rank; ++d) {
      if (axes[d].out != y.shape[d])
        return step_error(def_, ErrorCode::kInternal, "the size changed after the shape was known");
      axes[d].data = next;
      fill(axes[d]);
      next += axes[d].out * axes[d].taps;
    }
    if (x.shape.rank == 0) {
      std::memcpy(y.data, x.data, dtype_size(x.dtype));
    } else if (mode_ == Mode::kNearest) {
      visit_bytes(x.dtype, [&](auto t) { nearest<typename decltype(t)::type>(ctx, axes); });
    } else {
      blend(ctx, axes, reinterpret_cast<float*>(next));
    }
    return Status::ok();
  }

 private:
  /// Sizes and scales of every axis from scales or sizes.
  Status work_out(const Shape& in, const TensorView (&lists)[4], AxisTable* axes) const {
    int which[kMaxRank];
    int64_t count = in.rank;
    if (def_.attrs.has("axes")) {
      bool seen[kMaxRank] = {};
      count = 0;
      for (int64_t value : axes_) {
        const Result<int> at = axis(value, in.rank);
        if (!at.is_ok()) return at.status();
        if (seen[at.value()]) return invalid("axis " + std::to_string(value) + " is listed twice");
        seen[at.value()] = true;
        which[count++] = at.value();
      }
    } else {
      for (int d = 0; d < in.rank; ++d) which[d] = d;
    }
    for (int d = 0; d < in.rank; ++d) axes[d].in = axes[d].out = in[d];
    const bool has_scales = present(2) && lists[2].shape.elements() > 0,
               has_sizes = present(3) && lists[3].shape.elements() > 0;
    if (has_scales == has_sizes) return invalid("exactly one of scales and sizes is needed");
    if (lists[has_scales ? 2 : 3].shape.elements() != count) return invalid("one scale or size per axis is needed");
    const bool crop = coordinates_ == Coordinates::kTfCropAndResize;
    if (crop && (!present(1) || lists[1].shape.elements() != 2 * count))
      return invalid("two numbers per axis are needed in roi");

    float common =
        policy_ == 1 ? std::numeric_limits<float>::infinity() : 0;  // the one scale that keeps the aspect ratio
    for (int64_t i = 0; i < count; ++i) {
      AxisTable& a = axes[which[i]];
      if (crop) {
        a.roi_start = static_cast<float>(number_at(lists[1], i));
        a.roi_end = static_cast<float>(number_at(lists[1], i + count));
      }
      if (has_scales) {
        a.scale = static_cast<float>(number_at(lists[2], i));
        const float extent = crop ? static_cast<float>(a.in) * (a.roi_end - a.roi_start) : static_cast<float>(a.in);
        const float size = std::floor(extent * a.scale);
        if (!(a.scale > 0) || !(size >= 0) || size > 9e15f)
          return invalid("scale " + std::to_string(a.scale) + " is out of range");
        a.out = static_cast<int64_t>(size);
      } else {
        a.out = int_at(lists[3], i);
        if (a.out < 0 || (a.in == 0 && a.out > 0)) return invalid("size " + std::to_string(a.out) + " is out of range");
        a.scale = a.in == 0 ? 1 : static_cast<float>(a.out) / static_cast<float>(a.in);
        common = policy_ == 1 ? std::min(common, a.scale) : std::max(common, a.scale);
      }
    }
    for (int64_t i = 0; has_sizes && policy_ != 0 && i < count; ++i) {
      AxisTable& a = axes[which[i]];
      a.scale = common;
      const float size = std::round(common * static_cast<float>(a.in));
      if (!(size >= 0) || size > 9e15f) return invalid("the common scale is out of range");
      a.out = static_cast<int64_t>(size);
    }
    for (int d = 0; d < in.rank; ++d) {
      AxisTable& a = axes[d];
      if (identity(a)) continue;
      if (mode_ == Mode::kNearest) continue;
      const float shrink = antialias_ ? std::min(a.scale, 1.0f) : 1.0f;
      const float first = std::floor((mode_ == Mode::kLinear ? -1.0f : -2.0f) / shrink) + 1;
      if (!(2 - 2 * first <= static_cast<float>(kMaxTaps)))
        return unsupported("a scale of " + std::to_string(a.scale) + " with antialiasing");
      a.taps = static_cast<int64_t>(2 - 2 * first);
    }
    return Status::ok();
  }

  bool identity(const AxisTable& a) const {
    return a.in == a.out && a.scale == 1.0f &&
           (coordinates_ != Coordinates::kTfCropAndResize || (a.roi_start == 0 && a.roi_end == 1));
  }

  /// Source coordinate of output i, in float32 like the implementations that models were trained and exported with.
  float coordinate(const AxisTable& a, int64_t i) const {
    const float x = static_cast<float>(i), in = static_cast<float>(a.in), out = static_cast<float>(a.out);
    switch (coordinates_) {
      case Coordinates::kHalfPixel:
        return (x + 0.5f) / a.scale - 0.5f;
      case Coordinates::kHalfPixelSymmetric:
        return in / 2 * (1 - out / (a.scale * in)) + (x + 0.5f) / a.scale - 0.5f;
      case Coordinates::kPytorchHalfPixel:
        return a.out > 1 ? (x + 0.5f) / a.scale - 0.5f : 0.0f;
      case Coordinates::kAlignCorners:
        return a.out > 1 ? x * (in - 1) / (out - 1) : 0.0f;
      case Coordinates::kAsymmetric:
        return x / a.scale;
      case Coordinates::kTfCropAndResize:
        return a.out > 1 ? a.roi_start * (in - 1) + x * (a.roi_end - a.roi_start) * (in - 1) / (out - 1)
                         : 0.5f * (a.roi_start + a.roi_end) * (in - 1);
    }
    return x;
  }

  float kernel(float distance) const {
    const float d = std::abs(distance);
    if (mode_ == Mode::kLinear) return std::max(0.0f, 1 - d);
    if (d <= 1) return ((cubic_a_ + 2) * d - (cubic_a_ + 3)) * d * d + 1;
    return d < 2 ? ((cubic_a_ * d - 5 * cubic_a_) * d + 8 * cubic_a_) * d - 4 * cubic_a_ : 0.0f;
  }

  float round(float x) const {
    switch (rounding_) {
      case Rounding::kPreferFloor:
        return std::ceil(x - 0.5f);
      case Rounding::kPreferCeil:
        return std::floor(x + 0.5f);
      case Rounding::kFloor:
        return std::floor(x);
      case Rounding::kCeil:
        return std::ceil(x);
    }
    return x;
  }

  void fill(const AxisTable& a) const {
    const int64_t last = a.in - 1;
    const auto clamp = [last](float x) { return std::clamp<int64_t>(saturate<int64_t>(x), 0, last); };
    for (int64_t i = 0; i < a.out; ++i) {
      Tap* taps = a.data + i * a.taps;
      if (identity(a)) {
        taps[0] = {i, 1};
        continue;
      }
      const float x = coordinate(a, i);
      if (coordinates_ == Coordinates::kTfCropAndResize && !(x >= 0 && x <= static_cast<float>(last))) {
        for (int64_t k = 0; k < a.taps; ++k) taps[k] = {-1, 0};
        continue;
      }
      if (mode_ == Mode::kNearest) {
        taps[0] = {clamp(round(x)), 1};
        continue;
      }
      const float base = std::floor(x), shrink = antialias_ ? std::min(a.scale, 1.0f) : 1.0f;
      const float first = 1 - static_cast<float>(a.taps) / 2;
      float sum = 0;
      for (int64_t k = 0; k < a.taps; ++k) {
        const float at = first + static_cast<float>(k);
        float weight = kernel((at - (x - base)) * shrink);
        if (exclude_outside_ && (base + at < 0 || base + at > static_cast<float>(last))) weight = 0;
        taps[k] = {clamp(base + at), weight};
        sum += weight;
      }
      if (antialias_ || exclude_outside_) {
        for (int64_t k = 0; k < a.taps; ++k) taps[k].weight /= sum;
      }
    }
  }

  template <class T>
  void nearest(RunContext& ctx, const AxisTable* axes) const {
    const TensorView &x = ctx.input(0), &y = ctx.output(0);
    const int last = x.shape.rank - 1;
    const int64_t in_row = axes[last].in, out_row = axes[last].out, rows = y.shape.elements() / out_row;
    T outside = 0;
    visit_number(x.dtype, [&](auto t) {
      const auto value = saturate<typename decltype(t)::type>(extrapolation_);
      if constexpr (sizeof(value) == sizeof(T)) std::memcpy(&outside, &value, sizeof(T));
    });
    parallel(ctx, rows, y.shape.elements(), 1, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        int64_t rest = r, offset = 0, stride = in_row;
        bool inside = true;
        for (int d = last - 1; d >= 0; --d) {
          const int64_t index = axes[d].data[rest % axes[d].out].index;
          inside = inside && index >= 0;
          offset += index * stride;
          stride *= axes[d].in;
          rest /= axes[d].out;
        }
        T* to = y.as_mut<T>() + r * out_row;
        const Tap* taps = axes[last].data;
        for (int64_t i = 0; i < out_row; ++i)
          to[i] = inside && taps[i].index >= 0 ? x.as<T>()[offset + taps[i].index] : outside;
      }
    });
  }

  void blend(RunContext& ctx, const AxisTable* axes, float* lines) const {
    const TensorView &x = ctx.input(0), &y = ctx.output(0);
    const int last = x.shape.rank - 1;
    const int64_t in_row = axes[last].in, out_row = axes[last].out, rows = y.shape.elements() / out_row;
    const int threads = y.shape.elements() < kParallelWork / 4 ? 1 : ctx.num_threads();
    ctx.pool().parallel_for(rows, 1, threads, [&](int64_t begin, int64_t end, int worker) {
      float* line = lines + worker * in_row;
      for (int64_t r = begin; r < end; ++r) {
        float* to = y.as_mut<float>() + r * out_row;
        if (!blend_rows(x.as<float>(), axes, last, r, line)) {
          std::fill_n(to, out_row, extrapolation_);
          continue;
        }
        const AxisTable& a = axes[last];
        for (int64_t i = 0; i < out_row; ++i) {
          const Tap* taps = a.data + i * a.taps;
          float sum = 0;
          for (int64_t k = 0; k < a.taps && taps[0].index >= 0; ++k) sum += taps[k].weight * line[taps[k].index];
          to[i] = taps[0].index < 0 ? extrapolation_ : sum;
        }
      }
    });
  }

  /// line = the weighted sum of the source rows of output row r; false when the row lies outside.
  static bool blend_rows(const float* x, const AxisTable* axes, int last, int64_t r, float* line) {
    const Tap* taps[kMaxRank] = {};
    int64_t pick[kMaxRank] = {}, strides[kMaxRank] = {};
    int64_t stride = axes[last].in;
    for (int d = last - 1; d >= 0; --d) {
      taps[d] = axes[d].data + r % axes[d].out * axes[d].taps;
      if (taps[d][0].index < 0) return false;
      strides[d] = stride;
      stride *= axes[d].in;
      r /= axes[d].out;
    }
    const int64_t n = axes[last].in;
    for (bool fresh = true;; fresh = false) {
      float weight = 1;
      int64_t offset = 0;
      for (int d = 0; d < last; ++d) {
        weight *= taps[d][pick[d]].weight;
        offset += taps[d][pick[d]].index * strides[d];
      }
      const float* row = x + offset;
      if (fresh) {
        for (int64_t i = 0; i < n; ++i) line[i] = weight * row[i];
      } else if (weight != 0) {
        for (int64_t i = 0; i < n; ++i) line[i] += weight * row[i];
      }
      int d = last - 1;
      while (d >= 0 && ++pick[d] == axes[d].taps) pick[d--] = 0;
      if (d < 0) return true;
    }
  }

  Mode mode_ = Mode::kNearest;
  Coordinates coordinates_ = Coordinates::kHalfPixel;
  Rounding rounding_ = Rounding::kPreferFloor;
  std::vector<int64_t> axes_;
  int policy_ = 0;
  bool antialias_ = false, exclude_outside_ = false;
  float cubic_a_ = -0.75f, extrapolation_ = 0;
};

}  // namespace
}  // namespace ops

void register_resize(OpRegistry& registry) { registry.add("resize", ops::make<ops::Resize>); }

}  // namespace lutc
