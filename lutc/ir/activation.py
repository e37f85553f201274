"""`ai.lutc::Silu`: x * sigmoid(x), which ONNX names only from opset 24 on."""

from __future__ import annotations

import onnx_ir as ir

from lutc.ir.graph import LUTC_DOMAIN, OPSET


def silu_function() -> ir.Function:
    """The function body of Silu(x) = x * Sigmoid(x), float32 of any shape."""
    x = ir.Value(name="x")
    gate = ir.node("Sigmoid", [x])
    product = ir.node("Mul", [x, gate.outputs[0]])
    product.outputs[0].name = "y"
    graph = ir.Graph([x], [product.outputs[0]], nodes=[gate, product], opset_imports={"": OPSET}, name="Silu")
    return ir.Function(LUTC_DOMAIN, "Silu", graph=graph, attributes=[])
