// int8_conv: a convolution in int8 whose input is quantised image by image.
//
// Every image is quantised once and spread into planes with borders of zeros (kernels/int8_conv.h), from which each
// output channel sums units and taps; results land in NCHW. Groups read the units that hold their channels, with zero
// weights for the channels of others: a depthwise convolution costs one word a tap.
#include "kernels/int8_conv.h"

#include "core/aligned_buffer.h"
#include "core/checked.h"
#include "core/ops/dense_gemm.h"
#include "core/ops/int8_axis.h"
#include "core/ops/int8_windows.h"
#include "core/ops/window.h"

namespace lutc {
namespace ops {
namespace {

using kernels::Activation;
using kernels::ConvVector;
using kernels::Int8ConvKernels;

class Int8Conv : public OpBase {
 public:
  static constexpr Arity kArity{4, 6, 1, 2};
  using OpBase::OpBase;

  Status init(const BuildContext& build) override {
    kernels_ = build.kernels->int8_conv;
    if (def_.attrs.get_int("nonnegative", 0) != 0 && kernels_->nonnegative != nullptr) kernels_ = kernels_->nonnegative;
    dense_ = build.kernels->dense;
    vector_ = build.kernels->vector;
    for (int i : {0, 2, 3, 4, 5}) {
      if (present(i) && dtype(i) != DType::kF32) return invalid("input " + std::to_string(i) + " must be f32");
    }
    if (dtype(1) != DType::kI8 || !def_.inputs[1].constant) return invalid("the weight must be a constant of dtype i8");
    LUTC_RETURN_IF_ERROR(parse_activation(def_, &activation_));
    residual_first_ = def_.attrs.get_int("activation_after_residual", 0) != 0;
    LUTC_RETURN_IF_ERROR(read_window(def_, 2, &window_));
    if (window_.ceil_mode) return invalid("convolutions have no ceil_mode");
    LUTC_RETURN_IF_ERROR(read_weight());
    make_blocks();
    return pack();
  }

  Status infer(InferContext& ctx) const override {
    Plan plan;
    LUTC_RETURN_IF_ERROR(make_plan(ctx.input_shape(0), ctx.num_threads(), &plan));
    for (int i : {2, 3}) {
      if (ctx.input_shape(i) != Shape{outputs_})
        return invalid("scale and bias must hold one value per output channel, " + std::to_string(outputs_));
    }
    LUTC_RETURN_IF_ERROR(ctx.set_output(0, DType::kF32, plan.shape));
    if (present(4)) {
      if (ctx.input_shape(4) != plan.shape) {
        return invalid("residual " + ctx.input_shape(4).to_string() + " is not of the output's shape " +
                       plan.shape.to_string());
      }
      if (is_simple() || residual_first_) ctx.may_overwrite(0, 4);
    }
    const Shape images{plan.batch};
    if (present(5) && ctx.input_shape(5) != images)
      return invalid("the largest magnitudes " + ctx.input_shape(5).to_string() + " are not one value per image");
    if (ctx.num_outputs() > 1) LUTC_RETURN_IF_ERROR(ctx.set_output(1, DType::kF32, images));
    return request_scratch(ctx, plan.image_bytes, plan.batch > 1 ? ctx.num_threads() : 1);
  }

  Status run(RunContext& ctx) const override {
    Plan plan;
    LUTC_RETURN_IF_ERROR(make_plan(ctx.input(0).shape, ctx.num_threads(), &plan));
    if (plan.shape.elements() == 0) return Status::ok();
    char* memory = static_cast<char*>(ctx.scratch());
    if (plan.batch == 1) {
      image(ctx, plan, 0, memory, ctx.num_threads());
      return Status::ok();
    }
    const int threads = plan.work * static_cast<double>(plan.batch) < kWorthWaking ? 1 : ctx.num_threads();
    ctx.pool().parallel_for(plan.batch, 1, threads, [&](int64_t begin, int64_t end, int worker) {
      for (int64_t b = begin; b < end; ++b) image(ctx, plan, b, memory + worker * plan.image_bytes, 1);
    });
    return Status::ok();
  }

 private:
  static constexpr double kWorthWaking = 2e6;   ///< multiply-adds: some ten microseconds
  static constexpr int64_t kTileBytes = 16384;  ///< of pixels
  static constexpr int64_t kBandPixels = 2048;  ///< quantised at once, so that they stay in L1

