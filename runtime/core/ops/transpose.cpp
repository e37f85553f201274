// transpose: a copy of rows when the last axis stays last, blocks of a matrix otherwise, no copy at all when only dims
// of 1 move.
#include "core/ops/common.h"

namespace lutc {
namespace ops {
namespace {

constexpr int64_t kBlock = 16;

/// y[i * y_stride + j] = x[i + j * x_stride] for i < rows, j < cols, in blocks that stay in the first-level cache.
template <class T>
void transpose_matrix(const T* x, int64_t x_stride, T* y, int64_t y_stride, int64_t rows, int64_t cols) {
  for (int64_t i0 = 0; i0 < rows; i0 += kBlock) {
    const int64_t i1 = std::min(rows, i0 + kBlock);
    for (int64_t j0 = 0; j0 < cols; j0 += kBlock) {
      const int64_t j1 = std::min(cols, j0 + kBlock);
      for (int64_t i = i0; i < i1; ++i) {
        for (int64_t j = j0; j < j1; ++j) y[i * y_stride + j] = x[i + j * x_stride];
      }
    }
  }
}

class Transpose final : public OpBase {
 public:
  static constexpr Arity kArity{1, 1, 1, 1};
  using OpBase::OpBase;

  Status init(const BuildContext&) override {
    perm_ = def_.attrs.get_ints("perm", {});
    if (perm_.size() > kMaxRank) return invalid("perm is longer than " + std::to_string(kMaxRank));
    bool seen[kMaxRank] = {};
    for (int64_t& p : perm_) {
      const int64_t n = static_cast<int64_t>(perm_.size());
      if (p < -n || p >= n || seen[p < 0 ? p + n : p]) return invalid("perm is no permutation");
      if (p < 0) p += n;
      seen[p] = true;
    }
    return Status::ok();
  }

  Status infer(InferContext& ctx) const override {
    const Shape& in = ctx.input_shape(0);
    if (def_.attrs.has("perm") && perm_.size() != static_cast<size_t>(in.rank)) {
      return invalid("perm has " + std::to_string(perm_.size()) + " axes, the input " + in.to_string());
    }
    Shape out = in;
    int last_moved = -1;
    bool ordered = true;
    for (int d = 0; d < in.rank; ++d) {
      const int from = source(d, in.rank);
      out[d] = in[from];
      if (in[from] == 1) continue;
      ordered = ordered && from > last_moved;
      last_moved = from;
    }
    LUTC_RETURN_IF_ERROR(ctx.set_output(0, dtype(0), out));
    if (ordered) ctx.alias(0, 0);
    return Status::ok();
  }

  Status run(RunContext& ctx) const override {
    const TensorView &x = ctx.input(0), &y = ctx.output(0);
    if (x.data == y.data || x.shape.elements() == 0) return Status::ok();
    visit_bytes(x.dtype, [&](auto t) { run_typed<typename decltype(t)::type>(ctx, x, y); });
    return Status::ok();
  }

 private:
  int source(int d, int rank) const {
    return perm_.empty() ? rank - 1 - d : static_cast<int>(perm_[static_cast<size_t>(d)]);
  }

  template <class T>
  void run_typed(RunContext& ctx, const TensorView& x, const TensorView& y) const {
    // Output dims, outermost first, with the input's stride; dims of 1 dropped and neighbours that stay neighbours
    // merged.
    int64_t in_strides[kMaxRank], dims[kMaxRank], strides[kMaxRank];
    row_major_strides(x.shape, in_strides);
    int rank = 0;
    for (int d = 0; d < y.shape.rank; ++d) {
      const int64_t dim = y.shape[d], stride = in_strides[source(d, y.shape.rank)];
      if (dim == 1) continue;
      if (rank > 0 && strides[rank - 1] == stride * dim) {
        dims[rank - 1] *= dim;
        strides[rank - 1] = stride;
      } else {
        dims[rank] = dim;
        strides[rank++] = stride;
      }
    }
    const T* from = x.as<T>();
    T* to = y.as_mut<T>();
    const int64_t total = x.shape.elements();
    if (rank == 0 || strides[rank - 1] == 1) {  // rows stay whole
      StridedLoop<1> loop;
      for (int d = 0; d < rank; ++d) loop.push(dims[d], {strides[d]});
      const int64_t row = rank == 0 ? 1 : dims[rank - 1];
      parallel(ctx, total / row, total, 1, [&](int64_t begin, int64_t end) {
        loop.run(begin * row, end * row, [&](int64_t at, const int64_t (&offset)[1], int64_t count) {
          std::memcpy(to + at, from + offset[0], static_cast<size_t>(count) * sizeof(T));
        });
      });
      return;
    }
    // The input's last axis is output dim p; it and the output's last dim make a matrix to transpose, for every index
    // of the others.
    int p = 0;
    while (strides[p] != 1) ++p;
    int64_t out_strides[kMaxRank];
    for (int64_t d = rank - 1, s = 1; d >= 0; s *= dims[d--]) out_strides[d] = s;
    StridedLoop<2> loop;  // over the other dims: offsets into input and output
    int64_t matrices = 1;
    for (int d = 0; d < rank - 1; ++d) {
      if (d == p) continue;
      loop.push(dims[d], {strides[d], out_strides[d]});
      matrices *= dims[d];
    }
    const int64_t rows = dims[p], cols = dims[rank - 1], x_stride = strides[rank - 1], y_stride = out_strides[p];
    const int64_t bands = (rows + kBlock - 1) / kBlock;
    parallel(ctx, matrices * bands, total, 1, [&](int64_t begin, int64_t end) {
      for (int64_t unit = begin; unit < end;) {
        const int64_t matrix = unit / bands, band = unit % bands, stop = std::min(bands, band + end - unit);
        loop.run(matrix, matrix + 1, [&](int64_t, const int64_t (&offset)[2], int64_t) {
          const int64_t row = band * kBlock;
          transpose_matrix(from + offset[0] + row, x_stride, to + offset[1] + row * y_stride, y_stride,
                           std::min(rows, stop * kBlock) - row, cols);
        });
        unit += stop - band;
      }
    });
  }

  std::vector<int64_t> perm_;
};

}  // namespace
}  // namespace ops

void register_transpose(OpRegistry& registry) { registry.add("transpose", ops::make<ops::Transpose>); }

}  // namespace lutc
