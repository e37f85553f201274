"""Decomposed LayerNormalization becomes one node."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from lutc.ir.graph import (
    add_constant,
    array,
    attribute,
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


class FuseLayerNormalization(NodePass):
    """Needs: SimplifyReshapes. Guarantees: LayerNormalization for means taken over the last axis in the forms below.

    The variance as ReduceMean((x - mean)^2), Pow or Mul, or as max(0, mean(x^2) - mean^2); means as ReduceMean or
    ReduceSum times 1/N; Div by Sqrt or Mul by its Reciprocal; the scale multiplied before or after; scale and shift
    constant rows, or absent; Reshapes and Expands that only restore the reduced axis in between.
    """

    def start(self, model: ir.Model) -> None:
        """Analyses shapes: the reduced axis must be the last."""
        self._shapes = SymbolicShapes(model.graph)

    def rewrite_node(self, graph: ir.Graph, node: ir.Node) -> bool:
        """Starts at the Sqrt of the variance."""
        if not is_op(node, "Sqrt"):
            return False
        add = producer(_plain(node.inputs[0]), "Add")
        found = _variance_and_epsilon(add)
        if found is None:
            return False
        variance, epsilon = found
        for centred, divisor, scale in _normalised(node):
            difference = producer(_plain(centred.inputs[divisor]), "Sub")
            if difference is None:
                continue
            x = difference.inputs[0]
            if x is None or not self._is_mean(difference.inputs[1], x):
                continue
            if not self._is_variance(variance, x, difference.outputs[0]):
                continue
            self._emit(graph, centred, x, scale, epsilon)
            return True
        return False

    def _emit(
        self, graph: ir.Graph, last: ir.Node, x: ir.Value, scale: ir.Value | None, epsilon: float
    ) -> None:  # fmt: skip
        dims = self._shapes.dims(x)
        assert dims is not None  # _is_mean proved the last axis
        width = number(dims[-1])
        rows: list[np.ndarray | None] = [_row(scale, width), None]
        if scale is None:
            last, rows[0] = _absorb(last, "Mul", width)
        last, rows[1] = _absorb(last, "Add", width)
        name = last.name or "layer_norm"
        gamma = np.ones(width or 1, np.float32) if rows[0] is None else rows[0]
        inputs = [x, add_constant(graph, f"{name}.scale", gamma)]
        if rows[1] is not None:
            inputs.append(add_constant(graph, f"{name}.bias", rows[1]))
        fused = new_node("LayerNormalization", inputs, last, attributes={"axis": -1, "epsilon": epsilon})
        replace(graph, last, [fused])

    def _is_mean(self, value: ir.Value | None, x: ir.Value) -> bool:
        """Whether a value is the mean of x over its last axis, of known width."""
        value = _plain(value)
        dims = self._shapes.dims(x)
        width = number(dims[-1]) if dims else None
        node = producer(value, "ReduceMean", "ReduceSum", "Mul", "Div")
        if width is None or dims is None or node is None:
            return False
        if is_op(node, "Mul", "Div"):
            a, b = node.inputs
            factor = scalar(b) if scalar(b) is not None else scalar(a) if is_op(node, "Mul") else None
            inner = producer(_plain(a if scalar(b) is not None else b), "ReduceSum")
            target = 1.0 / width if is_op(node, "Mul") else float(width)
            if inner is None or factor is None or abs(factor - target) > 1e-4 * target:
                return False
            node = inner
        elif is_op(node, "ReduceSum"):
            return False
        axes = ints(node.inputs[1]) if len(node.inputs) > 1 else None
        return node.inputs[0] is x and axes is not None and [a % len(dims) for a in axes] == [len(dims) - 1]

    def _is_variance(self, value: ir.Value | None, x: ir.Value, centred: ir.Value) -> bool:
        value = _plain(value)
        clamp = producer(value, "Max")
        if clamp is not None and len(clamp.inputs) == 2:
            a, b = clamp.inputs
            value = _plain(b if is_scalar(a, 0.0) else a if is_scalar(b, 0.0) else None)
        difference = producer(value, "Sub")
        if difference is not None:
            return self._is_mean_of_square(difference.inputs[0], x) and self._is_square_of_mean(difference.inputs[1], x)
        return self._is_mean_of_square(value, centred) or self._any_twin(value, x)

    def _any_twin(self, value: ir.Value | None, x: ir.Value) -> bool:
        """Exporters may compute x - mean twice."""
        for use in x.uses():
            twin = use.node
            centred = is_op(twin, "Sub") and use.idx == 0 and self._is_mean(twin.inputs[1], x)
            if centred and self._is_mean_of_square(value, twin.outputs[0]):
                return True
        return False

    def _is_mean_of_square(self, value: ir.Value | None, x: ir.Value) -> bool:
        return any(_is_square(use.node, x) and self._is_mean(value, use.node.outputs[0]) for use in x.uses())

    def _is_square_of_mean(self, value: ir.Value | None, x: ir.Value) -> bool:
        node = producer(_plain(value), "Mul", "Pow")
        return (
            node is not None
            and node.inputs[0] is not None
            and _is_square(node, node.inputs[0])
            and self._is_mean(node.inputs[0], x)
        )


def _is_square(node: ir.Node, x: ir.Value) -> bool:
    if is_op(node, "Mul"):
        return node.inputs[0] is x and node.inputs[1] is x
    return is_op(node, "Pow") and node.inputs[0] is x and is_scalar(node.inputs[1], 2.0)


def _plain(value: ir.Value | None) -> ir.Value | None:
    """Looks through what only restores or broadcasts a reduced last axis, and no-op casts."""
    while value is not None:
        node = value.producer()
        if node is None:
            return value
        restores = is_op(node, "Expand", "Unsqueeze") or (is_op(node, "Reshape") and _only_ones(node))
        same = is_op(node, "Cast") and attribute(node, "to") == ir.DataType.FLOAT == node.inputs[0].dtype  # type: ignore[union-attr]
        if not (restores or same):
            return value
        value = node.inputs[0]
    return value


def _only_ones(node: ir.Node) -> bool:
    """Whether a Reshape appends axes of size 1 and keeps the rest: [.., -1 or 0 .., 1]."""
    target, source = ints(node.inputs[1]), node.inputs[0]
    if target is None or source is None or source.shape is None or target[-1:] != [1]:
        return False
    return len(target) in (len(source.shape), len(source.shape) + 1) and all(t in (0, -1) for t in target[:-1])


def _variance_and_epsilon(add: ir.Node | None) -> tuple[ir.Value | None, float] | None:
    if add is None:
        return None
    for position in (0, 1):
        epsilon = scalar(add.inputs[1 - position])
        if epsilon is not None and 0 <= epsilon < 0.1:
            return add.inputs[position], epsilon
    return None


def _normalised(sqrt: ir.Node) -> Iterator[tuple[ir.Node, int, ir.Value | None]]:
    """Every node that divides something by the root: (node, input that is divided, scale already multiplied in)."""
    for value in _readable(sqrt.outputs[0]):
        for use in value.uses():
            if is_op(use.node, "Div") and use.idx == 1:
                yield use.node, 0, None
            inverse = use.node if is_op(use.node, "Reciprocal") else None
            if is_op(use.node, "Div") and use.idx == 1 and is_scalar(use.node.inputs[0], 1.0):
                inverse = use.node
            if inverse is None:
                continue
            for factor in _readable(inverse.outputs[0]):
                for second in factor.uses():
                    if not is_op(second.node, "Mul"):
                        continue
                    other = second.node.inputs[1 - second.idx]
                    if array(other) is None:
                        yield second.node, 1 - second.idx, None
                        continue
                    for scaled in _readable(second.node.outputs[0]):
                        for third in scaled.uses():
                            if is_op(third.node, "Mul"):
                                yield third.node, 1 - third.idx, other


def _readable(value: ir.Value) -> Iterator[ir.Value]:
    """The value, and itself behind what only restores or broadcasts its last axis."""
    yield value
    for use in value.uses():
        if use.idx == 0 and _plain(use.node.outputs[0]) is not use.node.outputs[0]:
            yield from _readable(use.node.outputs[0])


def _row(value: ir.Value | None, width: int | None) -> np.ndarray | None:
    data = array(value)
    if data is None or width is None or data.dtype != np.float32 or data.size not in (1, width):
        return None
    if any(d != 1 for d in data.shape[:-1]):
        return None
    return np.ascontiguousarray(np.broadcast_to(data.reshape(-1), (width,)))


def _absorb(last: ir.Node, op_type: str, width: int | None) -> tuple[ir.Node, np.ndarray | None]:
    """The next node when it is the only reader and combines with a constant row; else the node itself."""
    value = last.outputs[0]
    node = only_reader(value)
    if not is_op(node, op_type):
        return last, None
    row = _row(other_input(node, value), width)
    return (last, None) if row is None else (node, row)
