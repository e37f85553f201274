// What the operators of core/ops/ share: a base class and factory, argument checks, typed dispatch, strided iteration,
// threading.
#pragma once

#include <algorithm>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "core/op.h"
#include "core/thread_pool.h"

namespace lutc::ops {

/// How many inputs and outputs a step may have; the first `min_in` inputs must be present.
struct Arity {
  int min_in, max_in, min_out, max_out;
};
constexpr int kMany = 4096;  ///< inputs of concat and alike (docs/format.md)

/// Keeps the definition for messages and attributes. Derived classes offer `static constexpr Arity kArity` and may
/// override init().
class OpBase : public Op {
 public:
  explicit OpBase(const StepDef& def) : def_(def) {}
  /// Checks that need no shapes: attributes, dtypes. Called once by make().
  virtual Status init(const BuildContext&) { return Status::ok(); }

 protected:
  Status invalid(const std::string& what) const { return step_error(def_, ErrorCode::kInvalidArgument, what); }
  Status unsupported(const std::string& what) const { return step_error(def_, ErrorCode::kUnsupported, what); }
  Status unsupported_dtype() const;
  /// unsupported_dtype() unless every present input is f32.
  Status all_f32() const;
  DType dtype(int input) const { return def_.inputs[input].tensor.dtype; }
  bool present(size_t input) const { return input < def_.inputs.size() && def_.inputs[input].present; }
  /// Every listed input that is present has the dtype of input 0.
  Status same_dtypes(std::initializer_list<size_t> inputs) const;
  Status expect_index_dtype(size_t input) const;

  /// axis in [-rank, rank) to [0, rank); kInvalidArgument otherwise.
  Result<int> axis(int64_t value, int rank) const;
  /// The integers of input i, known at infer time; kUnsupported when they depend on data ("what" names them).
  Result<std::vector<int64_t>> known_ints(const InferContext& ctx, int input, const char* what) const;
  /// Asks for scratch of `bytes` (negative: a sum that overflowed) for each of `threads`; kOutOfMemory if no size holds
  /// that.
  Status request_scratch(InferContext& ctx, int64_t bytes, int64_t threads = 1) const;

