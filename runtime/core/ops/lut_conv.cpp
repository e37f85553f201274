// lut_conv: every pixel is encoded once; the codes of a tap are the codes of the image, displaced (code_planes.h).
#include "core/checked.h"
#include "core/ops/code_planes.h"
#include "core/ops/lut_common.h"

namespace lutc {
namespace ops {
namespace {

constexpr int64_t kTileColumns = 48;
constexpr int64_t kTilePositions = 512;

class LutConv final : public LutConsumer {
 public:
  static constexpr Arity kArity{4, 5, 1, 1};
  using LutConsumer::LutConsumer;

  Status init(const BuildContext& build) override {
    LUTC_RETURN_IF_ERROR(init_common(build));
    CodeWindow window;
    if (!window.read(def_.attrs))
      return invalid(
          "kernel_shape, strides and dilations must be 2 integers from 1, pads 4 from 0, none above 2^20, with at most "
          "2^16 taps");
    padded_ = (window.pads[0] | window.pads[1] | window.pads[2] | window.pads[3]) != 0;
    groups_ = def_.attrs.get_int("group", 1);
    if (groups_ < 1 || codebooks_ % groups_ != 0 || outputs_ % groups_ != 0)
      return invalid("group must divide codebooks and outputs");
    residual_first_ = def_.attrs.get_int("activation_after_residual", 0) != 0;
    shape_.convolution = true;
    shape_.groups = groups_;
    shape_.codebooks = codebooks_ / groups_;
    shape_.entries = entries_;
    shape_.outputs = outputs_;
    shape_.taps = window.kernel[0] * window.kernel[1];
    if (shape_.codebooks * shape_.taps * std::max<int64_t>(gain_limit_, 1) * 127 >= (int64_t{1} << 31))
      return step_error(def_, ErrorCode::kCorrupt, "codebooks / group * taps * gain_limit * 127 must stay below 2^31");
    LUTC_RETURN_IF_ERROR(init_table(build));
    takes_planes_ = groups_ == 1 && kernels_->encode_pixels != nullptr && def_.attrs.get_int("planes", 0) == 1;
    planes_.init(CodesGeometry(kernels_, codebooks_, gain_limit_, entry_limit_), shape_, std::move(window));
    return Status::ok();
  }

  Status infer(InferContext& ctx) const override {
    const Shape& codes = ctx.input_shape(0);
    if (codes.rank != 4) return invalid("codes must come from a lut_encode of an image (axis 1)");
    CodeExtent e;
    if (const char* wrong = planes_.extent(codes, &e)) return invalid(wrong);
    if (takes_planes_ && !e.dense) return invalid("the planes of codes are not dense");
    const Shape y{e.batch, outputs_, e.out_height, e.out_width};
    LUTC_RETURN_IF_ERROR(ctx.set_output(0, DType::kF32, y));
    if (ctx.has_input(4)) {
      if (ctx.input_shape(4) != y)
        return invalid("residual has shape " + ctx.input_shape(4).to_string() + ", the output " + y.to_string());
      if (ctx.input_dtype(4) != DType::kF32) return invalid("residual must be f32");
      if (is_simple() || residual_first_) ctx.may_overwrite(0, 4);
    }
    int64_t bytes = 0;
    if (!checked_mul(scratch_bytes(e, tiling(e)), static_cast<int64_t>(std::max(1, ctx.num_threads())), &bytes) ||
        bytes > (int64_t{1} << 40))
      return invalid("the image is too large");
    ctx.request_scratch(static_cast<size_t>(bytes));
    return Status::ok();
  }

