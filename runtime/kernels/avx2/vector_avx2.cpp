#include "kernels/avx2/simd.h"
#include "kernels/vector_impl.h"

namespace lutc::kernels {
extern const VectorKernels kVectorAvx2;
const VectorKernels kVectorAvx2 = make_vector_kernels();
}  // namespace lutc::kernels
