"""Reductions, sorting, sums along an axis, resizing and rotary embeddings against ONNX Runtime and NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.one_node import check, run_ours

_REDUCTIONS = ["ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum"]
_SHAPES = hnp.array_shapes(min_dims=1, max_dims=5, min_side=1, max_side=6)


def _floats(shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


@settings(max_examples=120)
@given(data=st.data(), shape=_SHAPES, op=st.sampled_from(_REDUCTIONS), keep=st.integers(0, 1))
def test_reduce(data: st.DataObject, shape: tuple[int, ...], op: str, keep: int) -> None:
    axes = data.draw(st.lists(st.integers(0, len(shape) - 1), unique=True, min_size=1))
    signed = [a - len(shape) if data.draw(st.booleans()) else a for a in axes]
    check(op, [_floats(shape), np.array(signed, np.int64)], constant=[1], keepdims=keep, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("op", _REDUCTIONS)
@pytest.mark.parametrize("axes", [(0,), (1,), (0, 2), (1, 2), (0, 1, 2)])
def test_large_reduce(op: str, axes: tuple[int, ...]) -> None:
    x = 1 + 0.001 * _floats((19, 67, 130))
    check(op, [x, np.array(axes, np.int64)], constant=[1], rtol=2e-4)


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.float64])
@pytest.mark.parametrize("op", ["ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceMean"])
def test_reduce_dtypes(op: str, dtype: Any) -> None:
    if op == "ReduceMean" and dtype == np.int64:
        pytest.skip("ONNX Runtime has no such kernel")
    x = np.random.default_rng(1).integers(1, 5, (3, 4, 5)).astype(dtype)
    check(op, [x, np.array([1], np.int64)], constant=[1])


def test_reduce_without_axes() -> None:
    x = _floats((3, 4))
    check("ReduceSum", [x])
    check("ReduceSum", [x], noop_with_empty_axes=1)
    check("ReduceSum", [x, np.zeros(0, np.int64)], constant=[1])


@pytest.mark.parametrize(
    ("op", "empty"), [("ReduceSum", 0.0), ("ReduceProd", 1.0), ("ReduceMax", -np.inf), ("ReduceMin", np.inf)]
)
def test_reduce_of_nothing(op: str, empty: float) -> None:
    ours = run_ours(op, [np.zeros((2, 0, 3), np.float32), np.array([1], np.int64)], constant=[1], keepdims=0)
    np.testing.assert_array_equal(ours[0], np.full((2, 3), empty, np.float32))


@settings(max_examples=40)
@given(
    data=st.data(),
    shape=_SHAPES,
    op=st.sampled_from(["ArgMax", "ArgMin"]),
    keep=st.integers(0, 1),
    last=st.integers(0, 1),
)
def test_arg(data: st.DataObject, shape: tuple[int, ...], op: str, keep: int, last: int) -> None:
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    x = np.random.default_rng(2).integers(0, 3, shape).astype(np.float32)
    check(op, [x], axis=axis, keepdims=keep, select_last_index=last)


@settings(max_examples=40)
@given(data=st.data(), shape=_SHAPES, largest=st.integers(0, 1), dtype=st.sampled_from([np.float32, np.int64]))
def test_top_k(data: st.DataObject, shape: tuple[int, ...], largest: int, dtype: Any) -> None:
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    k = data.draw(st.integers(1, shape[axis]))
    x = np.random.default_rng(3).integers(0, 4, shape).astype(dtype)
    check("TopK", [x, np.array([k], np.int64)], outputs=2, constant=[1], axis=axis, largest=largest)


@settings(max_examples=40)
@given(data=st.data(), shape=_SHAPES, exclusive=st.integers(0, 1), reverse=st.integers(0, 1))
def test_cum_sum(data: st.DataObject, shape: tuple[int, ...], exclusive: int, reverse: int) -> None:
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    for dtype in (np.int64, np.int32, np.float32):
        x = np.random.default_rng(4).integers(0, 9, shape).astype(dtype)
        check("CumSum", [x, np.array(axis, np.int64)], exclusive=exclusive, reverse=reverse)


_COORDINATES = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric"]


@pytest.mark.parametrize("coordinates", _COORDINATES)
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("scale", [2.0, 1.5, 0.7])
def test_resize_by_scale(coordinates: str, mode: str, scale: float) -> None:
    scales = np.array([1, 1, scale, scale], np.float32)
    inputs = [_floats((2, 3, 7, 10)), None, scales]
    check("Resize", inputs, constant=[2], mode=mode, coordinate_transformation_mode=coordinates, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("size", [(14, 20), (5, 3), (1, 1), (7, 10)])
def test_resize_to_size(mode: str, size: tuple[int, int]) -> None:
    inputs = [_floats((1, 2, 7, 10)), None, None, np.array([1, 2, *size], np.int64)]
    check("Resize", inputs, constant=[3], mode=mode, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rounding", ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
def test_resize_nearest_modes(rounding: str) -> None:
    inputs = [_floats((1, 1, 9, 5)), None, np.array([1, 1, 0.5, 2.5], np.float32)]
    check("Resize", inputs, constant=[2], mode="nearest", nearest_mode=rounding)
    check(
        "Resize",
        inputs,
        constant=[2],
        mode="nearest",
        nearest_mode=rounding,
        coordinate_transformation_mode="asymmetric",
    )


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("with_ids", [False, True])
def test_rotary_embedding(interleaved: int, with_ids: bool) -> None:
    batch, heads, length, size = 2, 3, 5, 8
    x = _floats((batch, heads, length, size))
    angles = np.random.default_rng(5).random((16, size // 2)) * 6
    ids = np.random.default_rng(6).integers(0, 16, (batch, length))
    cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    if with_ids:
        ours = run_ours("RotaryEmbedding", [x, cos, sin, ids], interleaved=interleaved)[0]
    else:
        ours = run_ours("RotaryEmbedding", [x, cos[ids], sin[ids]], interleaved=interleaved)[0]
    a, b = (x[..., 0::2], x[..., 1::2]) if interleaved else (x[..., : size // 2], x[..., size // 2 :])
    c, s = cos[ids][:, None], sin[ids][:, None]
    expected = np.stack([a * c - b * s, a * s + b * c], -1).reshape(x.shape)
    if not interleaved:
        expected = np.concatenate([a * c - b * s, a * s + b * c], -1)
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)
