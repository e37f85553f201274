#include "core/artifact.h"

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <string_view>
#include <vector>

#include "core/checked.h"
#include "core/json.h"
#include "core/xxh64.h"

namespace lutc {
namespace {

// The first bytes of every .lut: u64 header length, then this text around the hash's 16 digits.
constexpr std::string_view kPrefix = "{\"__metadata__\":{\"lutc.hash\":\"";
constexpr std::string_view kAfterHash = "\",\"lutc.format\":\"";
constexpr size_t kLengthBytes = 8;
constexpr size_t kHashAt = kLengthBytes + kPrefix.size();
constexpr size_t kHashDigits = 16;
static_assert(kHashAt == 38);
constexpr size_t kFixedBytes = kHashAt + kHashDigits + kAfterHash.size();
constexpr uint64_t kMaxHeader = uint64_t{256} << 20;
constexpr uint64_t kAlignment = 64;
constexpr size_t kMaxName = 4096;

Status corrupt(const std::string& what) { return {ErrorCode::kCorrupt, what}; }

bool parse_safetensors_dtype(const std::string& name, DType* out) {
  static const std::pair<const char*, DType> kNames[] = {
      {"F32", DType::kF32}, {"F64", DType::kF64}, {"I64", DType::kI64},  {"I32", DType::kI32},
      {"I8", DType::kI8},   {"U8", DType::kU8},   {"BOOL", DType::kBool}};
  for (const auto& [text, dtype] : kNames) {
    if (name == text) {
      *out = dtype;
      return true;
    }
  }
  return false;
}

struct Segment {
  std::string name;
  uint64_t begin = 0;
  uint64_t end = 0;
};

std::string range_text(const Segment& s) {
  return "bytes " + std::to_string(s.begin) + " .. " + std::to_string(s.end) + " of the data";
}

/// Filler between tensors; a plan cannot refer to it.
bool is_padding(const std::string& name) { return name.compare(0, 5, "_pad.") == 0; }

/// Reads one header entry; everything about it alone is checked, its place among the others is not.
Status read_tensor(const std::string& name, const Json& entry, uint64_t data_bytes, TensorView* view,
                   Segment* segment) {
  const std::string tensor = "tensor " + in_quotes(name);
  if (name.empty() || name.size() > kMaxName) return corrupt(tensor + ": its name must have 1 .. 4096 bytes");
  const Json* dtype = json_member(entry, "dtype");
  const Json* shape = json_member(entry, "shape");
  const Json* offsets = json_member(entry, "data_offsets");
  if (dtype == nullptr || shape == nullptr || offsets == nullptr || entry.size() != 3)
    return corrupt(tensor + ": its header entry must hold exactly dtype, shape and data_offsets");

  const std::string* dtype_text = json_string(*dtype);
  if (dtype_text == nullptr || !parse_safetensors_dtype(*dtype_text, &view->dtype))
    return corrupt(tensor + ": unknown dtype " + (dtype_text != nullptr ? in_quotes(*dtype_text) : "(not a string)"));
  if (!shape->is_array()) return corrupt(tensor + ": its shape is not a list");
  if (shape->size() > kMaxRank) return corrupt(tensor + ": rank " + std::to_string(shape->size()) + " is above 8");
  for (const Json& dim : *shape) {
    int64_t d = 0;
    if (!json_int(dim, &d) || d < 0) return corrupt(tensor + ": a dimension is not a non-negative integer");
    view->shape.dims[view->shape.rank++] = d;
  }
  const Result<int64_t> elements = checked_elements(view->shape);
  if (!elements.is_ok()) return corrupt(tensor + ": " + elements.status().message());

  int64_t begin = 0;
  int64_t end = 0;
  if (!offsets->is_array() || offsets->size() != 2 || !json_int((*offsets)[0], &begin) ||
      !json_int((*offsets)[1], &end) || begin < 0 || end < begin)
    return corrupt(tensor + ": data_offsets must be two non-negative integers in order");
  *segment = {name, static_cast<uint64_t>(begin), static_cast<uint64_t>(end)};
  if (segment->end > data_bytes)
    return corrupt(tensor + ": " + range_text(*segment) + " lie outside the file, which holds " +
                   std::to_string(data_bytes));
  uint64_t bytes = 0;
  if (!checked_mul(static_cast<uint64_t>(elements.value()), static_cast<uint64_t>(dtype_size(view->dtype)), &bytes) ||
      bytes != segment->end - segment->begin)
    return corrupt(tensor + ": shape " + view->shape.to_string() + " of " + *dtype_text + " does not fill its " +
                   std::to_string(segment->end - segment->begin) + " bytes");
  if (bytes != 0 && !is_padding(name) && segment->begin % kAlignment != 0)
    return corrupt(tensor + ": " + range_text(*segment) + " do not start at a multiple of 64");
  return Status::ok();
}

bool hash_agrees(const uint8_t* data, size_t bytes) {
  char expected[kHashDigits + 1];
  std::snprintf(expected, sizeof expected, "%016" PRIx64, Artifact::hash(data, bytes));
  return std::memcmp(expected, data + kHashAt, kHashDigits) == 0;
}

/// Bytes of a bool that are neither 0 nor 1 would be undefined behaviour in every reader.
Status check_bools(const std::string& name, const TensorView& view) {
  if (view.dtype != DType::kBool) return Status::ok();
  const auto* p = view.as<uint8_t>();
  const size_t n = view.bytes();
  for (size_t i = 0; i < n; ++i)
    if (p[i] > 1)
      return corrupt("tensor " + in_quotes(name) + ": byte " + std::to_string(i) + " of a bool tensor is " +
                     std::to_string(p[i]));
  return Status::ok();
}

}  // namespace

bool parse_dtype(const std::string& name, DType* out) {
  for (const DType dtype : {DType::kF32, DType::kF64, DType::kI64, DType::kI32, DType::kI8, DType::kU8, DType::kBool}) {
    if (name == dtype_name(dtype)) {
      *out = dtype;
      return true;
    }
  }
  return false;
}

Result<std::unique_ptr<Artifact>> Artifact::open(const std::string& path, FileMap::Mode mode) {
  Result<std::unique_ptr<FileMap>> file = FileMap::open(path, mode);
  if (!file.is_ok()) return file.status();
  std::unique_ptr<Artifact> artifact(new Artifact);
  artifact->file_ = std::move(file.value());
  const Status status = artifact->verify();
  if (!status.is_ok()) return Status(status.code(), "'" + path + "': " + status.message());
  return artifact;
}

Result<std::unique_ptr<Artifact>> Artifact::from_memory(const void* data, size_t bytes) {
  Result<std::unique_ptr<FileMap>> file = FileMap::copy(data, bytes);
  if (!file.is_ok()) return file.status();
  std::unique_ptr<Artifact> artifact(new Artifact);
  artifact->file_ = std::move(file.value());
  LUTC_RETURN_IF_ERROR(artifact->verify());
  return artifact;
}

uint64_t Artifact::hash(const uint8_t* data, size_t bytes) {
  Xxh64 hash;
  hash.update(data, std::min(bytes, kHashAt));
  if (bytes > kHashAt) hash.update("0000000000000000", std::min(bytes - kHashAt, kHashDigits));
  if (bytes > kHashAt + kHashDigits) hash.update(data + kHashAt + kHashDigits, bytes - kHashAt - kHashDigits);
  return hash.digest();
}

Status Artifact::verify() {
  const uint8_t* data = file_->data();
  const size_t size = file_->size();
  const auto* text = reinterpret_cast<const char*>(data);

  // 1. It is a .lut, whole and undamaged: nothing else is read before the hash agrees.
  if (size < kFixedBytes)
    return corrupt("not a .lut file, or a truncated one: it has only " + std::to_string(size) + " bytes");
  if (std::string_view(text + kLengthBytes, kPrefix.size()) != kPrefix ||
      std::string_view(text + kHashAt + kHashDigits, kAfterHash.size()) != kAfterHash)
    return corrupt("not a .lut file (its first bytes are not a lutc header)");
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, data, kLengthBytes);
  if (header_bytes > kMaxHeader)
    return corrupt("its header claims " + std::to_string(header_bytes) + " bytes; the limit is 256 MiB");
  if (header_bytes > size - kLengthBytes)
    return corrupt("truncated: its header alone claims " + std::to_string(header_bytes) + " bytes, the file has " +
                   std::to_string(size));
  if (!hash_agrees(data, size))
    return corrupt("damaged or truncated: the hash of its " + std::to_string(size) + " bytes is not the " +
                   in_quotes(std::string_view(text + kHashAt, kHashDigits)) + " it states; copy or compile it again");

