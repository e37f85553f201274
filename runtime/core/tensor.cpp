#include "core/tensor.h"

#include "core/checked.h"

namespace lutc {

size_t dtype_size(DType dtype) {
  switch (dtype) {
    case DType::kF64:
    case DType::kI64:
      return 8;
    case DType::kF32:
    case DType::kI32:
      return 4;
    case DType::kI8:
    case DType::kU8:
    case DType::kBool:
      return 1;
  }
  return 1;
}

const char* dtype_name(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return "f32";
    case DType::kF64:
      return "f64";
    case DType::kI64:
      return "i64";
    case DType::kI32:
      return "i32";
    case DType::kI8:
      return "i8";
    case DType::kU8:
      return "u8";
    case DType::kBool:
      return "bool";
  }
  return "?";
}

std::string Shape::to_string() const {
  std::string s = "[";
  for (int i = 0; i < rank; ++i) {
    if (i != 0) s += ", ";
    s += std::to_string(dims[i]);
  }
  return s + "]";
}

Result<int64_t> checked_elements(const Shape& shape) {
  constexpr int64_t kLimit = (int64_t{1} << 62) / 8;
  // The limit holds for the product of the non-zero dims: strides of an empty tensor stay computable too.
  int64_t product = 1;
  bool empty = false;
  for (int i = 0; i < shape.rank; ++i) {
    const int64_t d = shape.dims[i];
    if (d < 0) return Status(ErrorCode::kInvalidArgument, "negative dimension in shape " + shape.to_string());
    if (d == 0) {
      empty = true;
    } else if (!checked_mul(product, d, &product) || product > kLimit) {
      return Status(ErrorCode::kInvalidArgument, "shape " + shape.to_string() + " has too many elements");
    }
  }
  return empty ? int64_t{0} : product;
}

}  // namespace lutc
