// lut_conv: every pixel is encoded once; the codes of a tap are the codes of the image, displaced.
//
// Codes, gains and starts are spread into planes with a border whose gains are zero, one plane a phase of the strides,
// so that a tap reads consecutive positions. An output position is i * width + j over the width of such a plane: the
// positions past the end of an output row are computed too and dropped.
#include "core/checked.h"
#include "core/ops/lut_common.h"

namespace lutc {
namespace ops {
namespace {

constexpr int64_t kTileColumns = 48;
constexpr int64_t kTilePositions = 512;
constexpr int64_t kMaxTaps = 1 << 16;
constexpr int64_t kMaxStep = 1 << 20;

/// Sizes that follow from the image.
struct Extent {
  int64_t batch, height, width, out_height, out_width;
  int64_t plane_rows, plane_width;  ///< of one phase
  int64_t length;                   ///< positions of all phases and the slack that whole panels read
};

class LutConv final : public LutConsumer {
 public:
  static constexpr Arity kArity{4, 5, 1, 1};
  using LutConsumer::LutConsumer;

  Status init(const BuildContext& build) override {
    LUTC_RETURN_IF_ERROR(init_common(build));
    LUTC_RETURN_IF_ERROR(ints("kernel_shape", {}, 2, 1, &kernel_));
    LUTC_RETURN_IF_ERROR(ints("strides", {1, 1}, 2, 1, &strides_));
    LUTC_RETURN_IF_ERROR(ints("dilations", {1, 1}, 2, 1, &dilations_));
    LUTC_RETURN_IF_ERROR(ints("pads", {0, 0, 0, 0}, 4, 0, &pads_));
    groups_ = def_.attrs.get_int("group", 1);
    if (groups_ < 1 || codebooks_ % groups_ != 0 || outputs_ % groups_ != 0)
      return invalid("group must divide codebooks and outputs");
    residual_first_ = def_.attrs.get_int("activation_after_residual", 0) != 0;
    shape_.convolution = true;
    shape_.groups = groups_;
    shape_.codebooks = codebooks_ / groups_;
    shape_.entries = entries_;
    shape_.outputs = outputs_;
    shape_.taps = kernel_[0] * kernel_[1];
    if (shape_.taps > kMaxTaps) return invalid("kernel_shape is too large");
    // The plain form runs as gains of 0 (padding) and 1.
    limit_ = std::max<int64_t>(gain_limit_, 1);
    if (shape_.codebooks * shape_.taps * limit_ * 127 >= (int64_t{1} << 31))
      return step_error(def_, ErrorCode::kCorrupt, "codebooks / group * taps * gain_limit * 127 must stay below 2^31");
    LUTC_RETURN_IF_ERROR(init_table(build));
    stored_ = CodesGeometry(kernels_, codebooks_, gain_limit_);
    group_ = CodesGeometry(kernels_, shape_.codebooks, limit_);
    start_planes_ =
        kernels_->start_element == 0 ? 0 : group_.start_bytes / (kernels_->start_element * kernels_->panel_rows);
    return Status::ok();
  }

  Status infer(InferContext& ctx) const override {
    const Shape& codes = ctx.input_shape(0);
    if (codes.rank != 4) return invalid("codes must come from a lut_encode of an image (axis 1)");
    Extent e;
    LUTC_RETURN_IF_ERROR(extent(codes, &e));
    const Shape y{e.batch, outputs_, e.out_height, e.out_width};
    LUTC_RETURN_IF_ERROR(ctx.set_output(0, DType::kF32, y));
    if (ctx.has_input(4)) {
      if (ctx.input_shape(4) != y)
        return invalid("residual has shape " + ctx.input_shape(4).to_string() + ", the output " + y.to_string());
      if (ctx.input_dtype(4) != DType::kF32) return invalid("residual must be f32");
      if (is_simple() || residual_first_) ctx.may_overwrite(0, 4);
    }
    int64_t bytes = 0;
    if (!checked_mul(scratch_bytes(e), static_cast<int64_t>(std::max(1, ctx.num_threads())), &bytes) ||
        bytes > (int64_t{1} << 40))
      return invalid("the image is too large");
    ctx.request_scratch(static_cast<size_t>(bytes));
    return Status::ok();
  }

