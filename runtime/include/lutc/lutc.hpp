// The C++ interface of the lutc runtime: a thin owner around lutc.h, header only, without exceptions.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "lutc/lutc.h"

namespace lutc::api {

/// Result of a call: `if (!status) puts(status.message.c_str());`
struct Status {
  lutc_status code = LUTC_OK;
  std::string message;
  explicit operator bool() const { return code == LUTC_OK; }
};

inline Status status_of(lutc_status code) {
  return {code, code == LUTC_OK ? std::string() : std::string(lutc_last_error())};
}

/// A loaded model. Movable; several threads may run one at once.
class Model {
 public:
  /// Loads `path` into *model; see lutc_options for the settings.
  static Status open(const std::string& path, Model* model, const lutc_options& options = {}) {
    lutc_session* session = nullptr;
    const lutc_status code = lutc_open(path.c_str(), &options, &session);
    model->session_.reset(session);
    return status_of(code);
  }
  static Status open_memory(const void* data, size_t bytes, Model* model, const lutc_options& options = {}) {
    lutc_session* session = nullptr;
    const lutc_status code = lutc_open_memory(data, bytes, &options, &session);
    model->session_.reset(session);
    return status_of(code);
  }

  std::vector<lutc_port> inputs() const { return ports(lutc_num_inputs, lutc_input); }
  std::vector<lutc_port> outputs() const { return ports(lutc_num_outputs, lutc_output); }

  /// An output in memory of its own.
  struct Output {
    lutc_tensor tensor = {};
    std::vector<uint64_t> memory;  ///< of 8-byte words, so that every dtype is aligned
    template <class T>
    const T* as() const {
      return static_cast<const T*>(tensor.data);
    }
  };

  /// Runs with one tensor per input, in order, and allocates the outputs.
  Status run(const std::vector<lutc_tensor>& inputs, std::vector<Output>* outputs) {
    std::vector<lutc_tensor> tensors(static_cast<size_t>(lutc_num_outputs(session_.get())));
    const auto call = [&](auto function) {
      return function(session_.get(), inputs.data(), static_cast<int32_t>(inputs.size()), tensors.data(),
                      static_cast<int32_t>(tensors.size()));
    };
    lutc_status code = call(lutc_infer);
    if (code != LUTC_OK) return status_of(code);
    outputs->assign(tensors.size(), Output());
    for (size_t i = 0; i < tensors.size(); ++i) {
      (*outputs)[i].memory.resize(lutc_tensor_bytes(&tensors[i]) / 8 + 1);
      tensors[i].data = (*outputs)[i].memory.data();
    }
    code = call(lutc_run);
    for (size_t i = 0; i < tensors.size(); ++i) (*outputs)[i].tensor = tensors[i];
    return status_of(code);
  }

  lutc_session* get() const { return session_.get(); }

 private:
  struct Close {
    void operator()(lutc_session* session) const { lutc_close(session); }
  };
  template <class Count, class Get>
  std::vector<lutc_port> ports(Count count, Get get) const {
    std::vector<lutc_port> list(static_cast<size_t>(count(session_.get())));
    for (size_t i = 0; i < list.size(); ++i) get(session_.get(), static_cast<int32_t>(i), &list[i]);
    return list;
  }

  std::unique_ptr<lutc_session, Close> session_;
};

}  // namespace lutc::api
