// One head of attention: its keys and values packed once, then blocks of query rows. In float32 and with integer
// products; both work in scratch memory alone.
#pragma once

#include "core/ops/dense_gemm.h"
#include "kernels/attention.h"

namespace lutc::ops {

struct HeadShape {
  int64_t queries, keys, size, value_size;             ///< L, S, d, dv
  int64_t q_stride, k_stride, v_stride, y_stride;      ///< from one position to the next
  int64_t x_feature_stride = 1, y_feature_stride = 1;  ///< from one feature to the next: of q, k and v, and of y
};

/// The same for every head of a step.
struct HeadOptions {
  float scale;
  bool guarded;  ///< zero where NaN would come out
};

/// The mask of one head: its row for query r starts at first + r * query_stride.
struct HeadMask {
  const float* first = nullptr;  ///< null: no mask
  int64_t query_stride = 0;
  int64_t key_stride = 0;  ///< 0: one value for a whole row

  /// `keys` values, or null when there is nothing to add; room holds as many.
  const float* row(int64_t query, int64_t keys, float* room) const;
};

/// Both kinds of head: `pack(k, v)`, then `run(q, mask, first, rows, y)` for queries [first, first + rows); q, y and
/// the mask start at query 0. In float32 features are contiguous.
class FloatHead {
 public:
  FloatHead(const HeadShape& shape, const HeadOptions& options, bool few_queries, const kernels::KernelTable& kernels,
            Pieces* pieces);
  void pack(const float* k, const float* v);
  void run(const float* q, const HeadMask& mask, int64_t first, int64_t rows, float* y) const;

 private:
  void block(const float* q, const HeadMask& mask, int64_t first, int64_t rows, float* y) const;

  const kernels::DenseKernels* dense_;
  const kernels::VectorKernels* vector_;
  HeadShape shape_;
  HeadOptions options_;
  bool direct_;  ///< few queries: keys and values are read in place
  int64_t block_, score_stride_;
  float *scores_, *mask_, *packed_keys_ = nullptr, *packed_values_ = nullptr;
  const float *k_ = nullptr, *v_ = nullptr;
};

/// The float32 head of inputs or outputs that lie feature by feature: rows in scratch memory stand between.
class TurnedHead {
 public:
  TurnedHead(const HeadShape& shape, const HeadOptions& options, bool few_queries, const kernels::KernelTable& kernels,
             Pieces* pieces);
  void pack(const float* k, const float* v);
  void run(const float* q, const HeadMask& mask, int64_t first, int64_t rows, float* y) const;

 private:
  void turn(const float* x, int64_t stride, int64_t rows, int64_t features, float* to) const;

  const kernels::AttentionKernels* kernels_;
  HeadShape shape_;
  FloatHead head_;
  float *q_, *k_, *v_, *y_;
};

class QuantisedHead {
 public:
  QuantisedHead(const HeadShape& shape, const HeadOptions& options, const kernels::KernelTable& kernels,
                Pieces* pieces);
  void pack(const float* k, const float* v);
  void run(const float* q, const HeadMask& mask, int64_t first, int64_t rows, float* y) const;

 private:
  void* quadruples(Pieces* pieces, int64_t count);
  kernels::AttentionMask tile_mask(const HeadMask& mask, int64_t first, int64_t rows) const;

  const kernels::AttentionKernels* kernels_;
  HeadShape shape_;
  HeadOptions options_;
  int64_t keys_, features_;  ///< columns as packed
  void *packed_queries_, *packed_keys_, *packed_values_, *weights_;
  int32_t* starts_;
  float *query_steps_, *key_steps_, *value_steps_, *largest_, *inverses_, *scores_, *mask_, *y_;
};

}  // namespace lutc::ops
