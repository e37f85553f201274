"""Operators that move elements, against ONNX Runtime and NumPy: shapes, slices, gathers, scatters, pads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.one_node import check, run_ours

_SHAPES = hnp.array_shapes(min_dims=1, max_dims=5, min_side=0, max_side=5)
_FULL_SHAPES = hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=5)
_DTYPES = st.sampled_from([np.float32, np.float64, np.int64, np.int32, np.int8, np.uint8, np.bool_])


def _data(shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
    return (np.arange(np.prod(shape, dtype=int)) % 101).reshape(shape).astype(dtype)


def _ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


@settings(max_examples=60)
@given(data=st.data(), shape=_SHAPES, dtype=_DTYPES)
def test_transpose(data: st.DataObject, shape: tuple[int, ...], dtype: Any) -> None:
    perm = data.draw(st.permutations(range(len(shape))))
    check("Transpose", [_data(shape, dtype)], perm=perm)


@pytest.mark.parametrize(
    ("shape", "perm"),
    [
        ((2, 128, 12, 32), (0, 2, 1, 3)),
        ((2, 128, 12, 32), (0, 2, 3, 1)),
        ((129, 517), (1, 0)),
        ((7, 100, 130), (0, 2, 1)),
        ((33, 3, 65, 17), (3, 2, 1, 0)),
        ((1, 64, 40, 40), (0, 2, 3, 1)),
    ],
)
@pytest.mark.parametrize("threads", [1, 2])
def test_large_transposes(shape: tuple[int, ...], perm: tuple[int, ...], threads: int) -> None:
    from tests.one_node import runtime_session, single_node

    x = np.random.default_rng(0).random(shape, np.float32)
    session = runtime_session(single_node("Transpose", [x], perm=perm), threads=threads)
    np.testing.assert_array_equal(session.run(None, {"x0": x})[0], x.transpose(perm))


@pytest.mark.parametrize(
    ("shape", "target", "allowzero"),
    [
        ((2, 3, 4), (4, -1), 0),
        ((2, 3, 4), (0, 12), 0),
        ((2, 3, 4), (-1,), 0),
        ((1,), (), 0),
        ((0, 3), (3, 0), 1),
        ((0, 3), (0, 0), 0),
        ((2, 0, 4), (2, 0, -1), 0),
    ],
)
def test_reshape(shape: tuple[int, ...], target: tuple[int, ...], allowzero: int) -> None:
    if shape == (0, 3) and target == (0, 0):
        with pytest.raises(Exception, match="cannot reshape"):
            run_ours("Reshape", [_data(shape), _ints(3, 0, 1)], constant=[1], allowzero=0)
        return
    if -1 in target and 0 in shape:
        with pytest.raises(Exception, match="ambiguous"):
            run_ours("Reshape", [_data(shape), _ints(*target)], constant=[1], allowzero=allowzero)
        return
    check("Reshape", [_data(shape), _ints(*target)], constant=[1], allowzero=allowzero)


@pytest.mark.parametrize("axis", [-3, -1, 0, 1, 2, 3])
def test_flatten(axis: int) -> None:
    check("Flatten", [_data((2, 3, 4))], axis=axis)


def test_squeeze_and_unsqueeze() -> None:
    check("Squeeze", [_data((1, 3, 1, 2)), _ints(0, -2)], constant=[1])
    check("Squeeze", [_data((1, 3, 1, 2))])
    check("Unsqueeze", [_data((3, 2)), _ints(0, -1)], constant=[1])
    check("Unsqueeze", [_data((3, 2)), _ints(3, 1)], constant=[1])


@settings(max_examples=40)
@given(
    shapes=hnp.mutually_broadcastable_shapes(num_shapes=2, min_dims=1, max_dims=5, min_side=0, max_side=4),
    dtype=_DTYPES,
)
def test_expand(shapes: hnp.BroadcastableShapes, dtype: Any) -> None:
    a, b = shapes.input_shapes
    check("Expand", [_data(a, dtype), np.array(b, np.int64)], constant=[1])


@settings(max_examples=40)
@given(data=st.data(), shape=_SHAPES)
def test_tile(data: st.DataObject, shape: tuple[int, ...]) -> None:
    repeats = data.draw(st.lists(st.integers(0, 3), min_size=len(shape), max_size=len(shape)))
    x = _data(shape)
    np.testing.assert_array_equal(run_ours("Tile", [x, _ints(*repeats)], constant=[1])[0], np.tile(x, repeats))


@settings(max_examples=100)
@given(data=st.data(), shape=_SHAPES, dtype=_DTYPES)
def test_slice(data: st.DataObject, shape: tuple[int, ...], dtype: Any) -> None:
    axes = data.draw(st.lists(st.integers(0, len(shape) - 1), unique=True, min_size=1))
    n = len(axes)
    bounds = st.one_of(st.integers(-8, 8), st.sampled_from([2**63 - 1, -(2**63), 2**31]))
    starts = data.draw(st.lists(bounds, min_size=n, max_size=n))
    ends = data.draw(st.lists(bounds, min_size=n, max_size=n))
    steps = data.draw(st.lists(st.sampled_from([1, 2, 3, -1, -2, 2**40, -(2**40)]), min_size=n, max_size=n))
    x = _data(shape, dtype)
    index = [slice(None)] * len(shape)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        size = shape[axis]
        first, last = (v + size if v < 0 else v for v in (start, end))
        if step > 0:
            index[axis] = slice(min(max(first, 0), size), min(max(last, 0), size), step)
        else:
            last = min(max(last, -1), size - 1)
            index[axis] = slice(min(max(first, 0), max(size - 1, 0)), None if last == -1 else last, step)
    ours = run_ours("Slice", [x, _ints(*starts), _ints(*ends), _ints(*axes), _ints(*steps)], constant=[1, 2, 3, 4])
    np.testing.assert_array_equal(ours[0], x[tuple(index)])


@settings(max_examples=40)
@given(data=st.data(), shape=_SHAPES, dtype=_DTYPES, count=st.integers(1, 4))
def test_concat_and_split_are_inverse(data: st.DataObject, shape: tuple[int, ...], dtype: Any, count: int) -> None:
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    sizes = data.draw(st.lists(st.integers(0, 4), min_size=count, max_size=count))
    parts = []
    for k, size in enumerate(sizes):
        dims = list(shape)
        dims[axis] = size
        parts.append(_data(tuple(dims), dtype) if k % 2 else np.flip(_data(tuple(dims), dtype)).copy())
    whole = run_ours("Concat", parts, axis=axis)[0]
    np.testing.assert_array_equal(whole, np.concatenate(parts, axis))
    back = run_ours("Split", [whole, _ints(*sizes)], outputs=count, constant=[1], axis=axis)
    for a, b in zip(back, parts, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("parts", [1, 2, 3, 4])
def test_split_into_equal_parts(parts: int) -> None:
    check("Split", [_data((2, 7))], outputs=parts, axis=1, num_outputs=parts)


@settings(max_examples=60)
@given(data=st.data(), shape=_FULL_SHAPES, picks=hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
def test_gather(data: st.DataObject, shape: tuple[int, ...], picks: tuple[int, ...]) -> None:
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    index = data.draw(
        hnp.arrays(
            data.draw(st.sampled_from([np.int64, np.int32])), picks, elements=st.integers(-shape[axis], shape[axis] - 1)
        )
    )
    check("Gather", [_data(shape), index], axis=axis)


def test_gather_embedding_rows_with_threads() -> None:
    table = np.random.default_rng(0).random((1000, 384), np.float32)
    ids = np.random.default_rng(1).integers(0, 1000, (8, 128))
    check("Gather", [table, ids])


@settings(max_examples=40)
@given(data=st.data(), shape=_FULL_SHAPES)
def test_gather_elements(data: st.DataObject, shape: tuple[int, ...]) -> None:
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    dims = list(shape)
    dims[axis] = data.draw(st.integers(1, 6))
    index = data.draw(hnp.arrays(np.int64, tuple(dims), elements=st.integers(-shape[axis], shape[axis] - 1)))
    check("GatherElements", [_data(shape), index], axis=axis)


@settings(max_examples=40)
@given(data=st.data(), shape=_FULL_SHAPES)
def test_gather_nd(data: st.DataObject, shape: tuple[int, ...]) -> None:
    batch = data.draw(st.integers(0, len(shape) - 1))
    tuple_size = data.draw(st.integers(1, len(shape) - batch))
    picks = data.draw(st.integers(1, 4))
    limits = shape[batch : batch + tuple_size]
    columns = [
        data.draw(hnp.arrays(np.int64, (*shape[:batch], picks), elements=st.integers(-n, n - 1))) for n in limits
    ]
    check("GatherND", [_data(shape), np.stack(columns, -1)], batch_dims=batch)


@pytest.mark.parametrize("reduction", ["none", "add", "mul", "max", "min"])
@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_scatter(reduction: str, dtype: Any) -> None:
    x = _data((4, 5), dtype)
    index = _ints(0, 2, -1, 2).reshape(2, 2) if reduction != "none" else _ints(0, 2, -1, 1).reshape(2, 2)
    check("ScatterElements", [x, index, _data((2, 2), dtype) + 1], axis=1, reduction=reduction)
    rows = _ints(3, 0, -1 if reduction != "none" else 1).reshape(3, 1)
    check("ScatterND", [x, rows, _data((3, 5), dtype)], reduction=reduction)


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge", "wrap"])
@pytest.mark.parametrize("pads", [(0, 1, 2, 0, 2, 1), (1, 0, 0, 0, 0, 3), (0, -1, 1, 0, 0, -1)])
def test_pad(mode: str, pads: tuple[int, ...]) -> None:
    if mode == "wrap" and min(pads) < 0:
        pytest.skip("ONNX Runtime wraps before it crops")
    if mode == "reflect" and pads[0] > 0:
        pads = (0, *pads[1:])
    check("Pad", [_data((2, 3, 4)), _ints(*pads)], constant=[1], mode=mode)


def test_pad_axes_and_value() -> None:
    check("Pad", [_data((2, 3)), _ints(1, 2), np.array(7, np.float32), _ints(-1)], constant=[1, 3])


@pytest.mark.parametrize(
    ("bounds", "dtype"),
    [
        ((0, 10, 3), np.int64),
        ((10, 0, -3), np.int64),
        ((0, 5, -1), np.int32),
        ((0.5, 3, 0.25), np.float32),
        ((5, -1, -1.5), np.float64),
    ],
)
def test_range(bounds: tuple[float, ...], dtype: Any) -> None:
    check("Range", [np.array(b, dtype) for b in bounds], constant=[0, 1, 2])


@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_one_hot(axis: int) -> None:
    index = _ints(0, 3, -1, 7, -9, 2).reshape(2, 3)
    check("OneHot", [index, np.array(5, np.int64), np.array([2, 9], np.float32)], constant=[1], axis=axis)


@settings(max_examples=40)
@given(shape=hnp.array_shapes(min_dims=2, max_dims=4, max_side=5), k=st.integers(-7, 7), upper=st.integers(0, 1))
def test_trilu(shape: tuple[int, ...], k: int, upper: int) -> None:
    check("Trilu", [_data(shape), np.array(k, np.int64)], upper=upper)


@pytest.mark.parametrize("value", [None, np.array([3], np.int64), np.array([0.5], np.float32), np.array([True])])
def test_constant_of_shape(value: np.ndarray | None) -> None:
    import onnx

    attrs = {} if value is None else {"value": onnx.numpy_helper.from_array(value)}
    check("ConstantOfShape", [_ints(2, 0, 3)], constant=[0], **attrs)
    check("ConstantOfShape", [_ints(2, 3)], constant=[0], **attrs)


def test_shape_and_size() -> None:
    check("Shape", [_data((2, 0, 4))])
    check("Shape", [_data((2, 3, 4))], start=-2, end=9)
    check("Size", [_data((2, 3, 4))])
    check("Identity", [_data((2, 3))])
