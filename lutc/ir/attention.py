"""`ai.lutc::Attention`: scaled dot-product attention that reads and writes [batch, length, heads * size]."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from lutc.ir.graph import LUTC_DOMAIN, OPSET


def attention_function() -> ir.Function:
    """The function body of Attention (docs/operators.md), generic in every shape.

    Query heads are grouped over their key/value head, [B, Hk, H/Hk, L, d], so that the shared heads broadcast.
    """
    q, k, v, mask = (ir.Value(name=name) for name in ("q", "k", "v", "mask"))
    nodes: list[ir.Node] = []

    def emit(op: str, *inputs: ir.Value, **attributes: object) -> ir.Value:
        node = ir.node(op, list(inputs), attributes)  # type: ignore[arg-type]
        nodes.append(node)
        return node.outputs[0]

    def constant(*numbers: int) -> ir.Value:
        return emit("Constant", value=ir.tensor(np.asarray(numbers, np.int64)))

    def parameter(name: str, kind: ir.AttributeType, field: str) -> ir.Value:
        node = ir.node("Constant", [])
        node.attributes[field] = ir.RefAttr(field, name, kind)
        nodes.append(node)
        return node.outputs[0]

    one = constant(1)
    heads = emit("Reshape", parameter("num_heads", ir.AttributeType.INT, "value_int"), one)
    kv_heads = emit("Reshape", parameter("kv_num_heads", ir.AttributeType.INT, "value_int"), one)
    scale = parameter("scale", ir.AttributeType.FLOAT, "value_float")
    groups = emit("Div", heads, kv_heads)
    batch, length = emit("Shape", q, start=0, end=1), emit("Shape", q, start=1, end=2)
    keys = emit("Shape", k, start=1, end=2)

    def split(x: ir.Value, rows: ir.Value, count: ir.Value, *parts: ir.Value) -> ir.Value:
        """[B, rows, count * d] as [B, rows, *parts, d]; d is computed, so that empty batches work."""
        size = emit("Div", emit("Shape", x, start=2, end=3), count)
        shape = emit("Concat", emit("Shape", x, start=0, end=1), rows, *parts, size, axis=0)
        return emit("Reshape", x, shape, allowzero=1)

    query = emit("Transpose", split(q, length, heads, kv_heads, groups), perm=[0, 2, 3, 1, 4])
    key = emit("Transpose", split(k, keys, kv_heads, kv_heads, one), perm=[0, 2, 3, 4, 1])
    value = emit("Transpose", split(v, keys, kv_heads, kv_heads, one), perm=[0, 2, 3, 1, 4])
    grouped = emit("Mul", emit("MatMul", query, key), scale)
    scores = emit(
        "Add", emit("Reshape", grouped, emit("Concat", batch, heads, length, keys, axis=0), allowzero=1), mask
    )
    weights = emit("Softmax", scores, axis=-1)
    regrouped = emit("Reshape", weights, emit("Concat", batch, kv_heads, groups, length, keys, axis=0), allowzero=1)
    mixed = emit("Transpose", emit("MatMul", regrouped, value), perm=[0, 3, 1, 2, 4])
    width = emit("Mul", emit("Shape", mixed, start=4, end=5), heads)
    y = emit("Reshape", mixed, emit("Concat", batch, length, width, axis=0), allowzero=1)
    y.name = "y"
    graph = ir.Graph([q, k, v, mask], [y], nodes=nodes, opset_imports={"": OPSET}, name="Attention")
    parameters = [
        ir.Attr("num_heads", ir.AttributeType.INT, None),
        ir.Attr("kv_num_heads", ir.AttributeType.INT, None),
        ir.Attr("scale", ir.AttributeType.FLOAT, None),
    ]
    return ir.Function(LUTC_DOMAIN, "Attention", graph=graph, attributes=parameters)