  // 2. The version, before anything a later version may change.
  const std::string_view rest(
      text + kFixedBytes, kLengthBytes + header_bytes - std::min<uint64_t>(kFixedBytes, kLengthBytes + header_bytes));
  int64_t version = 0;
  size_t digits = 0;
  for (; digits < rest.size() && digits < 9 && rest[digits] >= '0' && rest[digits] <= '9'; ++digits)
    version = version * 10 + (rest[digits] - '0');
  if (digits == 0 || digits == rest.size() || rest[digits] != '"')
    return corrupt("its format version is not an integer");
  if (version > kFormatVersion)
    return {ErrorCode::kVersion, "written in format version " + std::to_string(version) +
                                     "; this runtime reads up to version " + std::to_string(kFormatVersion) +
                                     ": upgrade lutc, or compile the model again with this version"};
  if (version < 1) return corrupt("format version " + std::to_string(version) + " never existed");
  version_ = version;

  // 3. The header.
  const uint64_t data_at = kLengthBytes + header_bytes;
  if (data_at % kAlignment != 0)
    return corrupt("its data starts at byte " + std::to_string(data_at) + ", not at a multiple of 64");
  Result<Json> parsed = parse_json(std::string_view(text + kLengthBytes, header_bytes), "header");
  if (!parsed.is_ok()) return parsed.status();
  const Json& header = parsed.value();
  if (!header.is_object()) return corrupt("header: not a JSON object");
  const Json* meta = json_member(header, "__metadata__");
  if (meta == nullptr || !meta->is_object()) return corrupt("header: no __metadata__ object");
  for (const auto& [key, value] : meta->items()) {
    const std::string* entry = json_string(value);
    if (entry == nullptr) return corrupt("header: metadata " + in_quotes(key) + " is not a string");
    metadata_[key] = *entry;
  }
  if (metadata_.count("lutc.plan") == 0) return corrupt("header: no lutc.plan");

