// int8_linear: y = activation(x W + b) + residual with W in int8 and x quantised row by row as it comes.
#include "core/checked.h"
#include "core/ops/dense_gemm.h"
#include "kernels/int8.h"

namespace lutc {
namespace ops {
namespace {

using kernels::Activation;
using kernels::Int8Kernels;
using kernels::kInt8PanelColumns;

/// Columns of a tile: its weights are read from memory once and stay in a cache while the rows pass.
constexpr int64_t kTileColumns = 4 * kInt8PanelColumns;
/// Bytes of packed rows that a pass over the weights may have: about half a level 2 cache.
constexpr int64_t kPassBytes = 512 * 1024;

class Int8Linear final : public OpBase {
 public:
  static constexpr Arity kArity{4, 5, 1, 1};
  using OpBase::OpBase;

  Status init(const BuildContext& build) override {
    kernels_ = build.kernels->int8;
    vector_ = build.kernels->vector;
    LUTC_RETURN_IF_ERROR(parse_activation(def_, &activation_));
    for (const char* name : {"features", "outputs"}) {
      if (!def_.attrs.has(name)) return invalid(std::string("attribute '") + name + "' is missing");
    }
    features_ = def_.attrs.get_int("features", 0);
    outputs_ = def_.attrs.get_int("outputs", 0);
    constexpr int64_t kMost = int64_t{1} << 31;
    if (features_ < 1 || features_ > (kMost - 1) / (127 * 127))
      return invalid("features * 127 * 127 must be below 2^31");
    if (outputs_ < 1 || outputs_ >= kMost) return invalid("outputs must be in 1 .. 2^31");
    for (size_t i : {0, 2, 3, 4}) {
      if (present(i) && dtype(static_cast<int>(i)) != DType::kF32)
        return invalid("input " + std::to_string(i) + " must be f32");
    }
    const StepDef::Input& weight = def_.inputs[1];
    if (!weight.constant || weight.tensor.dtype != DType::kU8) return invalid("the weight must be a u8 constant");
    const Shape wanted{(outputs_ + 15) / 16, (features_ + 3) / 4, 16, 4};
    if (weight.tensor.shape != wanted)
      return invalid("the weight has shape " + weight.tensor.shape.to_string() + ", not " + wanted.to_string());
    weight_ = weight.tensor.as<uint8_t>();
    row_bytes_ = kernels::int8_row_bytes(*kernels_, features_);
    pass_rows_ = std::max<int64_t>(kPassBytes / row_bytes_ / kernels_->block_rows, 1) * kernels_->block_rows;
    return Status::ok();
  }

  Status infer(InferContext& ctx) const override {
    const Shape& x = ctx.input_shape(0);
    if (x.rank < 1 || x[x.rank - 1] != features_)
      return invalid("input " + x.to_string() + " does not have " + std::to_string(features_) + " features");
    Shape y = x;
    y[y.rank - 1] = outputs_;
    const Shape columns{outputs_};
    for (int i : {2, 3}) {
      if (ctx.input_shape(i) != columns)
        return invalid(std::string(i == 2 ? "scale " : "bias ") + ctx.input_shape(i).to_string() + " is not " +
                       columns.to_string());
    }
    if (present(4) && ctx.input_shape(4) != y)
      return invalid("residual " + ctx.input_shape(4).to_string() + " is not of the output's shape " + y.to_string());
    LUTC_RETURN_IF_ERROR(ctx.set_output(0, DType::kF32, y));
    if (present(4) && fused()) ctx.may_overwrite(0, 4);
    Pieces pieces;
    Scratch(*this, x.product(0, x.rank - 1), &pieces);
    return request_scratch(ctx, pieces.bytes());
  }

  Status run(RunContext& ctx) const override {
    const TensorView& x = ctx.input(0);
    const int64_t rows = x.shape.product(0, x.shape.rank - 1);
    Pieces pieces(ctx.scratch());
    const Scratch scratch(*this, rows, &pieces);
    for (int64_t row = 0; row < rows; row += pass_rows_) pass(ctx, scratch, row, std::min(pass_rows_, rows - row));
    return Status::ok();
  }

