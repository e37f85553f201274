// Binds core/session.h: numpy in and out without copies, the interpreter lock released while running.
#include "core/session.h"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <memory>
#include <new>

#include "core/aligned_buffer.h"
#include "core/prepared.h"
#include "core/thread_pool.h"
#include "core/xxh64.h"
#include "errors.h"
#include "kernels/kernel_table.h"

namespace py = pybind11;

namespace {

using lutc::DType;
using lutc::ErrorCode;
using lutc::Port;
using lutc::Session;
using lutc::Status;
using lutc::TensorView;

py::dtype numpy_dtype(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return py::dtype::of<float>();
    case DType::kF64:
      return py::dtype::of<double>();
    case DType::kI64:
      return py::dtype::of<int64_t>();
    case DType::kI32:
      return py::dtype::of<int32_t>();
    case DType::kI8:
      return py::dtype::of<int8_t>();
    case DType::kU8:
      return py::dtype::of<uint8_t>();
    case DType::kBool:
      return py::dtype::of<bool>();
  }
  return py::dtype::of<uint8_t>();
}

/// The feed as an array the runtime can read in place: itself if it is C-contiguous, aligned and of the right dtype; a
/// copy where only its layout is wrong.
py::array as_input(const Port& port, const py::handle& feed) {
  py::array array = py::array::ensure(feed);
  const py::dtype wanted = numpy_dtype(port.dtype);
  if (!array) throw py::error_already_set();
  if (!array.dtype().equal(wanted))
    lutc::python::raise(
        {ErrorCode::kInvalidArgument, "input " + lutc::port_text(port) + " was given an array of dtype " +
                                          py::str(array.dtype()).cast<std::string>() + "; pass .astype('" +
                                          py::str(wanted).cast<std::string>() + "')"});
  if (array.ndim() > lutc::kMaxRank)
    lutc::python::raise(
        {ErrorCode::kInvalidArgument,
         "input " + lutc::port_text(port) + " was given an array of rank " + std::to_string(array.ndim())});
  constexpr int kReadable = py::array::c_style | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
  if ((array.flags() & kReadable) != kReadable)
    array = py::module_::import("numpy").attr("array")(array, py::arg("order") = "C", py::arg("copy") = true);
  return array;
}

TensorView view_of(const py::array& array, DType dtype) {
  TensorView view;
  view.dtype = dtype;
  view.shape.rank = static_cast<int>(array.ndim());
  for (int i = 0; i < view.shape.rank; ++i) view.shape.dims[i] = array.shape(i);
  view.data = const_cast<void*>(array.data());
  return view;
}

std::string joined(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "'" : ", '") + name + "'";
  return text;
}

/// The caller's array for an output, which the runtime then writes in place.
py::array as_output(const Port& port, const TensorView& view, const py::handle& given) {
  const auto fail = [&](const std::string& why) {
    lutc::python::raise({ErrorCode::kInvalidArgument, "the array for output " + lutc::port_text(port) + " " + why});
  };
  if (!py::isinstance<py::array>(given)) fail("is no numpy array");
  py::array array = py::reinterpret_borrow<py::array>(given);
  const std::vector<py::ssize_t> shape(view.shape.dims, view.shape.dims + view.shape.rank);
  if (!array.dtype().equal(numpy_dtype(view.dtype)) ||
      !std::equal(shape.begin(), shape.end(), array.shape(), array.shape() + array.ndim()))
    fail("must be " + std::string(lutc::dtype_name(view.dtype)) + view.shape.to_string() + " for these inputs");
  constexpr int kWritable = py::array::c_style | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
  if ((array.flags() & kWritable) != kWritable || !array.writeable()) fail("must be C-contiguous and writeable");
  return array;
}

/// Whether two arrays, both contiguous, have a byte in common.
bool overlap(const py::array& a, const py::array& b) {
  const char *first = static_cast<const char*>(a.data()), *second = static_cast<const char*>(b.data());
  return first < second + b.nbytes() && second < first + a.nbytes();
}

