// lut_linear: y = activation(scale * sum of looked-up entries + bias) + residual.
#include "core/ops/lut_common.h"

namespace lutc {
namespace ops {
namespace {

/// Columns of an accumulator tile: a multiple of every kernel's block.
constexpr int64_t kTileColumns = 48;
/// Most tiles of rows that one pass over the table serves: their codes and sums stay in a level 2 cache.
constexpr int64_t kGroupTiles = 4;
/// Cache lines of a later step's table to fetch a unit.
constexpr int64_t kMostLines = 4;
/// Codes of a tile of rows that stay in a level 1 cache, beside the table's blocks that pass through it.
constexpr int64_t kNearCodes = 20 << 10;
/// Tables of a plan that stay in cache from run to run. Beyond, a call has one tile of rows, which spreads the fetching
/// of what follows better; within, one call for all tiles and blocks is faster (4 % at 24 units).
constexpr int64_t kCachedTables = int64_t{16} << 20;
/// Units of a tile whose outputs take a stage. Beyond there is nothing to gain (1 % at 48 units, 5 at 32, 20 at 12),
/// and while tables come from memory lines of output that are written between cost more than by themselves.
constexpr int64_t kStagedUnits = 32;

class LutLinear final : public LutConsumer {
 public:
  static constexpr Arity kArity{4, 5, 1, 1};
  using LutConsumer::LutConsumer;

  Status init(const BuildContext& build) override {
    LUTC_RETURN_IF_ERROR(init_common(build));
    shape_.codebooks = codebooks_;
    shape_.entries = entries_;
    shape_.outputs = outputs_;
    if (codebooks_ * std::max<int64_t>(gain_limit_, 1) * 127 >= (int64_t{1} << 31))
      return step_error(def_, ErrorCode::kCorrupt, "codebooks * gain_limit * 127 must stay below 2^31");
    LUTC_RETURN_IF_ERROR(init_table(build));
    geometry_ = CodesGeometry(kernels_, codebooks_, gain_limit_, entry_limit_);
    tile_rows_ = kernels_->block_panels * kernels_->panel_rows;
    const int64_t tile_codes = kernels_->block_panels * geometry_.panel_bytes;
    many_blocks_ = kernels_->many_blocks && build.table_bytes < kCachedTables;
    whole_rounds_ = many_blocks_ || tile_codes <= kNearCodes;
    stages_ = many_blocks_ && kernels_->stage_columns == kTileColumns && geometry_.units <= kStagedUnits;
    tile_elements_ = kGroupTiles * tile_rows_ * kTileColumns;
    scratch_ = static_cast<size_t>((stages_ ? 2 : 1) * tile_elements_ * 4 +
                                   (2 * codebooks_ + outputs_ * 4 + 64 * 4 + 127) / 64 * 64);
    link(build);
    return Status::ok();
  }

  Status infer(InferContext& ctx) const override {
    Shape y = ctx.input_shape(0);
    if (y.rank < 1) return invalid("codes must have a last axis");
    y[y.rank - 1] = outputs_;
    LUTC_RETURN_IF_ERROR(ctx.set_output(0, DType::kF32, y));
    if (rows_table_ == nullptr || y.product(0, y.rank - 1) > kernels_->gather_rows) LUTC_RETURN_IF_ERROR(need_table());
    if (ctx.has_input(4)) {
      if (ctx.input_shape(4) != y)
        return invalid("residual has shape " + ctx.input_shape(4).to_string() + ", the output " + y.to_string());
      if (ctx.input_dtype(4) != DType::kF32) return invalid("residual must be f32");
      if (is_simple()) ctx.may_overwrite(0, 4);
    }
    ctx.request_scratch(scratch_ * static_cast<size_t>(std::max(1, ctx.num_threads())));
    return Status::ok();
  }

