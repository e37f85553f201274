#include "core/file_map.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <limits>

namespace lutc {
namespace {

Status io_error(const std::string& path, const std::string& what) {
  return {ErrorCode::kIo, "'" + path + "': " + what + ": " + std::strerror(errno)};
}

}  // namespace

Result<std::unique_ptr<FileMap>> FileMap::open(const std::string& path, Mode mode) {
  if (path.find('\0') != std::string::npos) return Status(ErrorCode::kIo, "a path holds a NUL byte");
  std::unique_ptr<FileMap> file(new FileMap);
  // O_NONBLOCK: a FIFO is refused below instead of waited for.
  file->descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file->descriptor_ < 0) return io_error(path, "cannot open");
  struct stat info;
  if (fstat(file->descriptor_, &info) != 0) return io_error(path, "cannot stat");
  if (!S_ISREG(info.st_mode)) return Status(ErrorCode::kIo, "'" + path + "' is not a regular file");
  if (info.st_size <= 0) return Status(ErrorCode::kCorrupt, "'" + path + "' is empty");
  if (static_cast<uint64_t>(info.st_size) > std::numeric_limits<size_t>::max() / 2)
    return Status(ErrorCode::kIo, "'" + path + "' is too large for this machine");
  const size_t size = static_cast<size_t>(info.st_size);
  file->modified_ = info.st_mtim;

  if (mode == Mode::kMap) {
    void* pages = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file->descriptor_, 0);
    if (pages == MAP_FAILED) return io_error(path, "cannot map");
#ifdef MADV_HUGEPAGE
    // Tables are streamed: with 4 KB pages a fifth of a lookup layer's time is page walks. Takes effect for what is not
    // in the page cache yet, where the file system has large folios; the pages stay shared.
    madvise(pages, size, MADV_HUGEPAGE);
#endif
    file->data_ = static_cast<const uint8_t*>(pages);
    file->size_ = size;
    return file;
  }

  if (!file->copy_.allocate(size))
    return Status(ErrorCode::kOutOfMemory, "'" + path + "': no memory for " + std::to_string(size) + " bytes");
  size_t done = 0;
  while (done < size) {
    const ssize_t got = read(file->descriptor_, static_cast<char*>(file->copy_.data()) + done, size - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return io_error(path, "cannot read");
    if (got == 0) return Status(ErrorCode::kCorrupt, "'" + path + "' became shorter while it was read");
    done += static_cast<size_t>(got);
  }
  close(file->descriptor_);
  file->descriptor_ = -1;
  file->data_ = static_cast<const uint8_t*>(file->copy_.data());
  file->size_ = size;
  return file;
}

Result<std::unique_ptr<FileMap>> FileMap::copy(const void* data, size_t bytes) {
  std::unique_ptr<FileMap> file(new FileMap);
  if (!file->copy_.allocate(bytes))
    return Status(ErrorCode::kOutOfMemory, "no memory for " + std::to_string(bytes) + " bytes");
  if (bytes != 0) std::memcpy(file->copy_.data(), data, bytes);
  file->data_ = static_cast<const uint8_t*>(file->copy_.data());
  file->size_ = bytes;
  return file;
}

FileMap::~FileMap() {
  if (descriptor_ < 0) return;
  if (data_ != nullptr) munmap(const_cast<uint8_t*>(data_), size_);
  close(descriptor_);
}

std::string FileMap::identity() const {
  struct stat info;
  if (descriptor_ < 0 || fstat(descriptor_, &info) != 0) return {};
  std::string text;
  for (const int64_t n :
       {static_cast<int64_t>(info.st_dev), static_cast<int64_t>(info.st_ino), static_cast<int64_t>(size_),
        static_cast<int64_t>(modified_.tv_sec), static_cast<int64_t>(modified_.tv_nsec)})
    text += (text.empty() ? "" : ":") + std::to_string(n);
  return text;
}

FileMap::Change FileMap::changed() const {
  if (descriptor_ < 0) return Change::kNone;
  struct stat info;
  if (fstat(descriptor_, &info) != 0 || static_cast<uint64_t>(info.st_size) < size_) return Change::kTruncated;
  const bool same_time = info.st_mtim.tv_sec == modified_.tv_sec && info.st_mtim.tv_nsec == modified_.tv_nsec;
  return same_time ? Change::kNone : Change::kTouched;
}

void FileMap::accept_change() {
  struct stat info;
  if (descriptor_ >= 0 && fstat(descriptor_, &info) == 0) modified_ = info.st_mtim;
}

}  // namespace lutc
