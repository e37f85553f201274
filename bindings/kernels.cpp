// lutc._runtime.kernels: the lookup kernels of every ISA, for the pack stage and for tests. Each function runs the
// operator of a plan step (lut_encode, lut_linear, lut_conv) by itself, exactly as a session would.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/aligned_buffer.h"
#include "core/op.h"
#include "core/thread_pool.h"
#include "kernels/kernel_table.h"
#include "kernels/layout.h"
#include "kernels/lookup.h"

namespace py = pybind11;

namespace {

using lutc::DType;
using lutc::Shape;
using lutc::Status;
using lutc::TensorView;
using lutc::kernels::Isa;
using lutc::kernels::TableLayout;
using lutc::kernels::TableShape;

void check(const Status& status) {
  if (!status.is_ok()) throw std::invalid_argument(status.message());
}

Isa parse_isa(const std::string& name) {
  for (Isa isa : {Isa::kScalar, Isa::kAvx2, Isa::kAvxVnni, Isa::kAvx512}) {
    if (name == lutc::kernels::isa_name(isa)) return isa;
  }
  throw std::invalid_argument("unknown ISA '" + name + "'; choose scalar, avx2, avxvnni or avx512");
}

DType dtype_of(const py::array& array) {
  const std::map<std::pair<char, py::ssize_t>, DType> types = {{{'f', 4}, DType::kF32}, {{'i', 4}, DType::kI32},
                                                               {{'i', 1}, DType::kI8},  {{'u', 1}, DType::kU8},
                                                               {{'i', 8}, DType::kI64}, {{'f', 8}, DType::kF64}};
  const auto found = types.find({array.dtype().kind(), array.dtype().itemsize()});
  if (found == types.end()) throw std::invalid_argument("unsupported dtype");
  return found->second;
}

py::array contiguous(const py::handle& object) {
  py::array array = py::array::ensure(object, py::array::c_style);
  if (!array) throw std::invalid_argument("expected an array");
  return array;
}

TensorView view_of(const py::array& array) {
  TensorView view;
  view.dtype = dtype_of(array);
  if (array.ndim() > lutc::kMaxRank) throw std::invalid_argument("rank above 8");
  view.shape.rank = static_cast<int>(array.ndim());
  for (int i = 0; i < view.shape.rank; ++i) view.shape[i] = array.shape(i);
  view.data = const_cast<void*>(array.data());
  return view;
}

/// An executor of one step: shapes, then memory, then run().
class OneStep final : public lutc::InferContext, public lutc::RunContext {
 public:
  OneStep(const lutc::StepDef& def, int threads) : def_(def), pool_(threads), threads_(threads) {}

  int num_inputs() const override { return static_cast<int>(def_.inputs.size()); }
  bool has_input(int i) const override { return i < num_inputs() && def_.inputs[i].present; }
  DType input_dtype(int i) const override { return def_.inputs[i].tensor.dtype; }
  const Shape& input_shape(int i) const override { return def_.inputs[i].tensor.shape; }
  TensorView input_value(int i) const override {
    return def_.inputs[i].constant ? def_.inputs[i].tensor : TensorView{};
  }
  int num_outputs() const override { return 1; }
  Status set_output(int, DType dtype, const Shape& shape) override {
    output_.dtype = dtype;
    output_.shape = shape;
    return lutc::checked_elements(shape).status();
  }
  void alias(int, int) override {}
  void may_overwrite(int, int) override {}
  void request_scratch(size_t bytes) override { scratch_bytes_ = bytes; }
  int num_threads() const override { return threads_; }

  const TensorView& input(int i) const override { return def_.inputs[i].tensor; }
  const TensorView& output(int) const override { return output_; }
  void* scratch() const override { return scratch_.data(); }
  lutc::ThreadPool& pool() const override { return pool_; }

  Status run(const lutc::Op& op) {
    LUTC_RETURN_IF_ERROR(op.infer(*this));
    if (!scratch_.allocate(scratch_bytes_) || !memory_.allocate(output_.bytes()))
      return {lutc::ErrorCode::kOutOfMemory, "no memory"};
    output_.data = memory_.data();
    return op.run(*this);
  }
  Status again(const lutc::Op& op) { return op.run(*this); }

