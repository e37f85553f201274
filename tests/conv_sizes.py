"""Convolutions as models have them, for tests of every kernel: stems, blocks, pointwise, depthwise, classifiers."""

from __future__ import annotations

from typing import Any

import pytest

parametrize = pytest.mark.parametrize(
    ("channels", "outputs", "size", "kernel", "group"),
    [
        (16, 16, 32, 3, 1),
        (64, 64, 8, 3, 1),
        (3, 64, 33, 7, 1),
        (64, 130, 15, 1, 1),
        (96, 96, 20, 3, 96),
        (128, 10, 1, 1, 1),
    ],
)
"""Images are size x size, kernels likewise."""


def attributes(kernel: int, stride: int, group: int) -> dict[str, Any]:
    """Of a convolution that pads by half its kernel."""
    return {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [kernel // 2] * 4, "group": group}
