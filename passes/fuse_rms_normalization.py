"""Decomposed RMSNormalization (Llama, T5) becomes one node."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from lutc.ir.graph import (
    add_constant,
    array,
    ints,
    is_op,
    is_scalar,
    new_node,
    only_reader,
    other_input,
    producer,
    replace,
    scalar,
)
from lutc.ir.symbolic import SymbolicShapes, number
from lutc.passes.base import NodePass


class FuseRmsNormalization(NodePass):
    """Needs: folded constants. Guarantees: RMSNormalization for x / sqrt(mean(x^2, last axis) + eps), times a row.

    The square as Pow or Mul; Div by the Sqrt, or Mul by its Reciprocal or 1 / Sqrt.
    """

    def start(self, model: ir.Model) -> None:
        """Analyses shapes."""
        self._shapes = SymbolicShapes(model.graph)

    def rewrite_node(self, graph: ir.Graph, node: ir.Node) -> bool:
        """Starts at the Sqrt."""
        add = producer(node.inputs[0], "Add") if is_op(node, "Sqrt") else None
        if add is None:
            return False
        epsilon = scalar(add.inputs[1])
        mean = producer(add.inputs[0], "ReduceMean")
        square = producer(mean.inputs[0], "Mul", "Pow") if mean is not None else None
        if epsilon is None or mean is None or square is None:
            return False
        x = square.inputs[0]
        squared = square.inputs[1] is x if is_op(square, "Mul") else is_scalar(square.inputs[1], 2.0)
        dims, axes = self._shapes.dims(x), ints(mean.inputs[1]) if len(mean.inputs) > 1 else None
        if not squared or x is None or dims is None or axes is None:
            return False
        width = number(dims[-1])
        if width is None or [axis % len(dims) for axis in axes] != [len(dims) - 1]:
            return False
        last = _normalised(node, x)
        if last is None:
            return False
        gamma = np.ones(width, np.float32)
        product = only_reader(last.outputs[0])
        if is_op(product, "Mul"):
            row = array(other_input(product, last.outputs[0]))
            if row is not None and row.size == width == row.shape[-1]:
                gamma, last = row.reshape(width), product
        scale = add_constant(graph, f"{last.name or 'rms_norm'}.scale", gamma)
        fused = new_node("RMSNormalization", [x, scale], last, attributes={"axis": -1, "epsilon": epsilon})
        replace(graph, last, [fused])
        return True


def _normalised(sqrt: ir.Node, x: ir.Value) -> ir.Node | None:
    """The node that divides x by the root."""
    node = only_reader(sqrt.outputs[0])
    if is_op(node, "Div") and node.inputs[0] is x and node.inputs[1] is sqrt.outputs[0]:
        return node
    one_over = is_op(node, "Div") and is_scalar(node.inputs[0], 1.0)
    if node is None or not (is_op(node, "Reciprocal") or one_over):
        return None
    product = only_reader(node.outputs[0])
    return product if is_op(product, "Mul") and other_input(product, node.outputs[0]) is x else None