  Status run(RunContext& ctx) const override {
    const TensorView& codes = ctx.input(0);
    const TensorView& out = ctx.output(0);
    const int64_t rows = out.shape.product(0, out.shape.rank - 1);
    if (rows == 0) return Status::ok();
    LUTC_RETURN_IF_ERROR(check_codes(codes, 1, rows));
    Job job;
    job.codes = codes.as<uint8_t>() + sizeof(CodesHeader);
    job.residual = ctx.has_input(4) ? ctx.input(4).as<float>() : nullptr;
    job.y = out.as_mut<float>();
    job.rows = rows;
    job.by_features = job.residual == nullptr && ops::by_features(def_, "makes_features", *kernels_, rows);
    uint8_t* scratch = static_cast<uint8_t*>(ctx.scratch());
    const int64_t work = rows * codebooks_ * outputs_ / 16;
    const int threads = work < kParallelWork ? 1 : ctx.num_threads();
    if (rows_table_ != nullptr && rows <= kernels_->gather_rows) {
      const int64_t blocks = (outputs_ + 63) / 64;
      ctx.pool().parallel_for(rows * blocks, 1, threads, [&](int64_t begin, int64_t end, int worker) {
        gather(job, begin, end, blocks, scratch + static_cast<size_t>(worker) * scratch_);
      });
      return Status::ok();
    }
    job.column_tiles = (outputs_ + kTileColumns - 1) / kTileColumns;
    job.group_tiles = std::min<int64_t>(kGroupTiles, (rows + tile_rows_ - 1) / tile_rows_);
    const auto groups = [&] { return (rows + job.group_tiles * tile_rows_ - 1) / (job.group_tiles * tile_rows_); };
    while (job.group_tiles > 1 && groups() * job.column_tiles < 2 * threads)
      job.group_tiles = (job.group_tiles + 1) / 2;
    ctx.pool().parallel_for(groups() * job.column_tiles, 1, threads, [&](int64_t begin, int64_t end, int worker) {
      Work work{reinterpret_cast<int32_t*>(scratch + static_cast<size_t>(worker) * scratch_)};
      for (int64_t item = begin; item < end; ++item) tile(job, item, &work);
      if (stages_) kernels_->unstage(&work.staged);
    });
    return Status::ok();
  }

 private:
  struct Span {
    int64_t row, rows, column, columns;
  };
  /// A worker's scratch: sums of a tile or, where kernels stage outputs, its stage and that of the tile before, which
  /// is copied to y meanwhile.
  struct Work {
    int32_t* acc;
    kernels::StagedTile staged{};  ///< the tile before
    int64_t turn = 0;              ///< which of two parts of acc is free
  };
  struct Job {
    const uint8_t* codes;
    const float* residual;
    float* y;
    int64_t rows;
    int64_t group_tiles, column_tiles;
    bool by_features = false;  ///< y lies [column][row], and there is no residual
  };