  Status run(RunContext& ctx) const override {
    const TensorView& codes = ctx.input(0);
    if (ctx.output(0).shape.elements() == 0) return Status::ok();
    Job job;
    if (const char* wrong = planes_.extent(codes.shape, &job.e)) return invalid(wrong);
    const CodeExtent& e = job.e;
    const int64_t written = takes_planes_ ? planes_.written_bytes(e) : 0;
    LUTC_RETURN_IF_ERROR(check_codes(codes, e.batch, e.height * e.width, written));
    CodesHeader header;
    std::memcpy(&header, codes.data, sizeof(header));
    if (header.form == CodesForm::kRows) return invalid("the codes of a convolution must be encoded along axis 1");
    if (header.has_offset != 0 && padded_)
      return step_error(def_, ErrorCode::kCorrupt, "a padded convolution needs an encode whose offset is zero");
    job.codes = codes.as<uint8_t>() + sizeof(CodesHeader);
    job.residual = ctx.has_input(4) ? ctx.input(4).as<float>() : nullptr;
    job.y = ctx.output(0).as_mut<float>();
    uint8_t* scratch = static_cast<uint8_t*>(ctx.scratch());
    job.tiling = tiling(e);
    const int64_t per_worker = scratch_bytes(e, job.tiling), items = job.tiling.items();
    const CodesGeometry stored(kernels_, codebooks_, gain_limit_, entry_limit_);
    const auto spread = [&](int64_t image, int64_t g, uint8_t* mine) {
      if (takes_planes_) return planes_.take(e, job.codes + image * written, mine + acc_bytes(job.tiling));
      return planes_.spread(e, job.codes + image * stored.panels(e.height * e.width) * stored.panel_bytes, g,
                            mine + acc_bytes(job.tiling));
    };
    const int64_t work = e.positions() * shape_.codebooks * shape_.taps * outputs_ / 16;
    if (e.batch > 1) {
      const int threads = work * e.batch < kParallelWork ? 1 : ctx.num_threads();
      ctx.pool().parallel_for(e.batch, 1, threads, [&](int64_t begin, int64_t end, int worker) {
        uint8_t* mine = scratch + worker * per_worker;
        for (int64_t image = begin; image < end; ++image) {
          for (int64_t g = 0; g < groups_; ++g) {
            const CodePlanes::Planes planes = spread(image, g, mine);
            for (int64_t i = 0; i < items; ++i) tile(job, planes, image, g, i, mine);
          }
        }
      });
      return Status::ok();
    }
    const int threads = work < kParallelWork ? 1 : ctx.num_threads();
    for (int64_t g = 0; g < groups_; ++g) {
      const CodePlanes::Planes planes = spread(0, g, scratch);
      ctx.pool().parallel_for(items, 1, threads, [&](int64_t begin, int64_t end, int worker) {
        for (int64_t i = begin; i < end; ++i) tile(job, planes, 0, g, i, scratch + worker * per_worker);
      });
    }
    return Status::ok();
  }

 private:
  /// Positions that one call of the inner loop covers.
  int64_t tile_block() const { return int64_t{1} * kernels_->block_panels * kernels_->panel_rows; }
  /// Output rows follow each other without positions between them.
  static bool merged(const CodeExtent& e) { return e.plane_width == e.out_width; }
  /// How the work is cut. Worked out once a run: it takes many divisions.
  struct Tiling {
    int64_t grain;   ///< positions of what a tile consists of: output rows or, where those follow each other, blocks
    int64_t grains;  ///< of an image
    int64_t tiles;   ///< even shares of at most kTilePositions, or rows
    int64_t acc_stride;  ///< positions of the longest tile, in whole blocks
    int64_t column_tiles;
    int64_t items() const { return tiles * column_tiles; }
  };
  Tiling tiling(const CodeExtent& e) const {
    Tiling t;
    t.grain = merged(e) ? tile_block() : e.plane_width;
    t.grains = (e.positions() + t.grain - 1) / t.grain;
    const int64_t most = std::max<int64_t>(1, kTilePositions / t.grain);
    t.tiles = (t.grains + most - 1) / most;
    const int64_t longest = (t.grains + t.tiles - 1) / t.tiles * t.grain;
    t.acc_stride = (longest + tile_block() - 1) / tile_block() * tile_block();
    t.column_tiles = (outputs_ / groups_ + kTileColumns - 1) / kTileColumns;
    return t;
  }
  struct Job {
    CodeExtent e;
    Tiling tiling;
    const uint8_t* codes;
    const float* residual;
    float* y;
  };
  int64_t acc_bytes(const Tiling& t) const { return 4 * kernels_->block_columns * t.acc_stride; }
  int64_t scratch_bytes(const CodeExtent& e, const Tiling& t) const { return acc_bytes(t) + planes_.bytes(e); }

