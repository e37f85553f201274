// lut_encode: [project,] quantise and encode the rows of a matrix or the pixels of an image (docs/operators.md).
#include "core/checked.h"
#include "core/ops/code_planes.h"
#include "core/ops/lut_common.h"
#include "kernels/encode_plan.h"

namespace lutc {
namespace ops {
namespace {

class LutEncode final : public OpBase {
 public:
  static constexpr Arity kArity{7, 11, 1, 1};
  using OpBase::OpBase;

  Status init(const BuildContext& build) override {
    kernels_ = build.kernels->lookup;
    if (kernels_ == nullptr) return step_error(def_, ErrorCode::kInternal, "this build has no lookup kernels");
    if (dtype(0) != DType::kF32) return unsupported_dtype();
    if (!def_.attrs.has("gain_limit")) return invalid("attribute 'gain_limit' is missing");
    const int64_t axis = def_.attrs.get_int("axis", -1);
    if (axis != -1 && axis != 1) return invalid("axis must be -1 (rows) or 1 (channels)");
    channels_ = axis == 1;

    kernels::EncodeSource s;
    LUTC_RETURN_IF_ERROR(expect(1, DType::kF32, 1, "offset"));
    s.features = shape(1)[0];
    LUTC_RETURN_IF_ERROR(expect(3, DType::kI32, 2, "groups"));
    s.codebooks = shape(3)[0];
    s.width = shape(3)[1];
    LUTC_RETURN_IF_ERROR(expect(4, DType::kI8, 3, "directions"));
    s.entries = shape(4)[1];
    LUTC_RETURN_IF_ERROR(expect(2, DType::kF32, 1, "inv_scale"));
    LUTC_RETURN_IF_ERROR(expect(5, DType::kI32, 2, "code_bias"));
    LUTC_RETURN_IF_ERROR(expect(6, DType::kF32, 1, "gain_mul"));
    if (shape(2) != Shape{s.features}) return invalid("inv_scale must have the shape of offset");
    if (shape(4) != Shape{s.codebooks, s.entries, s.width}) return invalid("directions must be [C, K, V]");
    if (shape(5) != Shape{s.codebooks, s.entries}) return invalid("code_bias must be [C, K]");
    if (shape(6) != Shape{s.codebooks}) return invalid("gain_mul must be [C]");
    s.gain_limit = def_.attrs.get_int("gain_limit", -1);
    s.entry_limit = entry_limit(def_);
    s.offset = data<float>(1);
    s.inv_scale = data<float>(2);
    s.groups = data<int32_t>(3);
    s.directions = data<int8_t>(4);
    s.code_bias = data<int32_t>(5);
    s.gain_mul = data<float>(6);
    if (present(7) || present(8) || present(9) || present(10)) {
      LUTC_RETURN_IF_ERROR(expect(7, DType::kF32, 1, "the projection's offset"));
      LUTC_RETURN_IF_ERROR(expect(8, DType::kF32, 1, "the projection's inv_scale"));
      LUTC_RETURN_IF_ERROR(expect(9, DType::kI8, 2, "the projection's matrix"));
      LUTC_RETURN_IF_ERROR(expect(10, DType::kF32, 1, "the projection's mul"));
      s.inputs = shape(7)[0];
      if (s.inputs < 1 || shape(8) != shape(7) || shape(9) != Shape{s.inputs, s.features} ||
          shape(10) != Shape{s.features})
        return invalid(
            "the projection must be offset [D], inv_scale [D], matrix [D, r], mul [r] with r the features that are "
            "encoded");
      s.proj_offset = data<float>(7);
      s.proj_inv_scale = data<float>(8);
      s.matrix = data<int8_t>(9);
      s.mul = data<float>(10);
      s.blocks = def_.attrs.get_ints("blocks", {});
    }
    const Status status = plan_.prepare(s, kernels_->direction_form);
    if (!status.is_ok()) return step_error(def_, status.code(), status.message());
    geometry_ = CodesGeometry(kernels_, s.codebooks, s.gain_limit, s.entry_limit);
    inputs_ = s.inputs > 0 ? s.inputs : s.features;
    scratch_ = (kernels_->encode_scratch(plan_.view()) + 63) / 64 * 64;
    writes_planes_ = channels_ && kernels_->encode_pixels != nullptr && def_.attrs.get_int("planes", 0) == 1;
    if (writes_planes_) {
      CodeWindow window;
      if (!window.read(def_.attrs)) return invalid("the planes' window is not that of a convolution");
      kernels::TableShape shape;
      shape.codebooks = s.codebooks;
      shape.entries = s.entries;
      planes_.init(geometry_, shape, std::move(window));
    }
    return Status::ok();
  }