  /// A group of row tiles times a tile of columns. Every part of the table is read from memory once and by the other
  /// row tiles from cache, while what follows is fetched, evenly spread: block by block, or, where the codes of a row
  /// tile are few, all blocks before the next row tile, whose codes then stay in a level 1 cache.
  void tile(const Job& job, int64_t item, Work* work) const {
    Span s;
    s.row = item / job.column_tiles * job.group_tiles * tile_rows_;
    s.column = item % job.column_tiles * kTileColumns;
    s.rows = std::min(job.group_tiles * tile_rows_, job.rows - s.row);
    s.columns = std::min(kTileColumns, outputs_ - s.column);
    const int64_t tiles = (s.rows + tile_rows_ - 1) / tile_rows_, acc_stride = tiles * tile_rows_, tap = 0;
    kernels::LookupBlock b;
    b.entries = static_cast<int>(entries_);
    b.gain_limit = static_cast<int>(gain_limit_);
    b.units = geometry_.units;
    b.codebooks = codebooks_;
    b.code_panel_step = geometry_.panel_bytes;
    b.code_unit_step = geometry_.unit_bytes();
    b.code_half_step = kernels_->panel_rows;
    b.gain_panel_step = geometry_.panel_bytes;
    b.gain_unit_step = geometry_.unit_bytes();
    b.start_panel_step = geometry_.panel_bytes;
    b.start_window_step = 2 * kernels_->panel_rows;
    b.window_units = geometry_.window_units;
    b.of_rows = true;
    b.taps = &tap;
    b.tap_count = 1;
    b.acc_stride = acc_stride;
    const kernels::FinishBlock features = features_block(job);
    if (job.by_features && is_simple() && kernels_->finishes) b.finish = &features;
    const bool stages = stages_ && s.columns == kTileColumns && !job.by_features;
    int32_t* acc = work->acc + work->turn * tile_elements_;
    if (stages) stage(s, reinterpret_cast<float*>(acc), &work->staged, &b);
    const int64_t call_rows = many_blocks_ ? s.rows : tile_rows_;
    // Passes that fetch: of a call with many panels those over whole tiles.
    const int64_t passes = many_blocks_ ? std::max<int64_t>(1, s.rows / tile_rows_) : tiles;
    const int64_t block = kernels_->block_columns, width = whole_rounds_ ? s.columns : block;  // columns of a round
    for (int64_t first = 0; first < s.columns; first += width) {
      const int64_t last = std::min(s.columns, first + width), whole = first + (last - first) / block * block;
      fetch(s.column + last, width, s.row + s.rows < job.rows, passes * ((width + block - 1) / block), &b);
      const int64_t step = kernels_->many_blocks ? std::max(whole - first, block) : block;  // columns of a call
      for (int64_t r = 0; r < s.rows; r += call_rows) {
        const int64_t rows = std::min(call_rows, s.rows - r);
        for (int64_t n = first; n < whole; n += step) lookup(job, s, r, rows, n, step, acc, &b);
        if (last > whole) lookup(job, s, r, rows, whole, last - whole, acc, &b);
      }
    }
    if (stages) return finish_stage(job, s, b.stage, work);
    if (b.finish == nullptr) finish(job, acc, acc_stride, s.row, s.rows, s.column, s.columns);
  }

  /// Lets lookups of a span write a stage and, evenly spread, copy the tile before.
  void stage(const Span& s, float* to, kernels::StagedTile* before, kernels::LookupBlock* b) const {
    b->stage = to;
    b->scale = scale_ + s.column;
    b->bias = bias_ + s.column;
    b->relu = activation_ == kernels::Activation::kRelu;
    b->pending = before;
    const int64_t passes = std::max<int64_t>(1, s.rows / tile_rows_) * (kTileColumns / kernels_->block_columns);
    const int64_t groups = std::max<int64_t>(1, before->rows * kTileColumns / kernels_->stage_group);
    b->pending_every = std::max<int64_t>(1, passes * geometry_.units / groups);
  }

  /// Activates a span's outputs in their stage and leaves them there, in place of the tile before.
  void finish_stage(const Job& job, const Span& s, float* outputs, Work* work) const {
    kernels_->unstage(&work->staged);
    const int64_t lanes = (s.rows + kernels_->panel_rows - 1) / kernels_->panel_rows * kernels_->panel_rows;
    if (!is_simple()) vector_->activate(activation_, outputs, outputs, lanes * kTileColumns);
    const int64_t at = s.row * outputs_ + s.column;
    work->staged = {outputs, s.rows, 0, job.residual != nullptr ? job.residual + at : nullptr, job.y + at, outputs_};
    work->turn ^= 1;
  }

  /// Enters the chain of tables. Not before all checks have passed: a step that fails is destroyed.
  void link(const BuildContext& build) {
    if (build.last_table == nullptr) return;
    const int64_t columns = whole_rounds_ ? kTileColumns : kernels_->block_columns;
    link_.table = table_;
    link_.bytes = std::min(columns, outputs_) * geometry_.units * kernels::layout_cell(layout_, entries_);
    (*build.last_table)->next = &link_;
    *build.last_table = &link_;
  }

