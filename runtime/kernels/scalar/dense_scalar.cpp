#include "kernels/dense.h"
#include "kernels/scalar/simd.h"

namespace lutc::kernels {
extern const VectorKernels kVectorScalar;
namespace {
// The register block: rows x vectors of sums, the rest for one row of B and a broadcast.
#define LUTC_BLOCK_ROWS 4
constexpr int kBlockRows = LUTC_BLOCK_ROWS;
constexpr int kPanelVectors = 2;
// The block of direct convolution: outputs x vectors of positions.
constexpr int kDirectRows = 4;
constexpr int kDirectVectors = 2;
// Outputs that a block of `shallow` holds.
constexpr int kShallowOutputs = 4;
constexpr const VectorKernels& kMaths = kVectorScalar;
}  // namespace
}  // namespace lutc::kernels

#include "kernels/dense_impl.h"

namespace lutc::kernels {
extern const DenseKernels kDenseScalar;
const DenseKernels kDenseScalar = make_dense_kernels();
}  // namespace lutc::kernels
