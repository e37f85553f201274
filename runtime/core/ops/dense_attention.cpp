// Scaled dot-product attention straight from the [batch, length, heads * size] layout (docs/operators.md, Attention).
//
// A unit of work is one key/value head of one batch entry: its keys (transposed) and values are packed once, then
// blocks of query rows go through scores, masked exponentials and the product with the values while the scores stay in
// L2. The division by the sum is done on the output row.
#include <algorithm>
#include <cmath>

#include "core/ops/dense_gemm.h"

namespace lutc {
namespace ops {
namespace {

class Attention : public OpBase {
 public:
  static constexpr Arity kArity{1, 4, 1, 1};
  using OpBase::OpBase;

  Status init(const BuildContext& build) override {
    dense_ = build.kernels->dense;
    vector_ = build.kernels->vector;
    LUTC_RETURN_IF_ERROR(all_f32());
    heads_ = def_.attrs.get_int("num_heads", 0);
    kv_heads_ = def_.attrs.get_int("kv_num_heads", heads_);
    if (heads_ < 1 || kv_heads_ < 1 || heads_ % kv_heads_ != 0)
      return invalid("num_heads must be positive and a multiple of kv_num_heads");
    if (!def_.attrs.has("scale")) return invalid("the attribute scale is missing");
    scale_ = static_cast<float>(def_.attrs.get_float("scale", 1.0));
    packed_ = def_.attrs.get_ints("packed", {});
    if (!is_packed()) return present(1) && present(2) ? Status::ok() : invalid("k or v is missing");
    if (present(1) || present(2)) return invalid("with the attribute packed, k and v are parts of the first input");
    constexpr int64_t kMost = int64_t{1} << 40;  // sums of three stay far from overflow
    if (packed_.size() != 3 ||
        !std::all_of(packed_.begin(), packed_.end(), [=](int64_t n) { return n >= 0 && n < kMost; }))
      return invalid("packed must be the widths of q, k and v");
    return Status::ok();
  }

  Status infer(InferContext& ctx) const override {
    Plan plan;
    const auto shape = [&](int i) { return present(static_cast<size_t>(i)) ? ctx.input_shape(i) : Shape(); };
    LUTC_RETURN_IF_ERROR(make_plan(shape(0), shape(1), shape(2), shape(3), &plan));
    LUTC_RETURN_IF_ERROR(ctx.set_output(0, DType::kF32, Shape{plan.batch, plan.queries, heads_ * plan.value_size}));
    if (plan.thread_bytes < 0 || plan.thread_bytes > std::numeric_limits<int64_t>::max() / ctx.num_threads()) {
      return step_error(def_, ErrorCode::kOutOfMemory, "the scratch size overflows");
    }
    ctx.request_scratch(static_cast<size_t>(plan.thread_bytes * ctx.num_threads()));
    return Status::ok();
  }

  Status run(RunContext& ctx) const override {
    Plan plan;
    const auto shape = [&](int i) { return present(static_cast<size_t>(i)) ? ctx.input(i).shape : Shape(); };
    LUTC_RETURN_IF_ERROR(make_plan(shape(0), shape(1), shape(2), shape(3), &plan));
    if (ctx.output(0).shape.elements() == 0) return Status::ok();
    const int64_t work = plan.batch * heads_ * plan.queries * plan.keys * (plan.size + plan.value_size);
    const int threads = work < 8 * kParallelWork ? 1 : ctx.num_threads();
    ctx.pool().parallel_for(plan.batch * kv_heads_, 1, threads, [&](int64_t begin, int64_t end, int worker) {
      Pieces pieces(static_cast<char*>(ctx.scratch()) + worker * plan.thread_bytes);
      const Scratch scratch(plan, *dense_, &pieces);
      for (int64_t unit = begin; unit < end; ++unit) key_head(ctx, plan, unit / kv_heads_, unit % kv_heads_, scratch);
    });
    return Status::ok();
  }

