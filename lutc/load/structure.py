"""Checks of a parsed ModelProto that everything after relies on: names, order, nesting, types, sizes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import onnx

from lutc.errors import UnsupportedModelError

MAX_DEPTH = 16
MAX_NODES = 1_000_000
MAX_RANK = 8
_KNOWN_TYPES = set(onnx.TensorProto.DataType.values()) - {onnx.TensorProto.UNDEFINED}


def check_structure(model: onnx.ModelProto) -> None:
    """Raises UnsupportedModelError, naming the node or tensor, unless the model is a well-formed graph.

    Checked: a graph with outputs; known tensor types; ranks and sizes; no sparse tensor; unique names; every input
    defined; no cycle in the graph, in a subgraph or among functions; subgraphs nested at most 16 deep.
    """
    if not model.HasField("graph") or not model.graph.output:
        raise UnsupportedModelError("the file holds no ONNX graph with outputs; is it an ONNX model?")
    if not model.opset_import:
        raise UnsupportedModelError("the model imports no operator set, so its operators have no meaning")
    _check_graph(model.graph, frozenset(), 0)
    for function in model.functions:
        _check_names(function.node, set(function.input), f"function {function.name!r}")
        for node in function.node:
            _check_attributes(node, frozenset(), 1)
    _check_function_calls(model)
    count = len(model.graph.node) + sum(len(function.node) for function in model.functions)
    if count > MAX_NODES:
        raise UnsupportedModelError(f"the model has {count} nodes; at most {MAX_NODES} are supported")


def tensors(graph: onnx.GraphProto) -> Iterator[tuple[onnx.TensorProto, bool]]:
    """Every tensor of a graph and its subgraphs; the flag says whether it is an initialiser."""
    for tensor in graph.initializer:
        yield tensor, True
    for node in graph.node:
        yield from attribute_tensors(node)


def attribute_tensors(node: onnx.NodeProto) -> Iterator[tuple[onnx.TensorProto, bool]]:
    """Every tensor inside a node's attributes, subgraphs included."""
    for attribute in node.attribute:
        if attribute.HasField("t"):
            yield attribute.t, False
        for tensor in attribute.tensors:
            yield tensor, False
        for inner in _subgraphs(attribute):
            yield from tensors(inner)


def _subgraphs(attribute: onnx.AttributeProto) -> list[onnx.GraphProto]:
    return [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]


def _check_graph(graph: onnx.GraphProto, outer: frozenset[str], depth: int) -> None:
    where = f"graph {graph.name!r}"
    if depth > MAX_DEPTH:
        raise UnsupportedModelError(f"{where}: subgraphs are nested more than {MAX_DEPTH} deep")
    if graph.sparse_initializer:
        name = graph.sparse_initializer[0].values.name
        raise UnsupportedModelError(f"sparse initialiser {name!r}: sparse tensors are not supported; make it dense")
    known: set[str] = set()
    for value in graph.input:
        if value.name in known or not value.name:
            raise UnsupportedModelError(f"{where}: two inputs are named {value.name!r}")
        known.add(value.name)
        if depth == 0 and value.type.WhichOneof("value") != "tensor_type":
            raise UnsupportedModelError(f"input {value.name!r} is no tensor; only tensor inputs are supported")
    for value in (*graph.input, *graph.output, *graph.value_info):
        kind = value.type.tensor_type.elem_type
        if value.type.WhichOneof("value") == "tensor_type" and kind not in _KNOWN_TYPES and kind != 0:
            raise UnsupportedModelError(f"value {value.name!r} has unknown tensor type {kind}")
    seen: set[str] = set()
    for tensor in graph.initializer:
        _check_tensor(tensor)
        if tensor.name in seen:
            raise UnsupportedModelError(f"{where}: two initialisers are named {tensor.name!r}")
        seen.add(tensor.name)
    made = _check_names(graph.node, known | seen, where, outer)
    for value in graph.output:
        if value.name not in made and value.name not in outer:
            raise UnsupportedModelError(f"{where}: output {value.name!r} is made by no node")
    for node in graph.node:
        _check_attributes(node, outer | made, depth + 1)


