"""Chains of Transpose become one; a Transpose hidden between two Reshapes is uncovered."""

from __future__ import annotations

import onnx_ir as ir

from lutc.ir.graph import attribute, is_op, new_node, producer, replace
from lutc.ir.symbolic import SymbolicShapes
from lutc.passes.base import NodePass


class MergeTransposes(NodePass):
    """Needs: nothing. Guarantees: no Transpose reads a Transpose, none is the identity.

    Reshape [..., m, n] -> [B, m, n], Transpose (0, 2, 1), Reshape -> [..., n, m], as exporters write a batched matrix
    transpose, becomes one Transpose.
    """

    def start(self, model: ir.Model) -> None:
        """Analyses the shapes that the second form has to prove."""
        self._shapes = SymbolicShapes(model.graph)

    def rewrite_node(self, graph: ir.Graph, node: ir.Node) -> bool:
        """Handles Transpose, and Reshape as the end of the hidden form."""
        if is_op(node, "Reshape"):
            return self._uncover(graph, node)
        perm = attribute(node, "perm") if is_op(node, "Transpose") else None
        if perm is None:
            return False
        x = node.inputs[0]
        if list(perm) == list(range(len(perm))) and not node.outputs[0].is_graph_output() and x is not None:
            node.outputs[0].replace_all_uses_with(x)
            return True
        inner = producer(x, "Transpose")
        first = attribute(inner, "perm") if inner is not None else None
        if inner is None or first is None:
            return False
        both = new_node("Transpose", [inner.inputs[0]], node, attributes={"perm": [first[axis] for axis in perm]})
        replace(graph, node, [both])
        return True

    def _uncover(self, graph: ir.Graph, node: ir.Node) -> bool:
        flip = producer(node.inputs[0], "Transpose")
        flat = producer(flip.inputs[0], "Reshape") if flip is not None else None
        if flip is None or flat is None or list(attribute(flip, "perm", ())) != [0, 2, 1]:
            return False
        before, middle, after = (self._shapes.dims(v) for v in (flat.inputs[0], flat.outputs[0], node.outputs[0]))
        if before is None or middle is None or after is None or len(before) != len(after) or len(before) < 3:
            return False
        if middle[1:] != before[-2:] or after != (*before[:-2], before[-1], before[-2]):
            return False
        last = len(before) - 1
        perm = [*range(last - 1), last, last - 1]
        replace(graph, node, [new_node("Transpose", [flat.inputs[0]], node, attributes={"perm": perm})])
        return True
