// Scaled dot-product attention straight from the [batch, length, heads * size] layout (docs/operators.md, Attention).
//
// A unit of work is one key/value head of one batch entry, or a share of its queries where there are too few heads for
// the threads.
#include <cmath>

#include "core/ops/attention_heads.h"
#include "core/ops/lut_common.h"

namespace lutc {
namespace ops {
namespace {

class Attention : public OpBase {
 public:
  static constexpr Arity kArity{1, 4, 1, 1};
  using OpBase::OpBase;

  Status init(const BuildContext& build) override {
    kernels_ = build.kernels;
    LUTC_RETURN_IF_ERROR(all_f32());
    heads_ = def_.attrs.get_int("num_heads", 0);
    kv_heads_ = def_.attrs.get_int("kv_num_heads", heads_);
    if (heads_ < 1 || kv_heads_ < 1 || heads_ > kMostHeads || heads_ % kv_heads_ != 0)
      return invalid("num_heads must be positive, at most 2^20, and a multiple of kv_num_heads");
    if (!def_.attrs.has("scale")) return invalid("the attribute scale is missing");
    options_.scale = static_cast<float>(def_.attrs.get_float("scale", 1.0));
    options_.guarded = def_.attrs.get_int("guarded", 0) != 0;
    const int64_t quantised = def_.attrs.get_int("quantised", 0);
    if (quantised != 0 && quantised != 1) return invalid("quantised must be 0 or 1");
    quantised_ = quantised == 1;
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
    LUTC_RETURN_IF_ERROR(
        ctx.set_output(0, DType::kF32, Shape{plan.batch, plan.head.queries, heads_ * plan.head.value_size}));
    return request_scratch(ctx, plan.thread_bytes, ctx.num_threads());
  }

  Status run(RunContext& ctx) const override {
    Plan plan;
    const auto shape = [&](int i) { return present(static_cast<size_t>(i)) ? ctx.input(i).shape : Shape(); };
    LUTC_RETURN_IF_ERROR(make_plan(shape(0), shape(1), shape(2), shape(3), &plan));
    const HeadShape& s = plan.head;
    if (s.keys == 0) std::memset(ctx.output(0).data, 0, ctx.output(0).bytes());  // sums of nothing
    if (s.keys == 0 || ctx.output(0).shape.elements() == 0) return Status::ok();
    plan.masked = present(3) && !is_zero(ctx.input(3), plan);
    const int64_t heads = plan.batch * kv_heads_;
    const int64_t work = plan.batch * heads_ * s.queries * s.keys * (s.size + s.value_size);
    const int threads = work < 8 * kParallelWork ? 1 : ctx.num_threads();
    // Every part of a head packs keys and values again: only where whole heads would leave a thread idle.
    const int64_t parts =
        heads % threads == 0 || heads >= 8 * threads ? 1 : std::min<int64_t>(threads, (s.queries + 31) / 32);
    ctx.pool().parallel_for(heads * parts, 1, threads, [&](int64_t begin, int64_t end, int worker) {
      Pieces pieces(static_cast<char*>(ctx.scratch()) + worker * plan.thread_bytes);
      const auto units = [&](auto& head) {
        for (int64_t unit = begin; unit < end; ++unit)
          key_head(ctx, plan, unit / parts, unit == begin || unit % parts == 0, unit % parts, parts, head);
      };
      with_head(s, &pieces, units);
    });
    return Status::ok();
  }

 private:
  struct Plan {
    int64_t batch;
    HeadShape head;
    int64_t mask_strides[4] = {0, 0, 0, 0};  ///< batch, head, query, key; 0 where broadcast
    int64_t thread_bytes;
    bool masked;
  };

  // Where a width is zero, no memory bounds the other sizes: products of these do not overflow.
  static constexpr int64_t kMostHeads = int64_t{1} << 20, kMostPositions = int64_t{1} << 40;

  /// fn(head) of the kind that the shape asks for, whose scratch memory is in pieces.
  template <class Fn>
  void with_head(const HeadShape& shape, Pieces* pieces, const Fn& fn) const {
    if (integer_products(shape)) {
      QuantisedHead head(shape, options_, *kernels_, pieces);
      fn(head);
    } else if (shape.x_feature_stride != 1 || shape.y_feature_stride != 1) {
      TurnedHead head(shape, options_, few_queries(shape), *kernels_, pieces);
      fn(head);
    } else {
      FloatHead head(shape, options_, few_queries(shape), *kernels_, pieces);
      fn(head);
    }
  }

  bool is_packed() const { return !packed_.empty(); }
  bool few_queries(const HeadShape& shape) const { return shape.queries * (heads_ / kv_heads_) < 4; }
  /// Quantising keys and values costs as much as a few rows of float products.
  bool integer_products(const HeadShape& shape) const {
    using kernels::attention::kMostSummed;
    return quantised_ && shape.queries * (heads_ / kv_heads_) >= 8 && shape.size <= kMostSummed &&
           shape.keys <= kMostSummed;
  }

