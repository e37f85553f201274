"""Does the native runtime compute what the function bodies in ONNX Runtime define?

    python -m benchmarks.agreement A.lut A.onnx --data pkg.mod:callable [--json] [--output FILE]

`lutc compile MODEL.onnx -o A.lut --save-onnx A.onnx` makes the pair. Two questions are answered:

* Layer by layer, on the inputs that the layer meets in the real model: are codes, gains and integer sums the same
  bits in ONNX Runtime and on every ISA of this machine? (Seen through probe tables, whose sums are the gains, and the
  codes times the gains.)
* The whole model: the cosine of the two outputs, sample by sample. Between lookup layers both runtimes compute in
  float32 with roundings of their own; where such a rounding tips a quantised input over to its neighbour, the codes
  behind it follow, and the outputs part. ONNX Runtime parts from itself in the same way when its graph
  optimisations are switched off: that is printed beside, as the noise floor of the definition itself.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from lutc._ort import ort
from lutc._runtime import kernels
from lutc.evaluate import load_callable
from lutc.fit.native import lookup_on
from lutc.ir import lookup
from lutc.ir.expand import with_tables
from lutc.ir.graph import LUTC_DOMAIN, OPSET, is_op, producer
from lutc.ir.parameters import ConvParameters, LookupParameters, ProjectParameters
from lutc.session import InferenceSession

Feed = Mapping[str, NDArray[Any]]


@dataclasses.dataclass(frozen=True)
class Layer:
    """A lookup layer as the graph holds it.

    Attributes:
        name: Of the node.
        x: The value that is quantised first.
        parameters: Of LutLinear or LutConv.
        projection: Of the Project in front, if there is one.
    """

    name: str
    x: ir.Value
    parameters: LookupParameters
    projection: ProjectParameters | None


def lookup_layers(model: ir.Model) -> list[Layer]:
    """Every LutLinear and LutConv of a compressed model whose tables are constants, in graph order."""
    layers = []
    for node in model.graph:
        if not is_op(node, "LutLinear", "LutConv", domain=LUTC_DOMAIN):
            continue
        x, projection = node.inputs[0], None
        front = producer(x, "Project", domain=LUTC_DOMAIN)
        if front is not None:
            x, projection = front.inputs[0], lookup.project_parameters(front)
        assert x is not None
        layers.append(Layer(node.name or "?", x, lookup.lookup_parameters(node), projection))
    return layers


def probes(p: LookupParameters) -> dict[str, LookupParameters]:
    """Layers that show, in exact integers, what `p` encodes and sums."""
    plain = {"scale": np.ones_like(p.scale), "bias": np.zeros_like(p.bias)}
    c, k = p.codebooks, p.entries
    own = np.arange(c)
    gains = np.zeros((c, k, c), np.int8)
    gains[own, :, own] = 1
    codes = np.zeros((c, k, c), np.int8)
    codes[own, :, own] = np.arange(k)
    units = {"scale": np.ones(c, np.float32), "bias": np.zeros(c, np.float32)}
    made = {"sums": dataclasses.replace(p, **plain)}
    for name, table in (("gains", gains), ("codes times gains", codes)):
        if isinstance(p, ConvParameters):
            made[name] = dataclasses.replace(
                p,
                **units,
                table=np.ascontiguousarray(table.transpose(2, 0, 1))[..., None, None],
                kernel_shape=(1, 1),
                strides=(1, 1),
                dilations=(1, 1),
                pads=(0, 0, 0, 0),
                group=1,
            )
        else:
            made[name] = dataclasses.replace(p, **units, table=table)
    return made


def defined(x: NDArray[np.float32], p: LookupParameters, projection: ProjectParameters | None) -> NDArray[np.float32]:
    """The layer's function body in ONNX Runtime."""
    value = ir.Value(name="x", shape=ir.Shape([None] * x.ndim), type=ir.TensorType(ir.DataType.FLOAT))
    nodes = [] if projection is None else [lookup.project(value, projection, name="projection")]
    front = nodes[0].outputs[0] if nodes else value
    build = lookup.lut_conv if isinstance(p, ConvParameters) else lookup.lut_linear
    nodes.append(build(front, p, name="layer"))  # type: ignore[arg-type]
    for number, node in enumerate(nodes):
        node.outputs[0].name, node.outputs[0].type = f"y{number}", ir.TensorType(ir.DataType.FLOAT)
    graph = ir.Graph(
        [value],
        nodes[-1].outputs,
        nodes=nodes,
        initializers=[constant for node in nodes for constant in node.inputs[1:] if constant is not None],
        opset_imports={"": OPSET},
        name="layer",
    )
    model = ir.Model(graph, ir_version=10)
    lookup.add_functions(model)
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString())
    return session.run(None, {"x": x})[0]