  Status run(RunContext& ctx) const override {
    const TensorView& codes = ctx.input(0);
    if (ctx.output(0).shape.elements() == 0) return Status::ok();
    Job job;
    LUTC_RETURN_IF_ERROR(extent(codes.shape, &job.e));
    const Extent& e = job.e;
    LUTC_RETURN_IF_ERROR(check_codes(codes, e.batch, e.height * e.width));
    CodesHeader header;
    std::memcpy(&header, codes.data, sizeof(header));
    if (header.of_rows != 0) return invalid("the codes of a convolution must be encoded along axis 1");
    if (header.has_offset != 0 && (pads_[0] | pads_[1] | pads_[2] | pads_[3]) != 0)
      return step_error(def_, ErrorCode::kCorrupt, "a padded convolution needs an encode whose offset is zero");
    job.codes = codes.as<uint8_t>() + sizeof(CodesHeader);
    job.residual = ctx.has_input(4) ? ctx.input(4).as<float>() : nullptr;
    job.y = ctx.output(0).as_mut<float>();
    uint8_t* scratch = static_cast<uint8_t*>(ctx.scratch());
    const int64_t per_worker = scratch_bytes(e);
    const int64_t work = e.out_height * e.out_width * shape_.codebooks * shape_.taps * outputs_ / 16;
    if (e.batch > 1) {
      const int threads = work * e.batch < kParallelWork ? 1 : ctx.num_threads();
      ctx.pool().parallel_for(e.batch, 1, threads, [&](int64_t begin, int64_t end, int worker) {
        uint8_t* mine = scratch + worker * per_worker;
        for (int64_t image = begin; image < end; ++image) {
          for (int64_t g = 0; g < groups_; ++g) {
            const Planes planes = spread(job, image, g, mine);
            for (int64_t i = 0; i < items(e); ++i) tile(job, planes, image, g, i, acc_of(e, mine));
          }
        }
      });
      return Status::ok();
    }
    const int threads = work < kParallelWork ? 1 : ctx.num_threads();
    for (int64_t g = 0; g < groups_; ++g) {
      const Planes planes = spread(job, 0, g, scratch);
      ctx.pool().parallel_for(items(e), 1, threads, [&](int64_t begin, int64_t end, int worker) {
        for (int64_t i = begin; i < end; ++i) tile(job, planes, 0, g, i, acc_of(e, scratch + worker * per_worker));
      });
    }
    return Status::ok();
  }

 private:
  struct Job {
    Extent e;
    const uint8_t* codes;
    const float* residual;
    float* y;
  };
  struct Planes {
    uint8_t* codes;
    uint8_t* gains;
    uint8_t* starts;  ///< a plane a window, or the sums over taps of one
    int64_t* taps;
    int64_t* steps;  ///< [tap][unit] bytes to a step's codes, and to its gains where those are as wide; else null
  };

  Status ints(const char* name, std::vector<int64_t> fallback, size_t size, int64_t low,
              std::vector<int64_t>* out) const {
    *out = def_.attrs.get_ints(name, fallback);
    const auto outside = [=](int64_t v) { return v < low || v > kMaxStep; };
    if (out->size() != size || std::any_of(out->begin(), out->end(), outside))
      return invalid(std::string(name) + " must be " + std::to_string(size) + " integers in " + std::to_string(low) +
                     " .. 2^20");
    return Status::ok();
  }

  Status extent(const Shape& codes, Extent* e) const {
    e->batch = codes[0];
    e->height = codes[1];
    e->width = codes[2];
    if (e->height > (int64_t{1} << 30) || e->width > (int64_t{1} << 30)) return invalid("the image is too large");
    const int64_t height = e->height + pads_[0] + pads_[2], width = e->width + pads_[1] + pads_[3];
    const int64_t reach_y = dilations_[0] * (kernel_[0] - 1) + 1, reach_x = dilations_[1] * (kernel_[1] - 1) + 1;
    if (height < reach_y || width < reach_x) return invalid("the padded image is smaller than the kernel");
    e->out_height = (height - reach_y) / strides_[0] + 1;
    e->out_width = (width - reach_x) / strides_[1] + 1;
    e->plane_rows = (height + strides_[0] - 1) / strides_[0];
    e->plane_width = (width + strides_[1] - 1) / strides_[1];
    int64_t n = 0;
    if (!checked_mul(strides_[0] * strides_[1], e->plane_rows, &n) || !checked_mul(n, e->plane_width, &n) ||
        n > (int64_t{1} << 36))
      return invalid("the image is too large");
    e->length = (n + tile_block() + 31) / 32 * 32;
    return Status::ok();
  }

