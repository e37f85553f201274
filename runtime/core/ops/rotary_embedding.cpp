// rotary_embedding (opset 23): rotates pairs of features by angles given as cosines and sines.
#include "core/ops/common.h"

namespace lutc {
namespace ops {
namespace {

class RotaryEmbedding final : public OpBase {
 public:
  static constexpr Arity kArity{3, 4, 1, 1};
  using OpBase::OpBase;

  Status init(const BuildContext&) override {
    if (dtype(0) != DType::kF32) return unsupported_dtype();
    LUTC_RETURN_IF_ERROR(same_dtypes({1, 2}));
    return expect_index_dtype(3);
  }

  Status infer(InferContext& ctx) const override {
    Geometry g;
    LUTC_RETURN_IF_ERROR(geometry(ctx.input_shape(0), &g));
    const Shape &cos = ctx.input_shape(1), &sin = ctx.input_shape(2);
    if (cos != sin) return invalid("the caches of cosines and sines differ in shape");
    const int64_t half = g.rotated / 2;
    if (present(3)) {
      if (cos.rank != 2 || cos[1] != half)
        return invalid("caches " + cos.to_string() + " must be [positions, " + std::to_string(half) + "]");
      if (ctx.input_shape(3) != Shape{g.batch, g.length}) return invalid("position ids must be [batch, sequence]");
    } else if (cos != Shape{g.batch, g.length, half}) {
      return invalid("caches " + cos.to_string() + " must be [batch, sequence, " + std::to_string(half) + "]");
    }
    LUTC_RETURN_IF_ERROR(ctx.set_output(0, dtype(0), ctx.input_shape(0)));
    if (cos.elements() != ctx.input_shape(0).elements()) ctx.may_overwrite(0, 0);
    return Status::ok();
  }

  Status run(RunContext& ctx) const override {
    const TensorView &x = ctx.input(0), &cos = ctx.input(1), &sin = ctx.input(2), &y = ctx.output(0);
    Geometry g;
    LUTC_RETURN_IF_ERROR(geometry(x.shape, &g));
    if (present(3)) {
      const TensorView& ids = ctx.input(3);
      for (int64_t i = 0; i < g.batch * g.length; ++i) {
        const int64_t id = int_at(ids, i);
        if (id < 0 || id >= cos.shape[0])
          return invalid("position " + std::to_string(id) + " is outside the cache of " + std::to_string(cos.shape[0]));
      }
    }
    if (x.shape.elements() == 0) return Status::ok();
    const bool interleaved = def_.attrs.get_int("interleaved", 0) != 0;
    const int64_t half = g.rotated / 2;
    // Rows of head_size features; which position a row has depends on the layout.
    parallel(ctx, x.shape.elements() / g.head_size, x.shape.elements(), 1, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const int64_t batch = r / (g.heads * g.length);
        const int64_t position = batch * g.length + (g.heads_first ? r % g.length : r / g.heads % g.length);
        const int64_t angle = (present(3) ? int_at(ctx.input(3), position) : position) * half;
        rotate(x.as<float>() + r * g.head_size, cos.as<float>() + angle, sin.as<float>() + angle, half, interleaved,
               y.as_mut<float>() + r * g.head_size);
        if (x.data != y.data) {
          std::copy(x.as<float>() + r * g.head_size + g.rotated, x.as<float>() + (r + 1) * g.head_size,
                    y.as_mut<float>() + r * g.head_size + g.rotated);
        }
      }
    });
    return Status::ok();
  }

 private:
  struct Geometry {
    int64_t batch = 0, heads = 0, length = 0, head_size = 0, rotated = 0;
    bool heads_first = true;  ///< [batch, heads, length, size] rather than [batch, length, heads * size]
  };

  static void rotate(const float* x, const float* cos, const float* sin, int64_t half, bool interleaved, float* y) {
    const int64_t step = interleaved ? 2 : 1, other = interleaved ? 1 : half;
    for (int64_t i = 0; i < half; ++i) {
      const float a = x[i * step], b = x[i * step + other];
      y[i * step] = cos[i] * a - sin[i] * b;
      y[i * step + other] = sin[i] * a + cos[i] * b;
    }
  }

  Status geometry(const Shape& x, Geometry* g) const {
    const int64_t heads = def_.attrs.get_int("num_heads", 0);
    g->batch = x.rank > 0 ? x[0] : 0;
    if (x.rank == 4) {
      g->heads = x[1], g->length = x[2], g->head_size = x[3];
    } else if (x.rank == 3) {
      if (heads < 1 || x[2] % heads != 0)
        return invalid("num_heads " + std::to_string(heads) + " does not divide " + std::to_string(x[2]));
      g->heads_first = false;
      g->heads = heads, g->length = x[1], g->head_size = x[2] / heads;
    } else {
      return invalid("input " + x.to_string() + " must have rank 3 or 4");
    }
    const int64_t asked = def_.attrs.get_int("rotary_embedding_dim", 0);
    g->rotated = asked == 0 ? g->head_size : asked;
    if (g->rotated < 0 || g->rotated > g->head_size || g->rotated % 2 != 0) {
      return invalid("cannot rotate " + std::to_string(g->rotated) + " of " + std::to_string(g->head_size) +
                     " features");
    }
    return Status::ok();
  }
};

}  // namespace
}  // namespace ops

void register_rotary_embedding(OpRegistry& registry) {
  registry.add("rotary_embedding", ops::make<ops::RotaryEmbedding>);
}

}  // namespace lutc
