"""Linears that read the same tensor (query, key and value) become one Linear and a Split."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from lutc.ir.graph import LUTC_DOMAIN, add_constant, array, common_name, is_op, new_node
from lutc.passes.base import GraphPass


class MergeLinears(GraphPass):
    """Needs: Linears (FuseLinear). Guarantees: no two Linears read the same tensor.

    The merged layer has the weights side by side, [D, N1 + N2 + ...], in graph order, and a Split over the last axis
    hands out the parts: the input is encoded once. Its name joins the names: "/self/{query,key,value}/MatMul".
    """

    def rewrite(self, model: ir.Model) -> bool:
        """Groups the Linears by input value."""
        groups: dict[ir.Value, list[ir.Node]] = {}
        for node in model.graph:
            if is_op(node, "Linear", domain=LUTC_DOMAIN) and node.inputs[0] is not None:
                groups.setdefault(node.inputs[0], []).append(node)
        modified = False
        for x, nodes in groups.items():
            if len(nodes) > 1 and not any(value is x for node in nodes for value in node.inputs[1:]):
                modified |= _merge(model.graph, x, nodes)
        return modified


def _merge(graph: ir.Graph, x: ir.Value, nodes: list[ir.Node]) -> bool:
    weights, biases = [array(n.inputs[1]) for n in nodes], [array(n.inputs[2]) for n in nodes]
    if any(data is None for data in weights + biases):
        return False
    weight = np.concatenate([data for data in weights if data is not None], axis=1)
    bias = np.concatenate([data for data in biases if data is not None])
    name = common_name([node.name or "" for node in nodes])
    sizes = np.array([data.shape[1] for data in weights if data is not None], np.int64)
    row = add_constant(graph, f"{name}.bias", bias)
    merged = new_node(
        "Linear", [x, add_constant(graph, f"{name}.weight", weight), row], nodes[0], domain=LUTC_DOMAIN, name=name
    )
    merged.outputs[0].name = f"{name}_output"
    merged.outputs[0].type = nodes[0].outputs[0].type
    if nodes[0].outputs[0].shape is not None:
        merged.outputs[0].shape = ir.Shape([*nodes[0].outputs[0].shape[:-1], int(weight.shape[1])])
    split = new_node(
        "Split", [merged.outputs[0], add_constant(graph, f"{name}.split", sizes)], nodes[0],
        attributes={"axis": -1}, num_outputs=len(nodes), name=f"{name}/split",
    )  # fmt: skip
    graph.insert_before(nodes[0], [merged, split])
    for node, part in zip(nodes, split.outputs, strict=True):
        ir.convenience.replace_nodes_and_values(graph, node, [node], [], [node.outputs[0]], [part])
    return True
