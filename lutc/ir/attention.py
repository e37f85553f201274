"""`ai.lutc::Attention`: scaled dot-product attention that reads and writes [batch, length, heads * size]."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from lutc.ir.graph import LUTC_DOMAIN, OPSET

STEPS = 127
"""Largest magnitude of the integers that stand for q, k and v where the products are integer."""

HALVING = 22
"""How many steps below the largest score of a row halve a weight there."""

DISTANCE = np.float32(HALVING / math.log(2))
"""Steps of one unit of the score."""

FARTHEST = 255
"""The last step: it weighs nothing."""

WEIGHT = np.float32(254.7)
"""What the largest score of a row weighs, before rounding."""

ROUNDING = np.array([0.625, 0.125, 0.875, 0.375], np.float32)
"""What is added to the weights of key 4 i + j before they are rounded down: element i modulo 4."""


def attention_function() -> ir.Function:
    """The function body of Attention (docs/operators.md), generic in every shape.

    Query heads are grouped over their key/value head, [B, Hk, H/Hk, L, d], so that the shared heads broadcast.
    """
    q, k, v, mask = (ir.Value(name=name) for name in ("q", "k", "v", "mask"))
    nodes: list[ir.Node] = []
    numbers = itertools.count()

    def add(node: ir.Node) -> ir.Value:
        node.outputs[0].name = f"{node.op_type.lower()}_{next(numbers)}"  # unique across the subgraphs, too
        nodes.append(node)
        return node.outputs[0]

    def emit(op: str, *inputs: ir.Value, **attributes: object) -> ir.Value:
        return add(ir.node(op, list(inputs), attributes))  # type: ignore[arg-type]

    def constant(*numbers: int) -> ir.Value:
        return emit("Constant", value=ir.tensor(np.asarray(numbers, np.int64)))

    def parameter(name: str, kind: ir.AttributeType, field: str) -> ir.Value:
        node = ir.node("Constant", [])
        node.attributes[field] = ir.RefAttr(field, name, kind)
        return add(node)

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
    by_head = emit("Concat", batch, heads, length, keys, axis=0)
    by_group = emit("Concat", batch, kv_heads, groups, length, keys, axis=0)

    def masked(products: ir.Value) -> ir.Value:
        """Scores [B, H, L, S] of products [B, Hk, H/Hk, L, S]."""
        return emit("Add", emit("Reshape", emit("Mul", products, scale), by_head, allowzero=1), mask)

    def branch(build: Callable[[], ir.Value], name: str) -> ir.Graph:
        """A subgraph of `If` with the nodes that `build` emits."""
        nonlocal nodes
        outer, nodes = nodes, []
        result = build()
        graph = ir.Graph([], [result], nodes=nodes, opset_imports={"": OPSET}, name=name)
        nodes = outer
        return graph

    def exact() -> ir.Value:
        weights = emit("Softmax", masked(emit("MatMul", query, key)), axis=-1)
        return emit("MatMul", emit("Reshape", weights, by_group, allowzero=1), value)

    def quantised() -> ir.Value:
        def number(x: float | np.floating) -> ir.Value:
            return emit("Constant", value=ir.tensor(np.float32(x)))

        def wide(x: ir.Value) -> ir.Value:
            return emit("Cast", x, to=ir.DataType.DOUBLE)

        # Axes count from the front: ONNX Runtime's reductions of empty tensors take no negative ones.
        def integers(x: ir.Value, axis: int) -> tuple[ir.Value, ir.Value]:
            """X as multiples (float64) of a step (float32) along an axis."""
            largest = emit("ReduceMax", emit("Abs", x), constant(axis), keepdims=1)
            inverse = emit("Where", emit("Equal", largest, number(0)), number(0), emit("Div", number(STEPS), largest))
            rounded = emit("Round", emit("Clip", emit("Mul", x, inverse), number(-STEPS), number(STEPS)))
            return wide(rounded), emit("Div", largest, number(STEPS))

        def weights(distance: ir.Value) -> ir.Value:
            """Distances below the largest score as weights (float64): rounded down after what their keys add."""
            decay = emit("Constant", value=ir.tensor(np.float64(-math.log(2) / HALVING)))
            exact = emit("Mul", emit("Exp", emit("Mul", wide(distance), decay)), wide(number(WEIGHT)))
            position = emit("Range", *(emit("Squeeze", x) for x in (constant(0), keys, one)))
            quad = emit("Mod", emit("Div", position, constant(4)), constant(4))
            added = emit("Gather", emit("Constant", value=ir.tensor(ROUNDING)), quad)
            return emit("Floor", emit("Add", exact, wide(added)))

        (query_q, query_step), (key_q, key_step) = integers(query, 4), integers(key, 3)
        value_q, value_step = integers(value, 3)
        products = emit("Cast", emit("MatMul", query_q, key_q), to=ir.DataType.FLOAT)
        scores = masked(emit("Mul", products, emit("Mul", query_step, key_step)))
        below = emit("Sub", emit("ReduceMax", scores, constant(3), keepdims=1), scores)
        distance = emit("Min", emit("Round", emit("Mul", below, number(DISTANCE))), number(FARTHEST))
        p = weights(distance)
        total = emit("Cast", emit("ReduceSum", p, constant(3), keepdims=1), to=ir.DataType.FLOAT)
        by_value = emit("Reshape", p, by_group, allowzero=1)
        mixed = emit("Cast", emit("MatMul", by_value, value_q), to=ir.DataType.FLOAT)
        totals = emit("Concat", batch, kv_heads, groups, length, one, axis=0)
        return emit("Div", emit("Mul", mixed, value_step), emit("Reshape", total, totals, allowzero=1))

    wanted = emit("Cast", parameter("quantised", ir.AttributeType.INT, "value_int"), to=ir.DataType.BOOL)
    chosen = emit("If", wanted, then_branch=branch(quantised, "quantised"), else_branch=branch(exact, "exact"))
    mixed = emit("Transpose", chosen, perm=[0, 3, 1, 2, 4])
    width = emit("Mul", emit("Shape", mixed, start=4, end=5), heads)
    y = emit("Reshape", mixed, emit("Concat", batch, length, width, axis=0), allowzero=1)
    y.name = "y"
    graph = ir.Graph([q, k, v, mask], [y], nodes=nodes, opset_imports={"": OPSET}, name="Attention")
    parameters = [
        ir.Attr("num_heads", ir.AttributeType.INT, None),
        ir.Attr("kv_num_heads", ir.AttributeType.INT, None),
        ir.Attr("scale", ir.AttributeType.FLOAT, None),
        ir.AttrInt64("quantised", 0),
    ]
    return ir.Function(LUTC_DOMAIN, "Attention", graph=graph, attributes=parameters)