def _check_attributes(node: onnx.NodeProto, scope: frozenset[str], depth: int) -> None:
    for attribute in node.attribute:
        if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
            raise UnsupportedModelError(f"node {_label(node)}: sparse tensors are not supported; make it dense")
        for tensor in (*([attribute.t] if attribute.HasField("t") else []), *attribute.tensors):
            _check_tensor(tensor)
        for inner in _subgraphs(attribute):
            _check_graph(inner, scope, depth)


def _check_tensor(tensor: onnx.TensorProto) -> None:
    if tensor.data_type not in _KNOWN_TYPES:
        raise UnsupportedModelError(f"tensor {tensor.name!r} has unknown type {tensor.data_type}")
    if len(tensor.dims) > MAX_RANK:
        raise UnsupportedModelError(f"tensor {tensor.name!r} has rank {len(tensor.dims)}; at most {MAX_RANK}")
    if any(d < 0 for d in tensor.dims) or math.prod(tensor.dims) > 2**40:
        raise UnsupportedModelError(f"tensor {tensor.name!r} has impossible shape {list(tensor.dims)}")


def _check_names(
    nodes: Sequence[onnx.NodeProto], known: set[str], where: str, outer: frozenset[str] = frozenset()
) -> frozenset[str]:
    """Checks that names are unique, defined and acyclic; returns every name of the scope."""
    maker: dict[str, int] = {}
    for index, node in enumerate(nodes):
        for name in node.output:
            if name and (name in maker or name in known):
                raise UnsupportedModelError(f"{where}: value {name!r} is made twice, the second time by {_label(node)}")
            if name:
                maker[name] = index
    waiting = [0] * len(nodes)
    readers: dict[int, list[int]] = {}
    for index, node in enumerate(nodes):
        for name in _reads(node):
            if name in maker:
                waiting[index] += 1
                readers.setdefault(maker[name], []).append(index)
        for name in node.input:
            if name and name not in maker and name not in known and name not in outer:
                raise UnsupportedModelError(f"node {_label(node)} reads {name!r}, which nothing defines")
    ready = [index for index, count in enumerate(waiting) if not count]
    done = 0
    while ready:
        index = ready.pop()
        done += 1
        for reader in readers.get(index, ()):
            waiting[reader] -= 1
            if not waiting[reader]:
                ready.append(reader)
    if done != len(nodes):
        stuck = next(nodes[index] for index, count in enumerate(waiting) if count)
        raise UnsupportedModelError(f"{where} has a cycle; node {_label(stuck)} depends on its own output")
    return frozenset(known | set(maker))


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    """Everything a node depends on: its inputs and what its subgraphs capture."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for inner in _subgraphs(attribute):
            for each in inner.node:
                yield from _reads(each)
            yield from (value.name for value in inner.output)


def _check_function_calls(model: onnx.ModelProto) -> None:
    calls = {
        (f.domain, f.name): {(node.domain, node.op_type) for node in f.node} for f in model.functions
    }  # fmt: skip
    state: dict[tuple[str, str], int] = {}
    for start, called in calls.items():
        stack = [(start, iter(sorted(called & calls.keys())))]
        if state.get(start):
            continue
        state[start] = 1
        while stack:
            name, rest = stack[-1]
            inner = next(rest, None)
            if inner is None:
                state[name] = 2
                stack.pop()
            elif state.get(inner) == 1:
                raise UnsupportedModelError(f"function {inner[0]}::{inner[1]} calls itself")
            elif not state.get(inner):
                state[inner] = 1
                stack.append((inner, iter(sorted(calls[inner] & calls.keys()))))


def _label(node: onnx.NodeProto) -> str:
    return repr(node.name or (node.output[0] if node.output else "?")) + f" ({node.op_type})"