  /// Output channels that one block makes, and the units they read.
  struct Block {
    int64_t output;
    int columns;
    int64_t first_unit, units;
    int64_t weights;               ///< bytes into the packed weights
    std::vector<int32_t> windows;  ///< Int8ConvBlock::windows
  };

  /// What follows from the image's shape.
  struct Plan {
    Shape shape;
    PlaneAxis rows, columns;
    int64_t batch, in_pixels, out_pixels;
    int64_t width;      ///< words of a plane's row; the right border of one row is the left border of the next
    int64_t unit_step;  ///< bytes
    bool flat;          ///< a plane is the image itself
    bool in_place;      ///< rows of a plane are those of the image, between borders, and take whole vectors
    int64_t band_rows, most_vectors;
    double work;  ///< multiply-adds of one image
    int64_t image_bytes;
  };

  /// The scratch of an image: planes, the vectors, the steps, maxima and a band of words for each thread.
  struct Scratch {
    uint8_t* planes;
    ConvVector* vectors;
    int64_t* steps;
    float* maxima;
    float* bands;
    Scratch(const Plan& plan, int64_t units, int64_t step_count, int threads, Pieces* pieces) {
      static_assert(sizeof(ConvVector) % sizeof(int64_t) == 0, "vectors are laid out in words");
      int64_t plane_words = 0, vector_words = 0;
      if (!checked_mul(plan.unit_step / 4, units, &plane_words)) plane_words = -1;
      if (!checked_mul(plan.most_vectors, static_cast<int64_t>(sizeof(ConvVector) / 8), &vector_words))
        vector_words = -1;
      planes = reinterpret_cast<uint8_t*>(pieces->floats(plane_words));
      vectors = reinterpret_cast<ConvVector*>(pieces->ints(vector_words));
      steps = pieces->ints(step_count);
      maxima = pieces->floats(threads * ConvVector::kMostLanes);
      bands = pieces->floats(plan.flat ? 0 : plan.band_rows * plan.columns.in * threads);
    }
  };

  bool is_simple() const { return activation_ == Activation::kNone || activation_ == Activation::kRelu; }
  int64_t taps() const { return window_.kernel[0] * window_.kernel[1]; }

  Status read_weight() {
    const Shape& w = def_.inputs[1].tensor.shape;
    groups_ = def_.attrs.get_int("group", 1);
    if (w.rank != 4 || w.elements() == 0) return invalid("weight " + w.to_string() + " is not [N, Cin/group, kh, kw]");
    for (int d = 0; d < 2; ++d) {
      if (def_.attrs.has("kernel_shape") && window_.kernel[d] != w[2 + d])
        return invalid("kernel_shape does not fit weight " + w.to_string());
      window_.kernel[d] = w[2 + d];
    }
    outputs_ = w[0];
    group_inputs_ = w[1];
    if (groups_ < 1 || outputs_ % groups_ != 0)
      return invalid("weight " + w.to_string() + " has no " + std::to_string(groups_) + " groups");
    if (!checked_mul(group_inputs_, groups_, &inputs_)) return invalid("too many channels");
    units_ = ceil_div(inputs_, kernels_->unit);
    if (group_inputs_ * taps() > ((int64_t{1} << 31) - 1) / (127 * 127))
      return step_error(def_, ErrorCode::kCorrupt, "Cin / group * kh * kw * 127 * 127 must stay below 2^31");
    return Status::ok();
  }

  int64_t group_of(int64_t output) const { return output / (outputs_ / groups_); }
  int64_t first_unit(int64_t output) const { return group_of(output) * group_inputs_ / kernels_->unit; }
  int64_t end_unit(int64_t output) const { return ceil_div((group_of(output) + 1) * group_inputs_, kernels_->unit); }

  /// Blocks of output channels that read the same units, as even as can be.
  void make_blocks() {
    int64_t weights = 0;
    for (int64_t output = 0; output < outputs_;) {
      const int64_t first = first_unit(output), units = end_unit(output) - first;
      int64_t end = output + 1;
      while (end < outputs_ && first_unit(end) == first && end_unit(end) == first + units) ++end;
      for (int64_t pieces = ceil_div(end - output, kernels_->block_columns); pieces > 0; --pieces) {
        const int columns = static_cast<int>(ceil_div(end - output, pieces));
        blocks_.push_back({output, columns, first, units, weights, {}});
        weights += units * taps() * columns * 4;
        most_units_ = std::max(most_units_, units);
        output += columns;
      }
    }
    packed_bytes_ = weights;
  }

