// After the first call of a combination of shapes run() allocates nothing: every kind of step, on every ISA of this
// CPU, with one thread and with all, from several callers at once.
#include <cstdio>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "check.h"
#include "core/aligned_buffer.h"
#include "core/op.h"
#include "core/prepared.h"
#include "core/session.h"
#include "count_allocations.h"
#include "kernels/kernel_table.h"
#include "plan_builder.h"

namespace {

using lutc_test::PlanBuilder;

std::string number(int64_t n) { return std::to_string(n); }

/// What a transformer layer is made of, from token numbers to a sentence's vector.
std::string encoder() {
  PlanBuilder p;
  const int ids = p.input("ids", "i64", {-1, -1});
  const int mask = p.input("mask", "f32", {-1, 1, 1, -1});
  constexpr int64_t d = 64;
  const int scale = p.weights({d}), bias = p.weights({d});
  const int embedded = p.step("gather", {p.weights({3, d}), ids}, "\"axis\":0");
  const int x = p.step("layer_normalization", {embedded, scale, bias}, "\"epsilon\":1e-12");
  const int qkv = p.step("linear", {x, p.weights({d, 3 * d}), p.weights({3 * d})}, "\"activation\":\"none\"");
  const std::vector<int> parts = p.steps("split", {qkv}, "\"axis\":-1,\"num_outputs\":3", {"f32", "f32", "f32"});
  const std::string heads = "\"num_heads\":4,\"kv_num_heads\":4,\"scale\":0.25";
  const int attended = p.step("attention", {parts[0], parts[1], parts[2], mask}, heads);
  const int packed = p.step("attention", {qkv, -1, -1, mask}, heads + ",\"packed\":[64,64,64]");
  const int integer = p.step("attention", {qkv, -1, -1, mask}, heads + ",\"packed\":[64,64,64],\"quantised\":1");
  const int sum = p.step("sum", {attended, packed, integer});
  const std::vector<int> normed =
      p.steps("add_layer_normalization", {sum, x, scale, bias}, "\"axis\":-1,\"epsilon\":1e-12", {"f32", "f32"});
  const int wide = p.step("linear", {normed[0], p.weights({d, 4 * d})}, "\"activation\":\"gelu\"");
  const int narrow = p.step("linear", {wide, p.weights({4 * d, d}), bias, normed[1]}, "\"activation\":\"none\"");
  const std::vector<uint8_t> bytes(static_cast<size_t>(d * d), 131);
  p.output(p.step("int8_linear", {narrow, p.constant<uint8_t>({d / 16, d / 4, 16, 4}, bytes), scale, bias},
                  "\"features\":64,\"outputs\":64,\"activation\":\"tanh\""));
  const int weighted = p.step("mul", {narrow, p.step("sigmoid", {narrow})});
  const int pooled = p.step("reduce_sum", {weighted, p.ints({1})}, "\"keepdims\":0,\"noop_with_empty_axes\":0");
  const int norm = p.step("reduce_l2", {pooled, p.ints({-1})}, "\"keepdims\":1");
  p.output(p.step("div", {pooled, p.step("clip", {norm, p.weights({}), -1})}));
  // The same attention as the operators it was before it was recognised.
  const int by_head = p.step("reshape", {parts[0], p.ints({0, 0, 4, 16})});
  const int q = p.step("transpose", {by_head}, "\"perm\":[0,2,1,3]");
  const int k = p.step("transpose", {by_head}, "\"perm\":[0,2,3,1]");
  const int scores = p.step("add", {p.step("mat_mul", {q, k}), mask});
  p.output(p.step("mat_mul", {p.step("softmax", {scores}, "\"axis\":-1"), q}));
  return p.image();
}

/// Lookup layers of `rows` inputs: both forms, a projection, an activation that the epilogue has and one that it has
/// not, a residual.
std::string lookups() {
  PlanBuilder p;
  constexpr int64_t d = 48, n = 80, k = 16;
  const int x = p.input("x", "f32", {-1, d});
  const int z = p.step("relu", {x});
  for (const int64_t gain_limit : {0, 15, 63}) {
    for (const bool projected : {false, true}) {
      const int64_t r = projected ? 24 : d, c = r / 4;
      std::vector<int32_t> groups(static_cast<size_t>(r));
      for (size_t i = 0; i < groups.size(); ++i) groups[i] = static_cast<int32_t>(i);
      std::vector<int8_t> directions(static_cast<size_t>(c * k * 4)), table(static_cast<size_t>(c * k * n));
      for (size_t i = 0; i < directions.size(); ++i) directions[i] = static_cast<int8_t>(i * 31 % 201) - 100;
      for (size_t i = 0; i < table.size(); ++i) table[i] = static_cast<int8_t>(i * 37 % 255) - 127;
      const std::vector<float> inv(static_cast<size_t>(r), projected ? 1.0f : 20.0f);
      std::vector<int> inputs = {z,
                                 p.constant<float>({r}, std::vector<float>(static_cast<size_t>(r), 0.0f)),
                                 p.constant<float>({r}, inv),
                                 p.constant<int32_t>({c, 4}, groups),
                                 p.constant<int8_t>({c, k, 4}, directions),
                                 p.constant<int32_t>({c, k}, std::vector<int32_t>(static_cast<size_t>(c * k), 0)),
                                 p.constant<float>({c}, std::vector<float>(static_cast<size_t>(c), 0.002f))};
      if (projected) {
        std::vector<int8_t> matrix(static_cast<size_t>(d * r));
        for (size_t i = 0; i < matrix.size(); ++i) matrix[i] = static_cast<int8_t>(i * 29 % 101) - 50;
        inputs.push_back(p.weights({d}));
        inputs.push_back(p.constant<float>({d}, std::vector<float>(d, 20.0f)));
        inputs.push_back(p.constant<int8_t>({d, r}, matrix));
        inputs.push_back(p.constant<float>({r}, std::vector<float>(static_cast<size_t>(r), 0.01f)));
      }
      const int codes = p.step("lut_encode", inputs, "\"gain_limit\":" + number(gain_limit) + ",\"axis\":-1", "u8");
      const std::string attrs = "\"gain_limit\":" + number(gain_limit) + ",\"codebooks\":" + number(c) +
                                ",\"entries\":16,\"outputs\":80,\"layout\":\"ckn\",\"activation\":";
      const int entries = p.constant<int8_t>({c, k, n}, table), scale = p.weights({n}), bias = p.weights({n});
      const int plain = p.step("lut_linear", {codes, entries, scale, bias}, attrs + "\"relu\"");
      p.output(p.step("lut_linear", {codes, entries, scale, bias, plain}, attrs + "\"gelu\""));
    }
  }
  return p.image();
}

/// Images: convolutions of every kind, windows, planes, and one lookup convolution.
std::string images() {
  PlanBuilder p;
  const int x = p.input("x", "f32", {-1, 8, 24, 24});
  const std::string window = "\"kernel_shape\":[3,3],\"pads\":[1,1,1,1]";
  const int a = p.step("conv", {x, p.weights({16, 8, 3, 3}), p.weights({16})}, window + ",\"activation\":\"relu\"");
  const int b = p.step("conv", {a, p.weights({16, 1, 3, 3})}, window + ",\"group\":16");
  const int c = p.step("conv", {b, p.weights({16, 16, 1, 1}), -1, a}, "\"activation_after_residual\":1");
  p.output(p.step("conv", {c, p.weights({8, 8, 3, 3})}, window + ",\"group\":2,\"strides\":[2,2]"));
  p.output(p.step("conv_transpose", {c, p.weights({16, 4, 2, 2})}, "\"strides\":[2,2]"));
  p.output(p.step("max_pool", {c}, window));
  p.output(p.step("average_pool", {c}, window + ",\"count_include_pad\":1"));
  p.output(p.step("global_average_pool", {c}));
  p.output(p.step("global_max_pool", {c}));
  const int w = p.weights({16}), v = p.constant<float>({16}, std::vector<float>(16, 1.0f));
  p.output(p.step("batch_normalization", {c, w, w, w, v}));
  p.output(p.step("instance_normalization", {c, w, w}));
  p.output(p.step("pad", {c, p.ints({0, 0, 2, 1, 0, 0, 1, 2})}, "\"mode\":\"reflect\""));
  p.output(p.step("resize", {c, -1, p.constant<float>({4}, {1, 1, 2, 2})},
                  "\"mode\":\"linear\",\"coordinate_transformation_mode\":\"half_pixel\""));
  p.output(p.step("int8_conv", {c, p.constant<int8_t>({16, 16, 3, 3}, std::vector<int8_t>(16 * 16 * 9, 3)), w, w},
                  window + ",\"activation\":\"relu\""));
  std::vector<int32_t> groups = {0, 1, 2, 3, 4, 5, 6, 7};
  std::vector<int8_t> directions(2 * 16 * 4), table(16 * 2 * 16 * 9);
  for (size_t i = 0; i < directions.size(); ++i) directions[i] = static_cast<int8_t>(i * 31 % 201) - 100;
  for (size_t i = 0; i < table.size(); ++i) table[i] = static_cast<int8_t>(i * 37 % 255) - 127;
  for (const int64_t gain_limit : {0, 63}) {
    const int codes = p.step(
        "lut_encode",
        {x, p.constant<float>({8}, std::vector<float>(8, 0.0f)), p.constant<float>({8}, std::vector<float>(8, 20.0f)),
         p.constant<int32_t>({2, 4}, groups), p.constant<int8_t>({2, 16, 4}, directions),
         p.constant<int32_t>({2, 16}, std::vector<int32_t>(32, 0)), p.constant<float>({2}, {0.002f, 0.002f})},
        "\"gain_limit\":" + number(gain_limit) + ",\"axis\":1", "u8");
    p.output(p.step("lut_conv", {codes, p.constant<int8_t>({16, 2, 16, 3, 3}, table), w, w},
                    "\"gain_limit\":" + number(gain_limit) +
                        ",\"codebooks\":2,\"entries\":16,\"outputs\":16,\"layout\":\"ckn\",\"activation\":\"silu\"," +
                        window));
  }
  return p.image();
}

/// Steps that move, select and reduce.
std::string movements() {
  PlanBuilder p;
  const int x = p.input("x", "f32", {-1, 64, 48});
  p.output(p.step("transpose", {x}, "\"perm\":[2,0,1]"));
  p.output(p.step("transpose", {x}, "\"perm\":[1,0,2]"));
  p.output(p.step("concat", {x, x}, "\"axis\":1"));
  for (const int part : p.steps("split", {x}, "\"axis\":1,\"num_outputs\":2", {"f32", "f32"})) p.output(part);
  p.output(p.step("slice", {x, p.ints({40}), p.ints({-50}), p.ints({2}), p.ints({-3})}));
  p.output(p.step("expand", {p.step("reduce_mean", {x, p.ints({1})}), p.ints({1, 64, 48})}));
  p.output(p.step("tile", {x, p.ints({1, 2, 2})}));
  p.output(p.step("gather", {x, p.ints({3, 1, -1})}, "\"axis\":1"));
  p.output(p.step("pad", {x, p.ints({0, 1, 2, 0, 3, 0}), p.weights({})}, "\"mode\":\"constant\""));
  p.output(p.step("cum_sum", {x, p.scalar(1)}));
  p.output(p.step("cast", {x}, "\"to\":\"i64\"", "i64"), "i64");
  const int positive = p.step("greater", {x, p.weights({})}, "", "bool");
  p.output(p.step("where", {positive, x, p.step("neg", {x})}));
  p.output(p.step("arg_max", {x}, "\"axis\":1,\"keepdims\":0,\"select_last_index\":0", "i64"), "i64");
  const std::vector<int> top = p.steps("top_k", {x, p.ints({5})}, "\"axis\":-1", {"f32", "i64"});
  p.output(top[0]);
  p.output(top[1], "i64");
  p.output(p.step("gather_elements", {x, top[1]}, "\"axis\":2"));
  p.output(p.step("log_softmax", {x}, "\"axis\":1"));
  p.output(p.step("pow", {p.step("max", {x, p.step("abs", {x}), x}), p.constant<float>({}, {3.0f})}));
  p.output(p.step("reduce_max", {x, p.ints({0, 2})}, "\"noop_with_empty_axes\":1"));
  p.output(p.step("trilu", {x}, "\"upper\":0"));
  p.output(p.step("is_inf", {x}, "\"detect_negative\":1", "bool"), "bool");
  p.output(p.step("mat_mul", {x, p.step("transpose", {x}, "\"perm\":[0,2,1]")}));
  p.output(p.step("gemm", {p.step("reduce_sum", {x, p.ints({0})}, "\"keepdims\":0"), p.weights({48, 20}), -1}));
  return p.image();
}

/// Memory for one caller's inputs and outputs.
struct Caller {
  std::vector<lutc::TensorView> inputs, outputs;
  std::vector<lutc::AlignedBuffer> memory;
  std::shared_ptr<const lutc::Prepared> prepared;

