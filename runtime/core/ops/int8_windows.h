// Which steps of an int8 convolution are added up in 16 bits, where pixels are 0 .. 127.
#pragma once

#include <cstdint>
#include <vector>

namespace lutc::ops {

/// Parts the steps of a block of columns into windows: whatever the pixels, no sum over a window of the products of a
/// pair of channels leaves int16. Returns, window after window, the number of its steps and which ones they are.
/// weights: [step][column][4].
std::vector<int32_t> int8_windows(const int8_t* weights, int64_t steps, int64_t columns);

}  // namespace lutc::ops