  /// Packs the weights as [block][unit][tap][column] words and works out what sums start with.
  Status pack() {
    if (!packed_.allocate(static_cast<size_t>(packed_bytes_)))
      return step_error(def_, ErrorCode::kOutOfMemory, "no memory for the packed weights");
    const int8_t* w = def_.inputs[1].tensor.as<int8_t>();
    const int64_t unit = kernels_->unit, taps = this->taps(), depth = group_inputs_ * taps;
    uint8_t* to = static_cast<uint8_t*>(packed_.data());
    for (Block& block : blocks_) {
      for (int64_t u = block.first_unit; u < block.first_unit + block.units; ++u) {
        for (int64_t t = 0; t < taps; ++t) {
          for (int64_t n = block.output; n < block.output + block.columns; ++n, to += 4) {
            int16_t word[4] = {};
            for (int64_t i = 0; i < unit; ++i) {
              const int64_t c = u * unit + i - group_of(n) * group_inputs_;
              if (c >= 0 && c < group_inputs_) word[i] = w[n * depth + c * taps + t];
            }
            store_word(word, to);
          }
        }
      }
      if (kernels_->windows) arrange(&block);
    }
    starts_.assign(static_cast<size_t>(outputs_), 0);
    for (int64_t n = 0; n < outputs_ && kernels::int8_zero_byte(*kernels_) != 0; ++n) {
      int64_t sum = 0;
      for (int64_t i = 0; i < depth; ++i) sum += w[n * depth + i];
      starts_[static_cast<size_t>(n)] = static_cast<int32_t>(static_cast<uint32_t>(-128 * sum));  // wraps as sums do
    }
    return Status::ok();
  }

  /// Steps in the order of windows.
  void arrange(Block* block) {
    const int64_t steps = block->units * taps();
    const size_t bytes = static_cast<size_t>(block->columns) * 4;
    uint8_t* const packed = static_cast<uint8_t*>(packed_.data()) + block->weights;
    const std::vector<uint8_t> in_order(packed, packed + static_cast<size_t>(steps) * bytes);
    block->windows = int8_windows(reinterpret_cast<const int8_t*>(packed), steps, block->columns);
    uint8_t* to = packed;
    for (size_t i = 0; i < block->windows.size();) {
      for (const size_t end = i + 1 + static_cast<size_t>(block->windows[i]); ++i < end; to += bytes)
        std::memcpy(to, in_order.data() + static_cast<size_t>(block->windows[i]) * bytes, bytes);
    }
  }

  void store_word(const int16_t (&word)[4], uint8_t* to) const {
    if (kernels_->unit == 4) {
      for (int i = 0; i < 4; ++i) to[i] = static_cast<uint8_t>(word[i]);
    } else {
      std::memcpy(to, word, 4);
    }
  }

  Status make_plan(const Shape& x, int threads, Plan* plan) const {
    if (x.rank != 4 || x[1] != inputs_) {
      return invalid("input " + x.to_string() + " does not fit " + std::to_string(inputs_) + " channels in " +
                     std::to_string(groups_) + " groups");
    }
    Geometry g;
    LUTC_RETURN_IF_ERROR(place_window(def_, window_, x[2], x[3], &g));
    plan->shape = Shape{x[0], outputs_, g.out[0], g.out[1]};
    const Result<int64_t> elements = checked_elements(plan->shape);
    if (!elements.is_ok()) return invalid(elements.status().message());
    plan->batch = x[0];
    // Images of an empty batch may claim any size.
    constexpr int64_t kMostPixels = int64_t{1} << 40;
    if (!checked_mul(g.in[0], g.in[1], &plan->in_pixels) || !checked_mul(g.out[0], g.out[1], &plan->out_pixels) ||
        plan->in_pixels > kMostPixels || plan->out_pixels > kMostPixels)
      return step_error(def_, ErrorCode::kOutOfMemory, "the image is too large");
    plan->work = static_cast<double>(plan->out_pixels) * static_cast<double>(outputs_) *
                 static_cast<double>(group_inputs_ * taps());
    plan->rows = PlaneAxis(g, window_, 0);
    plan->columns = PlaneAxis(g, window_, 1);
    return place_planes(threads, plan);
  }

