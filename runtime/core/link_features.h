// A plan-to-plan rewrite at load: a lookup layer hands its output to the next encode feature by feature.
#pragma once

#include "core/plan.h"
#include "kernels/kernel_table.h"

namespace lutc {

/// Sums of a lut_linear and slots of a lut_encode both have rows in their lanes. Where nobody but encodes of rows reads
/// the layer's output, it lies feature by feature (as in an image), and neither side transposes: the attribute
/// `by_features` is 1 at both, and 0 at all others, whatever the artifact says. On ISAs where that is faster
/// (measured).
void link_features(Plan* plan, kernels::Isa isa);

}  // namespace lutc
