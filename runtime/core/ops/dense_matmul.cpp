// Matrix products: linear (fused bias, activation, residual), mat_mul (batched, broadcasting) and gemm.
#include "core/ops/dense_gemm.h"

namespace lutc {
namespace ops {
namespace {

using kernels::DenseKernels;
using kernels::Epilogue;
using kernels::packed_floats;

/// Products in float32; the right-hand matrix packed once when it is constant.
class Product : public OpBase {
 public:
  using OpBase::OpBase;
  Status init(const BuildContext& build) override {
    dense_ = build.kernels->dense;
    vector_ = build.kernels->vector;
    LUTC_RETURN_IF_ERROR(all_f32());
    return Status::ok();
  }

 protected:
  bool constant(size_t i) const {
    return present(i) && def_.inputs[i].constant && def_.inputs[i].tensor.data != nullptr;
  }
  Status pack(const float* b, int64_t row_stride, int64_t column_stride, int64_t k, int64_t n) {
    if (!packed_.pack(*dense_, b, row_stride, column_stride, k, n)) {
      return step_error(def_, ErrorCode::kOutOfMemory, "no memory for the packed weight");
    }
    return Status::ok();
  }

  const DenseKernels* dense_ = nullptr;
  const kernels::VectorKernels* vector_ = nullptr;
  PackedMatrix packed_;
};

class Linear : public Product {
 public:
  static constexpr Arity kArity{2, 4, 1, 1};
  using Product::Product;

  Status init(const BuildContext& build) override {
    LUTC_RETURN_IF_ERROR(Product::init(build));
    LUTC_RETURN_IF_ERROR(parse_activation(def_, &activation_));
    if (!constant(1)) return Status::ok();
    const TensorView& w = def_.inputs[1].tensor;
    if (w.shape.rank != 2) return invalid("the weight must have rank 2, not shape " + w.shape.to_string());
    return pack(w.as<float>(), w.shape[1], 1, w.shape[0], w.shape[1]);
  }

  Status infer(InferContext& ctx) const override {
    const Shape& x = ctx.input_shape(0);
    const Shape& w = ctx.input_shape(1);
    if (x.rank < 1 || w.rank != 2 || x[x.rank - 1] != w[0]) {
      return invalid("input " + x.to_string() + " does not fit weight " + w.to_string());
    }
    Shape y = x;
    y[y.rank - 1] = w[1];
    if (present(2) && (ctx.input_shape(2).rank != 1 || ctx.input_shape(2)[0] != w[1])) {
      return invalid("bias " + ctx.input_shape(2).to_string() + " does not fit weight " + w.to_string());
    }
    if (present(3) && ctx.input_shape(3) != y) {
      return invalid("residual " + ctx.input_shape(3).to_string() + " is not of the output's shape " + y.to_string());
    }
    LUTC_RETURN_IF_ERROR(ctx.set_output(0, DType::kF32, y));
    Pieces pieces;
    if (packed_.empty()) pieces.floats(packed_floats(*dense_, w[0], w[1]));
    return request_scratch(ctx, pieces.bytes());
  }

  Status run(RunContext& ctx) const override {
    const TensorView& x = ctx.input(0);
    const int64_t k = ctx.input(1).shape[0], n = ctx.input(1).shape[1], m = x.shape.product(0, x.shape.rank - 1);
    const float* packed = packed_.data();
    if (packed == nullptr) {
      float* scratch = Pieces(ctx.scratch()).floats(packed_floats(*dense_, k, n));
      parallel_pack(ctx, *dense_, ctx.input(1).as<float>(), n, 1, k, n, scratch);
      packed = scratch;
    }
    Epilogue e;
    if (present(2)) e.column_bias = ctx.input(2).as<float>();
    if (present(3)) e.residual = ctx.input(3).as<float>();
    e.residual_stride = n;
    e.activation = activation_;
    parallel_gemm(ctx, *dense_, x.as<float>(), k, packed, m, n, k, ctx.output(0).as_mut<float>(), n, e);
    return Status::ok();
  }

 private:
  kernels::Activation activation_ = kernels::Activation::kNone;
};

/// NumPy's matmul: leading dims broadcast, vectors get a dim of one that vanishes again.
class MatMul : public Product {
 public:
  static constexpr Arity kArity{2, 2, 1, 1};
  using Product::Product;

  Status init(const BuildContext& build) override {
    LUTC_RETURN_IF_ERROR(Product::init(build));
    if (!constant(1)) return Status::ok();
    const TensorView& b = def_.inputs[1].tensor;
    if (b.shape.rank > 2 || b.shape.rank < 1) return Status::ok();
    const int64_t n = b.shape.rank == 2 ? b.shape[1] : 1;
    return pack(b.as<float>(), n, 1, b.shape[0], n);
  }

