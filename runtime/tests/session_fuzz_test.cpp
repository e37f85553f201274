// Mutates artifacts and plans and hashes them again, so that every check behind the hash is reached: whatever comes in,
// the answer is a Status or a run. Build with LUTC_SANITIZE=address,undefined to make it mean something. Usage:
// session_fuzz_test [mutations] [seed].
#include <cstdlib>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "check.h"
#include "core/aligned_buffer.h"
#include "core/prepared.h"
#include "core/session.h"
#include "tiny_artifact.h"

namespace {

using Random = std::mt19937_64;

/// A small model with every kind of thing in it: constants, shape arithmetic, views, in-place chances, two outputs of
/// one memory, lookups in tables stored and made at load, integers.
const char kPlan[] =
    R"({"inputs":[{"name":"x","value":0,"dtype":"f32","shape":["batch",4]}],)"
    R"("outputs":[{"name":"y","value":8,"dtype":"f32","shape":["batch",4]},{"name":"flat","value":9,"dtype":"f32","shape":["n"]},)"
    R"({"name":"l","value":12,"dtype":"f32","shape":["batch",8]},{"name":"q","value":22,"dtype":"f32","shape":["batch",8]},)"
    R"({"name":"m","value":29,"dtype":"f32","shape":["batch",8]}],)"
    R"("values":[{"dtype":"f32"},{"dtype":"f32","tensor":"w","shape":[4,4]},{"dtype":"f32"},{"dtype":"f32"},{"dtype":"i64"},)"
    R"({"dtype":"i64","tensor":"one","shape":[1]},{"dtype":"i64"},{"dtype":"f32"},{"dtype":"f32"},{"dtype":"f32"},{"dtype":"i64"},{"dtype":"u8"},{"dtype":"f32"},)"
    R"({"dtype":"f32","tensor":"offset","shape":[4]},{"dtype":"f32","tensor":"inv_scale","shape":[4]},{"dtype":"i32","tensor":"groups","shape":[2,2]},)"
    R"({"dtype":"i8","tensor":"directions","shape":[2,4,2]},{"dtype":"i32","tensor":"code_bias","shape":[2,4]},{"dtype":"f32","tensor":"gain_mul","shape":[2]},)"
    R"({"dtype":"i8","tensor":"table","shape":[2,4,8]},{"dtype":"f32","tensor":"scale","shape":[8]},{"dtype":"f32","tensor":"bias","shape":[8]},)"
    R"({"dtype":"f32"},{"dtype":"u8","tensor":"int8","shape":[1,1,16,4]},{"dtype":"i8"},)"
    R"({"dtype":"i8","tensor":"atoms","shape":[2,4,2]},{"dtype":"i8","tensor":"weight","shape":[4,8]},)"
    R"({"dtype":"f32","tensor":"codebook_mul","shape":[2]},{"dtype":"f32","tensor":"column_mul","shape":[8]},{"dtype":"f32"}],)"
    R"("init":[{"op":"expand_table","name":"t","inputs":[25,26,15,27,28],"outputs":[24],"attrs":{"layout":"ckn","group":1}}],)"
    R"("steps":[{"op":"mat_mul","name":"mm","inputs":[0,1],"outputs":[2]},{"op":"relu","name":"r","inputs":[2],"outputs":[3]},)"
    R"({"op":"shape","name":"s","inputs":[3],"outputs":[4]},{"op":"gather","name":"g","inputs":[4,5],"outputs":[6],"attrs":{"axis":0}},)"
    R"({"op":"softmax","name":"sm","inputs":[3],"outputs":[7],"attrs":{"axis":-1}},{"op":"add","name":"a","inputs":[7,0],"outputs":[8]},)"
    R"({"op":"concat","name":"c","inputs":[6,5],"outputs":[10],"attrs":{"axis":0}},{"op":"flatten","name":"f","inputs":[8],"outputs":[9],"attrs":{"axis":1}},)"
    R"({"op":"lut_encode","name":"e","inputs":[0,13,14,15,16,17,18],"outputs":[11],"attrs":{"gain_limit":63,"axis":-1}},)"
    R"({"op":"lut_linear","name":"l","inputs":[11,19,20,21],"outputs":[12],"attrs":{"gain_limit":63,"codebooks":2,"entries":4,"outputs":8,"layout":"ckn","activation":"none"}},)"
    R"({"op":"lut_linear","name":"m","inputs":[11,24,20,21],"outputs":[29],"attrs":{"gain_limit":63,"codebooks":2,"entries":4,"outputs":8,"layout":"ckn","activation":"none"}},)"
    R"({"op":"int8_linear","name":"q","inputs":[0,23,20,21,12],"outputs":[22],"attrs":{"features":4,"outputs":8,"activation":"relu"}}]})";

struct Model {
  std::string tensors;
  std::string data;