/// A fresh array whose data starts at a cache line, as kernels like to write: numpy's own starts 16 bytes behind one.
py::array new_output(const TensorView& view) {
  auto buffer = std::make_unique<lutc::AlignedBuffer>();
  if (!buffer->allocate(view.bytes())) throw std::bad_alloc();
  void* data = buffer->data();
  const py::capsule owner(buffer.get(), [](void* memory) { delete static_cast<lutc::AlignedBuffer*>(memory); });
  buffer.release();
  const std::vector<py::ssize_t> shape(view.shape.dims, view.shape.dims + view.shape.rank);
  return py::array(numpy_dtype(view.dtype), shape, data, owner);
}

py::list run(const Session& session, const py::object& output_names, const py::dict& feeds,
             const py::dict& given_outputs) {
  const std::vector<Port>& ports = session.inputs();
  std::vector<py::array> arrays(ports.size());
  std::vector<bool> given(ports.size());
  for (const auto& [key, feed] : feeds) {
    const int i = lutc::python::value_or_raise(session.find_input(py::str(key).cast<std::string>()));
    arrays[i] = as_input(ports[i], feed);
    given[i] = true;
  }
  std::vector<std::string> missing;
  for (size_t i = 0; i < ports.size(); ++i)
    if (!given[i]) missing.push_back(ports[i].name);
  if (!missing.empty())
    lutc::python::raise({ErrorCode::kInvalidArgument, "no value was given for input(s) " + joined(missing)});
  std::vector<TensorView> inputs;
  for (size_t i = 0; i < ports.size(); ++i) inputs.push_back(view_of(arrays[i], ports[i].dtype));

  std::vector<int> wanted;
  if (output_names.is_none()) {
    for (size_t o = 0; o < session.outputs().size(); ++o) wanted.push_back(static_cast<int>(o));
  } else {
    for (const py::handle name : output_names)
      wanted.push_back(lutc::python::value_or_raise(session.find_output(py::str(name).cast<std::string>())));
  }

  std::shared_ptr<const lutc::Prepared> prepared;
  Status status;
  {
    const py::gil_scoped_release release;
    lutc::Result<std::shared_ptr<const lutc::Prepared>> made = session.prepare(inputs.data());
    status = made.status();
    if (made.is_ok()) prepared = made.value();
  }
  if (!status.is_ok()) lutc::python::raise(status);

  std::vector<TensorView> outputs(session.outputs().size());
  std::vector<py::array> results(session.outputs().size());
  for (const auto& [key, array] : given_outputs) {
    const int o = lutc::python::value_or_raise(session.find_output(py::str(key).cast<std::string>()));
    const Port& port = session.outputs()[o];
    outputs[o] = prepared->output(o);
    results[o] = as_output(port, outputs[o], array);
    outputs[o].data = results[o].mutable_data();
    bool shared = false;
    for (const py::array& input : arrays) shared = shared || overlap(results[o], input);
    for (size_t other = 0; other < results.size(); ++other)
      shared = shared ||
               (static_cast<int>(other) != o && outputs[other].data != nullptr && overlap(results[o], results[other]));
    if (shared)
      lutc::python::raise({ErrorCode::kInvalidArgument,
                           "the array for output " + lutc::port_text(port) + " overlaps an input or another output"});
  }
  for (const int o : wanted) {
    if (outputs[o].data != nullptr) continue;
    outputs[o] = prepared->output(o);
    results[o] = new_output(outputs[o]);
    outputs[o].data = results[o].mutable_data();
  }
  {
    const py::gil_scoped_release release;
    status = session.run(*prepared, inputs.data(), outputs.data());
  }
  if (!status.is_ok()) lutc::python::raise(status);
  py::list list;
  for (const int o : wanted) list.append(results[o]);
  return list;
}

py::list describe(const std::vector<Port>& ports) {
  py::list list;
  for (const Port& port : ports) {
    py::list shape;
    for (const lutc::Dim& dim : port.shape) {
      if (dim.symbol.empty()) {
        shape.append(dim.size);
      } else {
        shape.append(dim.symbol);
      }
    }
    list.append(py::make_tuple(port.name, lutc::dtype_name(port.dtype), shape));
  }
  return list;
}

/// (dtype, shape, constant) of each operand, None where it is omitted.
py::list operands(const std::vector<lutc::StepProfile::Operand>& operands) {
  py::list list;
  for (const lutc::StepProfile::Operand& operand : operands) {
    if (!operand.present) {
      list.append(py::none());
      continue;
    }
    const std::vector<int64_t> dims(operand.shape.dims, operand.shape.dims + operand.shape.rank);
    list.append(py::make_tuple(lutc::dtype_name(operand.dtype), py::tuple(py::cast(dims)), operand.constant));
  }
  return list;
}