  Status place_planes(int threads, Plan* plan) const {
    const PlaneAxis &rows = plan->rows, &columns = plan->columns;
    int64_t shared = columns.reach;
    for (int64_t p = 0; p < columns.phases; ++p) {
      if (columns.low(p) < columns.high(p)) shared = std::min({shared, columns.low(p), columns.size - columns.high(p)});
    }
    plan->width = columns.size - shared;
    plan->flat =
        taps() == 1 && plan->width == columns.in && rows.size == rows.in && columns.stride == 1 && rows.stride == 1;
    plan->in_place = rows.stride == 1 && columns.stride == 1 && columns.in % kernels_->lanes == 0 && rows.low(0) >= 0 &&
                     columns.low(0) >= 0 && rows.high(0) - rows.low(0) == rows.in &&
                     columns.high(0) - columns.low(0) == columns.in;
    // An odd number of cache lines, so that the planes of all units do not fall into the same sets.
    int64_t words = 0;
    const int64_t slack = shared + ConvVector::kMostLanes;
    if (!checked_mul(rows.size, plan->width, &words) || !checked_mul(words, rows.phases * columns.phases, &words) ||
        words > (int64_t{1} << 40) - slack)
      return step_error(def_, ErrorCode::kOutOfMemory, "the padded image is too large");
    plan->unit_step = ((words + slack + 15) / 16 | 1) * 64;
    plan->band_rows = std::clamp<int64_t>(kBandPixels / columns.in, 1, rows.in);
    plan->most_vectors = rows.out * ceil_div(columns.out, kernels_->lanes);
    Pieces pieces;
    Scratch(*plan, units_, most_units_ * taps(), threads, &pieces);
    plan->image_bytes = pieces.bytes();
    return Status::ok();
  }

  void image(RunContext& ctx, const Plan& plan, int64_t index, char* memory, int threads) const {
    Pieces pieces(memory);
    const Scratch scratch(plan, units_, most_units_ * taps(), ctx.num_threads(), &pieces);
    const float* x = ctx.input(0).as<float>() + index * inputs_ * plan.in_pixels;
    const int encoders = inputs_ * plan.in_pixels < kParallelWork ? 1 : threads;
    const float largest =
        present(5) ? ctx.input(5).as<float>()[index] : max_abs(ctx, x, inputs_ * plan.in_pixels, scratch, encoders);
    const float inv = largest > 0.0f ? std::min(127.0f / largest, std::numeric_limits<float>::max()) : 0.0f;
    ctx.pool().parallel_for(units_, 1, encoders, [&](int64_t begin, int64_t end, int worker) {
      float* band = scratch.bands + worker * plan.band_rows * plan.columns.in;
      for (int64_t u = begin; u < end; ++u) quantise(plan, x, u, inv, band, scratch.planes + u * plan.unit_step);
    });
    place_steps(plan, scratch.steps);
    const int64_t vectors = place_vectors(plan, scratch.vectors);
    const int workers = plan.work < kWorthWaking ? 1 : threads;
    const int64_t blocks = static_cast<int64_t>(blocks_.size()), size = tile_vectors(vectors, workers);
    kernels::Int8ConvBlock b;
    b.steps = scratch.steps;
    b.unit_value = largest / 127.0f;
    b.relu = activation_ == Activation::kRelu;
    b.residual_first = residual_first_;
    b.y_stride = plan.out_pixels;
    const bool wanted = def_.outputs.size() > 1;
    if (wanted) clear_maxima(ctx, scratch);
    ctx.pool().parallel_for(ceil_div(vectors, size) * blocks, 1, workers, [&](int64_t begin, int64_t end, int worker) {
      for (int64_t item = begin; item < end; ++item) {
        const int64_t first = item / blocks * size;
        kernels::Int8ConvBlock mine = b;
        mine.vectors = scratch.vectors + first;
        mine.vector_count = static_cast<int>(std::min(size, vectors - first));
        mine.largest = wanted ? scratch.maxima + worker * ConvVector::kMostLanes : nullptr;
        const Block& channels = blocks_[static_cast<size_t>(item % blocks)];
        mine.pixels = scratch.planes + channels.first_unit * plan.unit_step;
        block(ctx, channels, index, &mine);
      }
    });
    if (wanted) ctx.output(1).as_mut<float>()[index] = maximum(ctx, scratch);
  }

