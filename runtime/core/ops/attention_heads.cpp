#include "core/ops/attention_heads.h"

#include <algorithm>
#include <cmath>

namespace lutc::ops {
namespace {

constexpr int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

/// Floats of a row of at least n: an odd number of cache lines, so that rows fall into different sets.
constexpr int64_t spread(int64_t n) { return ((n + 15) / 16 | 1) * 16; }

constexpr int64_t kMixRows = 168;  ///< a multiple of every register block (14, 6, 4)

void zero_nan(float* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) x[i] = std::isnan(x[i]) ? 0.0f : x[i];
}

}  // namespace

const float* HeadMask::row(int64_t query, int64_t keys, float* room) const {
  if (first == nullptr) return nullptr;
  const float* mask = first + query * query_stride;
  if (key_stride != 0 || keys == 1) return mask;
  if (*mask == 0.0f) return nullptr;
  std::fill(room, room + keys, *mask);
  return room;
}

FloatHead::FloatHead(const HeadShape& shape, const HeadOptions& options, bool few_queries,
                     const kernels::KernelTable& kernels, Pieces* pieces)
    : dense_(kernels.dense), vector_(kernels.vector), shape_(shape), options_(options), direct_(few_queries) {
  constexpr int64_t kBlockFloats = 48 * 1024;  // the scores stay in a level 2 cache
  score_stride_ = spread(shape.keys);
  const int64_t rows = std::max<int64_t>(1, kBlockFloats / score_stride_ / dense_->block_rows) * dense_->block_rows;
  block_ = std::max<int64_t>(1, std::min(rows, shape.queries));
  scores_ = pieces->floats(block_ * score_stride_);
  mask_ = pieces->floats(shape.keys);
  if (direct_) return;
  packed_keys_ = pieces->floats(kernels::packed_floats(*dense_, shape.size, shape.keys));
  packed_values_ = pieces->floats(kernels::packed_floats(*dense_, shape.keys, shape.value_size));
}

void FloatHead::pack(const float* k, const float* v) {
  k_ = k;
  v_ = v;
  if (direct_) return;
  dense_->pack(k, 1, shape_.k_stride, shape_.size, shape_.keys, packed_keys_);
  dense_->pack(v, shape_.v_stride, 1, shape_.keys, shape_.value_size, packed_values_);
}

void FloatHead::run(const float* q, const HeadMask& mask, int64_t first, int64_t rows, float* y) const {
  for (int64_t r = 0; r < rows; r += block_) block(q, mask, first + r, std::min(block_, rows - r), y);
}

void FloatHead::block(const float* q, const HeadMask& mask, int64_t first, int64_t rows, float* y) const {
  const HeadShape& s = shape_;
  q += first * s.q_stride;
  y += first * s.y_stride;
  if (direct_) {
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t key = 0; key < s.keys; ++key)
        scores_[r * score_stride_ + key] = dense_->dot(q + r * s.q_stride, k_ + key * s.k_stride, s.size);
  } else {
    dense_->gemm(q, s.q_stride, packed_keys_, rows, s.keys, s.size, scores_, score_stride_, kernels::Epilogue());
  }
  float sums[kMixRows];
  for (int64_t r0 = 0; r0 < rows; r0 += kMixRows) {
    const int64_t some = std::min(kMixRows, rows - r0);
    float *scores = scores_ + r0 * score_stride_, *out = y + r0 * s.y_stride;
    for (int64_t r = 0; r < some; ++r) {
      float* row = scores + r * score_stride_;
      sums[r] = vector_->exp_row(row, mask.row(first + r0 + r, s.keys, mask_), options_.scale, row, s.keys);
    }
    if (direct_) {
      for (int64_t r = 0; r < some; ++r) {
        std::fill(out + r * s.y_stride, out + r * s.y_stride + s.value_size, 0.0f);
        for (int64_t key = 0; key < s.keys; ++key)
          dense_->axpy(scores[r * score_stride_ + key], v_ + key * s.v_stride, out + r * s.y_stride, s.value_size);
      }
    } else {
      dense_->gemm(scores, score_stride_, packed_values_, some, s.value_size, s.keys, out, s.y_stride,
                   kernels::Epilogue());
    }
    for (int64_t r = 0; r < some; ++r) {  // the division by the sum, on the output row
      float* row = out + r * s.y_stride;
      vector_->mul_scalar_f32(row, 1.0f / sums[r], row, s.value_size);
      if (options_.guarded && std::isnan(vector_->max_f32(row, s.value_size))) zero_nan(row, s.value_size);
    }
  }
}

namespace {

/// Rows as TurnedHead lays them.
HeadShape of_rows(const HeadShape& shape) {
  HeadShape rows = shape;
  rows.q_stride = rows.k_stride = shape.size;
  rows.v_stride = rows.y_stride = shape.value_size;
  rows.x_feature_stride = rows.y_feature_stride = 1;
  return rows;
}

}  // namespace

TurnedHead::TurnedHead(const HeadShape& shape, const HeadOptions& options, bool few_queries,
                       const kernels::KernelTable& kernels, Pieces* pieces)
    : kernels_(kernels::attention_kernels(kernels.isa)),
      shape_(shape),
      head_(of_rows(shape), options, few_queries, kernels, pieces) {
  q_ = pieces->floats(shape.queries * shape.size);
  k_ = pieces->floats(shape.keys * shape.size);
  v_ = pieces->floats(shape.keys * shape.value_size);
  y_ = pieces->floats(shape.queries * shape.value_size);
}

