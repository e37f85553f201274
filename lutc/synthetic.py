"""Made-up inputs of the right names, dtypes and shapes, for benchmarks (never for calibration)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lutc.errors import UsageError

_DTYPES: dict[str, type] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}
_LENGTH = 128  # of symbolic dims after the first (sequences); the first is a batch of 1
_TOKENS = 100  # made-up ids stay below the size of any vocabulary


def synthesise(
    inputs: Sequence, shapes: Mapping[str, Sequence[int | None]] | None = None, *, seed: int = 0
) -> dict[str, np.ndarray]:
    """Random feeds for a model.

    Args:
        inputs: the session's get_inputs(): objects with name, type ("tensor(float)") and shape.
        shapes: sizes by input name; None (or an input not named) leaves the model's size, and 1 (first dim) or 128
            where that is symbolic. Dims of one symbolic name get one size.
        seed: of the random numbers.

    Returns:
        Arrays by input name: standard normal floats, ids below 100, masks of ones, token types of zeros.

    Raises:
        UsageError: `shapes` names no input, or has another rank or a fixed dim of another size.
    """
    shapes = dict(shapes or {})
    unknown = set(shapes) - {i.name for i in inputs}
    if unknown:
        names = ", ".join(i.name for i in inputs)
        raise UsageError(f"--shape names no input: {', '.join(sorted(unknown))}; the model's inputs: {names}")
    sizes: dict[str, int] = {}
    for item in inputs:
        for axis, (dim, wanted) in enumerate(zip(item.shape, shapes.get(item.name, ()), strict=False)):
            if isinstance(dim, str) and wanted is not None:
                sizes[dim] = wanted
            elif isinstance(dim, int) and wanted not in (None, dim):
                raise UsageError(f"--shape {item.name}: dim {axis} is {dim} in the model, not {wanted}")
    generator = np.random.default_rng(seed)
    feeds = {}
    for item in inputs:
        given = shapes.get(item.name, (None,) * len(item.shape))
        if len(given) != len(item.shape):
            raise UsageError(
                f"--shape {item.name}: {len(given)} dims, the model has {len(item.shape)}: {list(item.shape)}"
            )
        shape = [_size(dim, w, axis, sizes) for axis, (dim, w) in enumerate(zip(item.shape, given, strict=True))]
        feeds[item.name] = _fill(item.name, np.dtype(numpy_dtype(item.type)), shape, generator)
    return feeds


def numpy_dtype(onnx_type: str) -> type:
    """The numpy type of an ONNX tensor type such as "tensor(float)".

    Raises:
        UsageError: a type that no model of lutc's takes.
    """
    if onnx_type not in _DTYPES:
        raise UsageError(f"inputs of type {onnx_type} are not supported")
    return _DTYPES[onnx_type]


def _size(dim: object, wanted: int | None, axis: int, sizes: Mapping[str, int]) -> int:
    if wanted is not None:
        return wanted
    if isinstance(dim, int):
        return dim
    return sizes.get(str(dim), 1 if axis == 0 else _LENGTH)


def _fill(name: str, dtype: np.dtype, shape: Sequence[int], generator: np.random.Generator) -> np.ndarray:
    if np.issubdtype(dtype, np.floating):
        return generator.standard_normal(shape).astype(dtype)
    if dtype == np.bool_ or "mask" in name:
        return np.ones(shape, dtype)
    if "type" in name:
        return np.zeros(shape, dtype)
    return generator.integers(1, _TOKENS, shape).astype(dtype)