  Status infer(InferContext& ctx) const override {
    const Shape& x = ctx.input_shape(0);
    if (channels_ ? x.rank != 4 : x.rank < 1)
      return invalid(channels_ ? "x must be [B, C, H, W]" : "x must have a feature axis");
    const int64_t features = channels_ ? x[1] : x[x.rank - 1];
    if (features != inputs_)
      return invalid("x has " + std::to_string(features) + " features, this layer encodes " + std::to_string(inputs_));
    const int64_t images = channels_ ? x[0] : 1;
    const int64_t rows = channels_ ? x.product(2, 4) : x.product(0, x.rank - 1);
    int64_t bytes = 0, shared = 0;
    if (writes_planes_) {
      CodeExtent e;
      if (const char* wrong = planes_.extent(Shape{x[0], x[2], x[3], 0}, &e)) return invalid(wrong);
      if (!e.dense) return invalid("the planes of codes are not dense");
      if (!checked_mul(images, planes_.written_bytes(e), &bytes) ||
          !checked_add(bytes, static_cast<int64_t>(sizeof(CodesHeader)), &bytes))
        return invalid("the codes of shape " + x.to_string() + " are too large");
      shared = planes_.writer_bytes(e);
    } else if (!geometry_.bytes(images, rows, &bytes)) {
      return invalid("the codes of shape " + x.to_string() + " are too large");
    }
    // Leading dims stay, so that consumers know them; the last one holds everything (rounded up to a whole number of
    // bytes a row).
    const int64_t count = std::max<int64_t>(images * rows, 1);
    Shape shape = channels_ ? Shape{x[0], x[2], x[3], 0} : x;
    shape[shape.rank - 1] = (bytes + count - 1) / count;
    LUTC_RETURN_IF_ERROR(ctx.set_output(0, DType::kU8, shape));
    ctx.request_scratch(static_cast<size_t>(shared) + scratch_ * static_cast<size_t>(std::max(1, ctx.num_threads())));
    return Status::ok();
  }

  Status run(RunContext& ctx) const override {
    const TensorView& x = ctx.input(0);
    const TensorView& out = ctx.output(0);
    const int64_t images = channels_ ? x.shape[0] : 1;
    const int64_t rows = channels_ ? x.shape.product(2, 4) : x.shape.product(0, x.shape.rank - 1);
    if (images * rows == 0) return Status::ok();
    CodesHeader header;
    header.codebooks = geometry_.codebooks;
    header.entries = plan_.view().entries;
    header.gain_limit = geometry_.gain_limit;
    header.has_offset = plan_.view().has_offset || plan_.view().has_proj_offset;
    header.form = writes_planes_ ? CodesForm::kPlanes : channels_ ? CodesForm::kPixels : CodesForm::kRows;
    header.entry_limit = static_cast<int32_t>(geometry_.entry_limit);
    header.images = images;
    header.rows = rows;
    std::memcpy(out.data, &header, sizeof(header));
    uint8_t* panels = out.as_mut<uint8_t>() + sizeof(header);
    if (writes_planes_) return write_planes(ctx, panels);
    const int64_t per_image = geometry_.panels(rows), panel_rows = kernels_->panel_rows;
    const bool planes = channels_ || by_features(def_, "takes_features", *kernels_, rows);
    const auto body = [&](int64_t begin, int64_t end, int worker) {
      uint8_t* scratch = static_cast<uint8_t*>(ctx.scratch()) + static_cast<size_t>(worker) * scratch_;
      for (int64_t p = begin; p < end;) {
        const int64_t image = p / per_image, row = p % per_image * panel_rows;
        const int64_t count = std::min<int64_t>({kernels_->encode_panels, end - p, per_image - p % per_image});
        kernels::EncodeInput in;
        in.rows = std::min(count * panel_rows, rows - row);
        in.row_stride = planes ? 1 : inputs_;
        in.feature_stride = planes ? rows : 1;
        in.x = x.as<float>() + image * inputs_ * rows + row * in.row_stride;
        kernels_->encode(plan_.view(), in, panels + p * geometry_.panel_bytes, geometry_.panel_bytes, scratch);
        p += count;
      }
    };
    const int64_t total = images * per_image;
    if (images * rows * inputs_ < kParallelWork) {
      body(0, total, 0);
    } else {
      ctx.pool().parallel_for(total, 1, ctx.num_threads(), body);
    }
    return Status::ok();
  }