  // 4. The tensors: each alone, then together: they tile the data without overlap, hole or trailing byte.
  const uint64_t data_bytes = size - data_at;
  std::vector<Segment> segments;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") continue;
    TensorView view;
    Segment segment;
    LUTC_RETURN_IF_ERROR(read_tensor(name, entry, data_bytes, &view, &segment));
    // An empty tensor may have any offset; it points at aligned bytes all the same.
    view.data = const_cast<uint8_t*>(segment.begin == segment.end ? data : data + data_at + segment.begin);
    LUTC_RETURN_IF_ERROR(check_bools(name, view));
    if (!is_padding(name)) tensors_[name] = view;
    segments.push_back(std::move(segment));
  }
  std::sort(segments.begin(), segments.end(),
            [](const Segment& a, const Segment& b) { return a.begin != b.begin ? a.begin < b.begin : a.end < b.end; });
  uint64_t end = 0;
  for (const Segment& s : segments) {
    if (s.begin != end)
      return corrupt("tensor " + in_quotes(s.name) + ": " + range_text(s) +
                     (s.begin < end ? " overlap the tensor before" : " leave a hole before them"));
    end = s.end;
  }
  if (end != data_bytes) return corrupt(std::to_string(data_bytes - end) + " bytes follow the last tensor");
  return Status::ok();
}

const TensorView* Artifact::tensor(const std::string& name) const {
  const auto it = tensors_.find(name);
  return it == tensors_.end() ? nullptr : &it->second;
}

const std::string& Artifact::metadata(const std::string& key) const {
  static const std::string none;
  const auto it = metadata_.find(key);
  return it == metadata_.end() ? none : it->second;
}

std::string Artifact::identity() const {
  const std::string file = file_->identity();
  if (file.empty()) return file;
  return file + ":" + std::string(reinterpret_cast<const char*>(file_->data()) + kHashAt, kHashDigits);
}

Status Artifact::still_intact() {
  const std::lock_guard<std::mutex> lock(intact_mutex_);
  const FileMap::Change change = damaged_ ? FileMap::Change::kTouched : file_->changed();
  if (change == FileMap::Change::kNone) return Status::ok();
  if (change == FileMap::Change::kTruncated)
    return corrupt("the artifact's file was truncated after it was loaded; load it again");
  if (!damaged_) {
    file_->accept_change();  // before hashing: a write during it shows up at the next check
    damaged_ = !hash_agrees(file_->data(), file_->size());
  }
  return damaged_ ? corrupt("the artifact's file was written to after it was loaded; load it again") : Status::ok();
}

}  // namespace lutc
