// Typed errors. The runtime throws nothing and aborts nothing: whatever can fail returns Status or Result<T>.
#pragma once

#include <string>
#include <utility>
#include <variant>

namespace lutc {

enum class ErrorCode {
  kOk = 0,
  kInvalidArgument,  ///< the caller's input: wrong name, dtype, rank or size
  kCorrupt,          ///< the artifact breaks its specification (truncated, flipped byte, range outside the file)
  kVersion,          ///< the artifact was written by a newer format version
  kUnsupported,      ///< an operator or combination this runtime does not execute
  kOutOfMemory,      ///< an allocation failed or would pass the byte budget
  kIo,               ///< the operating system refused a file
  kInternal,         ///< a broken invariant of this library: please report
};

class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(ErrorCode code, std::string message) : code_(code), message_(std::move(message)) {}
  static Status ok() { return {}; }

  bool is_ok() const { return code_ == ErrorCode::kOk; }
  ErrorCode code() const { return code_; }
  const std::string& message() const { return message_; }

 private:
  ErrorCode code_ = ErrorCode::kOk;
  std::string message_;
};

template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::move(value)) {}         // NOLINT: implicit by design
  Result(Status status) : state_(std::move(status)) {}  // NOLINT: implicit by design
  bool is_ok() const { return state_.index() == 0; }
  T& value() { return std::get<0>(state_); }
  const T& value() const { return std::get<0>(state_); }
  Status status() const { return is_ok() ? Status::ok() : std::get<1>(state_); }

 private:
  std::variant<T, Status> state_;
};

}  // namespace lutc

#define LUTC_RETURN_IF_ERROR(expr)                  \
  do {                                              \
    ::lutc::Status lutc_status_ = (expr);           \
    if (!lutc_status_.is_ok()) return lutc_status_; \
  } while (0)