  Status infer(InferContext& ctx) const override {
    Plan plan;
    LUTC_RETURN_IF_ERROR(make_plan(ctx.input_shape(0), ctx.input_shape(1), &plan));
    LUTC_RETURN_IF_ERROR(ctx.set_output(0, DType::kF32, plan.output));
    Pieces pieces;
    if (packed_.empty())
      pieces.floats(packed_floats(*dense_, plan.k, plan.n) * (plan.batches > 1 ? ctx.num_threads() : 1));
    return request_scratch(ctx, pieces.bytes());
  }

  Status run(RunContext& ctx) const override {
    Plan plan;
    LUTC_RETURN_IF_ERROR(make_plan(ctx.input(0).shape, ctx.input(1).shape, &plan));
    const float *a = ctx.input(0).as<float>(), *b = ctx.input(1).as<float>();
    float* c = ctx.output(0).as_mut<float>();
    const int64_t m = plan.m, n = plan.n, k = plan.k;
    if (plan.output.elements() == 0) return Status::ok();
    if (!packed_.empty()) {
      parallel_gemm(ctx, *dense_, a, k, packed_.data(), m, n, k, c, n, Epilogue());
      return Status::ok();
    }
    float* scratch = static_cast<float*>(ctx.scratch());
    if (plan.batches == 1) {
      parallel_pack(ctx, *dense_, b, n, 1, k, n, scratch);
      parallel_gemm(ctx, *dense_, a, k, scratch, m, n, k, c, n, Epilogue());
      return Status::ok();
    }
    const int64_t packed_size = packed_floats(*dense_, k, n);
    const int threads = plan.batches * m * n * k < kParallelWork ? 1 : ctx.num_threads();
    ctx.pool().parallel_for(plan.batches, 1, threads, [&](int64_t begin, int64_t end, int worker) {
      float* mine = scratch + worker * packed_size;
      const float* held = nullptr;
      plan.loop.run(begin, end, [&](int64_t at, const int64_t* offsets, int64_t count) {
        for (int64_t i = 0; i < count; ++i) {
          const float* x = a + (offsets[0] + i * plan.loop.inner_stride(0)) * m * k;
          const float* y = b + (offsets[1] + i * plan.loop.inner_stride(1)) * k * n;
          if (y != held) dense_->pack(y, n, 1, k, n, mine);
          held = y;
          dense_->gemm(x, k, mine, m, n, k, c + (at + i) * m * n, n, Epilogue());
        }
      });
    });
    return Status::ok();
  }

 private:
  struct Plan {
    int64_t batches = 1, m = 1, n = 1, k = 1;
    StridedLoop<2> loop;  ///< over batches; strides count matrices
    Shape output;
  };

  Status make_plan(const Shape& a, const Shape& b, Plan* plan) const {
    const auto misfit = [&](const char* why) {  // no text is made unless it is needed: run() comes here too
      return invalid("inputs " + a.to_string() + " and " + b.to_string() + why);
    };
    if (a.rank < 1 || b.rank < 1) return misfit(" must not be scalars");
    plan->m = a.rank > 1 ? a[a.rank - 2] : 1;
    plan->k = a[a.rank - 1];
    plan->n = b.rank > 1 ? b[b.rank - 1] : 1;
    if ((b.rank > 1 ? b[b.rank - 2] : b[0]) != plan->k) return misfit(" do not fit");
    Shape lead_a, lead_b, lead;
    for (int i = 0; i + 2 < a.rank; ++i) lead_a.dims[lead_a.rank++] = a[i];
    for (int i = 0; i + 2 < b.rank; ++i) lead_b.dims[lead_b.rank++] = b[i];
    if (!broadcast(lead_a, lead_b, &lead)) return misfit(" do not broadcast");
    plan->output = lead;
    if (a.rank > 1) plan->output.dims[plan->output.rank++] = plan->m;
    if (b.rank > 1) plan->output.dims[plan->output.rank++] = plan->n;
    LUTC_RETURN_IF_ERROR(check_elements(plan->output));
    plan->batches = lead.elements();
    if (lead_b.elements() == 1 && lead_a == lead) {  // one B for all: the batch is more rows
      plan->m *= plan->batches;
      plan->batches = 1;
      return Status::ok();
    }
    if (plan->batches > 0) plan->loop = broadcast_loop<2>(lead, {&lead_a, &lead_b});
    return Status::ok();
  }
  Status check_elements(const Shape& shape) const {
    const Result<int64_t> elements = checked_elements(shape);
    return elements.is_ok() ? Status::ok() : invalid(elements.status().message());
  }
};

class Gemm : public Product {
 public:
  static constexpr Arity kArity{2, 3, 1, 1};
  using Product::Product;

