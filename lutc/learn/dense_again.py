"""Takes layers of a learned model back to the original's dense ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

import onnx_ir as ir

from lutc.fit import FitResult
from lutc.forms import LayerChoice
from lutc.ir.graph import add_constant, new_node, replace, sweep


def dense_again(learned: FitResult, original: ir.Model, layers: Collection[LayerChoice]) -> FitResult:
    """A copy in which some layers are what they were; everything else keeps what it has learned.

    Args:
        learned: A fitted model, with what was learned.
        original: The canonical model that it was fitted from.
        layers: Of the original: those that are to be dense.
    """
    outputs = {str(layer.node.outputs[0].name) for layer in layers}
    model = ir.from_proto(ir.to_proto(learned.model))
    assert isinstance(model, ir.Model)
    graph = model.graph
    values = {value.name: value for value in (*graph.inputs, *graph.initializers.values())}
    values |= {value.name: value for node in graph for value in node.outputs}
    lookups = {str(node.outputs[0].name): node for node in graph if str(node.outputs[0].name) in outputs}
    for node in original.graph:
        old = lookups.get(str(node.outputs[0].name))
        if old is None:
            continue
        inputs = []
        for value in node.inputs:
            if value is not None and value.name not in values:  # a weight
                assert value.const_value is not None
                values[value.name] = add_constant(graph, str(value.name), value.const_value.numpy())
            inputs.append(None if value is None else values[value.name])
        dense = new_node(node.op_type, inputs, node, attributes=node.attributes, domain=node.domain)
        replace(graph, old, [dense])
    sweep(graph)
    left = {name: factors for name, factors in learned.factors.items() if name not in outputs}
    names = {layer.name for layer in layers}
    reports = [report for report in learned.layers if report.name not in names]
    return dataclasses.replace(learned, model=model, factors=left, layers=reports)