  StepDef def_;
};

Status check_arity(const StepDef& def, const Arity& arity);

template <class T>
Result<std::unique_ptr<Op>> make(const StepDef& def, const BuildContext& build) {
  LUTC_RETURN_IF_ERROR(check_arity(def, T::kArity));
  auto op = std::make_unique<T>(def);
  LUTC_RETURN_IF_ERROR(op->init(build));
  return std::unique_ptr<Op>(std::move(op));
}

/// True when input i's value may be read in infer().
inline bool is_known(const InferContext& ctx, int i) {
  return ctx.input_value(i).data != nullptr || ctx.input_shape(i).elements() == 0;
}

/// Element i of an integer tensor (i64 or i32).
inline int64_t int_at(const TensorView& t, int64_t i) {
  return t.dtype == DType::kI32 ? t.as<int32_t>()[i] : t.as<int64_t>()[i];
}
/// Element i of any numeric tensor.
double number_at(const TensorView& t, int64_t i);

/// NumPy broadcasting of two shapes; rank 0 counts as a scalar. Fails when a dim differs and neither is 1.
bool broadcast(const Shape& a, const Shape& b, Shape* out);

// ---------------------------------------------------------------------------------------------------------------------------
// Typed dispatch: fn receives a Type<T>; returns false when the dtype is not in the set.
template <class T>
struct Type {
  using type = T;
};

template <class Fn>
bool visit_float(DType dtype, Fn&& fn) {
  if (dtype == DType::kF32) return fn(Type<float>{}), true;
  if (dtype == DType::kF64) return fn(Type<double>{}), true;
  return false;
}
template <class Fn>
bool visit_integer(DType dtype, Fn&& fn) {
  switch (dtype) {
    case DType::kI64:
      return fn(Type<int64_t>{}), true;
    case DType::kI32:
      return fn(Type<int32_t>{}), true;
    case DType::kI8:
      return fn(Type<int8_t>{}), true;
    case DType::kU8:
      return fn(Type<uint8_t>{}), true;
    default:
      return false;
  }
}
/// Everything but bool.
template <class Fn>
bool visit_number(DType dtype, Fn&& fn) {
  return visit_float(dtype, fn) || visit_integer(dtype, fn);
}
/// Moves need only the element size: fn receives Type<uint8_t>, Type<uint32_t> or Type<uint64_t>.
template <class Fn>
void visit_bytes(DType dtype, Fn&& fn) {
  switch (dtype_size(dtype)) {
    case 1:
      fn(Type<uint8_t>{});
      break;
    case 4:
      fn(Type<uint32_t>{});
      break;
    default:
      fn(Type<uint64_t>{});
      break;
  }
}

// ---------------------------------------------------------------------------------------------------------------------------
// Threads: steps below kParallelWork elements are not worth waking anybody.
constexpr int64_t kParallelWork = 64 * 1024;

/// body(begin, end) over [0, total), `work` being the elements touched in all. Bounds of ranges are multiples of grain.
template <class Body>
void parallel(RunContext& ctx, int64_t total, int64_t work, int64_t grain, const Body& body) {
  if (work < kParallelWork || ctx.num_threads() <= 1 || total <= grain) {
    if (total > 0) body(int64_t{0}, total);
    return;
  }
  ctx.pool().parallel_for(total, grain, ctx.num_threads(), [&](int64_t begin, int64_t end, int) { body(begin, end); });
}

/// Copies `rows` rows of `row_bytes` between two strided buffers (strides in bytes), with threads when it is large.
void copy_rows(RunContext& ctx, void* dst, int64_t dst_stride, const void* src, int64_t src_stride, int64_t row_bytes,
               int64_t rows);

// ---------------------------------------------------------------------------------------------------------------------------
/// Walks a dense row-major output in order while N operands move by their own strides (0 where broadcast, negative
/// allowed). Built outermost dim first; dims of size 1 vanish and mergeable neighbours become one, so that the inner
/// loop is as long as possible.
template <int N>
class StridedLoop {
 public:
  static constexpr int kMaxDims = 2 * kMaxRank;

  /// dim > 0; strides in elements. At most kMaxDims dims.
  void push(int64_t dim, const int64_t (&strides)[N]) {
    if (dim == 1) return;
    bool merge = rank_ > 0;
    for (int n = 0; merge && n < N; ++n) merge = strides_[n][rank_ - 1] == strides[n] * dim;
    const int at = merge ? rank_ - 1 : rank_++;
    dims_[at] = merge ? dims_[at] * dim : dim;
    for (int n = 0; n < N; ++n) strides_[n][at] = strides[n];
  }
  int64_t inner_stride(int n) const { return rank_ == 0 ? 0 : strides_[n][rank_ - 1]; }

  /// fn(position, offsets, count): `count` consecutive outputs from `position`; operand n starts at offsets[n] and
  /// moves by inner_stride(n).
  template <class Fn>
  void run(int64_t begin, int64_t end, const Fn& fn) const {
    int64_t index[kMaxDims] = {}, offsets[N] = {};
    if (begin >= end) return;
    if (rank_ == 0) return fn(begin, offsets, end - begin);
    int64_t rest = begin;
    for (int d = rank_ - 1; d >= 0; --d) {
      index[d] = rest % dims_[d];
      rest /= dims_[d];
      for (int n = 0; n < N; ++n) offsets[n] += index[d] * strides_[n][d];
    }
    const int last = rank_ - 1;
    for (int64_t at = begin;;) {
      const int64_t count = std::min(dims_[last] - index[last], end - at);
      fn(at, offsets, count);
      at += count;
      if (at >= end) return;
      for (int n = 0; n < N; ++n) offsets[n] -= index[last] * strides_[n][last];
      index[last] = 0;
      for (int d = last - 1; d >= 0; --d) {
        for (int n = 0; n < N; ++n) offsets[n] += strides_[n][d];
        if (++index[d] < dims_[d]) break;
        for (int n = 0; n < N; ++n) offsets[n] -= strides_[n][d] * dims_[d];
        index[d] = 0;
      }
    }
  }

