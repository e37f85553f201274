"""Artifacts of layers with random weights, one feeding the next: what the cost model is measured on.

In a chain every layer finds its input in cache, as the step before has just written it, and its weights wherever all
weights of the chain fit: the circumstances of a whole model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from lutc.cost.random_layers import randomise
from lutc.cost.shape import LayerShape
from lutc.forms import Form, LayerChoice
from lutc.fuse import fuse
from lutc.ir.graph import LUTC_DOMAIN, add_constant
from lutc.pack import pack
from lutc.plan import Plan
from lutc.write import write_artifact

_OPSET = 23
Layer = tuple[LayerShape, Form]

_ACTIVATION_NODES: dict[str, tuple[str, dict[str, str], str]] = {
    "relu": ("Relu", {}, ""),
    "silu": ("Silu", {}, LUTC_DOMAIN),
    "tanh": ("Tanh", {}, ""),
    "sigmoid": ("Sigmoid", {}, ""),
    "gelu": ("Gelu", {}, ""),
    "gelu_tanh": ("Gelu", {"approximate": "tanh"}, ""),
}


def chain_plan(layers: Sequence[Layer], target: str, *, open_rows: bool = False, seed: int = 0) -> Plan:
    """The plan of a chain.

    Args:
        layers: Shapes and forms, each reading what the one before writes; all linear, or all conv, or all attention
            (each of the chain's own input).
        target: Whose layouts the tables take.
        open_rows: Leave the rows of linear layers (or the batch of others) to the run.
        seed: Of the random weights.
    """
    rng = np.random.default_rng(seed)
    first = layers[0][0]
    leading = "rows" if open_rows else (first.image[0] if first.kind == "linear" else first.batch)
    x = ir.Value(name="x", shape=ir.Shape(_input_dims(first, leading)), type=ir.TensorType(ir.DataType.FLOAT))
    graph = ir.Graph([x], [], nodes=[], opset_imports={"": _OPSET, LUTC_DOMAIN: 1}, name="chain")
    value = _elementwise(graph, "Neg", [x], {}, "")  # the first layer, too, finds its input just written
    choices: list[LayerChoice] = []
    outputs: list[ir.Value] = []
    for number, (shape, form) in enumerate(layers):
        name = f"layer{number}"
        node = _node(graph, value, shape, name, rng)
        graph.append(node)
        choices.append(LayerChoice(name, node, shape.kind, shape.D, shape.N, form, ""))
        if shape.kind == "attention":
            graph.outputs.append(node.outputs[0])
        else:
            value = _epilogue(graph, node.outputs[0], value, shape)
            outputs.append(value)
    if first.kind == "linear":  # keeps every output in memory of its own: a model writes to lines it wrote long ago
        for output in outputs[:-1]:
            graph.outputs.append(_elementwise(graph, "ReduceMax", [output], {"keepdims": 0}, "", scalar=True))
    graph.outputs.extend(outputs[-1:])
    model = ir.Model(graph, ir_version=10)
    plan = fuse(randomise(model, choices, seed=seed))
    pack(plan, target)
    return plan


def write_chain(
    path: Path, layers: Sequence[Layer], target: str, *, open_rows: bool = False, seed: int = 0
) -> tuple[Path, int]:
    """Writes the artifact of a chain: its path, and the bytes of its constants. See `chain_plan`."""
    plan = chain_plan(layers, target, open_rows=open_rows, seed=seed)
    write_artifact(plan, path, target=target, report={})
    return path, sum(tensor.nbytes for tensor in plan.tensors.values())


def _epilogue(graph: ir.Graph, value: ir.Value, x: ir.Value, shape: LayerShape) -> ir.Value:
    """Appends the activation and the residual (the layer's own input) that a step takes up.

    A linear layer adds behind its activation, a convolution before it.
    """
    for part in ("residual", "activation") if shape.kind == "conv" else ("activation", "residual"):
        if part == "residual" and shape.residual:
            value = _elementwise(graph, "Add", [value, x], {}, "")
        elif part == "activation" and shape.activation != "none":
            op, attributes, domain = _ACTIVATION_NODES[shape.activation]
            value = _elementwise(graph, op, [value], attributes, domain)
    return value


def _elementwise(
    graph: ir.Graph,
    op: str,
    inputs: Sequence[ir.Value],
    attributes: Mapping[str, str | int],
    domain: str,
    *,
    scalar: bool = False,
) -> ir.Value:
    node = ir.Node(
        domain, op, inputs, attributes=ir.convenience.convert_attributes(attributes), num_outputs=1,
        name=f"{inputs[0].name}.{op}",
    )  # fmt: skip
    graph.append(node)
    output = node.outputs[0]
    output.name, output.type = f"{node.name}.y", inputs[0].type
    output.shape = ir.Shape([]) if scalar else inputs[0].shape
    return output


def _input_dims(shape: LayerShape, leading: int | str) -> list[int | str]:
    if shape.kind == "linear":
        return [leading, shape.D]
    if shape.kind == "conv":
        return [leading, shape.D, *shape.image]
    return [leading, shape.image[0], shape.D]


def _node(graph: ir.Graph, x: ir.Value, shape: LayerShape, name: str, rng: np.random.Generator) -> ir.Node:
    if shape.kind == "attention":
        mask = add_constant(graph, f"{name}.mask", np.zeros((), np.float32))
        node = ir.Node(
            LUTC_DOMAIN, "Attention", [x, x, x, mask],
            attributes=ir.convenience.convert_attributes(
                {"num_heads": shape.heads, "kv_num_heads": shape.heads, "scale": float((shape.D / shape.heads) ** -0.5)}
            ),
            name=name, num_outputs=1,
        )  # fmt: skip
        dims: list[int | str | ir.SymbolicDim] = list(x.shape or ())
    else:
        bias = add_constant(graph, f"{name}.bias", rng.standard_normal(shape.N, dtype=np.float32))
        if shape.kind == "linear":
            weight = rng.standard_normal((shape.D, shape.N), dtype=np.float32) / np.float32(np.sqrt(shape.D))
            inputs = [x, add_constant(graph, f"{name}.weight", weight), bias]
            node = ir.Node(LUTC_DOMAIN, "Linear", inputs, name=name, num_outputs=1)
            dims = [x.shape[0] if x.shape else 1, shape.N]
        else:
            fan_in = shape.D // shape.group * shape.taps
            weight = rng.standard_normal((shape.N, shape.D // shape.group, *shape.kernel), dtype=np.float32)
            inputs = [x, add_constant(graph, f"{name}.weight", weight / np.float32(np.sqrt(fan_in))), bias]
            attributes: dict[str, int | Sequence[int]] = {
                "kernel_shape": shape.kernel, "strides": shape.strides, "pads": shape.pads,
                "dilations": shape.dilations, "group": shape.group,
            }  # fmt: skip
            node = ir.Node(
                "", "Conv", inputs, attributes=ir.convenience.convert_attributes(attributes), name=name, num_outputs=1
            )
            dims = [x.shape[0] if x.shape else 1, shape.N, *shape.out_image]
    node.outputs[0].name = f"{name}.y"
    node.outputs[0].shape = ir.Shape(dims)
    node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    return node