py::list profile(const Session& session) {
  py::list list;
  for (const lutc::StepProfile& step : session.profile()) {
    py::dict row;
    row["name"] = step.name;
    row["op"] = step.op;
    row["calls"] = step.calls;
    row["microseconds"] = step.microseconds;
    row["bytes"] = step.bytes;
    row["inputs"] = operands(step.inputs);
    row["outputs"] = operands(step.outputs);
    list.append(row);
  }
  return list;
}

lutc::SessionOptions options(int threads, const std::string& isa, uint64_t memory_limit, bool map) {
  lutc::SessionOptions o;
  o.threads = threads;
  o.isa = isa;
  o.memory_limit = memory_limit;
  o.map = map;
  return o;
}

}  // namespace

void bind_session(py::module_& m) {
  py::class_<Session>(m, "Session", "A loaded .lut artifact. Thread-safe.")
      .def(py::init([](const std::string& path, int threads, const std::string& isa, uint64_t memory_limit, bool map) {
             const lutc::SessionOptions o = options(threads, isa, memory_limit, map);
             lutc::Result<std::unique_ptr<Session>> session = [&] {
               const py::gil_scoped_release release;
               return Session::open(path, o);
             }();
             return lutc::python::value_or_raise(std::move(session));
           }),
           py::arg("path"), py::kw_only(), py::arg("threads") = 0, py::arg("isa") = "", py::arg("memory_limit") = 0,
           py::arg("map") = true)
      .def_static(
          "from_bytes",
          [](const py::bytes& data, int threads, const std::string& isa, uint64_t memory_limit) {
            const std::string_view view = data;
            const lutc::SessionOptions o = options(threads, isa, memory_limit, true);
            lutc::Result<std::unique_ptr<Session>> session = [&] {
              const py::gil_scoped_release release;
              return Session::from_memory(view.data(), view.size(), o);
            }();
            return lutc::python::value_or_raise(std::move(session));
          },
          py::arg("data"), py::kw_only(), py::arg("threads") = 0, py::arg("isa") = "", py::arg("memory_limit") = 0)
      .def(
          "inputs", [](const Session& s) { return describe(s.inputs()); },
          "One (name, dtype, shape) per input; a dim is an int or a symbol's name.")
      .def("outputs", [](const Session& s) { return describe(s.outputs()); })
      .def("run", &run, py::arg("output_names"), py::arg("feeds"), py::arg("outputs") = py::dict(),
           "Outputs as numpy arrays, in the order of output_names (None: all): those of `outputs`, by name, where it "
           "has "
           "one, fresh ones elsewhere.")
      .def("set_profiling", &Session::set_profiling, py::arg("on"), "Switching on clears what was measured.")
      .def("profile", &profile,
           "One dict {name, op, calls, microseconds, bytes, inputs, outputs} per step: times and bytes summed over the "
           "runs "
           "since set_profiling(True), operands as (dtype, shape, constant) in the last of them.")
      .def(
          "metadata", [](const Session& s, const std::string& key) { return s.artifact().metadata(key); },
          py::arg("key"))
      .def_property_readonly("isa", &Session::isa)
      .def_property_readonly("threads", &Session::threads);

  m.def(
      "xxh64",
      [](const py::buffer& data, uint64_t seed) {
        const py::buffer_info info = data.request();
        if (PyBuffer_IsContiguous(info.view(), 'C') == 0) throw py::value_error("xxh64 needs contiguous bytes");
        const size_t bytes = static_cast<size_t>(info.size) * static_cast<size_t>(info.itemsize);
        const py::gil_scoped_release release;
        return lutc::xxh64(info.ptr, bytes, seed);
      },
      py::arg("data"), py::arg("seed") = 0, "XXH64 of a bytes-like object.");
  m.def(
      "available_isas",
      [] {
        std::vector<std::string> names;
        for (const lutc::kernels::Isa isa : lutc::kernels::available_isas())
          names.emplace_back(lutc::kernels::isa_name(isa));
        return names;
      },
      "Names of the ISAs this CPU can execute, best last.");
  m.def("available_cpus", &lutc::ThreadPool::available_cpus,
        "CPUs granted to this process by affinity and cgroup quota.");
}
