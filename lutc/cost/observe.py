"""Which shapes a model's layers have at given input shapes: the model runs once, dense, and is watched."""

from __future__ import annotations

import dataclasses
import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from lutc.cost.shape import LayerShape
from lutc.forms import LayerChoice
from lutc.fuse import fuse
from lutc.plan import OMITTED, Plan
from lutc.roofline import constant_bytes
from lutc.session import InferenceSession
from lutc.synthetic import synthesise
from lutc.write import write_artifact

_RUNS = 5
_PREFIX = "lutc.layer."
_PASSING_SIGNS = ("average_pool", "global_average_pool", "global_max_pool", "slice", "identity")


@dataclasses.dataclass(frozen=True)
class ModelShapes:
    """A model's layers at given input shapes.

    Attributes:
        layers: Shape by layer name; a layer that the compiler folds away, or that no run executes, is missing.
        rest_seconds: One thread's time for all other steps (normalisations, shuffles ...), whatever the forms.
        rest_bytes: Constants that those read; of an embedding, the rows looked up.
    """

    layers: Mapping[str, LayerShape]
    rest_seconds: float
    rest_bytes: int


def layer_shapes(
    model: ir.Model,
    choices: Sequence[LayerChoice],
    shapes: Mapping[str, Sequence[int | None]] | None = None,
    *,
    feeds: Mapping[str, np.ndarray] | None = None,
    isa: str | None = None,
) -> ModelShapes:
    """The shapes of a canonical model's layers, activations and residuals that their steps take up included.

    Args:
        model: Canonical; not changed.
        choices: Of this very model, from `choose_layers`; their forms do not matter.
        shapes: Sizes by input name, as `lutc.synthetic.synthesise` takes them.
        feeds: Inputs by name instead, such as a calibration sample.
        isa: Whose kernels run; the best of this CPU by default.

    Raises:
        UsageError: `shapes` or `feeds` do not fit the model.
        UnsupportedModelError: The runtime cannot run the model.
    """
    copy = model.clone()
    names = {str(choice.node.outputs[0].name): f"{_PREFIX}{i}" for i, choice in enumerate(choices)}
    for node in copy.graph:
        node.name = names.get(str(node.outputs[0].name), node.name)
    with tempfile.TemporaryDirectory(prefix="lutc-shapes-") as folder:
        path = Path(folder) / "dense.lut"
        plan = fuse(copy)
        write_artifact(plan, path, target="scalar", report={})  # without tables targets do not differ
        session = InferenceSession(path, threads=1, isa=isa)
        if feeds is None:
            feeds = synthesise(session.get_inputs(), shapes)
        steps = _watch(session, feeds)
    attributes = {step["name"]: step.get("attrs", {}) for step in json.loads(session.metadata("lutc.plan"))["steps"]}
    open_rows = {
        step.name
        for step in plan.steps
        if not all(isinstance(dim, int) for dim in (plan.values[step.outputs[0]].shape or (None,))[:-1])
    }
    after_conv, unsigned = _after_convolutions(plan), _nonnegative(plan)
    layers: dict[str, LayerShape] = {}
    rest_seconds, rest_bytes = 0.0, 0
    for step in steps:
        name = str(step["name"])
        if name.startswith(_PREFIX) and step["op"] in _READERS:
            shape = _READERS[step["op"]](attributes[name], step["inputs"], step["outputs"])
            if shape.kind == "linear" and name in open_rows:
                shape = dataclasses.replace(shape, open_rows=True)
            if shape.kind == "conv":
                shape = dataclasses.replace(shape, follows_conv=name in after_conv, nonnegative=name in unsigned)
            layers[choices[int(name.removeprefix(_PREFIX))].name] = shape
        else:
            rest_seconds += step["microseconds"] * 1e-6
            rest_bytes += constant_bytes([step])
    return ModelShapes(layers, rest_seconds, rest_bytes)