  void tile(const Job& job, const CodePlanes::Planes& p, int64_t image, int64_t group, int64_t item,
            uint8_t* scratch) const {
    const CodeExtent& e = job.e;
    int32_t* acc = reinterpret_cast<int32_t*>(scratch);
    const Tiling& t = job.tiling;
    const int64_t outputs = outputs_ / groups_, part = item / t.column_tiles;
    const int64_t first = part * t.grains / t.tiles * t.grain;
    int64_t last = (part + 1) * t.grains / t.tiles * t.grain;
    last = std::min(merged(e) ? last : last - e.plane_width + e.out_width, e.positions());
    const int64_t column = item % t.column_tiles * kTileColumns, columns = std::min(kTileColumns, outputs - column);
    const int64_t cell = kernels::layout_cell(layout_, entries_);
    const bool by_rows = layout_ == kernels::TableLayout::kRows;

    kernels::LookupBlock b;
    b.entries = static_cast<int>(entries_);
    b.gain_limit = static_cast<int>(planes_.limit());
    b.units = planes_.group().units;
    b.codebooks = shape_.codebooks;
    b.code_panel_step = int64_t{1} * kernels_->panel_rows * kernels_->code_bytes;
    b.code_unit_step = kernels_->code_planes * e.length * kernels_->code_bytes;
    b.code_half_step = e.length * kernels_->code_bytes;
    b.gain_panel_step = int64_t{1} * kernels_->panel_rows * kernels_->gain_bytes;
    b.gain_unit_step = planes_.gain_unit_step(e);
    b.start_panel_step = int64_t{1} * kernels_->panel_rows * kernels_->start_element;
    b.start_window_step = e.length * kernels_->start_element;
    b.window_units = planes_.group().window_units;
    b.taps = p.taps;
    b.tap_count = shape_.taps;
    b.steps = p.steps;
    b.acc_stride = t.acc_stride;
    const uint8_t* table = table_ + group * kernels::group_bytes(layout_, shape_);
    const bool at_once = kernels_->finishes && b.steps != nullptr && merged(e) && is_simple();
    const int64_t block = kernels_->block_columns;
    for (int64_t n = 0, width = 0; n < columns; n += width) {
      // Sums that take their way through memory go block by block: they never leave a level 1 cache.
      const bool all = at_once && kernels_->many_blocks && columns - n > block;
      width = all ? (columns - n) / block * block : std::min(block, columns - n);
      b.columns = static_cast<int>(width);
      b.table = by_rows ? table + column + n : table + (column + n) * shape_.taps * b.units * cell;
      b.table_unit_step = by_rows ? entries_ * outputs : std::min(block, width) * cell;
      b.table_entry_step = outputs;
      const int64_t plane = image * outputs_ + group * outputs + column + n;
      const kernels::FinishBlock outputs_block = finish_block(job, plane, group * outputs + column + n, b.columns);
      if (at_once) b.finish = &outputs_block;
      const int64_t most = kernels_->many_blocks ? last - first : tile_block();
      for (int64_t f = first; f < last; f += most) {
        const int64_t count = std::min(most, last - f);
        b.panels = static_cast<int>((count + kernels_->panel_rows - 1) / kernels_->panel_rows);
        b.codes = p.codes + f * kernels_->code_bytes;
        b.gains = p.gains + f * kernels_->gain_bytes;
        b.starts = p.starts + f * kernels_->start_element;
        b.acc = acc + f - first;
        b.finish_row = f;
        kernels_->lookup(b);
      }
      if (!at_once) finish(job, outputs_block, first, last - first, acc);
    }
  }

  /// Planes of `columns` outputs from `column` on: all their rows, the planes of y from `plane` on.
  kernels::FinishBlock finish_block(const Job& job, int64_t plane, int64_t column, int64_t columns) const {
    const int64_t pixels = job.e.out_height * job.e.out_width;
    const bool add_here = job.residual != nullptr && (is_simple() || residual_first_);
    kernels::FinishBlock f;
    f.acc_stride = job.tiling.acc_stride;
    f.rows = pixels;
    f.columns = columns;
    f.scale = scale_ + column;
    f.bias = bias_ + column;
    f.relu = activation_ == kernels::Activation::kRelu;
    f.residual_first = residual_first_;
    f.residual = add_here ? job.residual + plane * pixels : nullptr;
    f.y = job.y + plane * pixels;
    f.y_stride = pixels;
    return f;
  }

  /// Sums of positions [first, first + count).
  void finish(const Job& job, kernels::FinishBlock f, int64_t first, int64_t count, const int32_t* acc) const {
    const CodeExtent& e = job.e;
    const int64_t lines = merged(e) ? 1 : (count + e.plane_width - 1) / e.plane_width;
    const int64_t at = merged(e) ? first : first / e.plane_width * e.out_width;
    const int64_t offset = f.y - job.y + at;
    f.rows = merged(e) ? count : e.out_width;
    f.acc = acc;
    f.y += at;
    if (f.residual != nullptr) f.residual += at;
    const bool at_once = lines == 1 || (kernels_->plane_lines && is_simple());
    if (at_once) {
      f.lines = lines;
      f.acc_line_step = e.plane_width;
    }
    for (int64_t r = 0; r < (at_once ? 1 : lines); ++r) {
      kernels_->finish_planes(f);
      for (int64_t n = 0; n < f.columns && !is_simple(); ++n) {
        float* y = f.y + n * f.y_stride;
        vector_->activate(activation_, y, y, f.rows);
        if (job.residual != nullptr && !residual_first_)
          vector_->add_f32(y, job.residual + offset + r * f.rows + n * f.y_stride, y, f.rows);
      }
      f.acc += e.plane_width;
      f.y += f.rows;
      if (f.residual != nullptr) f.residual += f.rows;
    }
  }

  int64_t groups_ = 1;
  bool residual_first_ = false, padded_ = false, takes_planes_ = false;
  CodePlanes planes_;
};

}  // namespace
}  // namespace ops

void register_lut_conv(OpRegistry& registry) { registry.add("lut_conv", ops::make<ops::LutConv>); }

}  // namespace lutc