  /// Positions that one call of the inner loop covers.
  int64_t tile_block() const { return int64_t{1} * kernels_->block_panels * kernels_->panel_rows; }
  static int64_t aligned(int64_t n) { return (n + 63) / 64 * 64; }

  int64_t tile_rows(const Extent& e) const {
    return std::clamp<int64_t>(kTilePositions / e.plane_width, 1, e.out_height);
  }
  int64_t tile_length(const Extent& e) const {
    const int64_t positions = (tile_rows(e) - 1) * e.plane_width + e.out_width;
    return (positions + tile_block() - 1) / tile_block() * tile_block();
  }
  int64_t items(const Extent& e) const {
    const int64_t rows = tile_rows(e), outputs = outputs_ / groups_;
    return (e.out_height + rows - 1) / rows * ((outputs + kTileColumns - 1) / kTileColumns);
  }

  int64_t code_bytes(const Extent& e) const {
    return group_.units * kernels_->code_planes * kernels_->code_bytes * e.length;
  }
  int64_t gain_bytes(const Extent& e) const { return group_.units * kernels_->gain_bytes * e.length; }
  int64_t start_bytes(const Extent& e) const { return start_planes_ * kernels_->start_element * e.length; }
  int64_t acc_bytes(const Extent& e) const { return aligned(4 * kernels_->block_columns * tile_length(e)) + 64; }
  /// Accumulators, taps, codes, gains, starts and (where starts are summed over taps) the sums.
  int64_t scratch_bytes(const Extent& e) const {
    return acc_bytes(e) + aligned(8 * shape_.taps * (1 + group_.units)) + aligned(code_bytes(e)) +
           aligned(gain_bytes(e)) + 2 * aligned(start_bytes(e));
  }
  int32_t* acc_of(const Extent&, uint8_t* scratch) const { return reinterpret_cast<int32_t*>(scratch); }

  /// Position in the planes of pixel (y, x) of the unpadded image.
  int64_t position(const Extent& e, int64_t y, int64_t x) const {
    const int64_t py = y + pads_[0], px = x + pads_[1];
    return ((py % strides_[0] * strides_[1] + px % strides_[1]) * e.plane_rows + py / strides_[0]) * e.plane_width +
           px / strides_[1];
  }

  Planes spread(const Job& job, int64_t image, int64_t group, uint8_t* scratch) const {
    const Extent& e = job.e;
    Planes p;
    uint8_t* at = scratch + acc_bytes(e);
    p.taps = reinterpret_cast<int64_t*>(at);
    p.steps =
        kernels_->code_planes == 1 && kernels_->code_bytes == kernels_->gain_bytes ? p.taps + shape_.taps : nullptr;
    p.codes = at + aligned(8 * shape_.taps * (1 + group_.units));
    p.gains = p.codes + aligned(code_bytes(e));
    p.starts = p.gains + aligned(gain_bytes(e));
    for (int64_t u = 0; u < kernel_[0]; ++u) {
      for (int64_t v = 0; v < kernel_[1]; ++v) {
        const int64_t y = u * dilations_[0], x = v * dilations_[1];
        p.taps[u * kernel_[1] + v] =
            ((y % strides_[0] * strides_[1] + x % strides_[1]) * e.plane_rows + y / strides_[0]) * e.plane_width +
            x / strides_[1];
      }
    }
    for (int64_t t = 0; t < shape_.taps && p.steps != nullptr; ++t) {
      for (int64_t u = 0; u < group_.units; ++u)
        p.steps[t * group_.units + u] = (p.taps[t] + u * e.length) * kernels_->code_bytes;
    }
    std::memset(p.codes, 0, static_cast<size_t>(code_bytes(e)));
    std::memset(p.gains, 0, static_cast<size_t>(gain_bytes(e)));
    std::memset(p.starts, 0, static_cast<size_t>(start_bytes(e)));
    const int64_t pixels = e.height * e.width, rows = kernels_->panel_rows;
    const uint8_t* panels = job.codes + image * stored_.panels(pixels) * stored_.panel_bytes;
    int64_t y = 0, x = 0, row_begin = position(e, 0, 0);  // counted on: divisions would cost more than the copies
    for (int64_t first = 0; first < pixels; first += rows) {
      const uint8_t* panel = panels + first / rows * stored_.panel_bytes;
      const int64_t count = std::min(rows, pixels - first);
      // Runs of pixels that stay consecutive in the planes.
      for (int64_t lane = 0; lane < count;) {
        const int64_t run = strides_[1] == 1 ? std::min(count - lane, e.width - x) : 1;
        const int64_t to = strides_[1] == 1 ? row_begin + x : position(e, y, x);
        if (groups_ == 1) {
          copy_run(e, panel, lane, run, to, p);
        } else {
          for (int64_t i = 0; i < run; ++i) regroup(e, panel, lane + i, group, to + i, p);
        }
        lane += run;
        x += run;
        if (x == e.width) {
          x = 0;
          row_begin = position(e, ++y, 0);
        }
      }
    }
    if (kernels_->start_element == 4) sum_starts(e, &p);
    return p;
  }