 private:
  int rank_ = 0;
  int64_t dims_[kMaxDims] = {};
  int64_t strides_[N][kMaxDims] = {};
};

/// Row-major strides of `shape` in elements. The caller has seen to it that no dim is zero.
inline void row_major_strides(const Shape& shape, int64_t* strides) {
  int64_t stride = 1;
  for (int d = shape.rank - 1; d >= 0; --d) {
    strides[d] = stride;
    stride *= shape[d];
  }
}

/// Loop over `out` with N operands broadcast to it. No dim of out may be zero.
template <int N>
StridedLoop<N> broadcast_loop(const Shape& out, const Shape* const (&operands)[N]) {
  int64_t strides[N][kMaxRank];
  for (int n = 0; n < N; ++n) row_major_strides(*operands[n], strides[n]);
  StridedLoop<N> loop;
  for (int d = 0; d < out.rank; ++d) {
    int64_t step[N];
    for (int n = 0; n < N; ++n) {
      const int od = d - (out.rank - operands[n]->rank);
      step[n] = od < 0 || (*operands[n])[od] == 1 ? 0 : strides[n][od];
    }
    loop.push(out[d], step);
  }
  return loop;
}

/// out[i] = in[i * stride] for a run of elements of one size.
template <class T>
void copy_run(const T* in, int64_t stride, T* out, int64_t count) {
  if (stride == 1) {
    std::memcpy(out, in, static_cast<size_t>(count) * sizeof(T));
  } else if (stride == 0) {
    std::fill(out, out + count, *in);
  } else if (stride == 2) {  // known to the compiler, which then takes vectors
    for (int64_t i = 0; i < count; ++i) out[i] = in[2 * i];
  } else {
    for (int64_t i = 0; i < count; ++i) out[i] = in[i * stride];
  }
}

/// Copies through a one-operand loop; `data` is the operand's element at offset 0.
void strided_copy(RunContext& ctx, const StridedLoop<1>& loop, DType dtype, const void* data, const TensorView& out);

/// Copies the bytes of input 0 to output 0 unless they are the same memory: the run() of every view.
void copy_view(RunContext& ctx);

// ---------------------------------------------------------------------------------------------------------------------------
// Integer arithmetic that wraps instead of being undefined, and float-to-integer conversion that saturates (NaN becomes
// 0).
template <class T>
T wrap_add(T a, T b) {
  if constexpr (std::is_integral_v<T>) {
    return static_cast<T>(static_cast<std::make_unsigned_t<T>>(a) + static_cast<std::make_unsigned_t<T>>(b));
  } else {
    return a + b;
  }
}
template <class T>
T wrap_sub(T a, T b) {
  if constexpr (std::is_integral_v<T>) {
    return static_cast<T>(static_cast<std::make_unsigned_t<T>>(a) - static_cast<std::make_unsigned_t<T>>(b));
  } else {
    return a - b;
  }
}
template <class T>
T wrap_mul(T a, T b) {
  if constexpr (std::is_integral_v<T>) {
    return static_cast<T>(static_cast<uint64_t>(a) * static_cast<uint64_t>(b));
  } else {
    return a * b;
  }
}
template <class To, class From>
To saturate(From x) {
  if constexpr (std::is_floating_point_v<From> && std::is_integral_v<To>) {
    if (!(x == x)) return 0;
    // 2^digits is exact in float and double, max() itself need not be.
    constexpr From kLimit = static_cast<From>(uint64_t{1} << (std::numeric_limits<To>::digits - 1)) * 2;
    if (x >= kLimit) return std::numeric_limits<To>::max();
    if (x < (std::is_signed_v<To> ? -kLimit : From{0})) return std::numeric_limits<To>::min();
  }
  return static_cast<To>(x);
}

}  // namespace lutc::ops
