// Gain-shape encode of two features by angle: a binary search over the edges of a polygon instead of a score for every
// direction.
//
// The directions of a codebook and their negatives are the corners of a convex polygon that is its own mirror image.
// The code of q is the corner farthest along q, and while one walks round half of the polygon, the sign of q times the
// edge changes once: there. Four steps find the place among sixteen edges, after a first one has turned q or -q to the
// walk's start.
#pragma once

#include <cstdint>

namespace lutc::kernels {

/// Tables of one codebook, sixteen 32-bit lanes each, in the order of vpermd. An edge is a pair of int16, 128 times the
/// difference of its corners plus 1 in a component across the edge: it turns q times edge = 0, where both corners tie,
/// to the side of the lower code, and changes no other sign since |q| <= 127.
struct AngleTable {
  int32_t edges[16];       ///< [0]: turns q; [1], [2 .. 3], [4 .. 7], [8 .. 15]: the steps, a heap
  int32_t directions[16];  ///< by leaf: the winner, a pair of int16
  int32_t keys[16];        ///< by leaf: 15 - code
};

/// Makes the table of directions int8 [entries][2], `stride` bytes apart. False where all directions are on a line: no
/// polygon.
[[nodiscard]] bool make_angle_table(const int8_t* directions, int64_t stride, int64_t entries, AngleTable* table);

}  // namespace lutc::kernels