  /// A few bytes: calls of memcpy and memset would take longer than the moves.
  static void copy_short(uint8_t* target, const uint8_t* source, int64_t bytes) {
    for (; bytes >= 16; bytes -= 16, target += 16, source += 16) std::memcpy(target, source, 16);
    for (; bytes >= 4; bytes -= 4, target += 4, source += 4) std::memcpy(target, source, 4);
    for (; bytes > 0; --bytes) *target++ = *source++;
  }

  static void fill_short(uint8_t* target, uint32_t word, int64_t bytes) {
    const uint32_t words[4] = {word, word, word, word};
    for (; bytes >= 16; bytes -= 16, target += 16) std::memcpy(target, words, 16);
    copy_short(target, reinterpret_cast<const uint8_t*>(words), bytes);
  }

  /// Copies a run of positions of every plane of a panel.
  void copy_run(const Extent& e, const uint8_t* panel, int64_t lane, int64_t run, int64_t to, const Planes& p) const {
    const int64_t rows = kernels_->panel_rows, code = kernels_->code_bytes, gain = kernels_->gain_bytes,
                  start = kernels_->start_element;
    const auto copy = [run](uint8_t* target, const uint8_t* source, int64_t bytes) {
      copy_short(target, source, run * bytes);
    };
    for (int64_t u = 0; u < group_.units; ++u) {
      const uint8_t* codes = panel + stored_.start_bytes + u * stored_.unit_bytes();
      for (int64_t h = 0; h < kernels_->code_planes; ++h)
        copy(p.codes + ((u * kernels_->code_planes + h) * e.length + to) * code, codes + (h * rows + lane) * code,
             code);
      uint8_t* gains = p.gains + (u * e.length + to) * gain;
      if (gain_limit_ > 0) {
        copy(gains, codes + stored_.code_unit_bytes + lane * gain, gain);
      } else {
        fill_short(gains, 0x01010101, run * gain);
      }
    }
    for (int64_t s = 0; s < start_planes_; ++s) {
      uint8_t* starts = p.starts + (s * e.length + to) * start;
      if (gain_limit_ > 0) {
        copy(starts, panel + (s * rows + lane) * start, start);
      } else if (start == 4) {
        fill_short(starts, static_cast<uint32_t>(-128 * kernels_->unit * window_size(s)), run * start);
      } else {
        for (int64_t i = 0; i < run; ++i) store_start(starts + i * start, -128 * kernels_->unit * window_size(s));
      }
    }
  }

