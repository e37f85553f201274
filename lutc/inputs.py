"""The model's inputs as the user sees them: sizes given by --shape, and what calibration samples must look like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from lutc.errors import UsageError


def describe_inputs(model: ir.Model) -> list[str]:
    """One line for each input: name, dtype, shape."""
    return [
        f"{value.name}: {value.dtype.name.lower() if value.dtype else '?'} {list(map(_dim, value.shape or ()))}"
        for value in model.graph.inputs
        if value.name not in model.graph.initializers
    ]


def requested_shapes(model: ir.Model, shapes: Mapping[str, Sequence[int | None]]) -> dict[str, list[int | str]]:
    """Sizes given by --shape as whole shapes: None becomes what the model says there.

    Raises:
        UsageError: no such input, or another rank.
    """
    inputs = {value.name: value for value in model.graph.inputs}
    requested: dict[str, list[int | str]] = {}
    for name, shape in shapes.items():
        if name not in inputs:
            known = "\n  ".join(describe_inputs(model))
            raise UsageError(f"--shape '{name}' names no input; the model's inputs:\n  {known}")
        dims = list(inputs[name].shape or [None] * len(shape))
        if len(dims) != len(shape):
            raise UsageError(f"--shape '{name}': {len(shape)} dims given, the model has {len(dims)}")
        requested[name] = [
            wanted if wanted is not None else _named(dim, name, axis)
            for axis, (dim, wanted) in enumerate(zip(dims, shape, strict=True))
        ]
    return requested


def needed_samples(model: ir.Model, layers: int, *, selects: bool = False) -> str:
    """The message for a compilation that lacks samples; `selects`: whether forms are to be selected."""
    task = "the forms of {} layer(s) are to be selected" if selects else "{} layer(s) are to be replaced"
    return (
        f"{task.format(layers)}, which needs unlabelled samples of the model's inputs:\n  "
        + "\n  ".join(describe_inputs(model))
        + "\nGive them with --calib SRC: an .npz keyed by input name, a directory of .npy/.npz, or pkg.mod:callable "
        "yielding dicts; some hundred samples will do.\nTo only try the road: --calib random (accuracy will be poor). "
        "Without samples: --preset int8, or --preset fp32"
    )


def _named(dim: object, name: str, axis: int) -> int | str:
    if isinstance(dim, int):
        return dim
    return getattr(dim, "value", None) or f"{name}.{axis}"


def _dim(dim: object) -> object:
    return dim.value or "?" if isinstance(dim, ir.SymbolicDim) else dim