  /// Vectors of one tile, for which each block is computed in turn: their pixels stay in L1, the weights of a block
  /// too.
  int64_t tile_vectors(int64_t vectors, int workers) const {
    const int64_t group = kernels_->block_vectors, bytes = 4 * kernels_->lanes * blocks_.front().units;
    int64_t size = std::max<int64_t>(1, kTileBytes / (bytes * group)) * group;
    if (workers > 1) size = std::min(size, ceil_div(ceil_div(vectors, 2 * workers), group) * group);
    return size;
  }

  void block(RunContext& ctx, const Block& block, int64_t image, kernels::Int8ConvBlock* b) const {
    const int64_t offset = (image * outputs_ + block.output) * b->y_stride;
    const float* residual = present(4) ? ctx.input(4).as<float>() + offset : nullptr;
    b->columns = block.columns;
    b->step_count = block.units * taps();
    b->windows = block.windows.data();
    b->weights = static_cast<const uint8_t*>(packed_.data()) + block.weights;
    b->starts = starts_.data() + block.output;
    b->scale = ctx.input(2).as<float>() + block.output;
    b->bias = ctx.input(3).as<float>() + block.output;
    b->residual = is_simple() || residual_first_ ? residual : nullptr;
    b->y = ctx.output(0).as_mut<float>() + offset;
    float* largest = b->largest;
    if (!is_simple()) b->largest = nullptr;
    kernels_->block(*b);
    if (is_simple()) return;
    const ConvVector& last = b->vectors[b->vector_count - 1];
    const int64_t first = b->vectors->output, count = last.output + last.count - first;
    for (int64_t at = first; at < first + b->columns * b->y_stride; at += b->y_stride) {
      vector_->epilogue_row(b->y + at, nullptr, b->residual == nullptr && residual != nullptr ? residual + at : nullptr,
                            activation_, false, b->y + at, count);
      if (largest != nullptr) *largest = std::max(*largest, kernels_->max_abs(b->y + at, count));
    }
  }

  float max_abs(RunContext& ctx, const float* x, int64_t n, const Scratch& scratch, int threads) const {
    clear_maxima(ctx, scratch);
    ctx.pool().parallel_for(n, 1024, threads, [&](int64_t begin, int64_t end, int worker) {
      float& most = scratch.maxima[worker * ConvVector::kMostLanes];
      most = std::max(most, kernels_->max_abs(x + begin, end - begin));
    });
    return maximum(ctx, scratch);
  }

  void clear_maxima(RunContext& ctx, const Scratch& scratch) const {
    std::fill(scratch.maxima, scratch.maxima + ctx.num_threads() * ConvVector::kMostLanes, 0.0f);
  }
  float maximum(RunContext& ctx, const Scratch& scratch) const {
    return *std::max_element(scratch.maxima, scratch.maxima + ctx.num_threads() * ConvVector::kMostLanes);
  }

  /// Makes the plane of one unit.
  void quantise(const Plan& plan, const float* x, int64_t unit, float inv, float* band, uint8_t* plane) const {
    const int channels = static_cast<int>(std::min<int64_t>(kernels_->unit, inputs_ - unit * kernels_->unit));
    const float* from = x + unit * kernels_->unit * plan.in_pixels;
    uint32_t* words = reinterpret_cast<uint32_t*>(plane);
    if (plan.flat) return kernels_->quantise(from, plan.in_pixels, channels, inv, plan.in_pixels, words);
    std::memset(plane, kernels::int8_zero_byte(*kernels_), static_cast<size_t>(plan.unit_step));
    const int64_t width = plan.columns.in;
    if (plan.in_place) {
      words += plan.rows.low(0) * plan.width + plan.columns.low(0);
      for (int64_t h = 0; h < width * plan.rows.in; h += width, words += plan.width)
        kernels_->quantise(from + h, plan.in_pixels, channels, inv, width, words);
      return;
    }
    for (int64_t h = 0; h < plan.rows.in; h += plan.band_rows) {
      const int64_t rows = std::min(plan.band_rows, plan.rows.in - h);
      kernels_->quantise(from + h * width, plan.in_pixels, channels, inv, rows * width,
                         reinterpret_cast<uint32_t*>(band));
      spread(plan, band, h, rows, reinterpret_cast<float*>(plane));
    }
  }

