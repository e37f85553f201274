// Dtypes, shapes and non-owning tensor views: the vocabulary of core/ and core/ops/.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>

#include "core/status.h"

namespace lutc {

enum class DType : uint8_t { kF32, kF64, kI64, kI32, kI8, kU8, kBool };

/// Bytes of one element.
size_t dtype_size(DType dtype);
/// Name used in the plan and in messages: "f32", "f64", "i64", "i32", "i8", "u8", "bool".
const char* dtype_name(DType dtype);

constexpr int kMaxRank = 8;

/// Dimensions of a tensor, outermost first; rank at most kMaxRank. Trivially copyable.
struct Shape {
  int rank = 0;
  int64_t dims[kMaxRank] = {};

  Shape() = default;
  Shape(std::initializer_list<int64_t> d) {
    for (int64_t x : d) dims[rank++] = x;
  }
  int64_t operator[](int i) const { return dims[i]; }
  int64_t& operator[](int i) { return dims[i]; }
  bool operator==(const Shape& o) const {
    if (rank != o.rank) return false;
    for (int i = 0; i < rank; ++i)
      if (dims[i] != o.dims[i]) return false;
    return true;
  }
  bool operator!=(const Shape& o) const { return !(*this == o); }

  /// Product of dims [from, to). The caller has checked the shape with checked_elements().
  int64_t product(int from, int to) const {
    int64_t n = 1;
    for (int i = from; i < to; ++i) n *= dims[i];
    return n;
  }
  int64_t elements() const { return product(0, rank); }
  std::string to_string() const;
};

/// Number of elements with overflow and sign checks; kInvalidArgument when a dim is negative or the product passes 2^62
/// / 8.
Result<int64_t> checked_elements(const Shape& shape);

/// A dense row-major view; owns nothing. Data is 64-byte aligned wherever the runtime allocated it.
struct TensorView {
  DType dtype = DType::kF32;
  Shape shape;
  void* data = nullptr;

  template <class T>
  const T* as() const {
    return static_cast<const T*>(data);
  }
  template <class T>
  T* as_mut() const {
    return static_cast<T*>(data);
  }
  size_t bytes() const { return static_cast<size_t>(shape.elements()) * dtype_size(dtype); }
};

}  // namespace lutc