 private:
  struct Plan {
    int64_t batch, queries, keys, size, value_size;
    int64_t q_stride, k_stride, v_stride;    ///< from one position to the next
    int64_t mask_strides[4] = {0, 0, 0, 0};  ///< batch, head, query, key; 0 where broadcast
    bool direct;                             ///< few queries: read keys and values in place
    int64_t block;                           ///< query rows at a time
    int64_t score_stride;
    int64_t thread_bytes;
  };
  struct Scratch {
    float *scores, *mask, *keys = nullptr, *values = nullptr;
    Scratch(const Plan& plan, const kernels::DenseKernels& dense, Pieces* pieces)
        : scores(pieces->floats(plan.block * plan.score_stride)), mask(pieces->floats(plan.keys)) {
      if (plan.direct) return;
      keys = pieces->floats(kernels::packed_floats(dense, plan.size, plan.keys));
      values = pieces->floats(kernels::packed_floats(dense, plan.keys, plan.value_size));
    }
  };

  bool is_packed() const { return !packed_.empty(); }

  /// Packed: the first shape is that of q, k and v side by side.
  Status make_plan(Shape q, Shape k, Shape v, const Shape& mask, Plan* plan) const {
    if (is_packed()) {
      if (q.rank != 3 || q[2] != packed_[0] + packed_[1] + packed_[2])
        return invalid("the shape of q, k and v together, " + q.to_string() + ", does not fit the attribute packed");
      plan->q_stride = plan->k_stride = plan->v_stride = q[2];
      k = v = q;
      q[2] = packed_[0];
      k[2] = packed_[1];
      v[2] = packed_[2];
    } else if (q.rank == 3 && k.rank == 3 && v.rank == 3) {
      plan->q_stride = q[2];
      plan->k_stride = k[2];
      plan->v_stride = v[2];
    }
    const bool fits = q.rank == 3 && k.rank == 3 && v.rank == 3 && q[0] == k[0] && q[0] == v[0] && k[1] == v[1] &&
                      q[2] % heads_ == 0 && k[2] % kv_heads_ == 0 && v[2] % kv_heads_ == 0 &&
                      q[2] / heads_ == k[2] / kv_heads_;
    if (!fits) {
      return invalid("q " + q.to_string() + ", k " + k.to_string() + " and v " + v.to_string() + " do not fit " +
                     std::to_string(heads_) + " and " + std::to_string(kv_heads_) + " heads");
    }
    plan->batch = q[0];
    plan->queries = q[1];
    plan->keys = k[1];
    plan->size = q[2] / heads_;
    plan->value_size = v[2] / kv_heads_;
    const Shape scores{plan->batch, heads_, plan->queries, plan->keys};
    Shape both;
    if (!broadcast(mask, scores, &both) || both != scores)
      return invalid("mask " + mask.to_string() + " does not broadcast to " + scores.to_string());
    int64_t stride = 1;
    for (int d = mask.rank - 1; d >= 0; --d) {
      plan->mask_strides[d + 4 - mask.rank] = mask[d] == 1 ? 0 : stride;
      stride *= mask[d];
    }
    plan->direct = plan->queries * (heads_ / kv_heads_) < 4;
    constexpr int64_t kBlockFloats = 48 * 1024;
    plan->score_stride =
        ((plan->keys + 15) / 16 | 1) * 16;  // an odd number of cache lines: rows fall into different sets
    const int64_t rows =
        std::max<int64_t>(1, kBlockFloats / plan->score_stride / dense_->block_rows) * dense_->block_rows;
    plan->block = std::max<int64_t>(1, std::min(rows, plan->queries));
    Pieces pieces;
    Scratch(*plan, *dense_, &pieces);
    plan->thread_bytes = pieces.bytes();
    return Status::ok();
  }

  /// The mask's row for one query, spread out if it is one value; null when there is nothing to add.
  const float* mask_row(RunContext& ctx, const Plan& plan, int64_t b, int64_t head, int64_t query,
                        const Scratch& scratch) const {
    if (!present(3)) return nullptr;
    const float* mask = ctx.input(3).as<float>();
    const int64_t* strides = plan.mask_strides;
    mask += b * strides[0] + head * strides[1] + query * strides[2];
    if (strides[3] != 0 || plan.keys == 1) return mask;
    if (*mask == 0.0f) return nullptr;
    std::fill(scratch.mask, scratch.mask + plan.keys, *mask);
    return scratch.mask;
  }