  /// Copies words of image rows [first, first + count) to every phase; words travel as floats.
  void spread(const Plan& plan, const float* band, int64_t first, int64_t count, float* plane) const {
    const PlaneAxis &rows = plan.rows, &columns = plan.columns;
    for (int64_t p = 0; p < rows.phases; ++p) {
      const int64_t offset = rows.residue(p) - rows.pad;  // row r of the phase is row r * stride + offset of the image
      const int64_t low = std::max(rows.low(p), first <= offset ? 0 : ceil_div(first - offset, rows.stride));
      const int64_t high = std::min(rows.high(p), ceil_div(std::max<int64_t>(0, first + count - offset), rows.stride));
      for (int64_t q = 0; q < columns.phases; ++q) {
        const int64_t begin = columns.low(q), words = columns.high(q) - begin;
        if (words == 0) continue;
        const int64_t pixel = begin * columns.stride + columns.residue(q) - columns.pad;
        float* to = plane + (p * columns.phases + q) * rows.size * plan.width + begin;
        for (int64_t r = low; r < high; ++r) {
          const float* from = band + (r * rows.stride + offset - first) * columns.in + pixel;
          if (columns.stride == 1) {
            std::memcpy(to + r * plan.width, from, static_cast<size_t>(words) * sizeof(float));
          } else {
            dense_->gather_strided(from, columns.stride, to + r * plan.width, words);
          }
        }
      }
    }
  }

  /// Where each tap of each unit lies, units outermost: what a block of fewer units needs comes first.
  void place_steps(const Plan& plan, int64_t* steps) const {
    const PlaneAxis &rows = plan.rows, &columns = plan.columns;
    for (int64_t u = 0; u < window_.kernel[0]; ++u) {
      for (int64_t v = 0; v < window_.kernel[1]; ++v) {
        const int64_t plane = rows.phase(u) * columns.phases + columns.phase(v);
        const int64_t row = plane * rows.size + rows.displacement(u);
        steps[u * window_.kernel[1] + v] = 4 * (row * plan.width + columns.displacement(v));
      }
    }
    for (int64_t i = taps(); i < most_units_ * taps(); ++i) steps[i] = steps[i - taps()] + plan.unit_step;
  }

  /// Covers the output positions with as few vectors as can be; returns how many.
  int64_t place_vectors(const Plan& plan, ConvVector* vectors) const {
    const int64_t lanes = kernels_->lanes, gap = plan.width - plan.columns.out;
    const int64_t rows = gap == 0 ? 1 : plan.rows.out, width = gap == 0 ? plan.out_pixels : plan.columns.out;
    ConvVector whole = {0, 0, (1u << lanes) - 1, static_cast<int32_t>(lanes), {}};
    for (int l = 0; l < ConvVector::kMostLanes; ++l) whole.lanes[l] = static_cast<uint8_t>(l % lanes);
    ConvVector* v = vectors;
    for (int64_t i = 0, j = 0; i < rows; ++v) {
      *v = whole;
      v->position = i * plan.width + j;
      v->output = i * width + j;
      if (j + lanes < width) {
        j += lanes;
        continue;
      }
      v->mask = 0;
      v->count = 0;
      for (int64_t lane = 0; i < rows; lane += gap, j = 0, ++i) {
        for (; lane < lanes && j < width; ++lane, ++j) {
          v->mask |= 1u << lane;
          v->lanes[v->count++] = static_cast<uint8_t>(lane);
        }
        if (j < width) break;
      }
    }
    return v - vectors;
  }

  const Int8ConvKernels* kernels_ = nullptr;
  const kernels::DenseKernels* dense_ = nullptr;
  const kernels::VectorKernels* vector_ = nullptr;
  Activation activation_ = Activation::kNone;
  bool residual_first_ = false;
  Window window_;
  int64_t groups_ = 1, inputs_ = 0, outputs_ = 0, group_inputs_ = 0, units_ = 0;
  std::vector<Block> blocks_;
  int64_t packed_bytes_ = 0, most_units_ = 0;
  AlignedBuffer packed_;
  std::vector<int32_t> starts_;
};

}  // namespace
}  // namespace ops

void register_int8_conv(OpRegistry& registry) { registry.add("int8_conv", ops::make<ops::Int8Conv>); }

}  // namespace lutc
