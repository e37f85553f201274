"""Attributes, indices and sizes that no exporter writes: an error that names the step, never a crash."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lutc import _runtime
from tests.one_node import run_ours

_EXTREME = st.sampled_from([0, 1, -1, 2, 3, 7, -2, 2**31, -(2**31), 2**62, -(2**62), 2**63 - 1, -(2**63)])
_LISTS = st.lists(_EXTREME, max_size=5)
_X = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


def _attempt(op: str, inputs: list[Any], **options: Any) -> list[np.ndarray] | None:
    """Runs; whatever a hostile graph causes must be one of the typed errors (or the exporter's own check)."""
    try:
        return run_ours(op, inputs, **options)
    except (_runtime.Error, ValueError, RuntimeError, MemoryError):
        return None


@pytest.mark.parametrize(
    ("op", "inputs", "constant", "attrs", "message"),
    [
        ("Gather", [_X, np.array([2])], [], {"axis": 0}, r"'y0'|'node'.*index 2 is outside \[-2, 2\)"),
        ("Gather", [_X, np.array([-3])], [], {"axis": 0}, r"index -3 is outside"),
        ("GatherND", [_X, np.array([[0, 3]])], [], {}, r"index 3 is outside"),
        ("GatherElements", [_X, np.full((2, 3, 4), 9)], [], {"axis": 2}, r"index 9 is outside"),
        ("ScatterND", [_X, np.array([[5]]), np.zeros((1, 3, 4), np.float32)], [], {}, r"index 5 is outside"),
        ("ScatterElements", [_X, np.full((2, 3, 4), -4), _X], [], {"axis": 1}, r"index -4 is outside"),
        ("Reshape", [_X, np.array([5, 5])], [], {}, r"depends on the data"),
        ("Range", [np.array(0.0), np.array(3.0), np.array(1.0)], [], {}, r"depends on the data"),
    ],
)
def test_errors_name_the_step_and_the_value(
    op: str, inputs: list[np.ndarray], constant: list[int], attrs: dict[str, Any], message: str
) -> None:
    with pytest.raises(_runtime.Error, match=message) as caught:
        run_ours(op, inputs, constant=constant, **attrs)
    assert "step 'node'" in str(caught.value)


_EVERY = settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])


@_EVERY
@given(starts=_LISTS, ends=_LISTS, axes=_LISTS, steps=_LISTS)
def test_slice(starts: list[int], ends: list[int], axes: list[int], steps: list[int]) -> None:
    lists = [np.array(v, np.int64) for v in (starts, ends, axes, steps)]
    _attempt("Slice", [_X, *lists], constant=[1, 2, 3, 4])


@_EVERY
@given(op=st.sampled_from(["Reshape", "Expand", "Tile", "Squeeze", "Unsqueeze", "Pad", "ReduceSum"]), values=_LISTS)
def test_shape_inputs(op: str, values: list[int]) -> None:
    _attempt(op, [_X, np.array(values, np.int64)], constant=[1])


@_EVERY
@given(pads=st.lists(_EXTREME, min_size=6, max_size=6), mode=st.sampled_from(["constant", "reflect", "edge", "wrap"]))
def test_pad(pads: list[int], mode: str) -> None:
    _attempt("Pad", [_X, np.array(pads, np.int64)], constant=[1], mode=mode)


@_EVERY
@given(values=_LISTS)
def test_constant_of_shape(values: list[int]) -> None:
    _attempt("ConstantOfShape", [np.array(values, np.int64)], constant=[0])


@_EVERY
@given(values=st.lists(_EXTREME, min_size=3, max_size=3))
def test_range(values: list[int]) -> None:
    _attempt("Range", [np.array(v, np.int64) for v in values], constant=[0, 1, 2])


@_EVERY
@given(values=st.lists(st.floats(width=32), min_size=3, max_size=3))
def test_resize_scales(values: list[float]) -> None:
    for mode in ("nearest", "linear", "cubic"):
        _attempt("Resize", [_X, None, np.array(values, np.float32)], constant=[2], mode=mode, antialias=1)


@_EVERY
@given(values=st.lists(_EXTREME, min_size=3, max_size=3))
def test_resize_sizes(values: list[int]) -> None:
    for mode in ("nearest", "linear", "cubic"):
        _attempt("Resize", [_X, None, None, np.array(values, np.int64)], constant=[3], mode=mode)


@_EVERY
@given(perm=_LISTS)
def test_transpose(perm: list[int]) -> None:
    _attempt("Transpose", [_X], perm=perm)


@_EVERY
@given(
    op=st.sampled_from(["Gather", "GatherElements", "ScatterElements", "OneHot", "GatherND", "ScatterND"]),
    axis=_EXTREME,
    values=st.lists(_EXTREME, min_size=1, max_size=4),
)
def test_indices(op: str, axis: int, values: list[int]) -> None:
    index = np.array(values, np.int64)
    if op == "OneHot":
        _attempt(op, [index, np.array(values[0], np.int64), np.array([0, 1], np.float32)], constant=[1], axis=axis)
    elif op in ("GatherND", "ScatterND"):
        updates = [] if op == "GatherND" else [np.zeros((), np.float32)]
        attrs = {"batch_dims": axis} if op == "GatherND" else {}
        _attempt(op, [_X, index.reshape(1, -1), *updates], **attrs)
    elif op == "Gather":
        _attempt(op, [_X, index], axis=axis)
    else:
        index = np.resize(index, (2, 3, 4))
        _attempt(op, [_X, index, _X][: 2 if op == "GatherElements" else 3], axis=axis)


@_EVERY
@given(op=st.sampled_from(["Concat", "Split", "Flatten", "ArgMax", "CumSum", "TopK", "Trilu"]), value=_EXTREME)
def test_axes(op: str, value: int) -> None:
    scalar = np.array(value, np.int64)
    if op in ("Concat", "Flatten", "ArgMax"):
        _attempt(op, [_X, _X] if op == "Concat" else [_X], axis=value)
    elif op == "Split":
        _attempt(op, [_X, np.array([1, value], np.int64)], outputs=2, constant=[1], axis=0)
        _attempt(op, [_X], outputs=2, axis=value, num_outputs=2)
    elif op == "TopK":
        _attempt(op, [_X, scalar.reshape(1)], outputs=2, constant=[1])
    else:
        _attempt(op, [_X, scalar])
