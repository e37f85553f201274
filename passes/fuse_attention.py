"""Decomposed scaled dot-product attention becomes one Attention that reads [B, L, H*d]."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from lutc.ir.attention import attention_function
from lutc.ir.graph import (
    LUTC_DOMAIN,
    add_constant,
    add_function_if_called,
    array,
    attribute,
    is_op,
    is_scalar,
    layer_name,
    new_node,
    only_reader,
    replace,
    scalar,
)
from lutc.ir.symbolic import SymbolicShapes, Term, number, product
from lutc.passes.base import NodePass

_MINUS_INFINITY = -1e30  # at most this: a masked score vanishes whatever it was


@dataclass
class _Heads:
    """A value [.., H, d] or transposed, traced back to x [B, L, H*d]."""

    x: ir.Value
    batch: Term
    length: Term
    heads: int
    size: int
    perm: tuple[int, ...]
    factor: float


@dataclass
class _Scores:
    """softmax's input taken apart: factor * (query @ key) + masks."""

    query: ir.Value | None = None
    key: ir.Value | None = None
    factor: float = 1.0
    masks: list[ir.Value] = field(default_factory=list)
    #: (condition, keep_when_true, fill) of a Where that overwrites masked scores
    where: list[tuple[ir.Value, bool, ir.Value]] = field(default_factory=list)


class FuseAttention(NodePass):
    """Needs: SimplifyReshapes, MergeTransposes, SplitPackedHeads. Guarantees: ai.lutc::Attention for every form below.

    Reshape/Transpose to heads, MatMul, scale anywhere (Mul or Div by constants on q, k or the scores), added masks or a
    Where that overwrites with -inf, Softmax, MatMul, Transpose, Reshape: both PyTorch exporters, eager and SDPA, and
    vision transformers. SDPA's guard against fully masked rows (IsNaN, Where 0) is dropped when the mask cannot be
    -inf, and otherwise kept behind the Attention, whose output is NaN in exactly those rows.
    """

    def rewrite(self, model: ir.Model) -> bool:
        """Registers the function once an Attention exists."""
        modified = super().rewrite(model)
        add_function_if_called(model, attention_function())
        return modified

    def start(self, model: ir.Model) -> None:
        """Analyses the shapes that must agree."""
        self._shapes = SymbolicShapes(model.graph)

    def rewrite_node(self, graph: ir.Graph, node: ir.Node) -> bool:
        """Starts at the Softmax."""
        dims = self._shapes.dims(node.outputs[0]) if is_op(node, "Softmax") else None
        if dims is None or len(dims) != 4 or attribute(node, "axis", -1) not in (-1, 3):
            return False
        weights, guard = _after_guard(node)
        mix = only_reader(weights)
        if not is_op(mix, "MatMul") or mix.inputs[0] is not weights:
            return False
        scores = _scores(node.inputs[0])
        if scores is None:
            return False
        query, key = self._heads(scores.query), self._heads(scores.key)
        value, end = self._heads(mix.inputs[1]), self._merged_output(mix.outputs[0])
        if query is None or key is None or value is None or end is None:
            return False
        if not self._consistent(query, key, value, end):
            return False
        self._emit(graph, node, end, query, key, value, scores, guard)
        return True

    def _heads(self, value: ir.Value | None) -> _Heads | None:
        """Walks up through scales and Transposes to the Reshape that makes the heads."""
        perm, factor = (0, 1, 2, 3), 1.0
        while value is not None:
            node = value.producer()
            if is_op(node, "Mul", "Div"):
                inner, constant = _scaled(node)
                if inner is None:
                    return None
                value, factor = inner, factor * constant
            elif is_op(node, "Transpose"):
                inner_perm = attribute(node, "perm", (3, 2, 1, 0))
                if len(inner_perm) != 4:
                    return None
                perm = tuple(inner_perm[axis] for axis in perm)  # type: ignore[assignment]
                value = node.inputs[0]
            elif is_op(node, "Reshape"):
                source, dims = self._shapes.dims(node.inputs[0]), self._shapes.dims(value)
                if source is None or dims is None or node.inputs[0] is None or len(source) != 3 or len(dims) != 4:
                    return None
                heads, size = number(dims[2]), number(dims[3])
                if dims[:2] != source[:2] or not heads or not size:
                    return None
                return _Heads(node.inputs[0], dims[0], dims[1], heads, size, perm, factor)
            else:
                return None
        return None

    def _merged_output(self, value: ir.Value) -> ir.Node | None:
        """The Reshape to [B, L, H*dv] behind the Transpose of the mixed values."""
        turn = only_reader(value)
        if not is_op(turn, "Transpose") or list(attribute(turn, "perm", ())) != [0, 2, 1, 3]:
            return None
        end = only_reader(turn.outputs[0])
        if not is_op(end, "Reshape"):
            return None
        before, after = self._shapes.dims(turn.outputs[0]), self._shapes.dims(end.outputs[0])
        if before is None or after is None or len(after) != 3:
            return None
        return end if after == (before[0], before[1], product(before[2:])) else None

    @staticmethod
    def _consistent(query: _Heads, key: _Heads, value: _Heads, end: ir.Node) -> bool:
        return (
            query.perm == (0, 2, 1, 3)
            and key.perm == (0, 2, 3, 1)
            and value.perm == (0, 2, 1, 3)
            and query.heads == key.heads == value.heads
            and query.size == key.size
            and query.batch == key.batch == value.batch
            and key.length == value.length
            and value.factor == 1.0
        )

    def _emit(
        self, graph: ir.Graph, softmax: ir.Node, end: ir.Node, query: _Heads, key: _Heads, value: _Heads,
        scores: _Scores, guard: bool,
    ) -> None:  # fmt: skip
        name = layer_name(softmax)
        name = f"{name.rsplit('/', 1)[0]}/Attention" if "/" in name else name
        new: list[ir.Node] = []
        float_type = ir.TensorType(ir.DataType.FLOAT)

        def emit(op: str, inputs: list[ir.Value], suffix: str) -> ir.Value:
            node = new_node(op, inputs, softmax, name=f"{name}/{suffix}")
            node.outputs[0].type = ir.TensorType(ir.DataType.BOOL) if op == "IsNaN" else float_type
            new.append(node)
            return node.outputs[0]

        masks = list(scores.masks)
        for condition, keep, fill in scores.where:
            zero = _zero(graph)
            operands = [condition, zero, fill] if keep else [condition, fill, zero]
            masks.append(emit("Where", operands, "mask"))
        finite = all(_cannot_be_infinite(mask) for mask in masks)
        mask = masks[0] if masks else _zero(graph)
        for more in masks[1:]:
            mask = emit("Add", [mask, more], "mask_sum")
        fused = new_node(
            "Attention", [query.x, key.x, value.x, mask], softmax, domain=LUTC_DOMAIN, name=name,
            attributes={
                "num_heads": query.heads,
                "kv_num_heads": key.heads,
                "scale": float(np.float32(query.factor * key.factor * scores.factor)),
            },
        )  # fmt: skip
        new.append(fused)
        result = fused.outputs[0]
        if guard and not finite:
            result.type, result.name = float_type, f"{name}_output"
            result.shape = end.outputs[0].shape
            result = emit("Where", [emit("IsNaN", [result], "guard_is_nan"), _zero(graph), result], "guard")
        replace(graph, end, new, [result])