 private:
  const lutc::StepDef& def_;
  mutable lutc::ThreadPool pool_;
  int threads_;
  TensorView output_;
  lutc::AlignedBuffer memory_, scratch_;
  size_t scratch_bytes_ = 0;
};

py::array to_numpy(const TensorView& view) {
  const std::vector<py::ssize_t> shape(view.shape.dims, view.shape.dims + view.shape.rank);
  const py::dtype dtype = view.dtype == DType::kF32 ? py::dtype::of<float>() : py::dtype::of<uint8_t>();
  py::array result(dtype, shape);
  std::copy_n(static_cast<const uint8_t*>(view.data), view.bytes(), static_cast<uint8_t*>(result.mutable_data()));
  return result;
}

void set_attributes(const py::dict& attrs, lutc::Attributes* out) {
  for (const auto& [key, value] : attrs) {
    const std::string name = py::cast<std::string>(key);
    if (py::isinstance<py::int_>(value)) {
      out->set(name, py::cast<int64_t>(value));
    } else if (py::isinstance<py::float_>(value)) {
      out->set(name, py::cast<double>(value));
    } else if (py::isinstance<py::str>(value)) {
      out->set(name, py::cast<std::string>(value));
    } else {
      out->set(name, py::cast<std::vector<int64_t>>(value));
    }
  }
}

/// One step made by its factory, kept so that it can be run (and timed) again.
class Step {
 public:
  Step(const std::string& isa, const std::string& op, const py::list& inputs, const py::dict& attrs,
       int variable_inputs, int threads) {
    const auto table = lutc::kernels::table_for(parse_isa(isa));
    check(table.status());
    def_.op = op;
    def_.name = op;
    set_attributes(attrs, &def_.attrs);
    def_.outputs = {op == "lut_encode" ? DType::kU8 : DType::kF32};
    for (size_t i = 0; i < inputs.size(); ++i) {
      lutc::StepDef::Input input;
      input.present = !inputs[i].is_none();
      if (input.present) {
        arrays_.push_back(aligned(contiguous(inputs[i])));
        input.tensor = arrays_.back();
        input.constant = static_cast<int>(i) >= variable_inputs && !(op != "lut_encode" && i == 4);
      }
      def_.inputs.push_back(input);
    }
    const lutc::OpFactory factory = lutc::OpRegistry::instance().find(op);
    if (factory == nullptr) throw std::invalid_argument("unknown step '" + op + "'");
    lutc::BuildContext build;
    build.kernels = table.value();
    auto made = factory(def_, build);
    check(made.status());
    op_ = std::move(made.value());
    step_ = std::make_unique<OneStep>(def_, threads);
  }

  py::array run() {
    Status status;
    {
      py::gil_scoped_release release;
      status = step_->run(*op_);
    }
    check(status);
    ran_ = true;
    return to_numpy(step_->output(0));
  }

  /// Runs `times` times on the same memory; for benchmarks.
  void repeat(int times) {
    if (!ran_) run();
    py::gil_scoped_release release;
    for (int i = 0; i < times; ++i) check(step_->again(*op_));
  }

 private:
  /// Constants and inputs lie on 64-byte boundaries, as in a mapped artifact and an arena.
  TensorView aligned(const py::array& array) {
    TensorView view = view_of(array);
    lutc::AlignedBuffer buffer;
    if (!buffer.allocate(view.bytes())) throw std::bad_alloc();
    std::copy_n(static_cast<const uint8_t*>(view.data), view.bytes(), static_cast<uint8_t*>(buffer.data()));
    view.data = buffer.data();
    memory_.push_back(std::move(buffer));
    return view;
  }

