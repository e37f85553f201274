#include "core/ops/window.h"

#include <algorithm>

namespace lutc::ops {
namespace {

constexpr int64_t kLargest = int64_t{1} << 28;  ///< of any window attribute: products of two stay far from overflow

Status read_list(const StepDef& def, const char* name, int spatial, int64_t least, int64_t* out) {
  const std::vector<int64_t> list = def.attrs.get_ints(name, {});
  if (list.empty()) return Status::ok();
  if (static_cast<int>(list.size()) != spatial) {
    return step_error(
        def, ErrorCode::kInvalidArgument,
        std::string(name) + " has " + std::to_string(list.size()) + " values, not " + std::to_string(spatial));
  }
  for (int i = 0; i < spatial; ++i) {
    if (list[i] < least || list[i] > kLargest) {
      return step_error(def, ErrorCode::kInvalidArgument,
                        std::string(name) + " holds " + std::to_string(list[i]) + ", out of range");
    }
    out[2 - spatial + i] = list[i];
  }
  return Status::ok();
}

}  // namespace

int spatial_dims(const StepDef& def) {
  for (const char* name : {"kernel_shape", "strides", "dilations"}) {
    const size_t n = def.attrs.get_ints(name, {}).size();
    if (n > 0) return static_cast<int>(std::min<size_t>(n, 9));
  }
  return static_cast<int>(std::min<size_t>(def.attrs.get_ints("pads", {}).size() / 2, 9));
}

Status read_window(const StepDef& def, int spatial, Window* window) {
  if (spatial < 1 || spatial > 2) {
    return step_error(def, ErrorCode::kUnsupported,
                      std::to_string(spatial) + "-D windows are not supported, only 1-D and 2-D");
  }
  window->spatial = spatial;
  window->kernel_given = def.attrs.has("kernel_shape");
  LUTC_RETURN_IF_ERROR(read_list(def, "kernel_shape", spatial, 1, window->kernel));
  LUTC_RETURN_IF_ERROR(read_list(def, "strides", spatial, 1, window->strides));
  LUTC_RETURN_IF_ERROR(read_list(def, "dilations", spatial, 1, window->dilations));
  const std::vector<int64_t> pads = def.attrs.get_ints("pads", {});
  if (!pads.empty()) {
    if (static_cast<int>(pads.size()) != 2 * spatial) {
      return step_error(def, ErrorCode::kInvalidArgument,
                        "pads has " + std::to_string(pads.size()) + " values, not " + std::to_string(2 * spatial));
    }
    for (int i = 0; i < spatial; ++i) {
      for (int end = 0; end < 2; ++end) {
        const int64_t pad = pads[end * spatial + i];
        if (pad < 0 || pad > kLargest)
          return step_error(def, ErrorCode::kInvalidArgument, "pads holds " + std::to_string(pad) + ", out of range");
        window->pads[end * 2 + 2 - spatial + i] = pad;
      }
    }
  }
  window->ceil_mode = def.attrs.get_int("ceil_mode", 0) != 0;
  const std::string name = def.attrs.get_string("auto_pad", "NOTSET");
  if (name == "NOTSET" || name.empty()) {
    window->auto_pad = Window::Auto::kNotSet;
  } else if (name == "VALID") {
    window->auto_pad = Window::Auto::kValid;
  } else if (name == "SAME_UPPER") {
    window->auto_pad = Window::Auto::kSameUpper;
  } else if (name == "SAME_LOWER") {
    window->auto_pad = Window::Auto::kSameLower;
  } else {
    return step_error(def, ErrorCode::kInvalidArgument, "unknown auto_pad '" + name + "'");
  }
  return Status::ok();
}

Status place_window(const StepDef& def, const Window& window, int64_t height, int64_t width, Geometry* geometry) {
  const int64_t in[2] = {height, width};
  for (int d = 0; d < 2; ++d) {
    geometry->in[d] = in[d];
    int64_t& begin = geometry->pads[d];
    int64_t& end = geometry->pads[2 + d];
    const int64_t extent = window.extent(d), stride = window.strides[d];
    begin = end = 0;
    if (window.auto_pad == Window::Auto::kNotSet) {
      begin = window.pads[d];
      end = window.pads[2 + d];
    } else if (window.auto_pad != Window::Auto::kValid) {
      const int64_t outputs = (in[d] + stride - 1) / stride;
      const int64_t total = std::max<int64_t>(0, (outputs - 1) * stride + extent - in[d]);
      begin = window.auto_pad == Window::Auto::kSameUpper ? total / 2 : total - total / 2;
      end = total - begin;
    }
    const int64_t room = in[d] + begin + end - extent;
    if (in[d] < 1 || room < 0) {
      return step_error(def, ErrorCode::kInvalidArgument,
                        "a kernel of extent " + std::to_string(extent) + " does not fit into " + std::to_string(in[d]) +
                            " pixels padded by " + std::to_string(begin) + " and " + std::to_string(end));
    }
    geometry->out[d] = room / stride + 1;
    // A last window that reaches past the end counts only if it starts inside the image or its leading pad.
    if (window.ceil_mode && room % stride != 0 && geometry->out[d] * stride < in[d] + begin) ++geometry->out[d];
  }
  return Status::ok();
}

}  // namespace lutc::ops
