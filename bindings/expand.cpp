// lutc._runtime.kernels.expand_table: the expansion kernels by ISA, for the pack stage, tests and benchmarks.
#include "kernels/expand.h"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <string>

#include "core/expand_step.h"
#include "core/thread_pool.h"
#include "errors.h"
#include "kernels/kernel_table.h"

namespace py = pybind11;

namespace {

template <class T>
using Array = py::array_t<T, py::array::c_style>;

template <class T>
void add_input(lutc::StepDef* def, lutc::DType dtype, const Array<T>& array) {
  if (array.ndim() > lutc::kMaxRank) throw py::value_error("rank above 8");
  lutc::TensorView view;
  view.dtype = dtype;
  for (py::ssize_t i = 0; i < array.ndim(); ++i) view.shape.dims[view.shape.rank++] = array.shape(i);
  view.data = const_cast<T*>(array.data());
  def->inputs.push_back({true, true, view});
}

void expand_into(const std::string& isa, const Array<int8_t>& atoms, const Array<int8_t>& weight,
                 const Array<int32_t>& groups, const Array<float>& codebook_mul, const Array<float>& column_mul,
                 const std::string& layout, int64_t group, int threads, Array<uint8_t> table) {
  const auto kernels = lutc::python::value_or_raise(lutc::kernels::table_named(isa));
  lutc::StepDef def;
  def.op = def.name = "expand_table";
  def.attrs.set("layout", layout);
  def.attrs.set("group", group);
  add_input(&def, lutc::DType::kI8, atoms);
  add_input(&def, lutc::DType::kI8, weight);
  add_input(&def, lutc::DType::kI32, groups);
  add_input(&def, lutc::DType::kF32, codebook_mul);
  add_input(&def, lutc::DType::kF32, column_mul);
  const lutc::ExpandStep step = lutc::python::value_or_raise(lutc::ExpandStep::make(def));
  if (!lutc::kernels::can_expand(kernels->isa, step.layout, step.factors.shape))
    throw py::value_error("the kernels of " + isa + " make no tables of layout " + layout + " and this shape");
  if (static_cast<uint64_t>(table.size()) != step.bytes)
    throw py::value_error("the table takes " + std::to_string(step.bytes) + " bytes");
  uint8_t* out = table.mutable_data();
  py::gil_scoped_release release;
  lutc::ThreadPool::shared().parallel_for(
      lutc::kernels::expand_pieces(step.factors), 1, std::max(1, threads), [&](int64_t begin, int64_t end, int) {
        lutc::kernels::expand(kernels->isa, step.layout, step.factors, begin, end, out);
      });
}

int64_t table_size(const std::string& layout, int64_t codebooks, int64_t entries, int64_t outputs, int64_t taps) {
  lutc::kernels::TableShape shape;
  shape.codebooks = codebooks;
  shape.entries = entries;
  shape.outputs = outputs;
  shape.taps = taps;
  lutc::kernels::TableLayout parsed;
  uint64_t bytes = 0;
  if (!lutc::kernels::parse_layout(layout, &parsed) || !lutc::kernels::table_bytes(parsed, shape, &bytes))
    throw py::value_error("no table of layout " + layout + " has this shape");
  return static_cast<int64_t>(bytes);
}

}  // namespace

void bind_expand(py::module_& m) {
  py::module_ k = m.attr("kernels");
  k.def("table_bytes", &table_size, py::arg("layout"), py::arg("codebooks"), py::arg("entries"), py::arg("outputs"),
        py::arg("taps") = 1, "Bytes of a table of one convolution group's codebooks and all outputs.");
  k.def("expand_table", &expand_into, py::arg("isa"), py::arg("atoms"), py::arg("weight"), py::arg("groups"),
        py::arg("codebook_mul"), py::arg("column_mul"), py::arg("layout"), py::arg("group") = 1, py::arg("threads") = 1,
        py::arg("table").noconvert(),
        "ExpandTable, or ExpandConvTable where the weight has rank 4, into `table` (uint8, table_bytes() of them).");
}
