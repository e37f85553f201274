"""x * sigmoid(x) becomes Silu; the spelled-out hard swish becomes HardSwish."""

from __future__ import annotations

import onnx_ir as ir

from lutc.ir.activation import silu_function
from lutc.ir.graph import (
    LUTC_DOMAIN,
    add_function_if_called,
    attribute,
    is_op,
    is_scalar,
    new_node,
    only_reader,
    producer,
    replace,
    scalar,
)
from lutc.passes.base import NodePass


class FuseActivation(NodePass):
    """Needs: folded constants. Guarantees: ai.lutc::Silu for x * Sigmoid(x), HardSwish for x * clip(x + 3, 0, 6) / 6.

    The division may come before or after the product, as Div by 6 or Mul by 1/6; x * HardSigmoid(x; 1/6, 1/2) counts.
    """

    def rewrite(self, model: ir.Model) -> bool:
        """Registers Silu's function once there is one."""
        modified = super().rewrite(model)
        add_function_if_called(model, silu_function())
        return modified

    def rewrite_node(self, graph: ir.Graph, node: ir.Node) -> bool:
        """Handles the product."""
        if not is_op(node, "Mul"):
            return False
        for x, gate in (tuple(node.inputs), tuple(reversed(node.inputs))):
            maker = gate.producer() if gate is not None else None
            if x is None or maker is None:
                continue
            if is_op(maker, "Sigmoid") and maker.inputs[0] is x:
                replace(graph, node, [new_node("Silu", [x], node, domain=LUTC_DOMAIN)])
                return True
            if is_op(maker, "HardSigmoid") and maker.inputs[0] is x:
                slope, offset = attribute(maker, "alpha", 0.2), attribute(maker, "beta", 0.5)
                if abs(slope - 1 / 6) > 1e-4 or abs(offset - 0.5) > 1e-4:
                    return False
                replace(graph, node, [new_node("HardSwish", [x], node)])
                return True
            if (divided := _sixth(maker)) is not None and _is_relu6_of(divided, x):
                replace(graph, node, [new_node("HardSwish", [x], node)])
                return True
            last = only_reader(node.outputs[0]) if _is_relu6_of(gate, x) else None
            if last is not None and _sixth(last) is node.outputs[0]:
                replace(graph, last, [new_node("HardSwish", [x], last)])
                return True
        return False


def _sixth(node: ir.Node) -> ir.Value | None:
    """V of v / 6 or v * (1/6)."""
    if is_op(node, "Div") and is_scalar(node.inputs[1], 6.0):
        return node.inputs[0]
    if is_op(node, "Mul"):
        for value, factor in (tuple(node.inputs), tuple(reversed(node.inputs))):
            if is_scalar(factor, 1 / 6, rtol=1e-3):
                return value
    return None


def _is_relu6_of(value: ir.Value | None, x: ir.Value) -> bool:
    """Whether a value is clip(x + 3, 0, 6)."""
    clip = producer(value, "Clip")
    add = producer(clip.inputs[0], "Add") if clip is not None else None
    if clip is None or add is None or len(clip.inputs) < 3:
        return False
    shifted = any(a is x and is_scalar(b, 3.0) for a, b in (tuple(add.inputs), tuple(reversed(add.inputs))))
    return shifted and scalar(clip.inputs[1]) == 0.0 and is_scalar(clip.inputs[2], 6.0)
