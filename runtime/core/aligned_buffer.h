// Owned memory aligned to 64 bytes (a cache line, an AVX-512 register); an allocation that fails is a value, not an
// abort.
#pragma once

#ifdef __linux__
#include <sys/mman.h>
#endif

#include <cstddef>
#include <cstdlib>
#include <utility>

namespace lutc {

class AlignedBuffer {
 public:
  static constexpr size_t kAlignment = 64;
  /// Buffers from this size on ask for huge pages: reading tables from memory is bound by the TLB without them.
  static constexpr size_t kHugePage = size_t{1} << 21;

  AlignedBuffer() = default;
  ~AlignedBuffer() { std::free(data_); }
  AlignedBuffer(AlignedBuffer&& o) noexcept
      : data_(std::exchange(o.data_, nullptr)), size_(std::exchange(o.size_, 0)) {}
  AlignedBuffer& operator=(AlignedBuffer&& o) noexcept {
    std::swap(data_, o.data_);
    std::swap(size_, o.size_);
    return *this;
  }
  AlignedBuffer(const AlignedBuffer&) = delete;
  AlignedBuffer& operator=(const AlignedBuffer&) = delete;

  /// Replaces the memory by at least `bytes` fresh bytes, uninitialised (never a null pointer, even for 0). False when
  /// there is none.
  [[nodiscard]] bool allocate(size_t bytes) {
    std::free(std::exchange(data_, nullptr));
    size_ = 0;
    if (bytes > static_cast<size_t>(-1) - kHugePage) return false;
    const size_t padded = bytes == 0 ? kAlignment : (bytes + kAlignment - 1) / kAlignment * kAlignment;
#ifdef MADV_HUGEPAGE
    const bool huge = padded >= kHugePage;
    if (posix_memalign(&data_, huge ? kHugePage : kAlignment, padded) != 0) data_ = nullptr;
    if (huge && data_ != nullptr) madvise(data_, padded, MADV_HUGEPAGE);
#else
    data_ = std::aligned_alloc(kAlignment, padded);
#endif
    if (data_ == nullptr) return false;
    size_ = padded;
    return true;
  }
  void* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  void* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace lutc
