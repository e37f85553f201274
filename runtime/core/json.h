// JSON from an untrusted file: parsed without exceptions, with a bound on nesting and on the number of values, and no
// duplicate key.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "core/status.h"

namespace lutc {

using Json = nlohmann::json;

/// `what` names the text in messages ("header", "plan"). kCorrupt when the text is not one well-formed JSON value
/// within the limits.
Result<Json> parse_json(std::string_view text, const std::string& what);

/// An integer that fits int64; false for anything else (floats with integral value included).
bool json_int(const Json& value, int64_t* out);
/// The string, or null if the value is none.
const std::string* json_string(const Json& value);
/// Member of an object, or null when `object` is none or lacks it.
const Json* json_member(const Json& object, const char* key);

/// A name for a message: quoted, control characters escaped, cut to a readable length.
std::string in_quotes(std::string_view name);

}  // namespace lutc
