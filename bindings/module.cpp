// The Python module lutc._runtime. Each file in this folder binds one part of the runtime.
#include <pybind11/pybind11.h>

PYBIND11_MODULE(_runtime, m) {
  m.doc() = "lutc's C++ runtime";
}
