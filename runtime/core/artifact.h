// A .lut file: verified whole (docs/format.md), its tensors used where they lie.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "core/file_map.h"
#include "core/status.h"
#include "core/tensor.h"

namespace lutc {

/// The format version this runtime reads up to.
constexpr int64_t kFormatVersion = 2;

/// A name from a plan or header as dtype; false when unknown.
bool parse_dtype(const std::string& name, DType* out);

class Artifact {
 public:
  static Result<std::unique_ptr<Artifact>> open(const std::string& path, FileMap::Mode mode);
  static Result<std::unique_ptr<Artifact>> from_memory(const void* data, size_t bytes);

  /// Tensor by name, or null. Its data is 64-byte aligned, read-only, and lives as long as the artifact.
  const TensorView* tensor(const std::string& name) const;
  /// The text of a metadata entry, or "" ("lutc.plan", "lutc.producer", ...).
  const std::string& metadata(const std::string& key) const;
  size_t bytes() const { return file_->size(); }
  int64_t version() const { return version_; }
  /// Equal for two artifacts of one mapped file with the same content; empty when this one is private memory.
  std::string identity() const;

  /// Whether the mapped file is still what was verified: cheap while nobody touched it, hashes it again when its
  /// modification time moved. Once it fails it fails for good. Thread-safe.
  Status still_intact();

  /// Hash of a whole file image as its header would state it.
  static uint64_t hash(const uint8_t* data, size_t bytes);

 private:
  Artifact() = default;
  Status verify();

  std::unique_ptr<FileMap> file_;
  std::mutex intact_mutex_;
  bool damaged_ = false;
  int64_t version_ = 0;
  std::map<std::string, TensorView> tensors_;
  std::map<std::string, std::string> metadata_;
};

}  // namespace lutc
