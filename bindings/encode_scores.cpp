// lutc._runtime.kernels.EncodeScores: the second stage of an encode by itself, for benchmarks.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <string>

#include "core/aligned_buffer.h"
#include "core/ops/lut_common.h"
#include "errors.h"
#include "kernels/encode_plan.h"
#include "kernels/kernel_table.h"

namespace py = pybind11;

namespace {

template <class T>
using Array = py::array_t<T, py::array::c_style | py::array::forcecast>;

/// Quantises the rows of one encode() call once; run() finds their codes from the integers as often as one likes.
class EncodeScores {
 public:
  EncodeScores(const std::string& isa, const Array<float>& x, const Array<float>& offset, const Array<float>& inv_scale,
               const Array<int32_t>& groups, const Array<int8_t>& directions, const Array<int32_t>& code_bias,
               const Array<float>& gain_mul, int64_t gain_limit) {
    kernels_ = lutc::python::value_or_raise(lutc::kernels::table_named(isa))->lookup;
    if (kernels_ == nullptr || kernels_->score == nullptr)
      throw py::value_error("the encode of " + isa + " has one stage");
    lutc::kernels::EncodeSource s;
    s.features = offset.size();
    if (groups.ndim() != 2 || directions.ndim() != 3) throw py::value_error("groups are [C, V], directions [C, K, V]");
    s.codebooks = groups.shape(0);
    s.width = groups.shape(1);
    s.entries = directions.shape(1);
    if (inv_scale.size() != s.features || directions.size() != s.codebooks * s.entries * s.width ||
        code_bias.size() != s.codebooks * s.entries || gain_mul.size() != s.codebooks)
      throw py::value_error("the constants' sizes do not fit each other");
    s.gain_limit = gain_limit;
    s.offset = offset.data();
    s.inv_scale = inv_scale.data();
    s.groups = groups.data();
    s.directions = directions.data();
    s.code_bias = code_bias.data();
    s.gain_mul = gain_mul.data();
    check(plan_.prepare(s, kernels_->direction_form));
    const int64_t rows = int64_t{kernels_->encode_panels} * kernels_->panel_rows;
    if (x.ndim() != 2 || x.shape(0) != rows || x.shape(1) != s.features)
      throw py::value_error("x is [" + std::to_string(rows) + ", " + std::to_string(s.features) + "]");
    panel_bytes_ = lutc::ops::CodesGeometry(kernels_, s.codebooks, gain_limit, s.entry_limit).panel_bytes;
    if (!scratch_.allocate(kernels_->encode_scratch(plan_.view())) ||
        !panels_.allocate(static_cast<size_t>(kernels_->encode_panels * panel_bytes_)))
      throw std::bad_alloc();
    lutc::kernels::EncodeInput in;
    in.x = x.data();
    in.row_stride = s.features;
    in.rows = rows;
    kernels_->encode(plan_.view(), in, panels(), panel_bytes_, scratch_.data());
    std::fill_n(panels(), kernels_->encode_panels * panel_bytes_, uint8_t{0});
  }

  void repeat(int times) {
    py::gil_scoped_release release;
    for (int i = 0; i < times; ++i) kernels_->score(plan_.view(), scratch_.data(), panels(), panel_bytes_);
  }

  py::array_t<uint8_t> run() {
    repeat(1);
    return py::array_t<uint8_t>(static_cast<py::ssize_t>(kernels_->encode_panels * panel_bytes_), panels());
  }

 private:
  static void check(const lutc::Status& status) {
    if (!status.is_ok()) lutc::python::raise(status);
  }
  uint8_t* panels() { return static_cast<uint8_t*>(panels_.data()); }

  const lutc::kernels::LookupKernels* kernels_ = nullptr;
  lutc::kernels::EncodePlan plan_;
  lutc::AlignedBuffer scratch_, panels_;
  int64_t panel_bytes_ = 0;
};

}  // namespace

void bind_encode_scores(py::module_& m) {
  py::module_ k = m.attr("kernels");
  py::class_<EncodeScores>(k, "EncodeScores",
                           "From integers to codes: the second stage of lut_encode on an ISA that has two (avx512), "
                           "over as many rows as one call encodes.")
      .def(py::init<const std::string&, const Array<float>&, const Array<float>&, const Array<float>&,
                    const Array<int32_t>&, const Array<int8_t>&, const Array<int32_t>&, const Array<float>&, int64_t>(),
           py::arg("isa"), py::arg("x"), py::arg("offset"), py::arg("inv_scale"), py::arg("groups"),
           py::arg("directions"), py::arg("code_bias"), py::arg("gain_mul"), py::arg("gain_limit"))
      .def("run", &EncodeScores::run, "The codes (and gains) as lut_encode lays them out, without its header.")
      .def("repeat", &EncodeScores::repeat, py::arg("times"), "Finds them again on the same memory, for benchmarks.");
}