  void key_head(RunContext& ctx, const Plan& plan, int64_t b, int64_t kv_head, const Scratch& scratch) const {
    const int64_t d = plan.size, dv = plan.value_size, shared = heads_ / kv_heads_;
    const int64_t q_stride = plan.q_stride, k_stride = plan.k_stride, v_stride = plan.v_stride, y_stride = heads_ * dv;
    const float* q0 = ctx.input(0).as<float>();
    const float* k = is_packed() ? q0 + packed_[0] : ctx.input(1).as<float>();
    const float* v = is_packed() ? k + packed_[1] : ctx.input(2).as<float>();
    k += b * plan.keys * k_stride + kv_head * d;
    v += b * plan.keys * v_stride + kv_head * dv;
    if (!plan.direct) {
      dense_->pack(k, 1, k_stride, d, plan.keys, scratch.keys);
      dense_->pack(v, v_stride, 1, plan.keys, dv, scratch.values);
    }
    for (int64_t head = kv_head * shared; head < (kv_head + 1) * shared; ++head) {
      const float* q = q0 + b * plan.queries * q_stride + head * d;
      float* y = ctx.output(0).as_mut<float>() + b * plan.queries * y_stride + head * dv;
      for (int64_t first = 0; first < plan.queries; first += plan.block) {
        const int64_t rows = std::min(plan.block, plan.queries - first);
        float* scores = scratch.scores;
        if (plan.direct) {
          for (int64_t r = 0; r < rows; ++r)
            for (int64_t s = 0; s < plan.keys; ++s)
              scores[r * plan.score_stride + s] = dense_->dot(q + (first + r) * q_stride, k + s * k_stride, d);
        } else {
          dense_->gemm(q + first * q_stride, q_stride, scratch.keys, rows, plan.keys, d, scores, plan.score_stride,
                       kernels::Epilogue());
        }
        float sums[kMaxBlock];
        for (int64_t r0 = 0; r0 < rows; r0 += kMaxBlock) {
          const int64_t some = std::min<int64_t>(kMaxBlock, rows - r0);
          float* block = scores + r0 * plan.score_stride;
          for (int64_t r = 0; r < some; ++r) {
            float* row = block + r * plan.score_stride;
            sums[r] =
                vector_->exp_row(row, mask_row(ctx, plan, b, head, first + r0 + r, scratch), scale_, row, plan.keys);
          }
          float* out = y + (first + r0) * y_stride;
          if (plan.direct) {
            for (int64_t r = 0; r < some; ++r) {
              std::fill(out + r * y_stride, out + r * y_stride + dv, 0.0f);
              for (int64_t s = 0; s < plan.keys; ++s)
                dense_->axpy(block[r * plan.score_stride + s], v + s * v_stride, out + r * y_stride, dv);
            }
          } else {
            dense_->gemm(block, plan.score_stride, scratch.values, some, dv, plan.keys, out, y_stride,
                         kernels::Epilogue());
          }
          for (int64_t r = 0; r < some; ++r)
            vector_->mul_scalar_f32(out + r * y_stride, 1.0f / sums[r], out + r * y_stride, dv);
        }
      }
    }
  }

  static constexpr int64_t kMaxBlock = 168;  ///< a multiple of every register block (14, 6, 4)

  const kernels::DenseKernels* dense_ = nullptr;
  const kernels::VectorKernels* vector_ = nullptr;
  int64_t heads_ = 0, kv_heads_ = 0;
  std::vector<int64_t> packed_;  ///< widths of q, k and v when they are one input
  float scale_ = 1.0f;
};

}  // namespace
}  // namespace ops

void register_dense_attention(OpRegistry& registry) { registry.add("attention", ops::make<ops::Attention>); }

}  // namespace lutc
