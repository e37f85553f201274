"""`ai.lutc::Linear`: the one form every dense linear layer takes after canonicalisation."""

from __future__ import annotations

import onnx_ir as ir

from lutc.ir.graph import LUTC_DOMAIN, OPSET


def linear_function() -> ir.Function:
    """The function body of Linear(x [..., D], weight [D, N], bias [N]) = MatMul(x, weight) + bias."""
    x, weight, bias = (ir.Value(name=name) for name in ("x", "weight", "bias"))
    product = ir.node("MatMul", [x, weight])
    total = ir.node("Add", [product.outputs[0], bias])
    total.outputs[0].name = "y"
    graph = ir.Graph(
        [x, weight, bias], [total.outputs[0]], nodes=[product, total], opset_imports={"": OPSET}, name="Linear"
    )
    return ir.Function(LUTC_DOMAIN, "Linear", graph=graph, attributes=[])
