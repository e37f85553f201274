// A plan-to-plan rewrite at load: lookup layers and attention hand rows to encodes and attention feature by feature.
#pragma once

#include "core/plan.h"
#include "kernels/kernel_table.h"

namespace lutc {

/// Sums of a lut_linear, slots of a lut_encode and integer attention (queries and outputs) all have rows in their
/// lanes. Where nobody but encodes of rows and packed attention reads the output of a layer or of attention, it lies
/// feature by feature (as in an image), and neither side transposes: the attribute `makes_features` is 1 at the step
/// that writes it, `takes_features` at those that read it, and both are 0 at all others, whatever the artifact says. On
/// ISAs where that is faster (measured).
void link_features(Plan* plan, kernels::Isa isa);

}  // namespace lutc