  lutc::StepDef def_;
  std::vector<lutc::AlignedBuffer> memory_;
  std::vector<TensorView> arrays_;
  std::unique_ptr<lutc::Op> op_;
  std::unique_ptr<OneStep> step_;
  bool ran_ = false;
};

/// Canonical tables are [C, K, N] (linear) or [N, C/group, K, kh, kw].
TableShape shape_of(const std::vector<int64_t>& shape, int64_t group) {
  TableShape s;
  if (shape.size() == 3) {
    s.codebooks = shape[0];
    s.entries = shape[1];
    s.outputs = shape[2];
  } else if (shape.size() == 5) {
    s.outputs = shape[0];
    s.codebooks = shape[1];
    s.entries = shape[2];
    s.taps = shape[3] * shape[4];
    s.groups = group;
    s.convolution = true;
  } else {
    throw std::invalid_argument("a table is [C, K, N] or [N, C/group, K, kh, kw]");
  }
  return s;
}

TableLayout parse_layout(const std::string& name) {
  TableLayout layout;
  if (!lutc::kernels::parse_layout(name, &layout)) throw std::invalid_argument("unknown table layout '" + name + "'");
  return layout;
}

uint64_t bytes_of(TableLayout layout, const TableShape& shape) {
  uint64_t bytes = 0;
  if (!lutc::kernels::table_bytes(layout, shape, &bytes)) throw std::invalid_argument("not a table shape");
  return bytes;
}

py::array_t<uint8_t> pack_table(const py::array_t<int8_t, py::array::c_style>& table, const std::string& layout,
                                int64_t group) {
  const std::vector<int64_t> dims(table.shape(), table.shape() + table.ndim());
  const TableShape shape = shape_of(dims, group);
  const TableLayout to = parse_layout(layout);
  py::array_t<uint8_t> packed(static_cast<py::ssize_t>(bytes_of(to, shape)));
  lutc::kernels::pack_table(to, shape, table.data(), packed.mutable_data());
  return packed;
}

py::array_t<int8_t> unpack_table(const py::array_t<uint8_t, py::array::c_style>& packed, const std::string& layout,
                                 const std::vector<int64_t>& dims, int64_t group) {
  const TableShape shape = shape_of(dims, group);
  const TableLayout from = parse_layout(layout);
  if (static_cast<uint64_t>(packed.size()) != bytes_of(from, shape))
    throw std::invalid_argument("the packed table's size is not that of its shape");
  py::array_t<int8_t> table(std::vector<py::ssize_t>(dims.begin(), dims.end()));
  lutc::kernels::unpack_table(from, shape, packed.data(), table.mutable_data());
  return table;
}

/// Cycles per second now: a chain of dependent additions takes one cycle each.
double clock_hz() {
  double best = 0;
  for (int i = 0; i < 5; ++i) {
    const auto start = std::chrono::steady_clock::now();
    int64_t n = 0;
    for (int j = 0; j < 1000000; ++j) {
#if defined(__x86_64__)
      asm volatile("add $1, %0\n\tadd $1, %0\n\tadd $1, %0\n\tadd $1, %0" : "+r"(n));
#else
      asm volatile("" : "+r"(n));
#endif
    }
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    best = std::max(best, 4e6 / seconds.count());
  }
  return best;
}

/// The ISA whose kernels an artifact's target (lutc.target) names.
Isa isa_of_target(const std::string& target) {
  if (target == "avx512" || target == "x86-64-v4") return Isa::kAvx512;
  if (target == "avx2" || target == "x86-64-v3") return Isa::kAvx2;
  if (target == "avxvnni" || target == "x86-64-v3-vnni") return Isa::kAvxVnni;
  if (target != "native") return Isa::kScalar;
  const auto table = lutc::kernels::default_table();
  check(table.status());
  return table.value()->isa;
}

/// The layouts that a target's kernels read in place, best first.
std::vector<std::string> layouts_for(const std::string& target) {
  std::vector<std::string> names;
  for (TableLayout layout : lutc::kernels::layouts_for(isa_of_target(target)))
    names.emplace_back(lutc::kernels::layout_name(layout));
  return names;
}

}  // namespace

void bind_kernels(py::module_& m) {
  py::module_ k = m.def_submodule("kernels", "Lookup kernels by ISA, and table layouts");
  k.def(
      "isas",
      [] {
        std::vector<std::string> names;
        for (Isa isa : lutc::kernels::available_isas()) names.emplace_back(lutc::kernels::isa_name(isa));
        return names;
      },
      "ISAs this CPU executes, best last.");
  k.def("clock_hz", &clock_hz, "Clock of this core, measured (x86 only).");
  k.def("layouts_for", &layouts_for, py::arg("target"),
        "Table layouts that the kernels of a target read in place, best first.");
  k.def(
      "gather_rows",
      [](const std::string& target) {
        const lutc::kernels::LookupKernels* kernels = lutc::kernels::lookup_kernels(isa_of_target(target));
        return kernels == nullptr ? 0 : kernels->gather_rows;
      },
      py::arg("target"), "Up to this many rows, a target's kernels read whole rows of a table in layout ckn.");
  k.def("pack_table", &pack_table, py::arg("table"), py::arg("layout"), py::arg("group") = 1,
        "int8 [C, K, N] or [N, C/group, K, kh, kw] -> the layout's bytes (uint8).");
  k.def("unpack_table", &unpack_table, py::arg("packed"), py::arg("layout"), py::arg("shape"), py::arg("group") = 1,
        "The inverse of pack_table.");
  py::class_<Step>(k, "Step",
                   "One plan step on one ISA: Step(isa, op, inputs, attrs). Input 0 (and input 4 of lut_linear and "
                   "lut_conv) vary, the others are constants.")
      .def(py::init<const std::string&, const std::string&, const py::list&, const py::dict&, int, int>(),
           py::arg("isa"), py::arg("op"), py::arg("inputs"), py::arg("attrs"), py::arg("variable_inputs") = 1,
           py::arg("threads") = 1)
      .def("run", &Step::run, "Infers shapes, runs, returns the output.")
      .def("repeat", &Step::repeat, py::arg("times"), "Runs again on the same memory, for benchmarks.");
}
