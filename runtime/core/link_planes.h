// A plan-to-plan rewrite at load: an encode writes the planes that its convolutions read.
#pragma once

#include "core/plan.h"
#include "kernels/kernel_table.h"

namespace lutc {

/// A lut_conv spreads panels of codes into planes (core/ops/code_planes.h). Where nobody but convolutions of one window
/// reads the codes, and that window leaves the image as wide as it is, the encode writes the planes at once: the
/// attribute `planes` is 1 at the encode, which gets the window's attributes, and at the convolutions; it is 0 at all
/// others, whatever the artifact says. On ISAs whose kernels have dense planes.
void link_planes(Plan* plan, kernels::Isa isa);

}  // namespace lutc
