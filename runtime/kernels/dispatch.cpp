// The only place that maps CPU features to kernels.
#include <cstdlib>
#include <cstring>

#include "kernels/dense.h"
#include "kernels/int8.h"
#include "kernels/int8_conv.h"
#include "kernels/kernel_table.h"
#include "kernels/lookup.h"
#include "kernels/vector.h"

#if defined(LUTC_X86)
#include <cpuid.h>
#endif

namespace lutc::kernels {
namespace {

#if defined(LUTC_X86)

struct Registers {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
};

Registers cpuid(unsigned leaf, unsigned subleaf) {
  Registers r;
  if (__get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx) == 0) return {};
  return r;
}

/// Register sets the operating system saves on a context switch (XCR0). Without its consent a CPU's AVX cannot be used.
unsigned long long saved_state() {
  unsigned low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<unsigned long long>(high) << 32) | low;
}

bool all_set(unsigned long long word, unsigned long long bits) { return (word & bits) == bits; }
constexpr unsigned bit(int i) { return 1u << i; }

bool cpu_has(Isa isa) {
  if (isa == Isa::kScalar) return true;
  const Registers basic = cpuid(1, 0);
  const Registers extended = cpuid(7, 0);
  constexpr unsigned kFma = bit(12), kOsxsave = bit(27), kAvx = bit(28), kF16c = bit(29);  // leaf 1, ecx
  if (!all_set(basic.ecx, kFma | kOsxsave | kAvx | kF16c)) return false;
  const unsigned long long saved = saved_state();
  constexpr unsigned kAvx2 = bit(5);                                        // leaf 7, ebx
  if (!all_set(saved, 0x6) || !all_set(extended.ebx, kAvx2)) return false;  // XMM and YMM
  if (isa == Isa::kAvx2) return true;
  constexpr unsigned kF = bit(16), kDq = bit(17), kBw = bit(30), kVl = bit(31);  // leaf 7, ebx
  constexpr unsigned kVbmi = bit(1), kVbmi2 = bit(6), kVnni = bit(11);           // leaf 7, ecx
  const bool zmm = all_set(saved, 0xe6);                                         // and opmask, upper ZMM
  if (isa == Isa::kAvxVnni)
    return has_vex_vnni() || (zmm && all_set(extended.ebx, kF | kBw | kVl) && all_set(extended.ecx, kVnni));
  return zmm && all_set(extended.ebx, kF | kDq | kBw | kVl) && all_set(extended.ecx, kVbmi | kVbmi2 | kVnni);
}

#else

bool cpu_has(Isa isa) { return isa == Isa::kScalar; }

#endif

constexpr Isa kIsas[] = {Isa::kScalar, Isa::kAvx2, Isa::kAvxVnni, Isa::kAvx512};

KernelTable make_table(Isa isa) {
  return {isa,
          isa_name(isa),
          dense_kernels(isa),
          vector_kernels(isa),
          lookup_kernels(isa),
          int8_conv_kernels(isa),
          int8_kernels(isa)};
}

std::string isa_names() {
  std::string names;
  for (const Isa isa : available_isas()) names += (names.empty() ? "" : ", ") + std::string(isa_name(isa));
  return names;
}

}  // namespace

std::vector<Isa> available_isas() {
  std::vector<Isa> isas;
  for (const Isa isa : kIsas)
    if (cpu_has(isa)) isas.push_back(isa);
  return isas;
}

bool has_vex_vnni() {
#if defined(LUTC_X86)
  return all_set(cpuid(7, 1).eax, bit(4));
#else
  return false;
#endif
}

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::kScalar:
      return "scalar";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvxVnni:
      return "avxvnni";
    case Isa::kAvx512:
      return "avx512";
  }
  return "?";
}

Result<const KernelTable*> table_for(Isa isa) {
  static const KernelTable tables[] = {make_table(Isa::kScalar), make_table(Isa::kAvx2), make_table(Isa::kAvxVnni),
                                       make_table(Isa::kAvx512)};
  if (!cpu_has(isa))
    return Status(ErrorCode::kUnsupported,
                  std::string("this CPU cannot execute ") + isa_name(isa) + " kernels; it can: " + isa_names());
  return &tables[static_cast<int>(isa)];
}

Result<const KernelTable*> table_named(const std::string& name) {
  for (const Isa isa : kIsas)
    if (name == isa_name(isa)) return table_for(isa);
  return Status(ErrorCode::kInvalidArgument, "unknown ISA '" + name + "'; this CPU can execute: " + isa_names());
}

Result<const KernelTable*> default_table() {
  const char* forced = std::getenv("LUTC_ISA");
  if (forced == nullptr || *forced == '\0') return table_for(available_isas().back());
  Result<const KernelTable*> table = table_named(forced);
  if (!table.is_ok()) return Status(table.status().code(), "LUTC_ISA: " + table.status().message());
  return table;
}

}  // namespace lutc::kernels
