"""Identity, Dropout, duplicates and dead code go."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common

from lutc.ir.graph import array, is_op, sweep

SMALL = 1024  # elements; equal constants up to this size become one, so that equal nodes are seen to be equal


class Clean(ir.passes.InPlacePass):
    """Needs: nothing. Guarantees: no Identity or inference-mode Dropout, no two equal nodes, no dead node.

    A model output keeps its name; one that is merely a model input or an initialiser keeps its Identity.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Runs onnx-ir's elimination passes and our sweep."""
        modified = _remove_dropout(model.graph)
        # in a subgraph, an Identity may be what makes an outer value an output: leave those models alone
        flat = not any(True for _ in model.graph.subgraphs())
        identities = [common.IdentityEliminationPass()] if flat else []
        for each in (
            *identities,
            common.DeduplicateInitializersPass(size_limit=SMALL),
            common.CommonSubexpressionEliminationPass(),
            *identities,
        ):
            modified |= each(model).modified
        modified |= sweep(model.graph)
        return ir.passes.PassResult(model, modified)


def _remove_dropout(graph: ir.Graph) -> bool:
    removed = False
    for node in list(graph):
        if not is_op(node, "Dropout") or node.inputs[0] is None:
            continue
        training = array(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else False
        mask_used = len(node.outputs) > 1 and bool(node.outputs[1].uses())
        if training is None or bool(training) or mask_used or node.outputs[0].is_graph_output():
            continue
        node.outputs[0].replace_all_uses_with(node.inputs[0])
        removed = True
    return removed
