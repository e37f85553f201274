#include "kernels/avx2/simd.h"
#include "kernels/dense.h"

namespace lutc::kernels {
extern const VectorKernels kVectorAvx2;
namespace {
// The register block: rows x vectors of sums, the rest for one row of B and a broadcast.
#define LUTC_BLOCK_ROWS 6
constexpr int kBlockRows = LUTC_BLOCK_ROWS;
constexpr int kPanelVectors = 2;
// The block of direct convolution: outputs x vectors of positions.
constexpr int kDirectRows = 6;
constexpr int kDirectVectors = 2;
// Outputs that a block of `shallow` holds.
constexpr int kShallowOutputs = 4;
constexpr const VectorKernels& kMaths = kVectorAvx2;
}  // namespace
}  // namespace lutc::kernels

#include "kernels/dense_impl.h"

namespace lutc::kernels {
extern const DenseKernels kDenseAvx2;
const DenseKernels kDenseAvx2 = make_dense_kernels();
}  // namespace lutc::kernels
