#include "kernels/avx512/gelu.h"
#define LUTC_OWN_GELU
#include "kernels/vector_impl.h"

namespace lutc::kernels {
extern const VectorKernels kVectorAvx512;
const VectorKernels kVectorAvx512 = make_vector_kernels();
}  // namespace lutc::kernels
