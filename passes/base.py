"""The two shapes of our passes: one rewrite per node, or one function over the graph."""

from __future__ import annotations

import abc

import onnx_ir as ir

from lutc.ir.graph import sweep


class GraphPass(ir.passes.InPlacePass):
    """Rewrites the main graph in place, then removes what became dead. Subgraphs are left alone."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Runs the pass; `modified` says whether anything changed."""
        modified = self.rewrite(model)
        if modified:
            sweep(model.graph)
        return ir.passes.PassResult(model, modified)

    @abc.abstractmethod
    def rewrite(self, model: ir.Model) -> bool:
        """Changes the model and returns whether it did."""


class NodePass(GraphPass):
    """Offers every node of the main graph once, in order, to `rewrite_node`."""

    def rewrite(self, model: ir.Model) -> bool:
        """Visits the nodes that are still in the graph."""
        self.start(model)
        modified = False
        for node in list(model.graph):
            if node.graph is model.graph and self.rewrite_node(model.graph, node):
                modified = True
        return modified

    def start(self, model: ir.Model) -> None:
        """Called before the first node; passes that need an analysis make it here."""

    @abc.abstractmethod
    def rewrite_node(self, graph: ir.Graph, node: ir.Node) -> bool:
        """Rewrites around one node; returns whether it did."""