  /// One pixel of one convolution group, codebook by codebook: groups need not begin where units do.
  void regroup(const Extent& e, const uint8_t* panel, int64_t lane, int64_t group, int64_t to, const Planes& p) const {
    const int64_t unit = kernels_->unit, window = kernels_->window_units(group_.units, static_cast<int>(limit_));
    int64_t sum = 0;
    for (int64_t u = 0; u < group_.units; ++u) {
      for (int64_t j = 0; j < unit; ++j) {
        const int64_t c = u * unit + j;
        uint8_t code = 0;
        int8_t gain = 0;
        if (c < shape_.codebooks) stored_.extract(panel, lane, entries_, group * shape_.codebooks + c, &code, &gain);
        if (kernels_->code_planes > 1) {
          p.codes[(u * kernels_->code_planes + j) * e.length + to] = code;
        } else {
          p.codes[(u * e.length + to) * kernels_->code_bytes + j] = static_cast<uint8_t>(code + j * entries_);
        }
        p.gains[(u * e.length + to) * kernels_->gain_bytes + j] = static_cast<uint8_t>(gain);
        sum += gain;
      }
      if (start_planes_ > 0 && ((u + 1) % window == 0 || u + 1 == group_.units)) {
        store_start(p.starts + (u / window * e.length + to) * kernels_->start_element, -128 * sum);
        sum = 0;
      }
    }
  }

  int64_t window_size(int64_t window) const {
    const int64_t units = kernels_->window_units(group_.units, static_cast<int>(limit_));
    return std::min(units, group_.units - window * units);
  }

  void store_start(uint8_t* target, int64_t value) const {
    const uint32_t bits = static_cast<uint32_t>(value);  // wraps as the kernels' 16-bit sums do
    if (kernels_->start_element == 4) {
      std::memcpy(target, &bits, 4);
    } else {
      const uint16_t half = static_cast<uint16_t>(bits);
      std::memcpy(target, &half, 2);
    }
  }

  /// starts of output positions: the sum over taps.
  void sum_starts(const Extent& e, Planes* p) const {
    const int32_t* starts = reinterpret_cast<const int32_t*>(p->starts);
    int32_t* sums = reinterpret_cast<int32_t*>(p->starts + aligned(start_bytes(e)));
    const int64_t positions = (e.out_height - 1) * e.plane_width + e.out_width;
    std::memset(sums, 0, static_cast<size_t>(e.length) * 4);
    int64_t t = 0;
    for (; t + 3 <= shape_.taps; t += 3) {
      const int32_t *a = starts + p->taps[t], *b = starts + p->taps[t + 1], *c = starts + p->taps[t + 2];
      for (int64_t i = 0; i < positions; ++i) sums[i] += a[i] + b[i] + c[i];
    }
    for (; t < shape_.taps; ++t) {
      const int32_t* tap = starts + p->taps[t];
      for (int64_t i = 0; i < positions; ++i) sums[i] += tap[i];
    }
    p->starts = reinterpret_cast<uint8_t*>(sums);
  }

  void tile(const Job& job, const Planes& p, int64_t image, int64_t group, int64_t item, int32_t* acc) const {
    const Extent& e = job.e;
    const int64_t outputs = outputs_ / groups_, column_tiles = (outputs + kTileColumns - 1) / kTileColumns;
    const int64_t rows_per_tile = tile_rows(e), stride = tile_length(e);
    const int64_t row = item / column_tiles * rows_per_tile, column = item % column_tiles * kTileColumns;
    const int64_t rows = std::min(rows_per_tile, e.out_height - row),
                  columns = std::min(kTileColumns, outputs - column);
    const int64_t positions = (rows - 1) * e.plane_width + e.out_width, first = row * e.plane_width;
    const int64_t cell = kernels::layout_cell(layout_, entries_);
    const bool by_rows = layout_ == kernels::TableLayout::kRows;

    kernels::LookupBlock b;
    b.entries = static_cast<int>(entries_);
    b.gain_limit = static_cast<int>(limit_);
    b.units = group_.units;
    b.codebooks = shape_.codebooks;
    b.code_panel_step = int64_t{1} * kernels_->panel_rows * kernels_->code_bytes;
    b.code_unit_step = kernels_->code_planes * e.length * kernels_->code_bytes;
    b.code_half_step = e.length * kernels_->code_bytes;
    b.gain_panel_step = int64_t{1} * kernels_->panel_rows * kernels_->gain_bytes;
    b.gain_unit_step = e.length * kernels_->gain_bytes;
    b.start_panel_step = int64_t{1} * kernels_->panel_rows * kernels_->start_element;
    b.start_window_step = e.length * kernels_->start_element;
    b.taps = p.taps;
    b.tap_count = shape_.taps;
    b.steps = p.steps;
    b.acc_stride = stride;
    const uint8_t* table = table_ + group * kernels::group_bytes(layout_, shape_);
    for (int64_t n = 0; n < columns; n += kernels_->block_columns) {
      b.columns = static_cast<int>(std::min<int64_t>(kernels_->block_columns, columns - n));
      b.table = by_rows ? table + column + n : table + (column + n) * shape_.taps * group_.units * cell;
      b.table_unit_step = by_rows ? entries_ * outputs : b.columns * cell;
      b.table_entry_step = outputs;
      for (int64_t f = 0; f < positions; f += tile_block()) {
        b.panels =
            static_cast<int>((std::min(tile_block(), positions - f) + kernels_->panel_rows - 1) / kernels_->panel_rows);
        b.codes = p.codes + (first + f) * kernels_->code_bytes;
        b.gains = p.gains + (first + f) * kernels_->gain_bytes;
        b.starts = p.starts + (first + f) * kernels_->start_element;
        b.acc = acc + f;
        fetch_output(job, image, group * outputs + column + n, b.columns, row, rows, f);
        kernels_->lookup(b);
      }
      // Block by block: the sums never leave a level 1 cache.
      finish(job, image, group * outputs + column + n, b.columns, row, rows, acc, stride);
    }
  }