def _after_convolutions(plan: Plan) -> set[str]:
    """Names of the convolutions whose input is the output of another that is not depthwise."""
    dense = {
        step.outputs[0]
        for step in plan.steps
        if step.op == "conv" and (weight := plan.constant(step.inputs[1])) is not None and weight.shape[1] > 1
    }
    return {step.name for step in plan.steps if step.op == "conv" and step.inputs[0] in dense}


def _nonnegative(plan: Plan) -> set[str]:
    """Names of the convolutions whose input has no negative number, as far as the runtime sees that."""
    known: set[int] = set()
    found: set[str] = set()
    for step in plan.steps:
        if step.op == "conv" and step.inputs[0] in known:
            found.add(step.name)
        relu = step.op == "conv" and step.attrs.get("activation") == "relu"
        if relu and len(step.inputs) > 3 and step.inputs[3] != OMITTED:  # what is added behind a relu may be negative
            relu = bool(step.attrs.get("activation_after_residual")) or step.inputs[3] in known
        passed = step.op in _PASSING_SIGNS and step.inputs[0] in known
        if relu or passed or step.op in ("relu", "sigmoid", "softmax"):
            known.add(step.outputs[0])
    return found


def _watch(session: InferenceSession, feeds: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """The steps of a run, each with the least time of a few runs."""
    session.run(None, feeds)
    found: list[list[dict[str, Any]]] = []
    for _ in range(_RUNS):
        with session.profiling():
            session.run(None, feeds)
        found.append(session.profile())
    return [
        {**steps[0], "microseconds": min(step["microseconds"] for step in steps)} for steps in zip(*found, strict=True)
    ]


_Operand = tuple[str, tuple[int, ...], bool]


def _linear(attrs: Mapping[str, Any], inputs: Sequence[_Operand | None], outputs: Sequence[_Operand]) -> LayerShape:
    x, weight = _dims(inputs[0]), _dims(inputs[1])
    return LayerShape.linear(
        math.prod(x[:-1]), weight[0], weight[1], activation=_activation(attrs), residual=_present(inputs, 3)
    )


def _conv(attrs: Mapping[str, Any], inputs: Sequence[_Operand | None], outputs: Sequence[_Operand]) -> LayerShape:
    x, weight = _dims(inputs[0]), _dims(inputs[1])
    return LayerShape(
        "conv", x[1], weight[0], batch=x[0], image=(x[2], x[3]), kernel=(weight[2], weight[3]),
        strides=_pair(attrs, "strides"), dilations=_pair(attrs, "dilations"), group=int(attrs.get("group", 1)),
        pads=tuple(attrs.get("pads", (0, 0, 0, 0))), activation=_activation(attrs), residual=_present(inputs, 3),
    )  # fmt: skip


def _attention(attrs: Mapping[str, Any], inputs: Sequence[_Operand | None], outputs: Sequence[_Operand]) -> LayerShape:
    q, y = _dims(inputs[0]), _dims(outputs[0])
    packed = attrs.get("packed")
    keys = _dims(inputs[1])[1] if _present(inputs, 1) and not packed else q[1]
    return LayerShape(
        "attention", int(packed[0]) if packed else q[-1], y[-1], batch=y[0], image=(y[1], keys),
        heads=int(attrs.get("num_heads", 1)),
    )  # fmt: skip


_READERS = {"linear": _linear, "conv": _conv, "attention": _attention}


def _dims(operand: _Operand | None) -> tuple[int, ...]:
    assert operand is not None
    return tuple(int(size) for size in operand[1])


def _present(inputs: Sequence[_Operand | None], position: int) -> bool:
    return len(inputs) > position and inputs[position] is not None


def _activation(attrs: Mapping[str, Any]) -> str:
    return str(attrs.get("activation", "none"))


def _pair(attrs: Mapping[str, Any], name: str) -> tuple[int, int]:
    first, second = attrs.get(name, (1, 1))
    return int(first), int(second)
