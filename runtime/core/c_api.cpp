// The C interface over core/session.h: converts structs, checks pointers and counts, keeps the last message of each
// thread.
#include <cstring>
#include <string>
#include <vector>

#include "core/prepared.h"
#include "core/session.h"
#include "lutc/lutc.h"

struct lutc_session {
  std::unique_ptr<lutc::Session> session;
};

namespace {

using lutc::ErrorCode;
using lutc::Port;
using lutc::Status;
using lutc::TensorView;

static_assert(LUTC_MAX_RANK == lutc::kMaxRank);
static_assert(static_cast<int>(lutc::DType::kF32) == LUTC_F32 && static_cast<int>(lutc::DType::kBool) == LUTC_BOOL);
static_assert(static_cast<int>(ErrorCode::kInvalidArgument) == LUTC_INVALID_ARGUMENT &&
              static_cast<int>(ErrorCode::kInternal) == LUTC_INTERNAL);

thread_local std::string last_error;

lutc_status report(const Status& status) {
  if (!status.is_ok()) last_error = status.message();
  return static_cast<lutc_status>(status.code());
}

lutc_status refuse(const char* what) { return report({ErrorCode::kInvalidArgument, what}); }

lutc::SessionOptions options_of(const lutc_options* options) {
  lutc::SessionOptions o;
  if (options == nullptr) return o;
  o.threads = options->threads;
  o.isa = options->isa != nullptr ? options->isa : "";
  o.memory_limit = options->memory_limit;
  o.map = options->copy_file == 0;
  return o;
}

lutc_status opened(lutc::Result<std::unique_ptr<lutc::Session>> result, lutc_session** session) {
  if (!result.is_ok()) return report(result.status());
  *session = new lutc_session{std::move(result.value())};
  return LUTC_OK;
}

bool to_view(const lutc_tensor& tensor, TensorView* view) {
  if (tensor.dtype < LUTC_F32 || tensor.dtype > LUTC_BOOL || tensor.rank < 0 || tensor.rank > LUTC_MAX_RANK)
    return false;
  view->dtype = static_cast<lutc::DType>(tensor.dtype);
  view->shape.rank = tensor.rank;
  std::memcpy(view->shape.dims, tensor.dims, sizeof tensor.dims);
  view->data = tensor.data;
  return true;
}

lutc_status fill_port(const std::vector<Port>& ports, int32_t index, lutc_port* out) {
  if (out == nullptr || index < 0 || static_cast<size_t>(index) >= ports.size())
    return refuse("no such input or output");
  const Port& port = ports[index];
  *out = {};
  out->name = port.name.c_str();
  out->dtype = static_cast<int32_t>(port.dtype);
  out->rank = static_cast<int32_t>(port.shape.size());
  for (size_t i = 0; i < port.shape.size(); ++i) {
    out->dims[i] = port.shape[i].size;
    if (!port.shape[i].symbol.empty()) out->symbols[i] = port.shape[i].symbol.c_str();
  }
  return LUTC_OK;
}

lutc_status infer_or_run(lutc_session* handle, const lutc_tensor* inputs, int32_t num_inputs, lutc_tensor* outputs,
                         int32_t num_outputs, bool run) {
  if (handle == nullptr) return refuse("no session");
  const lutc::Session& session = *handle->session;
  if (num_inputs != lutc_num_inputs(handle) || num_outputs != lutc_num_outputs(handle) ||
      (inputs == nullptr && num_inputs != 0) || outputs == nullptr)
    return report({ErrorCode::kInvalidArgument, "the model has " + std::to_string(session.inputs().size()) +
                                                    " inputs and " + std::to_string(session.outputs().size()) +
                                                    " outputs; a tensor is needed for each"});
  std::vector<TensorView> views(static_cast<size_t>(num_inputs));
  for (int32_t i = 0; i < num_inputs; ++i)
    if (!to_view(inputs[i], &views[i]))
      return report({ErrorCode::kInvalidArgument, "input " + std::to_string(i) + ": invalid dtype or rank"});
  const auto prepared = session.prepare(views.data());
  if (!prepared.is_ok()) return report(prepared.status());
  std::vector<TensorView> results(static_cast<size_t>(num_outputs));
  for (int32_t i = 0; i < num_outputs; ++i) {
    results[i] = prepared.value()->output(i);
    results[i].data = outputs[i].data;
    outputs[i].dtype = static_cast<int32_t>(results[i].dtype);
    outputs[i].rank = results[i].shape.rank;
    std::memcpy(outputs[i].dims, results[i].shape.dims, sizeof outputs[i].dims);
  }
  return run ? report(session.run(*prepared.value(), views.data(), results.data())) : LUTC_OK;
}

}  // namespace

lutc_status lutc_open(const char* path, const lutc_options* options, lutc_session** session) {
  if (path == nullptr || session == nullptr) return refuse("lutc_open: path and session must not be NULL");
  return opened(lutc::Session::open(path, options_of(options)), session);
}

lutc_status lutc_open_memory(const void* data, size_t bytes, const lutc_options* options, lutc_session** session) {
  if ((data == nullptr && bytes != 0) || session == nullptr)
    return refuse("lutc_open_memory: data and session must not be NULL");
  return opened(lutc::Session::from_memory(data, bytes, options_of(options)), session);
}

void lutc_close(lutc_session* session) { delete session; }

int32_t lutc_num_inputs(const lutc_session* session) {
  return session == nullptr ? 0 : static_cast<int32_t>(session->session->inputs().size());
}

int32_t lutc_num_outputs(const lutc_session* session) {
  return session == nullptr ? 0 : static_cast<int32_t>(session->session->outputs().size());
}

lutc_status lutc_input(const lutc_session* session, int32_t index, lutc_port* port) {
  return session == nullptr ? refuse("no session") : fill_port(session->session->inputs(), index, port);
}

lutc_status lutc_output(const lutc_session* session, int32_t index, lutc_port* port) {
  return session == nullptr ? refuse("no session") : fill_port(session->session->outputs(), index, port);
}

lutc_status lutc_infer(lutc_session* session, const lutc_tensor* inputs, int32_t num_inputs, lutc_tensor* outputs,
                       int32_t num_outputs) {
  return infer_or_run(session, inputs, num_inputs, outputs, num_outputs, false);
}

lutc_status lutc_run(lutc_session* session, const lutc_tensor* inputs, int32_t num_inputs, lutc_tensor* outputs,
                     int32_t num_outputs) {
  return infer_or_run(session, inputs, num_inputs, outputs, num_outputs, true);
}

size_t lutc_tensor_bytes(const lutc_tensor* tensor) {
  TensorView view;
  if (tensor == nullptr || !to_view(*tensor, &view) || !lutc::checked_elements(view.shape).is_ok()) return 0;
  return view.bytes();
}

const char* lutc_last_error(void) { return last_error.c_str(); }
