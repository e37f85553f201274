#include "core/ops/common.h"

#include "core/checked.h"

namespace lutc::ops {

Status check_arity(const StepDef& def, const Arity& arity) {
  const int inputs = static_cast<int>(def.inputs.size()), outputs = static_cast<int>(def.outputs.size());
  if (inputs < arity.min_in || inputs > arity.max_in) {
    return step_error(def, ErrorCode::kInvalidArgument,
                      "has " + std::to_string(inputs) + " inputs, allowed are " + std::to_string(arity.min_in) +
                          " to " + std::to_string(arity.max_in));
  }
  if (outputs < arity.min_out || outputs > arity.max_out) {
    return step_error(def, ErrorCode::kInvalidArgument,
                      "has " + std::to_string(outputs) + " outputs, allowed are " + std::to_string(arity.min_out) +
                          " to " + std::to_string(arity.max_out));
  }
  for (int i = 0; i < arity.min_in; ++i) {
    if (!def.inputs[i].present) {
      return step_error(def, ErrorCode::kInvalidArgument, "required input " + std::to_string(i) + " is missing");
    }
  }
  return Status::ok();
}

Status OpBase::all_f32() const {
  for (size_t i = 0; i < def_.inputs.size(); ++i) {
    if (present(i) && dtype(static_cast<int>(i)) != DType::kF32) return unsupported_dtype();
  }
  return Status::ok();
}

Status OpBase::unsupported_dtype() const {
  return unsupported(std::string("dtype ") + dtype_name(dtype(0)) + " is not supported");
}

Status OpBase::same_dtypes(std::initializer_list<size_t> inputs) const {
  for (size_t i : inputs) {
    if (present(i) && dtype(static_cast<int>(i)) != dtype(0)) {
      return invalid("input " + std::to_string(i) + " is " + dtype_name(dtype(static_cast<int>(i))) + ", input 0 is " +
                     dtype_name(dtype(0)));
    }
  }
  return Status::ok();
}

Status OpBase::expect_index_dtype(size_t input) const {
  if (!present(input)) return Status::ok();
  const DType d = dtype(static_cast<int>(input));
  if (d == DType::kI64 || d == DType::kI32) return Status::ok();
  return invalid("input " + std::to_string(input) + " is " + dtype_name(d) + ", must be i64 or i32");
}

Result<int> OpBase::axis(int64_t value, int rank) const {
  if (value < -rank || value >= rank) {
    return invalid("axis " + std::to_string(value) + " is outside rank " + std::to_string(rank));
  }
  return static_cast<int>(value < 0 ? value + rank : value);
}

Result<std::vector<int64_t>> OpBase::known_ints(const InferContext& ctx, int input, const char* what) const {
  const DType d = ctx.input_dtype(input);
  const Shape& shape = ctx.input_shape(input);
  if (d != DType::kI64 && d != DType::kI32) return invalid(std::string(what) + " must be i64 or i32");
  if (shape.rank > 1) return invalid(std::string(what) + " must have rank 0 or 1");
  if (!is_known(ctx, input)) {
    return unsupported(std::string(what) +
                       " depends on the data of the inputs; only values known from shapes are supported");
  }
  const TensorView view = ctx.input_value(input);
  std::vector<int64_t> values(static_cast<size_t>(shape.elements()));
  for (size_t i = 0; i < values.size(); ++i) values[i] = int_at(view, static_cast<int64_t>(i));
  return values;
}

Status OpBase::request_scratch(InferContext& ctx, int64_t bytes, int64_t threads) const {
  if (bytes < 0 || !checked_mul(bytes, threads, &bytes))
    return step_error(def_, ErrorCode::kOutOfMemory, "the scratch size overflows");
  ctx.request_scratch(static_cast<size_t>(bytes));
  return Status::ok();
}

double number_at(const TensorView& t, int64_t i) {
  switch (t.dtype) {
    case DType::kF32:
      return t.as<float>()[i];
    case DType::kF64:
      return t.as<double>()[i];
    case DType::kI64:
      return static_cast<double>(t.as<int64_t>()[i]);
    case DType::kI32:
      return t.as<int32_t>()[i];
    case DType::kI8:
      return t.as<int8_t>()[i];
    default:
      return t.as<uint8_t>()[i];
  }
}

bool broadcast(const Shape& a, const Shape& b, Shape* out) {
  Shape result;
  result.rank = std::max(a.rank, b.rank);
  for (int d = 0; d < result.rank; ++d) {
    const int ad = d - (result.rank - a.rank), bd = d - (result.rank - b.rank);
    const int64_t x = ad < 0 ? 1 : a[ad], y = bd < 0 ? 1 : b[bd];
    if (x != y && x != 1 && y != 1) return false;
    result[d] = x == 1 ? y : x;
  }
  *out = result;
  return true;
}

void copy_rows(RunContext& ctx, void* dst, int64_t dst_stride, const void* src, int64_t src_stride, int64_t row_bytes,
               int64_t rows) {
  if (row_bytes == 0) return;
  char* to = static_cast<char*>(dst);
  const char* from = static_cast<const char*>(src);
  parallel(ctx, rows, rows * row_bytes / 4, 1, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      std::memcpy(to + r * dst_stride, from + r * src_stride, static_cast<size_t>(row_bytes));
    }
  });
}

void strided_copy(RunContext& ctx, const StridedLoop<1>& loop, DType dtype, const void* data, const TensorView& out) {
  const int64_t total = out.shape.elements(), stride = loop.inner_stride(0);
  visit_bytes(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const T* from = static_cast<const T*>(data);
    T* to = out.as_mut<T>();
    parallel(ctx, total, total, 1024, [&](int64_t begin, int64_t end) {
      loop.run(begin, end, [&](int64_t at, const int64_t (&offset)[1], int64_t count) {
        copy_run(from + offset[0], stride, to + at, count);
      });
    });
  });
}

void copy_view(RunContext& ctx) {
  const TensorView &in = ctx.input(0), &out = ctx.output(0);
  if (in.data != out.data && out.bytes() > 0) std::memmove(out.data, in.data, out.bytes());
}

}  // namespace lutc::ops
