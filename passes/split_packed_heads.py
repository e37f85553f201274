"""Query, key and value taken from one packed, transposed tensor are split before the transposition."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from lutc.ir.graph import add_constant, array, attribute, is_op, new_node, producer
from lutc.ir.symbolic import SymbolicShapes, number
from lutc.passes.base import NodePass


class SplitPackedHeads(NodePass):
    """Needs: folded constants. Guarantees: vision transformers' packed q, k, v look like three separate projections.

    x [B, L, n*H*d] -> Reshape [B, L, n, H, d] -> Transpose (2, 0, 3, 1, 4) -> Gather or Split along axis 0 becomes
    Split x along its last axis, then Reshape [B, L, H, d] and Transpose (0, 2, 1, 3) of each part.
    """

    def start(self, model: ir.Model) -> None:
        """Analyses the shapes."""
        self._shapes = SymbolicShapes(model.graph)

    def rewrite_node(self, graph: ir.Graph, node: ir.Node) -> bool:
        """Handles the Transpose."""
        if not is_op(node, "Transpose") or list(attribute(node, "perm", ())) != [2, 0, 3, 1, 4]:
            return False
        reshape = producer(node.inputs[0], "Reshape")
        source = self._shapes.dims(reshape.inputs[0]) if reshape is not None else None
        packed = self._shapes.dims(node.inputs[0])
        if reshape is None or source is None or packed is None or len(source) != 3 or packed[:2] != source[:2]:
            return False
        count, heads, size = (number(term) for term in packed[2:])
        if count is None or heads is None or size is None:
            return False
        parts = _parts(node.outputs[0], count)
        if parts is None:
            return False
        name = node.name or node.outputs[0].name or "heads"
        sizes = add_constant(graph, f"{name}.sizes", np.full(count, heads * size, np.int64))
        shape = add_constant(graph, f"{name}.shape", np.array([0, 0, heads, size], np.int64))
        split = new_node(
            "Split", [reshape.inputs[0], sizes], node, attributes={"axis": -1}, num_outputs=count,
            name=f"{name}/split",
        )  # fmt: skip
        new = [split]
        moved: list[tuple[ir.Value, ir.Value]] = []
        for index, old_values in enumerate(parts):
            piece = new_node("Reshape", [split.outputs[index], shape], node, name=f"{name}/reshape_{index}")
            turned = new_node(
                "Transpose",
                [piece.outputs[0]],
                node,
                attributes={"perm": [0, 2, 1, 3]},
                name=f"{name}/transpose_{index}",
            )
            new += [piece, turned]
            moved += [(old, turned.outputs[0]) for old in old_values]
        for made in new:
            for output in made.outputs:
                output.type = node.outputs[0].type
        graph.insert_before(node, new)
        for old, value in moved:
            value.shape = old.shape
            old.replace_all_uses_with(value)
        return True


def _parts(packed: ir.Value, count: int) -> list[list[ir.Value]] | None:
    """The values that hold slice 0, 1, ... of axis 0 (that axis removed), or None when something else reads it."""
    parts: list[list[ir.Value]] = [[] for _ in range(count)]
    if packed.is_graph_output():
        return None
    for use in packed.uses():
        node = use.node
        if is_op(node, "Gather") and attribute(node, "axis", 0) == 0:
            index = array(node.inputs[1])
            if index is None or index.ndim != 0:
                return None
            parts[int(index)].append(node.outputs[0])
        elif is_op(node, "Split") and attribute(node, "axis", 0) == 0 and len(node.outputs) == count:
            for position, piece in enumerate(node.outputs):
                for inner in piece.uses():
                    axes = array(inner.node.inputs[1]) if is_op(inner.node, "Squeeze") else None
                    if axes is None or axes.reshape(-1).tolist() != [0]:
                        return None
                    parts[position].append(inner.node.outputs[0])
        else:
            return None
    return None if any(v.is_graph_output() for values in parts for v in values) else parts
