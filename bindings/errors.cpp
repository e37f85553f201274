#include "errors.h"

namespace py = pybind11;

namespace lutc::python {
namespace {

const char* code_name(ErrorCode code) {
  switch (code) {
    case ErrorCode::kOk:
      return "ok";
    case ErrorCode::kInvalidArgument:
      return "invalid_argument";
    case ErrorCode::kCorrupt:
      return "corrupt";
    case ErrorCode::kVersion:
      return "version";
    case ErrorCode::kUnsupported:
      return "unsupported";
    case ErrorCode::kOutOfMemory:
      return "out_of_memory";
    case ErrorCode::kIo:
      return "io";
    case ErrorCode::kInternal:
      return "internal";
  }
  return "internal";
}

PyObject* error_type = nullptr;

}  // namespace

void bind_errors(py::module_& m) {
  error_type = PyErr_NewExceptionWithDoc("lutc._runtime.Error", "An error of the runtime; `code` names its kind.",
                                         nullptr, nullptr);
  if (error_type == nullptr) throw py::error_already_set();
  m.add_object("Error", py::handle(error_type));
}

void raise(const Status& status) {
  // Messages may quote bytes of a damaged file: never let their encoding hide the error.
  const std::string& text = status.message();
  const py::object message = py::reinterpret_steal<py::object>(
      PyUnicode_DecodeUTF8(text.data(), static_cast<py::ssize_t>(text.size()), "replace"));
  const py::object error = py::reinterpret_borrow<py::object>(error_type)(message);
  error.attr("code") = code_name(status.code());
  PyErr_SetObject(error_type, error.ptr());
  throw py::error_already_set();
}

}  // namespace lutc::python