def layer_agreement(model: ir.Model, feeds: Sequence[Feed]) -> list[dict[str, Any]]:
    """Compares codes, gains and sums of every lookup layer on the inputs it meets for `feeds`.

    Returns:
        One row a layer: `layer`, `values` compared on each ISA, and `different`, how many differ per ISA.
    """
    model = with_tables(model)
    layers = lookup_layers(model)
    own_outputs = len(model.graph.outputs)
    seen = {layer.x.name: layer.x for layer in layers if layer.x not in model.graph.inputs}
    shown = model.clone()
    values = {value.name: value for node in shown.graph for value in node.outputs}
    shown.graph.outputs.extend(values[name] for name in seen if values[name] not in shown.graph.outputs)
    for name in seen:
        values[name].type = values[name].type or ir.TensorType(ir.DataType.FLOAT)
    session = ort.InferenceSession(ir.to_proto(shown).SerializeToString())
    names = [output.name for output in session.get_outputs()]
    assert len(names) >= own_outputs
    rows = [{"layer": layer.name, "values": 0, "different": dict.fromkeys(kernels.isas(), 0)} for layer in layers]
    for feed in feeds:
        known = {**feed, **dict(zip(names, session.run(None, dict(feed)), strict=True))}
        for layer, row in zip(layers, rows, strict=True):
            for probe in probes(layer.parameters).values():
                wanted = defined(known[layer.x.name], probe, layer.projection)
                row["values"] += wanted.size
                for isa in kernels.isas():
                    got = lookup_on(isa, known[layer.x.name], probe, layer.projection)
                    row["different"][isa] += int((got != wanted).sum())
    return rows


def _cosines(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    a, b = (np.asarray(v, np.float64).reshape(len(v), -1) for v in (a, b))
    return (a * b).sum(1) / np.maximum(np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1), 1e-30)


def whole_model(lut: Path, onnx: Path, feeds: Iterable[Feed]) -> dict[str, dict[str, float]]:
    """Cosines of the first output, per sample: native against the definition, and the definition against itself."""
    plain = ort.SessionOptions()
    plain.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    definition = ort.InferenceSession(str(onnx))
    others = {
        "native": InferenceSession(lut),
        "ONNX Runtime without graph optimisations": ort.InferenceSession(str(onnx), plain),
    }
    found: dict[str, list[NDArray[np.float64]]] = {name: [] for name in others}
    for feed in feeds:
        wanted = definition.run(None, dict(feed))[0]
        for name, session in others.items():
            found[name].append(_cosines(session.run(None, dict(feed))[0], wanted))
    summary = {}
    for name, parts in found.items():
        cosines = np.concatenate(parts)
        summary[name] = {
            "samples": len(cosines),
            "mean": float(cosines.mean()),
            "median": float(np.median(cosines)),
            "lowest": float(cosines.min()),
            "share at least .9999": float((cosines >= 0.9999).mean()),
        }
    return summary


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.agreement", description=__doc__.split("\n")[0])
    parser.add_argument("lut", type=Path)
    parser.add_argument("onnx", type=Path)
    parser.add_argument("--data", required=True, help="pkg.mod:callable that yields inputs by name")
    parser.add_argument("--layer-feeds", type=int, default=1, help="feeds to compare the layers on")
    parser.add_argument("--feeds", type=int, default=100, help="feeds to compare the whole model on")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--output", type=Path, help="also write the JSON here")
    options = parser.parse_args(arguments)
    feeds = list(islice(load_callable(options.data, "--data")(), options.feeds))
    rows = layer_agreement(ir.load(options.onnx), feeds[: options.layer_feeds])
    result = {"bench": "agreement", "layers": rows, "whole_model": whole_model(options.lut, options.onnx, feeds)}
    if options.output:
        options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if options.json:
        print(json.dumps(result))
        return
    for row in rows:
        differing = ", ".join(f"{isa} {count}" for isa, count in row["different"].items())
        print(f"{row['layer']}: {row['values']} values, different: {differing}")
    for name, numbers in result["whole_model"].items():
        print(name, ", ".join(f"{key} {value:.5g}" for key, value in numbers.items()), file=sys.stdout)


if __name__ == "__main__":
    main()