  Status init(const BuildContext& build) override {
    LUTC_RETURN_IF_ERROR(Product::init(build));
    alpha_ = static_cast<float>(def_.attrs.get_float("alpha", 1.0));
    beta_ = static_cast<float>(def_.attrs.get_float("beta", 1.0));
    trans_a_ = def_.attrs.get_int("transA", 0) != 0;
    trans_b_ = def_.attrs.get_int("transB", 0) != 0;
    if (!constant(1)) return Status::ok();
    const TensorView& b = def_.inputs[1].tensor;
    if (b.shape.rank != 2) return invalid("B must have rank 2, not shape " + b.shape.to_string());
    const int64_t k = b.shape[trans_b_ ? 1 : 0], n = b.shape[trans_b_ ? 0 : 1];
    LUTC_RETURN_IF_ERROR(pack(b.as<float>(), trans_b_ ? 1 : n, trans_b_ ? k : 1, k, n));
    scale(packed_.data_mut(), packed_floats(*dense_, k, n), alpha_);
    return Status::ok();
  }

  Status infer(InferContext& ctx) const override {
    const Shape &a = ctx.input_shape(0), &b = ctx.input_shape(1);
    if (a.rank != 2 || b.rank != 2 || a[trans_a_ ? 0 : 1] != b[trans_b_ ? 1 : 0]) {
      return invalid("inputs " + a.to_string() + " and " + b.to_string() + " do not fit");
    }
    const Shape y{a[trans_a_ ? 1 : 0], b[trans_b_ ? 0 : 1]};
    if (present(2)) {
      Shape both;
      if (!broadcast(ctx.input_shape(2), y, &both) || both != y) {
        return invalid("C " + ctx.input_shape(2).to_string() + " does not broadcast to " + y.to_string());
      }
    }
    LUTC_RETURN_IF_ERROR(ctx.set_output(0, DType::kF32, y));
    Pieces pieces;
    Scratch(this, a, b, present(2) ? ctx.input_shape(2) : Shape(), &pieces);
    return request_scratch(ctx, pieces.bytes());
  }

  Status run(RunContext& ctx) const override {
    const Shape &sa = ctx.input(0).shape, &sb = ctx.input(1).shape;
    const int64_t m = sa[trans_a_ ? 1 : 0], k = sa[trans_a_ ? 0 : 1], n = sb[trans_b_ ? 0 : 1];
    if (m * n == 0) return Status::ok();
    Pieces pieces(ctx.scratch());
    const Scratch scratch(this, sa, sb, present(2) ? ctx.input(2).shape : Shape(), &pieces);
    const float* a = ctx.input(0).as<float>();
    if (trans_a_) {
      for (int64_t i = 0; i < m; ++i) dense_->gather_strided(a + i, m, scratch.a + i * k, k);
      a = scratch.a;
    }
    const float* packed = packed_.data();
    if (packed == nullptr) {
      parallel_pack(ctx, *dense_, ctx.input(1).as<float>(), trans_b_ ? 1 : n, trans_b_ ? k : 1, k, n, scratch.b);
      scale(scratch.b, packed_floats(*dense_, k, n), alpha_);
      packed = scratch.b;
    }
    Epilogue e;
    e.residual_stride = n;
    if (present(2) && beta_ != 0.0f) {
      const TensorView& c = ctx.input(2);
      const int64_t rows = c.shape.rank == 2 ? c.shape[0] : 1,
                    columns = c.shape.rank > 0 ? c.shape[c.shape.rank - 1] : 1;
      vector_->mul_scalar_f32(c.as<float>(), beta_, scratch.c, rows * columns);
      if (rows == m && columns == n) {
        e.residual = scratch.c;
      } else if (columns == n) {
        e.column_bias = scratch.c;
      } else if (rows == m) {
        e.row_bias = scratch.c;
      } else {
        std::fill(scratch.c + 1, scratch.c + n, scratch.c[0]);
        e.column_bias = scratch.c;
      }
    }
    parallel_gemm(ctx, *dense_, a, k, packed, m, n, k, ctx.output(0).as_mut<float>(), n, e);
    return Status::ok();
  }

 private:
  struct Scratch {
    float *a = nullptr, *b = nullptr, *c = nullptr;
    Scratch(const Gemm* op, const Shape& sa, const Shape& sb, const Shape& sc, Pieces* pieces) {
      if (op->trans_a_) a = pieces->floats(sa.elements());
      if (op->packed_.empty())
        b = pieces->floats(packed_floats(*op->dense_, sb[op->trans_b_ ? 1 : 0], sb[op->trans_b_ ? 0 : 1]));
      if (op->present(2))
        c = pieces->floats(sc.elements() + sb.elements() / std::max<int64_t>(sb[op->trans_b_ ? 1 : 0], 1));
    }
  };
  void scale(float* x, int64_t n, float by) const {
    if (by != 1.0f) vector_->mul_scalar_f32(x, by, x, n);
  }

  float alpha_ = 1.0f, beta_ = 1.0f;
  bool trans_a_ = false, trans_b_ = false;
};

}  // namespace
}  // namespace ops

void register_dense_matmul(OpRegistry& registry) {
  registry.add("linear", ops::make<ops::Linear>);
  registry.add("mat_mul", ops::make<ops::MatMul>);
  registry.add("gemm", ops::make<ops::Gemm>);
}

}  // namespace lutc
