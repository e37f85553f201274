#include "kernels/scalar/simd.h"
#include "kernels/vector_impl.h"

namespace lutc::kernels {
extern const VectorKernels kVectorScalar;
const VectorKernels kVectorScalar = make_vector_kernels();
}  // namespace lutc::kernels
