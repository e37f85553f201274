"""Running a fitted convolution in numpy and ONNX Runtime, fast: codes once per pixel, then one dense convolution."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, helper, numpy_helper

from lutc._ort import ort_session
from lutc.fit.conv import Geometry
from lutc.fit.encode import encode_rows
from lutc.fit.native import native_lookup
from lutc.ir.parameters import ConvParameters

Floats = npt.NDArray[np.float32]

Layer = Callable[[Floats], Floats]

_PLANE_BYTES = 64 << 20
"""Bytes of gain-weighted one-hot planes convolved at once."""


def _conv_session(kernel: Floats, bias: Floats | None, geometry: Geometry | ConvParameters, threads: int) -> Any:
    names = ["x", "w"] if bias is None else ["x", "w", "b"]
    node = helper.make_node(
        "Conv",
        names,
        ["y"],
        kernel_shape=geometry.kernel_shape,
        strides=geometry.strides,
        pads=geometry.pads,
        dilations=geometry.dilations,
        group=geometry.group,
    )
    constants = [numpy_helper.from_array(kernel, "w")]
    if bias is not None:
        constants.append(numpy_helper.from_array(bias, "b"))
    graph = helper.make_graph(
        [node],
        "convolution",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None] * 4)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * 4)],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=10)
    return ort_session(model.SerializeToString(), threads=threads)


def dense_convolution(weight: Floats, bias: Floats | None, geometry: Geometry, threads: int = 1) -> Layer:
    """The original convolution as a function of x, float32 [B, Cin, H, W]."""
    session = _conv_session(weight, bias, geometry, threads)
    return lambda x: session.run(None, {"x": np.ascontiguousarray(x)})[0]


class Convolution:
    """LutConv of one layer. Sums below 2^24 are exact, larger ones rounded to float32.

    Args:
        p: The layer's constants.
        threads: Of the convolution.
    """

    def __init__(self, p: ConvParameters, threads: int = 1) -> None:
        self._p = p
        outputs, per_group, entries = p.table.shape[:3]
        kernel = p.table.reshape(outputs, per_group * entries, *p.kernel_shape).astype(np.float32)
        self._session = _conv_session(kernel, None, p, threads)

    def __call__(self, x: Floats) -> Floats:
        """Float32 [B, N, H', W'] of finite float32 [B, Cin, H, W]."""
        native = native_lookup(x, self._p)
        return self.portable(x) if native is None else native

    def portable(self, x: Floats) -> Floats:
        """The same without the runtime's kernels."""
        p = self._p
        batch, channels, height, width = x.shape
        codebooks, entries = p.codebooks, p.entries
        step = max(1, _PLANE_BYTES // max(codebooks * entries * height * width * 4, 1))
        parts = []
        for start in range(0, max(batch, 1), step):
            part = x[start : start + step]
            rows = np.ascontiguousarray(part.transpose(0, 2, 3, 1)).reshape(-1, channels)
            codes, gains = encode_rows(rows, p)
            planes = np.zeros((len(part), codebooks * entries, height * width), np.float32)
            image = (len(part), height * width)
            place = codes.astype(np.int64) + np.arange(codebooks)[:, None] * entries
            index = place.reshape(codebooks, *image).transpose(1, 0, 2)
            np.put_along_axis(planes, index, gains.reshape(codebooks, *image).transpose(1, 0, 2), axis=1)
            planes = planes.reshape(len(part), codebooks * entries, height, width)
            parts.append(self._session.run(None, {"x": planes})[0])
        y = np.concatenate(parts)
        return y * p.scale[:, None, None] + p.bias[:, None, None]
