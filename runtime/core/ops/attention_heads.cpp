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

QuantisedHead::QuantisedHead(const HeadShape& shape, const HeadOptions& options, const kernels::KernelTable& kernels,
                             Pieces* pieces)
    : kernels_(kernels::attention_kernels(kernels.isa)), shape_(shape), options_(options) {
  // Few enough rows that their scores stay near, enough that what one phase stores has left the store queue when the
  // next phase reads it.
  constexpr int64_t kBlockScores = 48 * 128;
  const int64_t most = std::min(kBlockScores / std::max<int64_t>(shape.keys, 1), kernels::attention::kMostRows);
  block_ = std::max<int64_t>(most / kernels_->block_rows, 1) * kernels_->block_rows;
  const int64_t panel = kernels_->panel, rows = std::min(block_, shape.queries);
  const int64_t keys = round_up(shape.keys, panel), features = round_up(shape.value_size, panel);
  pairs_ = (shape.size + 1) / 2;
  score_stride_ = spread(keys);
  weight_stride_ = 2 * spread(round_up(shape.keys, 32) / 2);
  q_ = halves(pieces, rows * pairs_);
  keys_ = halves(pieces, keys * pairs_);
  values_ = halves(pieces, features * ((shape.keys + 1) / 2));
  weights_ = halves(pieces, rows * weight_stride_ / 2);
  query_steps_ = pieces->floats(rows);
  key_steps_ = pieces->floats(keys);
  value_steps_ = pieces->floats(features);
  inverses_ = pieces->floats(rows);
  mask_ = pieces->floats(rows * shape.keys);
  sums_ = reinterpret_cast<int32_t*>(pieces->floats(rows * score_stride_));
}

void QuantisedHead::pack(const float* k, const float* v) {
  kernels_->pack_keys(k, shape_.k_stride, shape_.keys, shape_.size, options_.scale, keys_, key_steps_);
  kernels_->pack_values(v, shape_.v_stride, shape_.keys, shape_.value_size, values_, value_steps_);
  if (options_.guarded) zero_nan(value_steps_, shape_.value_size);
}

void QuantisedHead::run(const float* q, const HeadMask& mask, int64_t first, int64_t rows, float* y) const {
  const HeadShape& s = shape_;
  for (int64_t last = first + rows; first < last; first += block_) {
    const int64_t some = std::min(block_, last - first);
    kernels_->quantise_rows(q + first * s.q_stride, s.q_stride, some, s.size, q_, query_steps_);
    kernels_->scores(q_, keys_, some, s.keys, pairs_, sums_, score_stride_);
    const float* masks[kernels::attention::kMostRows];
    for (int64_t r = 0; r < some; ++r) masks[r] = mask.row(first + r, s.keys, mask_ + r * s.keys);
    kernels_->weigh(sums_, score_stride_, key_steps_, query_steps_, masks, some, s.keys, weights_, weight_stride_,
                    inverses_);
    if (options_.guarded) zero_nan(inverses_, some);
    kernels_->mix(weights_, weight_stride_, values_, some, s.keys, s.value_size, value_steps_, inverses_,
                  y + first * s.y_stride, s.y_stride);
  }
}

}  // namespace lutc::ops