  /// Spreads what is read after the columns before `column` over so many passes: the next `columns` columns, or the
  /// beginning of this table (again) or of the next one.
  void fetch(int64_t column, int64_t columns, bool again, int64_t passes, kernels::LookupBlock* b) const {
    const int64_t column_bytes = geometry_.units * kernels::layout_cell(layout_, entries_);
    const TableLink* next = again ? &link_ : link_.next;
    int64_t bytes = std::min(columns, outputs_ - column) * column_bytes;
    b->prefetch = table_ + column * column_bytes;
    if (bytes == 0 && next != nullptr && next->table != nullptr) {
      b->prefetch = next->table;
      bytes = next->bytes;
    }
    const int64_t steps = passes * geometry_.units, lines = (bytes + 64 * steps - 1) / (64 * steps);
    b->prefetch_lines = static_cast<int>(column == outputs_ ? std::min(lines, kMostLines) : lines);
  }

  /// One call: rows [r, r + rows) of the span times `columns` of its columns from n on, whole blocks or a part of one;
  /// *b moves on to what is fetched next.
  void lookup(const Job& job, const Span& s, int64_t r, int64_t rows, int64_t n, int64_t columns, int32_t* acc,
              kernels::LookupBlock* b) const {
    const int64_t cell = kernels::layout_cell(layout_, entries_), panel = (s.row + r) / kernels_->panel_rows;
    const int64_t width = std::min<int64_t>(kernels_->block_columns, columns);
    b->columns = static_cast<int>(columns);
    b->table = table_ + (s.column + n) * geometry_.units * cell;
    b->table_unit_step = width * cell;
    b->panels = static_cast<int>((rows + kernels_->panel_rows - 1) / kernels_->panel_rows);
    b->starts = job.codes + panel * geometry_.panel_bytes;
    b->codes = b->starts + geometry_.start_bytes;
    b->gains = b->codes + geometry_.code_unit_bytes;
    b->acc = acc + n * b->acc_stride + r;
    b->finish_row = s.row + r;
    b->finish_column = s.column + n;
    kernels_->lookup(*b);
    const int64_t passes = std::max<int64_t>(1, rows / tile_rows_) * (columns / width);
    b->prefetch += 64 * b->prefetch_lines * geometry_.units * passes;
  }

  void finish(const Job& job, int32_t* acc, int64_t acc_stride, int64_t row, int64_t rows, int64_t column,
              int64_t columns) const {
    const int64_t at = row * outputs_ + column;
    kernels::FinishBlock f;
    f.acc = acc;
    f.acc_stride = acc_stride;
    f.rows = rows;
    f.columns = columns;
    f.scale = scale_ + column;
    f.bias = bias_ + column;
    f.relu = activation_ == kernels::Activation::kRelu;
    if (job.by_features) {
      f.y = job.y + column * job.rows + row;
      f.y_stride = job.rows;
      finish_features(f);
      return;
    }
    f.y = job.y + at;
    f.y_stride = outputs_;
    if (is_simple()) {
      f.residual = job.residual != nullptr ? job.residual + at : nullptr;
      kernels_->finish_rows(f);
      return;
    }
    if (kernels_->scale_columns != nullptr && rows > 1) {
      // The activation runs over the tile as it lies, not over rows of a few columns.
      kernels_->scale_columns(f);
      float* scaled = reinterpret_cast<float*>(acc);
      const int64_t lanes = (rows + kernels_->panel_rows - 1) / kernels_->panel_rows * kernels_->panel_rows;
      if (lanes == acc_stride) {
        vector_->activate(activation_, scaled, scaled, columns * lanes);
      } else {
        for (int64_t n = 0; n < columns; ++n)
          vector_->activate(activation_, scaled + n * acc_stride, scaled + n * acc_stride, lanes);
      }
      f.scaled = true;
      f.residual = job.residual != nullptr ? job.residual + at : nullptr;
      kernels_->finish_rows(f);
      return;
    }
    kernels_->finish_rows(f);
    for (int64_t r = 0; r < rows; ++r) {
      float* y = f.y + r * outputs_;
      vector_->activate(activation_, y, y, columns);
      if (job.residual != nullptr) vector_->add_f32(y, job.residual + at + r * outputs_, y, columns);
    }
  }

