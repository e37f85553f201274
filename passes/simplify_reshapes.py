"""Shape arithmetic that symbolic shapes can prove becomes constants; no-op Reshape and Expand disappear."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from lutc.ir.graph import add_constant, array, attribute, is_op, new_node, replace
from lutc.ir.symbolic import SymbolicShapes, Term, number
from lutc.passes.base import NodePass


class SimplifyReshapes(NodePass):
    """Needs: nothing. Guarantees: a Reshape target is constant wherever equal symbols allow it.

    An entry equal to the input's dimension on the same axis becomes 0 (keep), one remaining symbolic entry becomes -1.
    Integer vectors whose every entry is a known number become constants. Expand and Reshape to the input's own shape
    go away.
    """

    def start(self, model: ir.Model) -> None:
        """Analyses the graph once; the rewrites keep every value's shape."""
        self._shapes = SymbolicShapes(model.graph)

    def rewrite_node(self, graph: ir.Graph, node: ir.Node) -> bool:
        """Handles Reshape, Expand and anything that makes a shape vector."""
        if is_op(node, "Reshape"):
            return self._reshape(graph, node)
        if is_op(node, "Expand"):
            return self._drop_if_same(graph, node)
        content = self._shapes.content(node.outputs[0]) if len(node.outputs) == 1 else None
        if content is None or is_op(node, "Constant") or not node.outputs[0].uses():
            return False
        if node.outputs[0].dtype not in (ir.DataType.INT64, ir.DataType.INT32):
            return False
        dims, numbers = self._shapes.dims(node.outputs[0]), [number(term) for term in content]
        if dims is None or any(n is None for n in numbers) or node.outputs[0].is_graph_output():
            return False
        dtype = np.int32 if node.outputs[0].dtype == ir.DataType.INT32 else np.int64
        data = np.array(numbers, dtype).reshape(() if not dims else (len(numbers),))
        constant = add_constant(graph, f"{node.outputs[0].name}_value", data)
        node.outputs[0].replace_all_uses_with(constant)
        return True

    def _drop_if_same(self, graph: ir.Graph, node: ir.Node) -> bool:
        x, y = node.inputs[0], node.outputs[0]
        dims = self._shapes.dims(x)
        if x is None or dims is None or dims != self._shapes.dims(y):
            return False
        if y.is_graph_output():
            return False
        y.replace_all_uses_with(x)
        return True

    def _reshape(self, graph: ir.Graph, node: ir.Node) -> bool:
        if self._drop_if_same(graph, node):
            return True
        source, target = self._shapes.dims(node.inputs[0]), self._shapes.dims(node.outputs[0])
        if source is None or target is None:
            return False
        entries = _entries(source, target)
        if entries is None:
            return False
        old = array(node.inputs[1])
        if old is not None and old.tolist() == entries and not attribute(node, "allowzero", 0):
            return False
        shape = add_constant(graph, f"{node.name or node.outputs[0].name}_shape", np.array(entries, np.int64))
        replace(graph, node, [new_node("Reshape", [node.inputs[0], shape], node)])
        return True


def _entries(source: tuple[Term, ...], target: tuple[Term, ...]) -> list[int] | None:
    """A constant Reshape target, or None when more than one entry needs arithmetic."""
    entries: list[int] = []
    for axis, term in enumerate(target):
        known = number(term)
        if known is not None and known > 0:
            entries.append(known)
        elif axis < len(source) and source[axis] == term:
            entries.append(0)
        elif known is None and -1 not in entries:
            entries.append(-1)
        else:
            return None
    # -1 cannot be worked out beside a zero-sized dimension; "keep" entries have no such trouble
    return entries
