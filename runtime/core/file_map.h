// A file's bytes, read-only: mapped where they lie, or copied to private memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <ctime>
#include <memory>
#include <string>

#include "core/aligned_buffer.h"
#include "core/status.h"

namespace lutc {

// A mapping stays tied to its file. If another process truncates the file afterwards, touching a page past the new end
// raises SIGBUS, which a library must not handle; if it writes into the file, verified bytes change under us. What is
// done about it:
//  * the size is taken once, from the open descriptor, and nothing is read past it;
//  * changed() compares size and modification time with those at open (one fstat): the session asks before every run
//  and refuses to go on. Only a
//    change in the middle of a run goes unseen;
//  * who cannot rule that out asks for Mode::kCopy; who replaces a file renames a new one over it, as `lutc compile`
//  does (the old inode stays).
class FileMap {
 public:
  enum class Mode { kMap, kCopy };

  static Result<std::unique_ptr<FileMap>> open(const std::string& path, Mode mode);
  /// Takes a private, 64-byte-aligned copy of bytes in memory.
  static Result<std::unique_ptr<FileMap>> copy(const void* data, size_t bytes);
  ~FileMap();
  FileMap(const FileMap&) = delete;
  FileMap& operator=(const FileMap&) = delete;

  const uint8_t* data() const { return data_; }
  size_t size() const { return size_; }
  /// Device, file, size and modification time at open (or accepted since) as text; empty unless mapped.
  std::string identity() const;

  enum class Change { kNone, kTouched, kTruncated };
  /// kTruncated: the mapped pages are no longer all there. kTouched: the modification time differs: contents may.
  Change changed() const;
  /// Takes the present modification time as the one to compare with.
  void accept_change();

 private:
  FileMap() = default;

  const uint8_t* data_ = nullptr;
  size_t size_ = 0;
  int descriptor_ = -1;  ///< kept while mapped
  struct timespec modified_ = {};
  AlignedBuffer copy_;
};

}  // namespace lutc