def _zero(graph: ir.Graph) -> ir.Value:
    found = graph.initializers.get("lutc.zero")
    return found if found is not None else add_constant(graph, "lutc.zero", np.float32(0).reshape(()))


def _scaled(node: ir.Node) -> tuple[ir.Value | None, float]:
    """X and c of x * c or x / c, c one constant number."""
    a, b = node.inputs
    for x, constant in ((a, scalar(b)), (b, scalar(a) if is_op(node, "Mul") else None)):
        if constant is not None and constant != 0:
            return x, constant if is_op(node, "Mul") else 1.0 / constant
    return None, 1.0


def _scores(value: ir.Value | None) -> _Scores | None:
    """Takes softmax's input apart, from the outside in: masks first, then scales, then the product."""
    found = _Scores()
    while value is not None:
        node = value.producer()
        if is_op(node, "MatMul"):
            found.query, found.key = node.inputs[0], node.inputs[1]
            return found
        if is_op(node, "Mul", "Div"):
            value, constant = _scaled(node)
            found.factor *= constant
        elif is_op(node, "Add") and found.factor == 1.0:
            sides = [v for v in node.inputs if v is not None]
            inner = [v for v in sides if _leads_to_product(v)]
            if len(inner) != 1:
                return None
            value = inner[0]
            found.masks.append(sides[1] if sides[0] is value else sides[0])
        elif is_op(node, "Where") and found.factor == 1.0:
            condition, yes, no = node.inputs
            keep = (scalar(no) or 0.0) <= _MINUS_INFINITY
            fill = no if keep else yes
            value = yes if keep else no
            if condition is None or fill is None or (scalar(fill) or 0.0) > _MINUS_INFINITY:
                return None
            found.where.append((condition, keep, fill))
        else:
            return None
    return None


def _leads_to_product(value: ir.Value) -> bool:
    """Whether a value is a (scaled, masked) product of two computed matrices."""
    node = value.producer()
    if is_op(node, "MatMul"):
        return all(array(v) is None for v in node.inputs)
    if is_op(node, "Mul", "Div"):
        inner, _ = _scaled(node)
        return inner is not None and _leads_to_product(inner)
    if is_op(node, "Add"):
        return any(v is not None and _leads_to_product(v) for v in node.inputs)
    return False


def _after_guard(softmax: ir.Node) -> tuple[ir.Value | None, bool]:
    """The attention weights, and whether SDPA's Where(IsNaN(weights), 0, weights) stands behind the Softmax."""
    weights = softmax.outputs[0]
    users = [use.node for use in weights.uses()]
    if len(users) == 1:
        return (weights, False) if not weights.is_graph_output() else (None, False)
    tests = [n for n in users if is_op(n, "IsNaN")]
    choices = [n for n in users if is_op(n, "Where")]
    if len(users) != 2 or len(tests) != 1 or len(choices) != 1 or weights.is_graph_output():
        return None, False
    condition, yes, no = choices[0].inputs
    if condition is not tests[0].outputs[0] or no is not weights or not is_scalar(yes, 0.0):
        return None, False
    return choices[0].outputs[0], True


def _cannot_be_infinite(value: ir.Value) -> bool:
    """Whether a mask is built from finite constants alone."""
    data = array(value)
    if data is not None:
        return bool(np.isfinite(data).all())
    node = value.producer()
    if is_op(node, "Where"):
        return all(v is not None and _cannot_be_infinite(v) for v in node.inputs[1:])
    if is_op(node, "Expand", "Unsqueeze", "Squeeze", "Reshape", "Slice", "Transpose", "Identity"):
        return node.inputs[0] is not None and _cannot_be_infinite(node.inputs[0])
    return False
