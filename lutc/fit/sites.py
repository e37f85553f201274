"""The layers of a model that is being compressed: what they compute, and which of their rows count."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx

from lutc.fit.conv import Geometry
from lutc.fit.convolve import Layer, dense_convolution
from lutc.fit.executor import CutModel, Tensors

Floats = npt.NDArray[np.float32]


def dense_layer(site: onnx.NodeProto, cut: CutModel, threads: int = 1) -> Layer:
    """What the original layer computes, as a function of its input."""
    weight = cut.constant(site.input[1])
    bias = cut.constant(site.input[2]) if len(site.input) > 2 and site.input[2] else None
    if site.op_type == "Conv":
        return dense_convolution(weight, bias, site_geometry(site, weight), threads)

    def linear(x: Floats) -> Floats:
        y = x.reshape(-1, len(weight)) @ weight  # one product, not one per sample
        if bias is not None:
            y += bias
        return y.reshape(*x.shape[:-1], -1)

    return linear


def site_geometry(site: onnx.NodeProto, weight: Floats) -> Geometry:
    """Attributes of a convolution with this weight."""
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in site.attribute}
    return Geometry(
        kernel_shape=tuple(weight.shape[2:]),
        strides=tuple(attributes.get("strides", (1, 1))),
        pads=tuple(attributes.get("pads", (0, 0, 0, 0))),
        dilations=tuple(attributes.get("dilations", (1, 1))),
        group=int(attributes.get("group", 1)),
    )


def token_mask(batch: Tensors) -> npt.NDArray | None:
    """The attention mask among the inputs: integers or booleans of rank 2 called like a mask."""
    for name, array in batch.items():
        if "mask" in name.lower() and array.dtype.kind in "biu" and array.ndim == 2 and array.any():
            return array != 0
    return None


def activation_bytes(cut: CutModel, batch: Tensors) -> int:
    """Most bytes that one batch keeps alive at once on its way through the cut model."""
    tensors = dict(batch)
    peak = 0
    for index in range(len(cut)):
        cut.run_clean(index, tensors)
        size = sum(array.nbytes for array in tensors.values())
        if index < len(cut.sites):
            site = cut.sites[index]
            y = dense_layer(site, cut)(tensors[site.input[0]])
            size += y.nbytes
            tensors[site.output[0]] = y
        peak = max(peak, size)
    return peak
