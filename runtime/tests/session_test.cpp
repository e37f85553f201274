// The C interface end to end on a tiny model: outputs in the caller's memory, aliases copied, several threads at once,
// files that change under it.
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "check.h"
#include "lutc/lutc.hpp"
#include "tiny_artifact.h"

namespace {

// y = relu(x) + 1; twice = y again; flat = y as one row; x itself; shape of y.
const char kPlan[] =
    R"({"inputs":[{"name":"x","value":0,"dtype":"f32","shape":["n",4]}],)"
    R"("outputs":[{"name":"y","value":3,"dtype":"f32","shape":["n",4]},{"name":"twice","value":3,"dtype":"f32","shape":["n",4]},)"
    R"({"name":"flat","value":4,"dtype":"f32","shape":[1,"m"]},{"name":"same","value":0,"dtype":"f32","shape":["n",4]},{"name":"shape","value":5,"dtype":"i64","shape":[2]}],)"
    R"("values":[{"dtype":"f32"},{"dtype":"f32","tensor":"one","shape":[1]},{"dtype":"f32"},{"dtype":"f32"},{"dtype":"f32"},{"dtype":"i64"}],)"
    R"("steps":[{"op":"relu","name":"r","inputs":[0],"outputs":[2]},{"op":"add","name":"a","inputs":[2,1],"outputs":[3]},)"
    R"({"op":"flatten","name":"f","inputs":[3],"outputs":[4],"attrs":{"axis":0}},{"op":"shape","name":"s","inputs":[3],"outputs":[5]}]})";

std::string artifact() {
  std::string data(64, '\0');
  const float one = 1;
  std::memcpy(&data[0], &one, sizeof one);
  return lutc_test::image(
      kPlan,
      R"("one":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"_pad.0":{"dtype":"U8","shape":[60],"data_offsets":[4,64]})",
      data);
}

void check_run(lutc::api::Model& model, int64_t n) {
  std::vector<float> x(static_cast<size_t>(n) * 4);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 7) - 3;
  std::vector<lutc::api::Model::Output> outputs;
  const auto status = model.run({{LUTC_F32, 2, {n, 4}, x.data()}}, &outputs);
  CHECK(status);
  if (!status) {
    std::fprintf(stderr, "%s\n", status.message.c_str());
    return;
  }
  CHECK(outputs.size() == 5 && outputs[2].tensor.rank == 2 && outputs[2].tensor.dims[1] == 4 * n);
  for (size_t i = 0; i < x.size(); ++i) {
    const float y = (x[i] > 0 ? x[i] : 0) + 1;
    CHECK(outputs[0].as<float>()[i] == y && outputs[1].as<float>()[i] == y && outputs[2].as<float>()[i] == y &&
          outputs[3].as<float>()[i] == x[i]);
  }
  CHECK(outputs[4].as<int64_t>()[0] == n && outputs[4].as<int64_t>()[1] == 4);
}

void runs() {
  const std::string file = artifact();
  lutc::api::Model model;
  CHECK(lutc::api::Model::open_memory(file.data(), file.size(), &model));
  CHECK(model.inputs().size() == 1 && model.outputs().size() == 5);
  CHECK(model.inputs()[0].dims[0] == -1 && std::string(model.inputs()[0].symbols[0]) == "n" &&
        model.inputs()[0].symbols[1] == nullptr);
  for (int64_t n = 0; n < 20; ++n) check_run(model, n);  // more shapes than are kept prepared
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&model, t] {
      for (int64_t i = 0; i < 100; ++i) check_run(model, (i * (t + 1)) % 13);
    });
  for (std::thread& thread : threads) thread.join();
}

void refuses() {
  const std::string file = artifact();
  lutc_session* session = nullptr;
  CHECK(lutc_open("/nonexistent/model.lut", nullptr, &session) == LUTC_IO && session == nullptr);
  CHECK(lutc_open("/", nullptr, &session) == LUTC_IO);
  lutc_options options = {};
  options.isa = "sse9";
  CHECK(lutc_open_memory(file.data(), file.size(), &options, &session) == LUTC_INVALID_ARGUMENT);
  options.isa = "scalar";
  options.memory_limit = 4096;
  CHECK(lutc_open_memory(file.data(), file.size(), &options, &session) == LUTC_OK);
  float x[8] = {};
  lutc_tensor input = {LUTC_F32, 2, {2, 4}, x};
  lutc_tensor outputs[5] = {};
  CHECK(lutc_infer(session, &input, 1, outputs, 5) == LUTC_OK && outputs[0].dims[0] == 2);
  CHECK(lutc_run(session, &input, 1, outputs, 5) == LUTC_OK);  // nothing wanted: nothing written
  CHECK(lutc_run(session, &input, 0, outputs, 5) == LUTC_INVALID_ARGUMENT);
  input.data = nullptr;
  CHECK(lutc_run(session, &input, 1, outputs, 5) == LUTC_INVALID_ARGUMENT);
  input.data = reinterpret_cast<char*>(x) + 1;
  CHECK(lutc_run(session, &input, 1, outputs, 5) == LUTC_INVALID_ARGUMENT);
  input = {LUTC_F32, 2, {-1, 4}, x};
  CHECK(lutc_infer(session, &input, 1, outputs, 5) == LUTC_INVALID_ARGUMENT);
  input = {LUTC_F32, 2, {100000, 4}, x};
  CHECK(lutc_infer(session, &input, 1, outputs, 5) == LUTC_OUT_OF_MEMORY);
  input = {LUTC_F32, 2, {int64_t{1} << 61, 4}, x};
  CHECK(lutc_infer(session, &input, 1, outputs, 5) == LUTC_INVALID_ARGUMENT);
  lutc_close(session);
}

void survives_changed_file() {
  char path[] = "lutc_session_test_XXXXXX";
  const int descriptor = mkstemp(path);
  CHECK(descriptor >= 0);
  std::string file = artifact();
  CHECK(write(descriptor, file.data(), file.size()) == static_cast<ssize_t>(file.size()));
  lutc::api::Model model;
  CHECK(lutc::api::Model::open(path, &model));
  check_run(model, 3);
  std::vector<lutc::api::Model::Output> outputs;
  float x[4] = {};
  const std::vector<lutc_tensor> input = {{LUTC_F32, 2, {1, 4}, x}};
  // The same bytes written again: nothing is lost. (Modification times tick every few milliseconds.)
  usleep(30000);
  CHECK(pwrite(descriptor, file.data(), file.size(), 0) == static_cast<ssize_t>(file.size()));
  CHECK(model.run(input, &outputs).code == LUTC_OK);
  usleep(30000);
  // A constant changed under the session, then the file cut.
  CHECK(pwrite(descriptor, "\x7f", 1, static_cast<off_t>(file.size()) - 62) == 1);
  CHECK(model.run(input, &outputs).code == LUTC_CORRUPT);
  CHECK(model.run(input, &outputs).code == LUTC_CORRUPT);
  CHECK(ftruncate(descriptor, 100) == 0);
  CHECK(model.run(input, &outputs).code == LUTC_CORRUPT);
  close(descriptor);
  unlink(path);
}

}  // namespace

int main() {
  runs();
  refuses();
  survives_changed_file();
  return lutc_test::result();
}
