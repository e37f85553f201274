// Marks steps at load: convolutions in int8 whose image cannot hold a negative number.
#pragma once

#include "core/plan.h"

namespace lutc {

/// Sets the attribute "nonnegative" of every int8_conv: 1 where the image comes from a ReLU, or from what keeps its
/// sign (pooling, slices, sums with such residuals). Some kernels are twice as fast then.
void link_signs(Plan* plan);

}  // namespace lutc
