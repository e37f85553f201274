// What the operators may ask of an ISA, and the one place that maps CPU features to kernels.
//
// A kernel knows no plan, no tensor and no thread: it gets pointers, sizes and strides. Every function of a table
// exists in scalar; an ISA file overrides what it does faster (see each sub-table's header). All code in a per-ISA file
// lives in an anonymous namespace, and these files include no header with non-trivial inline functions: otherwise the
// linker could keep an AVX-512 copy of a shared inline function and run it on a CPU without AVX-512.
#pragma once

#include <string>
#include <vector>

#include "core/status.h"

namespace lutc::kernels {

struct DenseKernels;     // dense.h: packed fp32 GEMM, convolution, attention products; int8 GEMM
struct VectorKernels;    // vector.h: elementwise maths, GELU, softmax, LayerNorm, quantisation
struct LookupKernels;    // lookup.h: encode, lookup, table layouts
struct Int8Kernels;      // int8.h: dense int8 products of rows
struct Int8ConvKernels;  // int8_conv.h: quantised images, dense int8 convolution

/// kAvxVnni = AVX2 and 256-bit VNNI, as AVX-VNNI (Alder Lake, Zen 5 and later) or as AVX-512 VL + VNNI (Cascade Lake);
/// what it has no kernels of its own for are AVX2's. kAvx512 = F+BW+VL+DQ+VBMI+VBMI2+VNNI (Ice Lake, Zen 4 and later).
enum class Isa { kScalar, kAvx2, kAvxVnni, kAvx512 };

struct KernelTable {
  Isa isa;
  const char* name;  ///< "scalar", "avx2", "avxvnni", "avx512"
  const DenseKernels* dense;
  const VectorKernels* vector;
  const LookupKernels* lookup;
  const Int8ConvKernels* int8_conv;
  const Int8Kernels* int8;
};

/// ISAs this CPU can execute, best last.
std::vector<Isa> available_isas();
const char* isa_name(Isa isa);
/// Whether this CPU has AVX-VNNI, so that kAvxVnni's kernels are those with VEX prefixes; else they have EVEX prefixes.
bool has_vex_vnni();
/// Table for one ISA; kUnsupported if this CPU cannot execute it.
Result<const KernelTable*> table_for(Isa isa);
/// Table by ISA name; kInvalidArgument names the choices when it is none of them.
Result<const KernelTable*> table_named(const std::string& name);
/// The table of the best ISA, or of the one named by the environment variable LUTC_ISA (kInvalidArgument names the
/// choices when it is none of them).
Result<const KernelTable*> default_table();

}  // namespace lutc::kernels
