#include "core/ops/dense_gemm.h"

#include "core/checked.h"

namespace lutc::ops {

bool PackedMatrix::pack(const kernels::DenseKernels& dense, const float* b, int64_t row_stride, int64_t column_stride,
                        int64_t k, int64_t n) {
  if (!buffer_.allocate(static_cast<size_t>(kernels::packed_floats(dense, k, n)) * sizeof(float))) return false;
  dense.pack(b, row_stride, column_stride, k, n, data_mut());
  return true;
}

void parallel_gemm(RunContext& ctx, const kernels::DenseKernels& dense, const float* a, int64_t lda,
                   const float* packed, int64_t m, int64_t n, int64_t k, float* c, int64_t ldc,
                   const kernels::Epilogue& epilogue) {
  constexpr int64_t kWorthWaking = 512 * 1024;  // multiply-adds: some ten microseconds
  const int threads = ctx.num_threads();
  if (threads <= 1 || m * n < 2 || m * n * std::max<int64_t>(k, 1) < kWorthWaking) {
    dense.gemm(a, lda, packed, m, n, k, c, ldc, epilogue);
    return;
  }
  const int64_t panels = (n + dense.panel_columns - 1) / dense.panel_columns;
  const int64_t blocks = (m + dense.block_rows - 1) / dense.block_rows;
  // Rows where each thread gets some blocks: the steps around split rows alike, so that activations stay with their
  // core (a line that two cores have read costs the next one to write it some 30 ns, one line after the other). Both
  // then read all weights, which multiply-adds leave time for.
  const bool by_rows = blocks >= 2 * threads;
  if (!by_rows && (panels >= 4 * threads || panels >= blocks)) {
    ctx.pool().parallel_for(n, dense.panel_columns, threads, [&](int64_t begin, int64_t end, int) {
      kernels::Epilogue at = epilogue;
      if (at.column_bias != nullptr) at.column_bias += begin;
      if (at.residual != nullptr) at.residual += begin;
      dense.gemm(a, lda, packed + begin * k, m, end - begin, k, c + begin, ldc, at);
    });
  } else {
    const int64_t share = by_rows ? (m + threads - 1) / threads : dense.block_rows;
    ctx.pool().parallel_for(m, share, threads, [&](int64_t begin, int64_t end, int) {
      kernels::Epilogue at = epilogue;
      if (at.row_bias != nullptr) at.row_bias += begin;
      if (at.residual != nullptr) at.residual += begin * at.residual_stride;
      dense.gemm(a + begin * lda, lda, packed, end - begin, n, k, c + begin * ldc, ldc, at);
    });
  }
}

void parallel_pack(RunContext& ctx, const kernels::DenseKernels& dense, const float* b, int64_t row_stride,
                   int64_t column_stride, int64_t k, int64_t n, float* packed) {
  parallel(ctx, n, k * n, dense.panel_columns, [&](int64_t begin, int64_t end) {
    dense.pack(b + begin * column_stride, row_stride, column_stride, k, end - begin, packed + begin * k);
  });
}

Status parse_activation(const StepDef& def, kernels::Activation* activation) {
  using kernels::Activation;
  static constexpr std::pair<const char*, Activation> kNames[] = {
      {"none", Activation::kNone},          {"relu", Activation::kRelu}, {"gelu", Activation::kGelu},
      {"gelu_tanh", Activation::kGeluTanh}, {"silu", Activation::kSilu}, {"tanh", Activation::kTanh},
      {"sigmoid", Activation::kSigmoid}};
  const std::string wanted = def.attrs.get_string("activation", "none");
  for (const auto& [name, value] : kNames) {
    if (wanted == name) {
      *activation = value;
      return Status::ok();
    }
  }
  return step_error(def, ErrorCode::kUnsupported, "unknown activation '" + wanted + "'");
}

void* Pieces::take(int64_t count, int64_t size) {
  int64_t bytes = 0;
  if (count < 0 || !checked_mul(count, size, &bytes) || !checked_add(bytes, int64_t{63}, &bytes)) {
    overflow_ = true;
    return nullptr;
  }
  void* piece = base_ == nullptr ? nullptr : base_ + used_;
  if (!checked_add(used_, bytes & ~int64_t{63}, &used_)) overflow_ = true;
  return piece;
}

float* Pieces::floats(int64_t count) { return static_cast<float*>(take(count, sizeof(float))); }
int64_t* Pieces::ints(int64_t count) { return static_cast<int64_t*>(take(count, sizeof(int64_t))); }

}  // namespace lutc::ops
