// Assembles small .lut images for tests.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "core/artifact.h"

namespace lutc_test {

/// Writes the hash into a file image whose header has its fixed prefix.
inline void stamp(std::string* file) {
  if (file->size() < 54) return;
  char digits[17];
  std::snprintf(digits, sizeof digits, "%016llx",
                static_cast<unsigned long long>(
                    lutc::Artifact::hash(reinterpret_cast<const uint8_t*>(file->data()), file->size())));
  std::memcpy(&(*file)[38], digits, 16);
}

inline std::string escaped(const std::string& text) {
  std::string s;
  for (const char c : text) {
    if (c == '"' || c == '\\') s += '\\';
    s += c;
  }
  return s;
}

/// `tensors`: header entries as JSON text ("\"w\":{...},..."), may be empty; `data`: the bytes behind the header.
inline std::string image(const std::string& plan, const std::string& tensors, const std::string& data,
                         const std::string& version = "1") {
  std::string header = "{\"__metadata__\":{\"lutc.hash\":\"0000000000000000\",\"lutc.format\":\"" + version +
                       "\",\"lutc.plan\":\"" + escaped(plan) + "\"}";
  if (!tensors.empty()) header += "," + tensors;
  header += "}";
  while ((8 + header.size()) % 64 != 0) header += ' ';
  uint64_t length = header.size();
  std::string file(reinterpret_cast<const char*>(&length), 8);
  file += header + data;
  stamp(&file);
  return file;
}

}  // namespace lutc_test
