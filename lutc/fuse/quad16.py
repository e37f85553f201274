"""The layout of int8 weights that every ISA reads in place (docs/format.md, "The layout of int8 weights")."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def quad16(weight: npt.NDArray[np.int8]) -> npt.NDArray[np.uint8]:
    """Lays an int8 matrix [D, N] out as uint8 [ceil(N/16)][ceil(D/4)][16][4]: entries + 128, and 128 for none."""
    features, outputs = weight.shape
    padded = np.full((-(-features // 4) * 4, -(-outputs // 16) * 16), 128, np.uint8)
    padded[:features, :outputs] = (weight.astype(np.int16) + 128).astype(np.uint8)
    quads = padded.reshape(-1, 4, padded.shape[1] // 16, 16)  # group, place within it, panel, column
    return np.ascontiguousarray(quads.transpose(2, 0, 3, 1))