  void view(lutc::TensorView view, std::vector<lutc::TensorView>* list) {
    memory.emplace_back();
    CHECK(memory.back().allocate(view.bytes()));
    view.data = memory.back().data();
    list->push_back(view);
  }
  bool make(const lutc::Session& session, int64_t rows, int64_t length) {
    for (const lutc::Port& port : session.inputs()) {
      lutc::TensorView in;
      in.dtype = port.dtype;
      for (const lutc::Dim& dim : port.shape) {
        const int64_t size = in.shape.rank == 0 ? rows : length;
        in.shape.dims[in.shape.rank++] = dim.symbol.empty() ? dim.size : size;
      }
      view(in, &inputs);
      const int64_t n = in.shape.elements();
      for (int64_t i = 0; i < n; ++i) {
        if (in.dtype == lutc::DType::kF32) {
          inputs.back().as_mut<float>()[i] = static_cast<float>(i * 37 % 101) * 0.02f - 1.0f;
        } else {
          inputs.back().as_mut<int64_t>()[i] = i % 3;
        }
      }
    }
    auto made = session.prepare(inputs.data());
    if (!made.is_ok()) {
      std::fprintf(stderr, "%s\n", made.status().message().c_str());
      return false;
    }
    prepared = made.value();
    for (size_t o = 0; o < session.outputs().size(); ++o) view(prepared->output(static_cast<int>(o)), &outputs);
    return true;
  }
};

/// Allocations of a few more turns of the callers, each preparing (which finds its shapes prepared) and running; -1
/// when a run fails. The first turns are the warm-up.
long allocations_of(const lutc::Session& session, const std::vector<Caller*>& callers) {
  lutc::Status status;
  const auto turn = [&](const Caller& c) {
    status = session.prepare(c.inputs.data()).status();
    if (status.is_ok()) status = session.run(*c.prepared, c.inputs.data(), c.outputs.data());
    return status.is_ok();
  };
  bool fine = true;
  for (int i = 0; i < 5; ++i) {
    if (i < 3) lutc_test::allocations = 0;
    lutc_test::counting = true;
    for (const Caller* caller : callers) fine = fine && turn(*caller);
    lutc_test::counting = false;
    if (i == 0) CHECK(lutc_test::allocations > 0);  // what the first run allocates is seen
  }
  if (fine) return lutc_test::allocations;
  std::fprintf(stderr, "%s\n", status.message().c_str());
  return -1;
}

/// Two combinations of shapes in turn.
void check(const char* name, const std::string& file, int64_t rows, int64_t length) {
  for (const lutc::kernels::Isa isa : lutc::kernels::available_isas()) {
    for (const int threads : {1, 0}) {
      lutc::SessionOptions options;
      options.isa = lutc::kernels::isa_name(isa);
      options.threads = threads;
      auto session = lutc::Session::from_memory(file.data(), file.size(), options);
      if (!session.is_ok()) std::fprintf(stderr, "%s: %s\n", name, session.status().message().c_str());
      CHECK(session.is_ok());
      if (!session.is_ok()) return;
      Caller caller, other;
      if (!caller.make(*session.value(), rows, length) || !other.make(*session.value(), rows + 1, length)) {
        CHECK(!"prepared");
        return;
      }
      const long count = allocations_of(*session.value(), {&caller, &other});
      if (count != 0)
        std::fprintf(stderr, "%s, %s, %lld rows, threads %d: %ld allocations\n", name, options.isa.c_str(),
                     static_cast<long long>(rows), threads, count);
      CHECK(count == 0);
    }
  }
}

/// Several callers of one session: each has an arena of its own, kept for its next run.
void check_callers(const std::string& file) {
  auto session = lutc::Session::from_memory(file.data(), file.size());
  CHECK(session.is_ok());
  if (!session.is_ok()) return;
  constexpr int kCallers = 3;
  std::vector<Caller> callers(kCallers);
  for (Caller& caller : callers) CHECK(caller.make(*session.value(), 5, 40));
  std::atomic<int> warm{0}, failed{0};
  std::atomic<bool> go{false};
  std::vector<std::thread> threads;
  const auto run = [&](Caller& c) {
    if (!session.value()->run(*c.prepared, c.inputs.data(), c.outputs.data()).is_ok()) ++failed;
  };
  for (Caller& caller : callers) {
    threads.emplace_back([&] {
      for (int i = 0; i < 50; ++i) run(caller);
      ++warm;
      while (!go) std::this_thread::yield();
      for (int i = 0; i < 50; ++i) run(caller);
      ++warm;
      while (go) std::this_thread::yield();
    });
  }
  while (warm < kCallers) std::this_thread::yield();
  lutc_test::allocations = 0;
  lutc_test::counting = true;
  go = true;
  while (warm < 2 * kCallers) std::this_thread::yield();
  lutc_test::counting = false;
  go = false;
  for (std::thread& thread : threads) thread.join();
  CHECK(failed == 0);
  std::printf("%d callers at once: %ld allocations in %d runs\n", kCallers, lutc_test::allocations.load(),
              50 * kCallers);
  // An arena more, and its views, when three happen to run at once for the first time.
  CHECK(lutc_test::allocations <= 4 * kCallers);
}

}  // namespace

int main() {
  if (!lutc_test::can_count()) {
    std::puts("skipped: allocations cannot be counted with this C library");
    return 0;
  }
  for (const int64_t rows : {1, 6}) check("encoder", encoder(), rows, 40);
  for (const int64_t rows : {1, 3, 150}) check("lookups", lookups(), rows, 0);
  check("images", images(), 2, 0);
  check("movements", movements(), 3, 0);
  check_callers(encoder());
  return lutc_test::result();
}
