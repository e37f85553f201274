"""Chosen dense layers become integer layers: Int8Linear, Int8Conv, and Attention with integer products."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx_ir as ir

from lutc.errors import UnsupportedModelError
from lutc.ir.graph import LUTC_DOMAIN, add_constant, add_function_if_called, array, attribute, is_op, new_node, replace
from lutc.ir.int8 import int8_functions, quantise_weight
from lutc.passes.base import NodePass


class QuantiseDense(NodePass):
    """Needs: a canonical model. Guarantees: the chosen nodes are integer, and the functions they call are there.

    Args:
        outputs: Names of the first outputs of the Linear, Conv (2-D, explicit pads, constant weight) and Attention
            nodes to change.

    Raises:
        UnsupportedModelError: A weight is no constant or not finite.
    """

    def __init__(self, outputs: Collection[str]) -> None:
        super().__init__()
        self._outputs = frozenset(outputs)

    def rewrite(self, model: ir.Model) -> bool:
        """Registers the functions once the nodes are there."""
        modified = super().rewrite(model)
        for function in int8_functions():
            add_function_if_called(model, function)
        return modified

    def rewrite_node(self, graph: ir.Graph, node: ir.Node) -> bool:
        """Handles one of the chosen nodes."""
        if node.outputs[0].name not in self._outputs:
            return False
        if is_op(node, "Attention", domain=LUTC_DOMAIN):
            node.attributes["quantised"] = ir.AttrInt64("quantised", 1)
            return True
        if is_op(node, "Linear", domain=LUTC_DOMAIN):
            _quantise(graph, node, "Int8Linear", 1, {})
            return True
        if is_op(node, "Conv"):
            _quantise(graph, node, "Int8Conv", 0, _geometry(node))
            return True
        return False


def _geometry(node: ir.Node) -> dict[str, object]:
    weight = array(node.inputs[1])
    kernel = [] if weight is None else list(weight.shape[2:])
    defaults = {"kernel_shape": kernel, "strides": [1, 1], "pads": [0] * 4, "dilations": [1, 1], "group": 1}
    return {name: attribute(node, name, default) for name, default in defaults.items()}


def _quantise(graph: ir.Graph, node: ir.Node, op: str, axis: int, attributes: dict[str, object]) -> None:
    """Replaces a Linear or Conv by its int8 form."""
    name = node.name or str(node.outputs[0].name)
    weight = array(node.inputs[1])
    if weight is None:
        raise UnsupportedModelError(f"node '{name}' ({node.op_type}): an int8 layer needs a constant weight")
    try:
        integers, scale = quantise_weight(weight.astype(np.float32), axis)
    except ValueError as error:
        raise UnsupportedModelError(
            f"node '{name}' ({node.op_type}): {error}; keep the layer with --keep '{name}=fp32'"
        ) from error
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    inputs = [
        node.inputs[0],
        add_constant(graph, f"{name}.weight_int8", integers),
        add_constant(graph, f"{name}.scale", scale),
        bias if bias is not None else add_constant(graph, f"{name}.bias", np.zeros(len(scale), np.float32)),
    ]
    replace(graph, node, [new_node(op, inputs, node, attributes=attributes, domain=LUTC_DOMAIN)])