 private:
  /// The packed rows of one pass.
  struct Scratch {
    uint8_t* rows;
    float* steps;
    int32_t* starts;
    Scratch(const Int8Linear& op, int64_t all_rows, Pieces* pieces) {
      const int64_t count = std::min(all_rows, op.pass_rows_);
      rows = reinterpret_cast<uint8_t*>(pieces->floats(count * op.row_bytes_ / 4));  // at most kPassBytes or a block
      steps = pieces->floats(count);
      starts = reinterpret_cast<int32_t*>(pieces->floats(count));
    }
  };

  /// Whether the kernel does all of the epilogue.
  bool fused() const { return activation_ == Activation::kNone || activation_ == Activation::kRelu; }

  void pass(RunContext& ctx, const Scratch& scratch, int64_t first, int64_t rows) const {
    const float* x = ctx.input(0).as<float>() + first * features_;
    const int64_t block = kernels_->block_rows;
    parallel(ctx, rows, rows * features_, block, [&](int64_t begin, int64_t end) {
      kernels_->quantise(x + begin * features_, features_, end - begin, features_, scratch.rows + begin * row_bytes_,
                         scratch.steps + begin, scratch.starts + begin);
    });
    constexpr int64_t kWorthWaking = 1024 * 1024;  // multiply-adds: some microseconds
    const int threads = rows * features_ < kWorthWaking / outputs_ ? 1 : ctx.num_threads();
    const int64_t column_tiles = (outputs_ + kTileColumns - 1) / kTileColumns;
    // Rows are split only where columns alone do not give the threads even shares.
    int64_t tile_rows = rows;
    if (threads > 1 && column_tiles < 4 * threads)
      tile_rows = ((rows + 2 * threads - 1) / (2 * threads) + block - 1) / block * block;
    const int64_t row_tiles = (rows + tile_rows - 1) / tile_rows;
    ctx.pool().parallel_for(row_tiles * column_tiles, 1, threads, [&](int64_t begin, int64_t end, int) {
      for (int64_t item = begin; item < end; ++item) {
        const int64_t row = item / column_tiles * tile_rows, column = item % column_tiles * kTileColumns;
        tile(ctx, scratch, first, row, std::min(tile_rows, rows - row), column);
      }
    });
  }

  void tile(RunContext& ctx, const Scratch& scratch, int64_t first, int64_t row, int64_t rows, int64_t column) const {
    const int64_t at = (first + row) * outputs_ + column;
    const float* residual = present(4) ? ctx.input(4).as<float>() + at : nullptr;
    kernels::Int8Product p;
    p.rows = scratch.rows + row * row_bytes_;
    p.steps = scratch.steps + row;
    p.starts = scratch.starts + row;
    p.row_count = rows;
    p.weight = weight_ + column * ((features_ + 3) / 4 * 4);
    p.features = features_;
    p.columns = std::min(kTileColumns, outputs_ - column);
    p.scale = ctx.input(2).as<float>() + column;
    p.bias = ctx.input(3).as<float>() + column;
    p.relu = activation_ == Activation::kRelu;
    p.residual = fused() ? residual : nullptr;
    p.y = ctx.output(0).as_mut<float>() + at;
    p.y_stride = outputs_;
    kernels_->product(p);
    if (fused()) return;
    for (int64_t r = 0; r < rows; ++r) {
      float* y = p.y + r * outputs_;
      vector_->activate(activation_, y, y, p.columns);
      if (residual != nullptr) vector_->add_f32(y, residual + r * outputs_, y, p.columns);
    }
  }

  const Int8Kernels* kernels_ = nullptr;
  const kernels::VectorKernels* vector_ = nullptr;
  Activation activation_ = Activation::kNone;
  int64_t features_ = 0, outputs_ = 0;
  const uint8_t* weight_ = nullptr;
  int64_t row_bytes_ = 0;  ///< of a packed row
  int64_t pass_rows_ = 0;
};

}  // namespace
}  // namespace ops

void register_int8_linear(OpRegistry& registry) { registry.add("int8_linear", ops::make<ops::Int8Linear>); }

}  // namespace lutc