 private:
  /// As a convolution reads the codes: image after image, each by all threads.
  Status write_planes(RunContext& ctx, uint8_t* images) const {
    const TensorView& x = ctx.input(0);
    CodeExtent e;
    if (const char* wrong = planes_.extent(Shape{x.shape[0], x.shape[2], x.shape[3], 0}, &e)) return invalid(wrong);
    const int64_t pixels = e.height * e.width, panel_rows = kernels_->panel_rows;
    const int threads = pixels * inputs_ < kParallelWork ? 1 : ctx.num_threads();
    uint8_t* scratch = static_cast<uint8_t*>(ctx.scratch());
    for (int64_t image = 0; image < e.batch; ++image) {
      const kernels::PixelPlanes all = planes_.writer(e, images + image * planes_.written_bytes(e), scratch);
      const float* first = x.as<float>() + image * inputs_ * pixels;
      const auto body = [&](int64_t begin, int64_t end, int worker) {
        kernels::PixelPlanes planes = all;
        planes.codes += begin * panel_rows * kernels_->code_bytes;
        if (planes.gains != nullptr) planes.gains += begin * panel_rows * kernels_->gain_bytes;
        planes.phase = begin % planes.period;
        kernels::EncodeInput in;
        in.x = first + begin * panel_rows;
        in.row_stride = 1;
        in.feature_stride = pixels;
        in.rows = std::min(end * panel_rows, pixels) - begin * panel_rows;
        kernels_->encode_pixels(plan_.view(), in, planes,
                                scratch + planes_.writer_bytes(e) + static_cast<size_t>(worker) * scratch_);
      };
      if (threads == 1) {
        body(0, geometry_.panels(pixels), 0);
      } else {
        ctx.pool().parallel_for(geometry_.panels(pixels), kernels_->encode_panels, threads, body);
      }
    }
    return Status::ok();
  }

  const Shape& shape(int i) const { return def_.inputs[i].tensor.shape; }
  template <class T>
  const T* data(int i) const {
    return def_.inputs[i].tensor.as<T>();
  }
  Status expect(size_t i, DType type, int rank, const char* what) const {
    if (!present(i) || !def_.inputs[i].constant || def_.inputs[i].tensor.data == nullptr)
      return invalid(std::string(what) + " must be a constant");
    const TensorView& t = def_.inputs[i].tensor;
    if (t.dtype != type || t.shape.rank != rank)
      return invalid(std::string(what) + " must be " + dtype_name(type) + " of rank " + std::to_string(rank));
    return Status::ok();
  }

  const kernels::LookupKernels* kernels_ = nullptr;
  kernels::EncodePlan plan_;
  CodesGeometry geometry_;
  bool channels_ = false, writes_planes_ = false;
  CodePlanes planes_;
  int64_t inputs_ = 0;
  size_t scratch_ = 0;
};

}  // namespace
}  // namespace ops

void register_lut_encode(OpRegistry& registry) { registry.add("lut_encode", ops::make<ops::LutEncode>); }

}  // namespace lutc