void TurnedHead::turn(const float* x, int64_t stride, int64_t rows, int64_t features, float* to) const {
  if (stride == 1) return kernels_->turn(x, shape_.x_feature_stride, features, rows, to, features);
  for (int64_t r = 0; r < rows; ++r) std::copy_n(x + r * stride, features, to + r * features);
}

void TurnedHead::pack(const float* k, const float* v) {
  turn(k, shape_.k_stride, shape_.keys, shape_.size, k_);
  turn(v, shape_.v_stride, shape_.keys, shape_.value_size, v_);
  head_.pack(k_, v_);
}

void TurnedHead::run(const float* q, const HeadMask& mask, int64_t first, int64_t rows, float* y) const {
  const HeadShape& s = shape_;
  turn(q, s.q_stride, s.queries, s.size, q_);
  head_.run(q_, mask, first, rows, y_);
  const float* from = y_ + first * s.value_size;
  y += first * s.y_stride;
  if (s.y_stride == 1) return kernels_->turn(from, s.value_size, rows, s.value_size, y, s.y_feature_stride);
  for (int64_t r = 0; r < rows; ++r) std::copy_n(from + r * s.value_size, s.value_size, y + r * s.y_stride);
}

QuantisedHead::QuantisedHead(const HeadShape& shape, const HeadOptions& options, const kernels::KernelTable& kernels,
                             Pieces* pieces)
    : kernels_(kernels::attention_kernels(kernels.isa)), shape_(shape), options_(options) {
  using kernels::attention::kGroup;
  const int64_t lanes = kernels_->lanes, quads = (shape.size + 3) / 4, key_quads = round_up(shape.keys, kGroup) / 4;
  keys_ = round_up(shape.keys, kernels_->columns);
  features_ = round_up(shape.value_size, kernels_->columns);
  packed_queries_ = quadruples(pieces, quads * lanes);
  packed_keys_ = quadruples(pieces, quads * keys_);
  packed_values_ = quadruples(pieces, key_quads * features_);
  weights_ = quadruples(pieces, key_quads * lanes);
  starts_ = reinterpret_cast<int32_t*>(pieces->floats(keys_));
  key_steps_ = pieces->floats(keys_);
  value_steps_ = pieces->floats(features_);
  query_steps_ = pieces->floats(lanes);
  largest_ = pieces->floats(lanes);
  inverses_ = pieces->floats(lanes);
  scores_ = pieces->floats(4 * key_quads * lanes);
  mask_ = pieces->floats(shape.keys * lanes);
  y_ = pieces->floats(shape.value_size * lanes);
}

void* QuantisedHead::quadruples(Pieces* pieces, int64_t count) {
  return pieces->floats(count * (kernels_->quad_bytes / static_cast<int64_t>(sizeof(float))));
}

void QuantisedHead::pack(const float* k, const float* v) {
  const HeadShape& s = shape_;
  const kernels::AttentionColumns keys = {k, s.k_stride, s.x_feature_stride, s.keys, s.size};
  kernels_->pack(keys, false, options_.scale, packed_keys_, keys_, key_steps_, starts_);
  const kernels::AttentionColumns values = {v, s.x_feature_stride, s.v_stride, s.value_size, s.keys};
  kernels_->pack(values, false, 1.0f, packed_values_, features_, value_steps_, nullptr);
  if (options_.guarded) zero_nan(value_steps_, s.value_size);
}

kernels::AttentionMask QuantisedHead::tile_mask(const HeadMask& mask, int64_t first, int64_t rows) const {
  if (mask.first == nullptr) return {nullptr, 0, false};
  const float* x = mask.first + first * mask.query_stride;
  if (mask.query_stride == 0) return {x, mask.key_stride, false};
  const int64_t lanes = kernels_->lanes, keys = mask.key_stride == 0 ? 1 : shape_.keys;
  kernels_->turn(x, mask.query_stride, rows, keys, mask_, lanes);
  return {mask_, mask.key_stride == 0 ? 0 : lanes, true};
}

void QuantisedHead::run(const float* q, const HeadMask& mask, int64_t first, int64_t rows, float* y) const {
  const HeadShape& s = shape_;
  const int64_t lanes = kernels_->lanes;
  for (int64_t last = first + rows; first < last; first += lanes) {
    kernels::AttentionScores job;
    job.queries = std::min(lanes, last - first);
    job.keys = s.keys;
    job.quads = (s.size + 3) / 4;
    job.q = packed_queries_;
    job.query_steps = query_steps_;
    job.packed = packed_keys_;
    job.columns = keys_;
    job.starts = starts_;
    job.key_steps = key_steps_;
    job.mask = tile_mask(mask, first, job.queries);
    job.scores = scores_;
    job.largest = largest_;
    const kernels::AttentionColumns queries = {q + first * s.q_stride, s.q_stride, s.x_feature_stride, job.queries,
                                               s.size};
    kernels_->pack(queries, true, 1.0f, packed_queries_, lanes, query_steps_, nullptr);
    kernels_->score(job);
    kernels_->weigh(scores_, largest_, job.queries, s.keys, weights_, inverses_);
    if (options_.guarded) zero_nan(inverses_, job.queries);
    const bool by_features = s.y_stride == 1;
    kernels_->mix(weights_, packed_values_, features_, job.queries, s.keys, s.value_size, value_steps_, inverses_,
                  by_features ? y + first : y_, by_features ? s.y_feature_stride : lanes);
    if (!by_features) kernels_->turn(y_, lanes, s.value_size, job.queries, y + first * s.y_stride, s.y_stride);
  }
}

}  // namespace lutc::ops