  template <class T>
  void add(const char* name, const char* dtype, const char* shape, const std::vector<T>& values) {
    const size_t begin = data.size();
    data.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
    entry(name, dtype, shape, begin);
    const size_t end = data.size();
    if (end % 64 == 0) return;
    data.resize(end + 64 - end % 64);
    entry(("_pad." + std::to_string(end)).c_str(), "U8", ("[" + std::to_string(data.size() - end) + "]").c_str(), end);
  }

 private:
  void entry(const char* name, const char* dtype, const char* shape, size_t begin) {
    if (!tensors.empty()) tensors += ",";
    tensors += std::string("\"") + name + R"(":{"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":[)" +
               std::to_string(begin) + "," + std::to_string(data.size()) + "]}";
  }
};

Model make_model() {
  Model m;
  m.add<float>("w", "F32", "[4,4]", {1, 2, 3, 4, -1, -2, -3, -4, 0, 0, 1, 0, 0.5f, 0, 0, 1});
  m.add<int64_t>("one", "I64", "[1]", {1});
  m.add<float>("offset", "F32", "[4]", {0, 0, 0, 0});
  m.add<float>("inv_scale", "F32", "[4]", {20, 20, 20, 20});
  m.add<int32_t>("groups", "I32", "[2,2]", {0, 1, 2, 3});
  m.add<int8_t>("directions", "I8", "[2,4,2]", {100, 0, 0, 100, 70, 70, 70, -70, 100, 0, 0, 100, 70, 70, 70, -70});
  m.add<int32_t>("code_bias", "I32", "[2,4]", std::vector<int32_t>(8, 0));
  m.add<float>("gain_mul", "F32", "[2]", {0.005f, 0.005f});
  std::vector<int8_t> table(64);
  for (size_t i = 0; i < table.size(); ++i) table[i] = static_cast<int8_t>(static_cast<int>(i * 37 % 255) - 127);
  m.add<int8_t>("table", "I8", "[2,4,8]", table);
  std::vector<uint8_t> weight(64);
  for (size_t i = 0; i < weight.size(); ++i) weight[i] = static_cast<uint8_t>(i * 91 + 3);
  m.add<uint8_t>("int8", "U8", "[1,1,16,4]", weight);
  m.add<int8_t>("atoms", "I8", "[2,4,2]", {127, 0, 0, 127, 90, 90, 90, -90, 127, 0, 0, 127, 90, 90, 90, -90});
  std::vector<int8_t> factor(32);
  for (size_t i = 0; i < factor.size(); ++i) factor[i] = static_cast<int8_t>(static_cast<int>(i * 53 % 255) - 127);
  m.add<int8_t>("weight", "I8", "[4,8]", factor);
  m.add<float>("codebook_mul", "F32", "[2]", {0.01f, 0.01f});
  m.add<float>("column_mul", "F32", "[8]", std::vector<float>(8, 1.0f));
  m.add<float>("scale", "F32", "[8]", std::vector<float>(8, 0.01f));
  m.add<float>("bias", "F32", "[8]", std::vector<float>(8, 0.5f));
  return m;
}

/// Loads and runs an image; true when it ran. The memory lies in a block of exactly its size, so that the sanitizer
/// sees one byte too far.
bool try_artifact(const std::string& file, std::map<lutc::ErrorCode, int>* codes) {
  const std::vector<char> exact(file.begin(), file.end());
  lutc::SessionOptions options;
  options.threads = 1;
  options.memory_limit = 16 << 20;
  auto session = lutc::Session::from_memory(exact.data(), exact.size(), options);
  ++(*codes)[session.status().code()];
  if (!session.is_ok()) return false;
  bool ran = false;
  for (const int64_t batch : {3, 0, 1}) {
    std::vector<lutc::TensorView> inputs;
    std::vector<std::vector<char>> memory;
    bool sensible = true;
    for (const lutc::Port& port : session.value()->inputs()) {
      lutc::TensorView view;
      view.dtype = port.dtype;
      for (const lutc::Dim& dim : port.shape)
        view.shape.dims[view.shape.rank++] = dim.symbol.empty() ? dim.size : batch;
      const auto elements = lutc::checked_elements(view.shape);
      sensible = sensible && elements.is_ok() && elements.value() < 1 << 20;
      if (!sensible) break;
      memory.emplace_back(view.bytes());
      for (size_t i = 0; i < memory.back().size(); ++i)
        memory.back()[i] = port.dtype == lutc::DType::kBool ? i % 2 : static_cast<char>(i % 3);
      view.data = memory.back().data();
      inputs.push_back(view);
    }
    if (!sensible) continue;
    const auto prepared = session.value()->prepare(inputs.data());
    if (!prepared.is_ok()) {
      ++(*codes)[prepared.status().code()];
      continue;
    }
    std::vector<lutc::TensorView> outputs;
    for (size_t o = 0; o < session.value()->outputs().size(); ++o) {
      lutc::TensorView view = prepared.value()->output(static_cast<int>(o));
      memory.emplace_back(view.bytes());
      view.data = memory.back().data();
      outputs.push_back(view);
    }
    const lutc::Status status = session.value()->run(*prepared.value(), inputs.data(), outputs.data());
    ++(*codes)[status.code()];
    ran = ran || status.is_ok();
  }
  return ran;
}

std::string image(const std::string& plan, const std::string& tensors, const std::string& data) {
  return lutc_test::image(plan, tensors, data, "2");  // the version that has init steps
}

size_t below(Random& random, size_t n) { return n == 0 ? 0 : random() % n; }

/// Changes bytes anywhere behind the hash, or removes, doubles or appends some.
std::string mutate_bytes(std::string file, Random& random) {
  for (size_t edits = 1 + below(random, 4); edits > 0; --edits) {
    const size_t at = 54 + below(random, file.size() - 54);
    switch (random() % 6) {
      case 0:
        file[at] = static_cast<char>(file[at] ^ (1 << (random() % 8)));
        break;
      case 1:
        file[at] = static_cast<char>(random());
        break;
      case 2:
        file[at] = static_cast<char>('0' + random() % 10);
        break;
      case 3:
        file.resize(std::max<size_t>(at, 80));
        break;
      case 4:
        file.append(below(random, 200), static_cast<char>(random()));
        break;
      default:
        file[below(random, 8)] = static_cast<char>(random());
    }
  }
  lutc_test::stamp(&file);
  return file;
}

/// Changes values of constants only: the file stays well-formed, operators meet the odd values.
std::string mutate_data(std::string data, Random& random) {
  for (size_t edits = 1 + below(random, 3); edits > 0; --edits) {
    const size_t at = below(random, data.size());
    data[at] = static_cast<char>(random() % 2 == 0 ? random() : data[at] ^ (1 << (random() % 8)));
  }
  return data;
}

/// Changes a text of JSON at the places that matter: numbers, names, brackets.
std::string mutate_text(std::string text, Random& random) {
  static const char* const kNumbers[] = {"-1",
                                         "0",
                                         "1",
                                         "2",
                                         "7",
                                         "63",
                                         "127",
                                         "128",
                                         "1000000",
                                         "2147483647",
                                         "2147483648",
                                         "4294967296",
                                         "-9223372036854775808",
                                         "9223372036854775807",
                                         "18446744073709551615",
                                         "1e30",
                                         "0.5",
                                         "-0.0",
                                         "\"n\"",
                                         "[]",
                                         "[1,-1]",
                                         "null"};
  static const char* const kWords[] = {"add",
                                       "concat",
                                       "reshape",
                                       "gather",
                                       "slice",
                                       "pad",
                                       "conv",
                                       "mat_mul",
                                       "where",
                                       "split",
                                       "expand",
                                       "tile",
                                       "range",
                                       "one_hot",
                                       "resize",
                                       "scatter_nd",
                                       "gather_nd",
                                       "gather_elements",
                                       "scatter_elements",
                                       "top_k",
                                       "transpose",
                                       "cum_sum",
                                       "reduce_sum",
                                       "max_pool",
                                       "average_pool",
                                       "attention",
                                       "linear",
                                       "int8_linear",
                                       "int8_conv",
                                       "lut_linear",
                                       "lut_conv",
                                       "lut_encode",
                                       "expand_table",
                                       "ckn",
                                       "quad6",
                                       "rows",
                                       "constant_of_shape",
                                       "trilu",
                                       "squeeze",
                                       "unsqueeze",
                                       "shape",
                                       "size",
                                       "gemm",
                                       "layer_normalization",
                                       "add_layer_normalization",
                                       "batch_normalization",
                                       "cast",
                                       "f32",
                                       "f64",
                                       "i64",
                                       "i32",
                                       "i8",
                                       "u8",
                                       "bool",
                                       "axis",
                                       "axes",
                                       "perm",
                                       "to",
                                       "kernel_shape",
                                       "pads",
                                       "strides",
                                       "group",
                                       "gain_limit",
                                       "rotary_embedding",
                                       "conv_transpose"};
  for (size_t edits = 1 + below(random, 2); edits > 0; --edits) {
    const bool number = random() % 2 == 0;
    std::vector<std::pair<size_t, size_t>> places;  // of numbers, or of words in quotes
    for (size_t i = 0; i < text.size();) {
      const auto part = [&](char c) {
        return number ? (c >= '0' && c <= '9') || c == '-' : (c >= 'a' && c <= 'z') || c == '_';
      };
      size_t end = i;
      while (end < text.size() && part(text[end])) ++end;
      if (end > i) places.emplace_back(i, end - i);
      i = end + 1;
    }
    if (places.empty()) break;
    const auto [at, length] = places[below(random, places.size())];
    const char* with = number ? kNumbers[below(random, std::size(kNumbers))] : kWords[below(random, std::size(kWords))];
    text.replace(at, length, with);
    if (random() % 40 == 0) text.erase(below(random, text.size()), below(random, 30));
  }
  return text;
}

}  // namespace

int main(int argc, char** argv) {
  const int mutations = argc > 1 ? std::atoi(argv[1]) : 4000;
  Random random(argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1);
  const Model model = make_model();
  const std::string good = image(kPlan, model.tensors, model.data);
  std::map<lutc::ErrorCode, int> codes;
  CHECK(try_artifact(good, &codes));
  if (lutc_test::failures != 0) {
    const auto session = lutc::Session::from_memory(good.data(), good.size());
    std::fprintf(stderr, "the unmutated artifact: %s\n", session.status().message().c_str());
    return lutc_test::result();
  }
  int ran = 0;
  for (int i = 0; i < mutations; ++i) {
    ran += try_artifact(mutate_bytes(good, random), &codes);
    ran += try_artifact(image(kPlan, model.tensors, mutate_data(model.data, random)), &codes);
    ran += try_artifact(image(mutate_text(kPlan, random), model.tensors, model.data), &codes);
    ran += try_artifact(image(kPlan, mutate_text(model.tensors, random), model.data), &codes);
  }
  std::printf("%d mutations, %d ran; statuses:", 4 * mutations, ran);
  for (const auto& [code, count] : codes) std::printf(" %d:%d", static_cast<int>(code), count);
  std::printf("\n");
  CHECK(codes[lutc::ErrorCode::kInternal] == 0);
  CHECK(codes[lutc::ErrorCode::kCorrupt] > mutations / 10);  // the mutations bite
  CHECK(ran > mutations / 100);                              // and do not all die at the door
  return lutc_test::result();
}
