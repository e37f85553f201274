// Status as a Python exception: lutc._runtime.Error, whose attribute `code` names the ErrorCode.
#pragma once

#include <pybind11/pybind11.h>

#include <utility>

#include "core/status.h"

namespace lutc::python {

/// Defines lutc._runtime.Error.
void bind_errors(pybind11::module_& m);
/// Throws the exception for a failed status.
[[noreturn]] void raise(const Status& status);

template <class T>
T value_or_raise(Result<T> result) {
  if (!result.is_ok()) raise(result.status());
  return std::move(result.value());
}

}  // namespace lutc::python
