#include "core/json.h"

#include <limits>
#include <unordered_set>
#include <vector>

namespace lutc {
namespace {

constexpr size_t kMaxDepth = 32;
constexpr size_t kMaxValues = size_t{1} << 24;

/// Walks the text once before the tree is built: the tree of a hostile text could be many times its size, and would
/// keep the last of two members of one name without a word.
class Checker : public nlohmann::json_sax<Json> {
 public:
  std::string problem;

  bool null() override { return count(); }
  bool boolean(bool) override { return count(); }
  bool number_integer(number_integer_t) override { return count(); }
  bool number_unsigned(number_unsigned_t) override { return count(); }
  bool number_float(number_float_t, const string_t&) override { return count(); }
  bool string(string_t&) override { return count(); }
  bool binary(binary_t&) override { return count(); }
  bool start_object(std::size_t) override { return open(); }
  bool end_object() override { return close(); }
  bool start_array(std::size_t) override { return open(); }
  bool end_array() override { return close(); }
  bool key(string_t& name) override {
    if (keys_.back().insert(name).second) return count();
    problem = "member " + in_quotes(name) + " appears twice";
    return false;
  }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception&) override {
    problem = "not well-formed JSON at byte " + std::to_string(position);
    return false;
  }

 private:
  bool count() {
    if (++values_ <= kMaxValues) return true;
    problem = "more than " + std::to_string(kMaxValues) + " values";
    return false;
  }
  bool open() {
    if (keys_.size() == kMaxDepth) {
      problem = "nested deeper than " + std::to_string(kMaxDepth) + " levels";
      return false;
    }
    keys_.emplace_back();
    return count();
  }
  bool close() {
    keys_.pop_back();
    return true;
  }

  std::vector<std::unordered_set<std::string>> keys_;
  size_t values_ = 0;
};

}  // namespace

Result<Json> parse_json(std::string_view text, const std::string& what) {
  Checker checker;
  if (!Json::sax_parse(text.begin(), text.end(), &checker))
    return Status(ErrorCode::kCorrupt, what + ": " + checker.problem);
  Json value = Json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  if (value.is_discarded()) return Status(ErrorCode::kCorrupt, what + ": not well-formed JSON");
  return value;
}

bool json_int(const Json& value, int64_t* out) {
  if (const auto* u = value.get_ptr<const Json::number_unsigned_t*>()) {
    if (*u > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return false;
    *out = static_cast<int64_t>(*u);
    return true;
  }
  if (const auto* i = value.get_ptr<const Json::number_integer_t*>()) {
    *out = *i;
    return true;
  }
  return false;
}

const std::string* json_string(const Json& value) { return value.get_ptr<const Json::string_t*>(); }

const Json* json_member(const Json& object, const char* key) {
  if (!object.is_object()) return nullptr;
  const auto it = object.find(key);
  return it == object.end() ? nullptr : &*it;
}

std::string in_quotes(std::string_view name) {
  constexpr size_t kShown = 200;
  std::string s = "'";
  for (size_t i = 0; i < name.size() && i < kShown; ++i) {
    const char c = name[i];
    s += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
  }
  while (name.size() > kShown && (static_cast<unsigned char>(s.back()) & 0x80) != 0)
    s.pop_back();  // do not cut inside a UTF-8 sequence
  return s + (name.size() > kShown ? "...'" : "'");
}

}  // namespace lutc
