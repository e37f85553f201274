"""Elementwise operators against ONNX Runtime: dtypes, broadcasting, special values, empty tensors."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import helper

from tests.one_node import check, run_both, run_ours, runtime_session

_SPECIAL = np.array([0.0, -0.0, 1.0, -1.0, 0.5, 2.5, -2.5, 88.0, -88.0, 1e-30, np.inf, -np.inf, np.nan], np.float32)
_SHAPES = hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=4, min_side=0, max_side=5)
_INTS = (np.int64, np.int32, np.int8, np.uint8)


def _floats(seed: int, shape: tuple[int, ...], dtype: type = np.float32) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(shape) * 3).astype(dtype)


def _ints(seed: int, shape: tuple[int, ...], dtype: type, low: int = 0, high: int = 9) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high, shape).astype(dtype)


def _bools(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(seed).random(shape) < 0.5


@pytest.mark.parametrize("size", [0, 1, 7, 33, 100_003])
@pytest.mark.parametrize(
    "op",
    [
        "Abs",
        "Ceil",
        "Cos",
        "Erf",
        "Exp",
        "Floor",
        "HardSigmoid",
        "HardSwish",
        "LeakyRelu",
        "Neg",
        "Reciprocal",
        "Relu",
        "Round",
        "Sigmoid",
        "Sign",
        "Sin",
        "Softplus",
        "Tanh",
    ],
)
def test_unary_floats(op: str, size: int) -> None:
    check(op, [_floats(0, (size,))])


@pytest.mark.parametrize("op", ["Log", "Sqrt"])
def test_unary_of_positive_floats(op: str) -> None:
    check(op, [np.abs(_floats(0, (1001,))) + 1e-3])


@pytest.mark.parametrize(
    "op",
    [
        "Abs",
        "Ceil",
        "Exp",
        "Floor",
        "IsInf",
        "IsNaN",
        "LeakyRelu",
        "Log",
        "Neg",
        "Reciprocal",
        "Relu",
        "Round",
        "Sigmoid",
        "Sign",
        "Sqrt",
        "Tanh",
    ],
)
def test_unary_special_values(op: str) -> None:
    check(op, [_SPECIAL])


@pytest.mark.parametrize("op", ["Ceil", "Exp", "Floor", "Log", "Round", "Sigmoid", "Sqrt", "Tanh"])
def test_unary_f64(op: str) -> None:
    check(op, [np.abs(_floats(1, (3, 5), np.float64)) + 0.1], rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.int8])
@pytest.mark.parametrize("op", ["Abs", "Neg", "Sign"])
def test_unary_integers(op: str, dtype: type) -> None:
    check(op, [_ints(2, (4, 9), dtype, -9)])


@pytest.mark.parametrize(("negative", "positive"), [(1, 0), (0, 1), (0, 0)])
def test_is_inf_attributes(negative: int, positive: int) -> None:
    check("IsInf", [_SPECIAL], detect_negative=negative, detect_positive=positive)


@settings(max_examples=40)
@given(
    shapes=_SHAPES, op=st.sampled_from(["Add", "Sub", "Mul", "Div"]), dtype=st.sampled_from([np.float32, np.float64])
)
def test_arithmetic_broadcasts(shapes: hnp.BroadcastableShapes, op: str, dtype: type) -> None:
    a, b = shapes.input_shapes
    check(op, [_floats(3, a, dtype), _floats(4, b, dtype) + 20])


@settings(max_examples=40)
@given(
    shapes=_SHAPES, op=st.sampled_from(["Add", "Sub", "Mul", "Div", "Mod"]), dtype=st.sampled_from([np.int64, np.int32])
)
def test_integer_arithmetic(shapes: hnp.BroadcastableShapes, op: str, dtype: type) -> None:
    a, b = shapes.input_shapes
    divisor = _ints(6, b, dtype, -5, 5)
    check(op, [_ints(5, a, dtype, -50, 50), np.where(divisor == 0, 3, divisor).astype(dtype)])


@pytest.mark.parametrize(
    "shapes", [((64, 1100), (1100,)), ((70, 1000), ()), ((3, 1, 257, 90), (1, 8, 1, 90)), ((90_000,), (90_000,))]
)
@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div"])
def test_large_operands(op: str, shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    a, b = _floats(7, shapes[0]), _floats(8, shapes[1])
    check(op, [a, b])
    check(op, [b, a])


@settings(max_examples=40)
@given(
    shapes=_SHAPES,
    op=st.sampled_from(["Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"]),
    dtype=st.sampled_from([np.float32, np.float64, np.int64, np.int32]),
)
def test_comparisons(shapes: hnp.BroadcastableShapes, op: str, dtype: type) -> None:
    a, b = shapes.input_shapes
    check(op, [_ints(9, a, dtype, 0, 3), _ints(10, b, dtype, 0, 3)])


@settings(max_examples=30)
@given(shapes=_SHAPES, op=st.sampled_from(["And", "Or", "Xor", "Equal"]))
def test_logic(shapes: hnp.BroadcastableShapes, op: str) -> None:
    a, b = shapes.input_shapes
    check(op, [_bools(11, a), _bools(12, b)])


def test_not() -> None:
    check("Not", [_bools(13, (3, 7))])


@settings(max_examples=30)
@given(
    shapes=hnp.mutually_broadcastable_shapes(num_shapes=3, max_dims=4, min_side=0, max_side=5),
    dtype=st.sampled_from([np.float32, np.int64, np.int32, np.uint8]),
)
def test_where(shapes: hnp.BroadcastableShapes, dtype: type) -> None:
    c, x, y = shapes.input_shapes
    check("Where", [_bools(14, c), _ints(15, x, dtype), _ints(16, y, dtype)])


def test_where_bool_values() -> None:
    ours = run_ours("Where", [_bools(1, (3, 1)), _bools(2, (1, 4)), _bools(3, (3, 4))])
    np.testing.assert_array_equal(ours[0], np.where(_bools(1, (3, 1)), _bools(2, (1, 4)), _bools(3, (3, 4))))


@settings(max_examples=30)
@given(
    shapes=hnp.mutually_broadcastable_shapes(num_shapes=3, max_dims=3, min_side=0, max_side=4),
    op=st.sampled_from(["Max", "Min", "Sum", "Mean"]),
    count=st.integers(1, 3),
)
def test_variadic(shapes: hnp.BroadcastableShapes, op: str, count: int) -> None:
    check(op, [_floats(17 + i, shape) for i, shape in enumerate(shapes.input_shapes[:count])])


@pytest.mark.parametrize("op", ["Max", "Min"])
@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.float64])
def test_variadic_dtypes(op: str, dtype: type) -> None:
    check(op, [_ints(20, (2, 5), dtype), _ints(21, (5,), dtype)])


@pytest.mark.parametrize("exponent", [0.5, 2.0, 3.0, 1.0, -1.0, 1.7])
def test_pow_by_scalar(exponent: float) -> None:
    check("Pow", [np.abs(_floats(22, (5, 40))), np.array(exponent, np.float32)], rtol=1e-5)


@pytest.mark.parametrize(
    ("base", "exponent"), [(np.float32, np.int64), (np.int64, np.int64), (np.int32, np.int32), (np.float64, np.float64)]
)
def test_pow_dtypes(base: type, exponent: type) -> None:
    check("Pow", [_ints(23, (4, 3), base, -4, 5), _ints(24, (3,), exponent, 0, 4)], rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.int64])
def test_fmod(dtype: type) -> None:
    check("Mod", [_ints(25, (30,), dtype, -20, 20), _ints(26, (30,), dtype, 1, 6)], fmod=1)


def test_p_relu() -> None:
    check("PRelu", [_floats(27, (2, 3, 4, 5)), _floats(28, (3, 1, 1))])


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.int32, np.int8, np.uint8])
@pytest.mark.parametrize("bounds", [(2, 5), (None, 5), (2, None), (None, None), (5, 2)])
def test_clip(dtype: type, bounds: tuple[int | None, int | None]) -> None:
    check("Clip", [_ints(29, (3, 6), dtype), *(None if b is None else np.array(b, dtype) for b in bounds)])


_ALL = {1: np.float32, 11: np.float64, 7: np.int64, 6: np.int32, 3: np.int8, 2: np.uint8, 9: np.bool_}


@pytest.mark.parametrize("source", _ALL.values())
@pytest.mark.parametrize("to", _ALL)
def test_cast(source: type, to: int) -> None:
    check("Cast", [_ints(30, (5, 3), source, 0, 100)], to=to)


def test_cast_truncates_towards_zero() -> None:
    check("Cast", [np.array([-2.7, -0.5, 0.5, 2.7], np.float32)], to=7)


@pytest.mark.parametrize("op", ["Div", "Mod"])
@pytest.mark.parametrize("dtype", _INTS)
def test_integer_division_by_zero_is_an_error(op: str, dtype: type) -> None:
    with pytest.raises(Exception, match=r"node.*division by zero"):
        run_ours(op, [np.ones(3, dtype), np.array([1, 0, 2], dtype)])


def test_smallest_integer_divided_by_minus_one_does_not_trap() -> None:
    for dtype in (np.int64, np.int32, np.int8):
        least = np.array([np.iinfo(dtype).min], dtype)
        assert run_ours("Div", [least, np.array([-1], dtype)])[0][0] == np.iinfo(dtype).min
        assert run_ours("Mod", [least, np.array([-1], dtype)])[0][0] == 0


def test_shapes_that_do_not_broadcast_are_named() -> None:
    node = helper.make_node("Add", ["x0", "x1"], ["y0"], name="encoder/add")
    values = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [n]) for n in ("x0", "x1")]
    output = helper.make_tensor_value_info("y0", onnx.TensorProto.FLOAT, None)
    session = runtime_session(helper.make_model(helper.make_graph([node], "g", values, [output])))
    with pytest.raises(Exception, match=r"encoder/add.*\[3\] and \[4\]"):
        session.run(None, {"x0": np.zeros(3, np.float32), "x1": np.zeros(4, np.float32)})


def test_run_both_can_fail() -> None:
    ours, theirs = run_both("Add", [np.ones(2, np.float32), np.ones(2, np.float32)])
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(ours[0] + 1, theirs[0])
