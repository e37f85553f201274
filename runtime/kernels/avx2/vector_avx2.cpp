#include "kernels/avx2/gelu.h"
#define LUTC_OWN_GELU
#include "kernels/vector_impl.h"

namespace lutc::kernels {
extern const VectorKernels kVectorAvx2;
const VectorKernels kVectorAvx2 = make_vector_kernels();
}  // namespace lutc::kernels
