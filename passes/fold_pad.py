"""Zero padding in front of a convolution becomes the convolution's own."""

from __future__ import annotations

import onnx_ir as ir

from lutc.ir.graph import attribute, ints, is_op, is_scalar, new_node, producer, replace, static_dim
from lutc.passes.base import NodePass


class FoldPad(NodePass):
    """Needs: folded constants. Guarantees: every Conv and pool has explicit pads; no zero Pad in front of a Conv.

    Only constant-mode zero padding of the spatial axes, not negative, is taken in. auto_pad becomes explicit where the
    spatial size is known.
    """

    def rewrite_node(self, graph: ir.Graph, node: ir.Node) -> bool:
        """Handles auto_pad first, then a Pad in front."""
        if not is_op(node, "Conv", "MaxPool", "AveragePool"):
            return False
        changed = _explicit(node)
        return (is_op(node, "Conv") and _fold(graph, node)) or changed


def _explicit(node: ir.Node) -> bool:
    kind = attribute(node, "auto_pad", "NOTSET")
    if kind == "NOTSET":
        return False
    kernel = attribute(node, "kernel_shape") or _kernel(node)
    if kernel is None:
        return False
    count = len(kernel)
    strides, dilations = attribute(node, "strides") or [1] * count, attribute(node, "dilations") or [1] * count
    begin, end = [0] * count, [0] * count
    if kind != "VALID":
        for axis in range(count):
            size = static_dim(node.inputs[0], axis + 2)
            if size is None:
                return False
            out = -(-size // strides[axis])
            total = max((out - 1) * strides[axis] + dilations[axis] * (kernel[axis] - 1) + 1 - size, 0)
            small, large = total // 2, total - total // 2
            begin[axis], end[axis] = (small, large) if kind == "SAME_UPPER" else (large, small)
    del node.attributes["auto_pad"]
    node.attributes["pads"] = ir.AttrInt64s("pads", [*begin, *end])
    return True


def _kernel(node: ir.Node) -> list[int] | None:
    weight = node.inputs[1] if len(node.inputs) > 1 else None
    return list(weight.const_value.shape.numpy()[2:]) if weight is not None and weight.const_value is not None else None


def _fold(graph: ir.Graph, node: ir.Node) -> bool:
    pad = producer(node.inputs[0], "Pad")
    kernel = _kernel(node)
    if pad is None or kernel is None or attribute(pad, "mode", "constant") != "constant":
        return False
    if attribute(node, "auto_pad", "NOTSET") != "NOTSET":
        return False
    amounts = ints(pad.inputs[1])
    value = pad.inputs[2] if len(pad.inputs) > 2 else None
    axes = ints(pad.inputs[3]) if len(pad.inputs) > 3 and pad.inputs[3] is not None else None
    if amounts is None or (value is not None and not is_scalar(value, 0.0)):
        return False
    width = len(kernel) + 2
    used = [axis % width for axis in axes] if axes is not None else list(range(len(amounts) // 2))
    begin, end = [0] * width, [0] * width
    for position, axis in enumerate(used):
        begin[axis], end[axis] = amounts[position], amounts[len(used) + position]
    if any(begin[:2]) or any(end[:2]) or min(begin + end) < 0:
        return False
    old = attribute(node, "pads") or [0] * (2 * len(kernel))
    pads = [a + b for a, b in zip(old, begin[2:] + end[2:], strict=True)]
    attributes = {key: each.value for key, each in node.attributes.items()} | {"pads": pads}
    copy = new_node("Conv", [pad.inputs[0], *node.inputs[1:]], node, attributes=attributes)
    replace(graph, node, [copy])
    return True
