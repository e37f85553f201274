// A plan-to-plan rewrite at load: convolutions hand the largest magnitude of their output to the convolution behind.
#pragma once

#include "core/plan.h"

namespace lutc {

/// An int8_conv begins with the largest magnitude of each image. Where its input comes from another int8_conv, the one
/// that makes the image finds it on the way, as a second output, and a pass over the image is saved.
void link_maxima(Plan* plan);

}  // namespace lutc