  /// Packed: the first shape is that of q, k and v side by side.
  Status make_plan(Shape q, Shape k, Shape v, const Shape& mask, Plan* plan) const {
    HeadShape* head = &plan->head;
    if (is_packed()) {
      if (q.rank != 3 || q[2] != packed_[0] + packed_[1] + packed_[2])
        return invalid("the shape of q, k and v together, " + q.to_string() + ", does not fit the attribute packed");
      head->q_stride = head->k_stride = head->v_stride = q[2];
      k = v = q;
      q[2] = packed_[0];
      k[2] = packed_[1];
      v[2] = packed_[2];
    } else if (q.rank == 3 && k.rank == 3 && v.rank == 3) {
      head->q_stride = q[2];
      head->k_stride = k[2];
      head->v_stride = v[2];
    }
    const bool fits = q.rank == 3 && k.rank == 3 && v.rank == 3 && q[0] == k[0] && q[0] == v[0] && k[1] == v[1] &&
                      q[2] % heads_ == 0 && k[2] % kv_heads_ == 0 && v[2] % kv_heads_ == 0 &&
                      q[2] / heads_ == k[2] / kv_heads_;
    if (!fits) {
      return invalid("q " + q.to_string() + ", k " + k.to_string() + " and v " + v.to_string() + " do not fit " +
                     std::to_string(heads_) + " and " + std::to_string(kv_heads_) + " heads");
    }
    if (q[1] > kMostPositions || k[1] > kMostPositions) return unsupported("attention over more than 2^40 positions");
    plan->batch = q[0];
    head->queries = q[1];
    head->keys = k[1];
    head->size = q[2] / heads_;
    head->value_size = v[2] / kv_heads_;
    head->y_stride = heads_ * head->value_size;
    // Batch and positions are one run of rows there.
    const int64_t rows = q[1] == 0 ? 0 : Shape{q[0], q[1]}.elements();
    if (is_packed() && by_features(def_, "takes_features", *kernels_->lookup, rows)) {
      head->q_stride = head->k_stride = head->v_stride = 1;
      head->x_feature_stride = rows;
    }
    if (by_features(def_, "makes_features", *kernels_->lookup, rows)) {
      head->y_stride = 1;
      head->y_feature_stride = rows;
    }
    const Shape scores{plan->batch, heads_, head->queries, head->keys};
    Shape both;
    if (!broadcast(mask, scores, &both) || both != scores)
      return invalid("mask " + mask.to_string() + " does not broadcast to " + scores.to_string());
    int64_t stride = 1;
    for (int d = mask.rank - 1; d >= 0; --d) {
      plan->mask_strides[d + 4 - mask.rank] = mask[d] == 1 ? 0 : stride;
      stride *= mask[d];
    }
    Pieces pieces;
    with_head(*head, &pieces, [](auto&) {});
    plan->thread_bytes = pieces.bytes();
    return Status::ok();
  }

  /// Whether a mask that all heads share holds nothing but zeros: no padding, in most calls.
  bool is_zero(const TensorView& mask, const Plan& plan) const {
    const int64_t n = mask.shape.elements();
    if (plan.mask_strides[1] != 0) return false;
    const kernels::VectorKernels& vector = *kernels_->vector;
    return vector.max_f32(mask.as<float>(), n) == 0.0f && vector.sum_f32(mask.as<float>(), n) == 0.0f;
  }

  /// Part `part` of the queries of every head that shares key/value head `unit` (counted through the batch).
  template <class Head>
  void key_head(RunContext& ctx, const Plan& plan, int64_t unit, bool fresh, int64_t part, int64_t parts,
                Head& head) const {
    const HeadShape& s = plan.head;
    const int64_t b = unit / kv_heads_, kv_head = unit % kv_heads_, shared = heads_ / kv_heads_;
    const float* q0 = ctx.input(0).as<float>();
    const float* k = is_packed() ? q0 + packed_[0] * s.x_feature_stride : ctx.input(1).as<float>();
    const float* v = is_packed() ? k + packed_[1] * s.x_feature_stride : ctx.input(2).as<float>();
    if (fresh) {
      head.pack(k + b * s.keys * s.k_stride + kv_head * s.size * s.x_feature_stride,
                v + b * s.keys * s.v_stride + kv_head * s.value_size * s.x_feature_stride);
    }
    const int64_t share = (s.queries + parts - 1) / parts, first = part * share;
    const int64_t count = std::min(share, s.queries - first);
    for (int64_t h = kv_head * shared; h < (kv_head + 1) * shared && count > 0; ++h) {
      HeadMask mask;
      if (plan.masked) {
        mask.first = ctx.input(3).as<float>() + b * plan.mask_strides[0] + h * plan.mask_strides[1];
        mask.query_stride = plan.mask_strides[2];
        mask.key_stride = plan.mask_strides[3];
      }
      head.run(q0 + b * s.queries * s.q_stride + h * s.size * s.x_feature_stride, mask, first, count,
               ctx.output(0).as_mut<float>() + b * s.queries * s.y_stride + h * s.value_size * s.y_feature_stride);
    }
  }

  const kernels::KernelTable* kernels_ = nullptr;
  int64_t heads_ = 0, kv_heads_ = 0;
  std::vector<int64_t> packed_;  ///< widths of q, k and v when they are one input
  HeadOptions options_ = {1.0f, false};
  bool quantised_ = false;
};

}  // namespace
}  // namespace ops

void register_attention(OpRegistry& registry) { registry.add("attention", ops::make<ops::Attention>); }

}  // namespace lutc
