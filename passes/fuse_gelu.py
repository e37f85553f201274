"""Decomposed GELU, exact (erf) and tanh-approximated, becomes Gelu."""

from __future__ import annotations

import math

import onnx_ir as ir

from lutc.ir.graph import is_op, is_scalar, new_node, only_reader, other_input, producer, replace, scalar
from lutc.passes.base import NodePass


class FuseGelu(NodePass):
    """Needs: folded constants. Guarantees: Gelu for 0.5 * x * (1 + erf(x / sqrt 2)) and its tanh form.

    The three factors may be multiplied in any order; the argument of tanh may be written as any polynomial.
    """

    def rewrite_node(self, graph: ir.Graph, node: ir.Node) -> bool:
        """Starts at the Erf or Tanh."""
        if not is_op(node, "Erf", "Tanh"):
            return False
        add = only_reader(node.outputs[0])
        if not is_op(add, "Add") or not is_scalar(other_input(add, node.outputs[0]), 1.0):
            return False
        found = _product(add.outputs[0])
        if found is None:
            return False
        x, end = found
        powers = polynomial(node.inputs[0], x)
        exact = {1: math.sqrt(0.5)}
        tanh = {1: math.sqrt(2 / math.pi), 3: math.sqrt(2 / math.pi) * 0.044715}
        expected = exact if is_op(node, "Erf") else tanh
        if powers is None or set(powers) != set(expected):
            return False
        if any(abs(powers[k] - expected[k]) > 1e-3 * expected[k] for k in expected):
            return False
        kind = "none" if is_op(node, "Erf") else "tanh"
        replace(graph, end, [new_node("Gelu", [x], end, attributes={"approximate": kind})])
        return True


def _product(gate: ir.Value) -> tuple[ir.Value, ir.Node] | None:
    """X and the last node of 0.5 * x * gate, in any order."""
    first = only_reader(gate)
    if not is_op(first, "Mul"):
        return None
    other = other_input(first, gate)
    half = producer(other, "Mul")
    if half is not None:
        for x, factor in (tuple(half.inputs), tuple(reversed(half.inputs))):
            if is_scalar(factor, 0.5) and x is not None:
                return x, first
    second = only_reader(first.outputs[0])
    if other is None or not is_op(second, "Mul", "Div"):
        return None
    last = other_input(second, first.outputs[0])
    if is_op(second, "Div"):
        return (other, second) if second.inputs[0] is first.outputs[0] and is_scalar(last, 2.0) else None
    if is_scalar(other, 0.5) and last is not None and scalar(last) is None:
        return last, second
    if is_scalar(last, 0.5) and scalar(other) is None:
        return other, second
    return None


def polynomial(value: ir.Value | None, x: ir.Value, depth: int = 8) -> dict[int, float] | None:
    """The coefficients by power of a value that is a polynomial in x with constant coefficients, else None."""
    if value is x:
        return {1: 1.0}
    constant = scalar(value)
    if constant is not None:
        return {0: constant}
    node = value.producer() if value is not None else None
    if node is None or depth == 0 or not is_op(node, "Add", "Mul", "Div", "Pow"):
        return None
    left = polynomial(node.inputs[0], x, depth - 1)
    right = polynomial(node.inputs[1], x, depth - 1)
    if left is None or right is None:
        return None
    if is_op(node, "Add"):
        return {k: left.get(k, 0.0) + right.get(k, 0.0) for k in {*left, *right}}
    if is_op(node, "Div"):
        return {k: v / right[0] for k, v in left.items()} if set(right) == {0} and right[0] else None
    if is_op(node, "Pow"):
        times = right.get(0, 0.0)
        if set(right) != {0} or times not in (1.0, 2.0, 3.0):
            return None
        out = {0: 1.0}
        for _ in range(int(times)):
            out = _times(out, left)
        return out
    return _times(left, right)


def _times(left: dict[int, float], right: dict[int, float]) -> dict[int, float]:
    out: dict[int, float] = {}
    for i, a in left.items():
        for j, b in right.items():
            out[i + j] = out.get(i + j, 0.0) + a * b
    return out
