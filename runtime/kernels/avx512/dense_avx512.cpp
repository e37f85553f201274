#include "kernels/avx512/simd.h"
#include "kernels/dense.h"

namespace lutc::kernels {
extern const VectorKernels kVectorAvx512;
namespace {
// The register block: rows x vectors of sums, the rest for one row of B and a broadcast.
#define LUTC_BLOCK_ROWS 14
constexpr int kBlockRows = LUTC_BLOCK_ROWS;
constexpr int kPanelVectors = 2;
// The block of direct convolution: outputs x vectors of positions.
constexpr int kDirectRows = 6;
constexpr int kDirectVectors = 4;
// Outputs that a block of `shallow` holds.
constexpr int kShallowOutputs = 8;
constexpr const VectorKernels& kMaths = kVectorAvx512;
}  // namespace
}  // namespace lutc::kernels

#include "kernels/dense_impl.h"

namespace lutc::kernels {
extern const DenseKernels kDenseAvx512;
const DenseKernels kDenseAvx512 = make_dense_kernels();
}  // namespace lutc::kernels
