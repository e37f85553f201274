// Packed matrices and threaded products: what linear, mat_mul, gemm and convolutions share.
#pragma once

#include "core/aligned_buffer.h"
#include "core/ops/common.h"
#include "kernels/dense.h"
#include "kernels/kernel_table.h"
#include "kernels/vector.h"

namespace lutc::ops {

/// A constant right-hand matrix, packed at load.
class PackedMatrix {
 public:
  /// B[k, n] with element (i, j) at b[i * row_stride + j * column_stride], times alpha. False when memory is short.
  [[nodiscard]] bool pack(const kernels::DenseKernels& dense, const float* b, int64_t row_stride, int64_t column_stride,
                          int64_t k, int64_t n);
  /// Room for so many floats, packed by the caller; at least one.
  [[nodiscard]] bool allocate(int64_t floats) { return buffer_.allocate(static_cast<size_t>(floats) * sizeof(float)); }
  const float* data() const { return static_cast<const float*>(buffer_.data()); }
  float* data_mut() const { return static_cast<float*>(buffer_.data()); }
  bool empty() const { return buffer_.data() == nullptr; }

 private:
  AlignedBuffer buffer_;
};

/// c = epilogue(a packed), split over the session's threads by columns or by rows, whichever gives even shares.
void parallel_gemm(RunContext& ctx, const kernels::DenseKernels& dense, const float* a, int64_t lda,
                   const float* packed, int64_t m, int64_t n, int64_t k, float* c, int64_t ldc,
                   const kernels::Epilogue& epilogue);

/// Packs B at run time, panels split over the threads.
void parallel_pack(RunContext& ctx, const kernels::DenseKernels& dense, const float* b, int64_t row_stride,
                   int64_t column_stride, int64_t k, int64_t n, float* packed);

/// The activation named by a plan attribute; kUnsupported for an unknown name.
Status parse_activation(const StepDef& def, kernels::Activation* activation);

/// Hands out 64-byte-aligned pieces of one scratch area: once without memory (in infer(), to learn the size), once with
/// it (in run()).
class Pieces {
 public:
  explicit Pieces(void* base = nullptr) : base_(static_cast<char*>(base)) {}
  /// `count` floats; null while measuring. Sizes that overflow make bytes() fail.
  float* floats(int64_t count);
  int64_t* ints(int64_t count);
  /// Bytes handed out, or -1 after an overflow.
  int64_t bytes() const { return overflow_ ? -1 : used_; }

 private:
  void* take(int64_t count, int64_t size);
  char* base_;
  int64_t used_ = 0;
  bool overflow_ = false;
};

}  // namespace lutc::ops
