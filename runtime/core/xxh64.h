// XXH64, written from its public specification (github.com/Cyan4973/xxHash, doc/xxhash_spec.md). Detects damage; it is
// no signature.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lutc {

/// Streaming hash: update() any number of times, then digest() (which may be called repeatedly).
class Xxh64 {
 public:
  explicit Xxh64(uint64_t seed = 0);
  void update(const void* data, size_t bytes);
  uint64_t digest() const;

 private:
  uint64_t seed_;
  uint64_t lanes_[4];
  uint64_t total_ = 0;
  size_t buffered_ = 0;
  unsigned char buffer_[32];
};

inline uint64_t xxh64(const void* data, size_t bytes, uint64_t seed = 0) {
  Xxh64 hash(seed);
  hash.update(data, bytes);
  return hash.digest();
}

}  // namespace lutc
