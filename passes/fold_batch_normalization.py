"""Per-channel scales and shifts around a convolution or linear layer disappear into its weights."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from lutc.ir.graph import (
    LUTC_DOMAIN,
    add_constant,
    array,
    attribute,
    is_op,
    new_node,
    only_reader,
    producer,
    rank,
    replace,
    static_dim,
)
from lutc.passes.base import NodePass


class FoldBatchNormalization(NodePass):
    """Needs: Linears (FuseLinear), folded constants. Guarantees: no affine step next to a layer that can absorb it.

    Behind a Conv or Linear: BatchNormalization, and Mul, Add, Sub, Div by a constant per channel. In front: a
    BatchNormalization whose only reader is a Linear, or a Conv without padding (padding happens after the shift, so a
    padded border would be wrong). Layers without a bias get one.
    """

    def rewrite_node(self, graph: ir.Graph, node: ir.Node) -> bool:
        """Offers the node as the affine step, first to the layer behind it, then to the one in front."""
        if is_op(node, "BatchNormalization"):
            if len([v for v in node.outputs if v.uses()]) > 1 or attribute(node, "training_mode", 0):
                return False
            affine = _batch_norm(node)
            if affine is None:
                return False
            return _into_previous(graph, node, node.inputs[0], *affine) or _into_next(graph, node, *affine)
        if is_op(node, "Add", "Mul", "Sub", "Div"):
            return _arithmetic(graph, node)
        return False


def _batch_norm(node: ir.Node) -> tuple[np.ndarray, np.ndarray] | None:
    gamma, beta, mean, var = (array(v) for v in node.inputs[1:5])
    if gamma is None or beta is None or mean is None or var is None or gamma.dtype != np.float32:
        return None
    scale = gamma.astype(np.float64) / np.sqrt(var.astype(np.float64) + attribute(node, "epsilon", 1e-5))
    return scale, beta.astype(np.float64) - mean.astype(np.float64) * scale


def _arithmetic(graph: ir.Graph, node: ir.Node) -> bool:
    for position in (0, 1):
        x, data = node.inputs[position], array(node.inputs[1 - position])
        layer = _layer(x)
        if layer is None or data is None or data.dtype != np.float32:
            continue
        if position == 1 and is_op(node, "Sub", "Div"):
            return False
        channels = _channels(layer)
        row = _per_channel(data, layer, rank(layer.outputs[0]), channels)
        if row is None or channels is None:
            return False
        ones, zeros = np.ones(channels), np.zeros(channels)
        scale, shift = {"Add": (ones, row), "Sub": (ones, -row), "Mul": (row, zeros)}.get(node.op_type, (None, zeros))
        if scale is None:
            if not row.all():
                return False
            scale = 1.0 / row
        return _into_previous(graph, node, x, scale, shift)
    return False


def _layer(x: ir.Value | None) -> ir.Node | None:
    """The Conv or Linear that makes x for this reader alone."""
    if only_reader(x) is None:
        return None
    return producer(x, "Conv") or producer(x, "Linear", domain=LUTC_DOMAIN)


def _parameters(layer: ir.Node) -> tuple[np.ndarray, np.ndarray | float] | None:
    """A layer's constant float32 weight, and its bias (0 where it has none); None when they are computed."""
    weight, bias_value = array(layer.inputs[1]), layer.inputs[2] if len(layer.inputs) > 2 else None
    bias = 0.0 if bias_value is None else array(bias_value)
    return None if weight is None or weight.dtype != np.float32 or bias is None else (weight, bias)


def _channels(layer: ir.Node) -> int | None:
    return static_dim(layer.inputs[1], 0 if is_op(layer, "Conv") else 1)


def _per_channel(data: np.ndarray, layer: ir.Node, width: int | None, channels: int | None) -> np.ndarray | None:
    """A constant as one number per output channel, or None when it varies otherwise or broadcasts the output."""
    if width is None or channels is None or data.ndim > width:
        return None
    shape = (1,) * (width - data.ndim) + data.shape
    axis = 1 if is_op(layer, "Conv") else width - 1
    if any(d != 1 for i, d in enumerate(shape) if i != axis) or shape[axis] not in (1, channels):
        return None
    return np.broadcast_to(data.reshape(-1).astype(np.float64), (channels,))


def _into_previous(
    graph: ir.Graph, node: ir.Node, x: ir.Value | None, scale: np.ndarray, shift: np.ndarray
) -> bool:  # fmt: skip
    layer = _layer(x)
    if layer is None:
        return False
    parameters = _parameters(layer)
    if parameters is None:
        return False
    weight, bias = parameters
    conv = is_op(layer, "Conv")
    if not conv and is_op(node, "BatchNormalization") and rank(x) != 2:
        return False  # channels are axis 1, a Linear's outputs are the last axis
    if weight.shape[0 if conv else 1] != scale.size:
        return False
    columns = scale.reshape(-1, *(1,) * (weight.ndim - 1)) if conv else scale
    new_weight = (weight * columns).astype(np.float32)
    new_bias = (bias * scale + shift).astype(np.float32)
    _rebuild(graph, layer, node, layer.inputs[0], new_weight, new_bias)
    return True


def _into_next(graph: ir.Graph, node: ir.Node, scale: np.ndarray, shift: np.ndarray) -> bool:
    layer = only_reader(node.outputs[0])
    conv = is_op(layer, "Conv")
    if not conv and not is_op(layer, "Linear", domain=LUTC_DOMAIN):
        return False
    if layer is None or layer.inputs[0] is not node.outputs[0]:
        return False
    parameters = _parameters(layer)
    if parameters is None:
        return False
    weight, bias = parameters
    if conv:
        padded = any(attribute(layer, "pads", ())) or attribute(layer, "auto_pad", "NOTSET").startswith("SAME")
        if padded and shift.any():
            return False
        groups = attribute(layer, "group", 1)
        per_group = weight.shape[1]
        if per_group * groups != scale.size:
            return False
        # weight row n reads the channels of its group
        group_of = np.repeat(np.arange(groups), weight.shape[0] // groups)
        tail = (1,) * (weight.ndim - 2)
        gain = scale.reshape(groups, per_group)[group_of].reshape(weight.shape[0], per_group, *tail)
        offset = shift.reshape(groups, per_group)[group_of].reshape(weight.shape[0], per_group, *tail)
        added = (weight * offset).reshape(weight.shape[0], -1).sum(axis=1)
        new_weight = weight * gain
    else:
        if rank(node.outputs[0]) != 2 or weight.shape[0] != scale.size:
            return False
        added, new_weight = shift @ weight, weight * scale[:, None]
    new_bias = bias + added
    _rebuild(graph, layer, layer, node.inputs[0], new_weight.astype(np.float32), new_bias.astype(np.float32))
    return True


def _rebuild(
    graph: ir.Graph, layer: ir.Node, last: ir.Node, x: ir.Value | None, weight: np.ndarray, bias: np.ndarray
) -> None:  # fmt: skip
    """Puts a copy of `layer` with new parameters in place of `last`."""
    old_bias = layer.inputs[2].name if len(layer.inputs) > 2 and layer.inputs[2] is not None else None
    name = layer.inputs[1].name if layer.inputs[1] is not None else None
    parameters = [
        add_constant(graph, f"{name or layer.name}_folded", weight),
        add_constant(graph, f"{old_bias or (layer.name or 'layer') + '.bias'}_folded", bias),
    ]
    copy = new_node(
        layer.op_type, [x, *parameters], layer, domain=layer.domain,
        attributes={key: value.value for key, value in layer.attributes.items()},
    )  # fmt: skip
    replace(graph, last, [copy])