  /// All outputs, feature by feature, for kernels that finish sums themselves.
  kernels::FinishBlock features_block(const Job& job) const {
    kernels::FinishBlock f;
    f.rows = f.y_stride = job.rows;
    f.scale = scale_;
    f.bias = bias_;
    f.relu = activation_ == kernels::Activation::kRelu;
    f.y = job.y;
    return f;
  }

  /// As finish(), feature by feature, as the sums lie.
  void finish_features(const kernels::FinishBlock& f) const {
    if (is_simple()) return kernels_->finish_planes(f);
    vector_->activate_sums(activation_, {f.acc, f.acc_stride, f.scale, f.bias, f.y, f.y_stride, f.columns, f.rows});
  }

  /// Rows [begin / blocks ...) by whole table rows, 64 columns an item.
  void gather(const Job& job, int64_t begin, int64_t end, int64_t blocks, uint8_t* scratch) const {
    uint8_t* codes = scratch;
    int8_t* gains = reinterpret_cast<int8_t*>(scratch + codebooks_);
    int32_t* acc = reinterpret_cast<int32_t*>(scratch + (2 * codebooks_ + 63) / 64 * 64);
    for (int64_t item = begin; item < end;) {
      const int64_t row = item / blocks, last = std::min(end, (row + 1) * blocks);
      const int64_t column = item % blocks * 64, stop = std::min(outputs_, (last - row * blocks) * 64);
      const uint8_t* panel = job.codes + row / kernels_->panel_rows * geometry_.panel_bytes;
      extract(panel, row % kernels_->panel_rows, codes, gains);
      kernels::GatherRow g;
      g.codes = codes;
      g.gains = gain_limit_ > 0 ? gains : nullptr;
      g.codebooks = codebooks_;
      g.entries = static_cast<int>(entries_);
      g.gain_limit = static_cast<int>(gain_limit_);
      g.table = rows_table_ + column;
      g.outputs = outputs_;
      g.columns = stop - column;
      g.acc = acc;
      kernels_->gather_row(g);
      finish_gathered(job, acc, row, column, stop - column);
      item = last;
    }
  }

  /// Codes and gains of a row, codebook after codebook.
  void extract(const uint8_t* panel, int64_t row, uint8_t* codes, int8_t* gains) const {
    int64_t c = 0;
    if (kernels_->code_planes == 1 && kernels_->unit == 4) {  // the bytes of a position are a unit in order
      const uint8_t* unit = panel + geometry_.start_bytes + 4 * row;
      for (; c + 4 <= codebooks_; c += 4, unit += geometry_.unit_bytes()) {
        std::memcpy(codes + c, unit, 4);
        if (gain_limit_ > 0) std::memcpy(gains + c, unit + geometry_.code_unit_bytes, 4);
      }
    }
    for (; c < codebooks_; ++c) geometry_.extract(panel, row, entries_, c, codes + c, gains + c);
    if (gain_limit_ == 0 || kernels_->row_places == nullptr || kernels_->row_places[row] == row) return;
    int8_t ignored;
    for (c = 0; c < codebooks_; ++c)
      geometry_.extract(panel, kernels_->row_places[row], entries_, c, codes + c, &ignored);
  }

  void finish_gathered(const Job& job, int32_t* acc, int64_t row, int64_t column, int64_t columns) const {
    for (int64_t n = 0; n < columns; n += kTileColumns) {
      finish(job, acc + n, 1, row, 1, column + n, std::min(kTileColumns, columns - n));
    }
  }

  CodesGeometry geometry_;
  TableLink link_;
  int64_t tile_rows_ = 0;
  bool many_blocks_ = false;   ///< a call is all tiles of rows times all whole blocks of columns
  bool stages_ = false;        ///< outputs of whole tiles go to stages first
  int64_t tile_elements_ = 0;  ///< of the sums or the stage of a group of tiles
  bool whole_rounds_ = false;  ///< all columns of a tile come before the next tile of rows
  size_t scratch_ = 0;
};

}  // namespace
}  // namespace ops

void register_lut_linear(OpRegistry& registry) { registry.add("lut_linear", ops::make<ops::LutLinear>); }

}  // namespace lutc
