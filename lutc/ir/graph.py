"""Small helpers to read and rewrite onnx-ir graphs: constants, producers, new initialisers and nodes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeGuard

import numpy as np
import onnx_ir as ir

LUTC_DOMAIN = "ai.lutc"
OPSET = 23


def is_op(node: ir.Node | None, *op_types: str, domain: str = "") -> TypeGuard[ir.Node]:
    """Whether the node is one of the given operators of a domain ("" is ONNX itself)."""
    if node is None or node.op_type not in op_types:
        return False
    return (node.domain or "").replace("ai.onnx", "") == domain if domain == "" else node.domain == domain


def producer(value: ir.Value | None, *op_types: str, domain: str = "") -> ir.Node | None:
    """The node that makes a value, if it is one of the given operators."""
    node = value.producer() if value is not None else None
    return node if is_op(node, *op_types, domain=domain) else None


def array(value: ir.Value | None) -> np.ndarray | None:
    """The constant a value holds (an initialiser that is no model input, or a Constant node), else None."""
    if value is None or value.const_value is None or value.is_graph_input():
        return None
    return value.const_value.numpy()


def scalar(value: ir.Value | None) -> float | None:
    """The number a constant value of exactly one element holds, else None."""
    data = array(value) if value is not None and value.const_value is not None and value.const_value.size == 1 else None
    return None if data is None else float(data.reshape(-1)[0])


def is_scalar(value: ir.Value | None, expected: float, rtol: float = 1e-4) -> bool:
    """Whether a value is the one-element constant `expected`, up to float16 rounding by default."""
    found = scalar(value)
    return found is not None and abs(found - expected) <= rtol * abs(expected)


def ints(value: ir.Value | None) -> list[int] | None:
    """The integers of a small constant int64 or int32 value, flattened, else None."""
    data = array(value)
    if data is None or data.dtype.kind not in "iu" or data.size > 1024:
        return None
    return [int(x) for x in data.reshape(-1)]


def attribute(node: ir.Node, name: str, default: Any = None) -> Any:
    """An attribute's Python value, or the default when it is absent."""
    found = node.attributes.get(name)
    return default if found is None else found.value


def rank(value: ir.Value | None) -> int | None:
    """The rank of a value where known."""
    return None if value is None or value.shape is None else len(value.shape)


def static_dim(value: ir.Value | None, axis: int) -> int | None:
    """The size of an axis where it is a known integer."""
    if value is None or value.shape is None or not -len(value.shape) <= axis < len(value.shape):
        return None
    dim = value.shape[axis]
    return dim if isinstance(dim, int) else None


def only_reader(value: ir.Value | None) -> ir.Node | None:
    """The node with the one input that reads the value; None if there are more, none, or the value leaves the model."""
    uses = list(value.uses()) if value is not None and not value.is_graph_output() else []
    return uses[0].node if len(uses) == 1 else None


def other_input(node: ir.Node, value: ir.Value | None) -> ir.Value | None:
    """The other operand of a binary node of which `value` is one operand."""
    first, second = node.inputs
    return second if first is value else first


def add_constant(graph: ir.Graph, name: str, data: np.ndarray | np.generic) -> ir.Value:
    """Registers a new initialiser, under the given name or the first free `name_1`, `name_2` ..."""
    unique, count = name, 0
    while unique in graph.initializers:
        count += 1
        unique = f"{name}_{count}"
    data = np.ascontiguousarray(data).reshape(data.shape)
    value = ir.Value(
        name=unique, shape=ir.Shape(data.shape), type=ir.TensorType(ir.DataType.from_numpy(data.dtype)),
        const_value=ir.tensor(data, name=unique),
    )  # fmt: skip
    graph.register_initializer(value)
    return value


def new_node(
    op_type: str, inputs: Sequence[ir.Value | None], like: ir.Node, *, attributes: Mapping[str, Any] | None = None,
    domain: str = "", num_outputs: int = 1, name: str | None = None,
) -> ir.Node:  # fmt: skip
    """A node that takes over another's name and metadata, not yet in the graph."""
    return ir.Node(
        domain, op_type, inputs,
        attributes=ir.convenience.convert_attributes(dict(attributes or {})),
        num_outputs=num_outputs, name=name or like.name, metadata_props=dict(like.metadata_props),
    )  # fmt: skip


def replace(graph: ir.Graph, old: ir.Node, new: Sequence[ir.Node], outputs: Sequence[ir.Value] | None = None) -> None:
    """Puts `new` in front of `old` and hands `old`'s consumers, names and shapes over to the new outputs.

    Nodes that fed `old` alone are left for dead-code elimination.
    """
    outputs = list(outputs) if outputs is not None else list(new[-1].outputs)
    ir.convenience.replace_nodes_and_values(graph, old, [old], list(new), list(old.outputs), outputs)


def add_function_if_called(model: ir.Model, function: ir.Function) -> None:
    """Gives the model a function of `ai.lutc`, and the domain's import, if a node of its main graph calls it."""
    if any(is_op(node, function.name, domain=LUTC_DOMAIN) for node in model.graph):
        model.functions[function.identifier()] = function
        model.opset_imports.setdefault(LUTC_DOMAIN, 1)


def sweep(graph: ir.Graph) -> bool:
    """Removes nodes and initialisers that nothing reads; whether anything went."""
    outputs, removed = set(graph.outputs), False
    for node in reversed(list(graph)):
        if not any(output.uses() or output in outputs for output in node.outputs):
            graph.remove(node, safe=True)
            removed = True
    for name, value in list(graph.initializers.items()):
        if not value.uses() and value not in outputs and not value.is_graph_input():
            del graph.initializers[name]
            removed = True
    return removed


def layer_name(node: ir.Node) -> str:
    """A name a person recognises: the node's own, the exporter's module path, or its output's name.

    PyTorch's dynamo exporter numbers its nodes ("node_MatMul_60") and keeps the module path in the metadata.
    """
    scopes = node.metadata_props.get("pkg.torch.onnx.name_scopes", "")
    parts = [part.strip(" '\"") for part in scopes.strip("[]").split(",")]
    if len(parts) >= 2 and parts[-2]:
        return parts[-2]
    return node.name or node.outputs[0].name or node.op_type


def common_name(names: Iterable[str]) -> str:
    """One name for several layers: "/self/{query,key,value}/MatMul"."""
    split = [name.replace(".", "\0.").replace("/", "\0/").split("\0") for name in dict.fromkeys(names)]
    if len(split) == 1 or len({len(parts) for parts in split}) != 1:
        return "+".join("".join(parts) for parts in split)
    out = []
    for parts in zip(*split, strict=True):
        distinct = list(dict.fromkeys(parts))
        if len(distinct) == 1:
            out.append(distinct[0])
        else:
            mark = distinct[0][0] if distinct[0][:1] in "./" else ""
            out.append(mark + "{" + ",".join(part.removeprefix(mark) for part in distinct) + "}")
    return "".join(out)