  /// The share of the output lines of a tile that one call's sums fill, fetched while they are made.
  void fetch_output(const Job& job, int64_t image, int64_t column, int64_t columns, int64_t row, int64_t rows,
                    int64_t position) const {
    const int64_t plane = job.e.out_height * job.e.out_width;
    const int64_t end = std::min(position + tile_block(), rows * job.e.out_width);
    const float* y = job.y + (image * outputs_ + column) * plane + row * job.e.out_width;
    for (int64_t n = 0; n < columns; ++n) {
      for (int64_t i = position; i < end; i += 16) __builtin_prefetch(y + n * plane + i, 1, 2);
    }
  }

  void finish(const Job& job, int64_t image, int64_t column, int64_t columns, int64_t row, int64_t rows,
              const int32_t* acc, int64_t stride) const {
    const Extent& e = job.e;
    const int64_t plane = e.out_height * e.out_width;
    const bool merged = e.plane_width == e.out_width;  // rows follow each other
    kernels::FinishBlock f;
    f.acc_stride = stride;
    f.rows = merged ? rows * e.out_width : e.out_width;
    f.columns = columns;
    f.scale = scale_ + column;
    f.bias = bias_ + column;
    f.relu = activation_ == kernels::Activation::kRelu;
    f.residual_first = residual_first_;
    f.y_stride = plane;
    const bool at_once = merged || (kernels_->plane_lines && is_simple());
    if (at_once && !merged) {
      f.lines = rows;
      f.acc_line_step = e.plane_width;
    }
    for (int64_t r = 0; r < (at_once ? 1 : rows); ++r) {
      const int64_t at = (image * outputs_ + column) * plane + (row + r) * e.out_width;
      f.acc = acc + r * e.plane_width;
      f.y = job.y + at;
      const bool add_here = job.residual != nullptr && (is_simple() || residual_first_);
      f.residual = add_here ? job.residual + at : nullptr;
      kernels_->finish_planes(f);
      if (is_simple()) continue;
      for (int64_t n = 0; n < columns; ++n) {
        float* y = f.y + n * plane;
        vector_->activate(activation_, y, y, f.rows);
        if (job.residual != nullptr && !residual_first_) vector_->add_f32(y, job.residual + at + n * plane, y, f.rows);
      }
    }
  }

  std::vector<int64_t> kernel_, strides_, dilations_, pads_;
  int64_t groups_ = 1, limit_ = 1, start_planes_ = 0;
  bool residual_first_ = false;
  CodesGeometry stored_;  ///< of the codes value
  CodesGeometry group_;   ///< of the planes of one convolution group
};

}  // namespace
}  // namespace ops

void register_lut_conv(OpRegistry& registry) { registry.add("lut_conv", ops::make<ops::LutConv>); }

}  // namespace lutc
