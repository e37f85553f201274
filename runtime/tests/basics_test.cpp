// Checked arithmetic, shapes, attributes and XXH64.
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "check.h"
#include "core/aligned_buffer.h"
#include "core/attributes.h"
#include "core/checked.h"
#include "core/tensor.h"
#include "core/xxh64.h"

namespace {

void checked_arithmetic() {
  constexpr uint64_t kMax = std::numeric_limits<uint64_t>::max();
  uint64_t u = 0;
  CHECK(lutc::checked_add<uint64_t>(kMax - 1, 1, &u) && u == kMax);
  CHECK(!lutc::checked_add<uint64_t>(kMax, 1, &u));
  CHECK(lutc::checked_mul<uint64_t>(uint64_t{1} << 32, (uint64_t{1} << 32) - 1, &u));
  CHECK(!lutc::checked_mul<uint64_t>(uint64_t{1} << 32, uint64_t{1} << 32, &u));
  int64_t i = 0;
  CHECK(!lutc::checked_mul<int64_t>(std::numeric_limits<int64_t>::min(), -1, &i));
  CHECK(lutc::checked_align(65, 64, &u) && u == 128);
  CHECK(lutc::checked_align(64, 64, &u) && u == 64);
  CHECK(lutc::checked_align(0, 64, &u) && u == 0);
  CHECK(!lutc::checked_align(kMax - 10, 64, &u));
}

void shapes() {
  CHECK(lutc::checked_elements({}).value() == 1);
  CHECK(lutc::checked_elements({2, 3, 4}).value() == 24);
  CHECK(lutc::checked_elements({5, 0, 7}).value() == 0);
  CHECK(!lutc::checked_elements({2, -1}).is_ok());
  CHECK(!lutc::checked_elements({int64_t{1} << 40, int64_t{1} << 40}).is_ok());
  // The product wraps to 0: a naive check passes.
  CHECK(!lutc::checked_elements({int64_t{1} << 32, int64_t{1} << 32}).is_ok());
  // An empty tensor must not smuggle in strides that overflow.
  CHECK(!lutc::checked_elements({0, int64_t{1} << 40, int64_t{1} << 40}).is_ok());
  CHECK(lutc::Shape({1, 2}).to_string() == "[1, 2]");
  CHECK(lutc::Shape({1, 2}) != lutc::Shape({1, 2, 1}));
}

void attributes() {
  lutc::Attributes a;
  a.set("i", int64_t{3});
  a.set("f", 2.5);
  a.set("ints", std::vector<int64_t>{1, 2});
  CHECK(a.get_int("i", 0) == 3 && a.get_int("f", -1) == -1 && a.get_int("none", 7) == 7);
  CHECK(a.get_float("f", 0) == 2.5 && a.get_float("i", 0) == 3.0);
  CHECK((a.get_floats("ints", {}) == std::vector<double>{1, 2}));
  CHECK(a.get_string("i", "x") == "x" && a.has("i") && !a.has("none"));
}

void xxh64() {
  // Published vectors.
  CHECK(lutc::xxh64("", 0) == 0xEF46DB3751D8E999u);
  CHECK(lutc::xxh64("a", 1) == 0xD24EC4F1A98C6E5Bu);
  CHECK(lutc::xxh64("abc", 3) == 0x44BC2CF5AD770999u);
  const std::string text = "Nobody inspects the spammish repetition";
  CHECK(lutc::xxh64(text.data(), text.size()) == 0xFBCEA83C8A378BF1u);
  // Streaming in any pieces is the same hash.
  std::mt19937 random(1);
  std::vector<unsigned char> data(1000);
  for (unsigned char& c : data) c = static_cast<unsigned char>(random());
  for (int round = 0; round < 200; ++round) {
    lutc::Xxh64 hash(42);
    size_t at = 0;
    while (at < data.size()) {
      const size_t n = std::min<size_t>(random() % 100, data.size() - at);
      hash.update(data.data() + at, n);
      at += n;
    }
    CHECK(hash.digest() == lutc::xxh64(data.data(), data.size(), 42));
  }
}

void buffers() {
  lutc::AlignedBuffer buffer;
  CHECK(buffer.allocate(0) && buffer.data() != nullptr);
  CHECK(buffer.allocate(100) && reinterpret_cast<uintptr_t>(buffer.data()) % 64 == 0 && buffer.size() >= 100);
  CHECK(!buffer.allocate(std::numeric_limits<size_t>::max() - 3));
  CHECK(buffer.data() == nullptr && buffer.size() == 0);
}

}  // namespace

int main() {
  checked_arithmetic();
  shapes();
  attributes();
  xxh64();
  buffers();
  return lutc_test::result();
}
