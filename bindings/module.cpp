// The Python module lutc._runtime. Each file in this folder binds one part of the runtime.
#include <pybind11/pybind11.h>

#include "errors.h"

void bind_encode_scores(pybind11::module_& m);
void bind_expand(pybind11::module_& m);
void bind_gain_codes(pybind11::module_& m);
void bind_kernels(pybind11::module_& m);
void bind_peaks(pybind11::module_& m);
void bind_session(pybind11::module_& m);

PYBIND11_MODULE(_runtime, m) {
  m.doc() = "lutc's C++ runtime";
  lutc::python::bind_errors(m);
  bind_kernels(m);
  bind_encode_scores(m);
  bind_expand(m);
  bind_gain_codes(m);
  bind_peaks(m);
  bind_session(m);
}
