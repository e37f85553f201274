"""int8_linear on every ISA against plain numpy, bit for bit, and against the function body in ONNX Runtime."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lutc.fuse.quad16 import quad16
from lutc.ir.int8 import int8_functions, quantise_weight
from lutc.ir.reference import int8_linear
from lutc.ir.testing import parse
from lutc.ir.testing import run as run_onnx
from tests.one_step import ISAS, run_step, step_session

ACTIVATIONS = ["none", "relu", "gelu", "gelu_tanh", "silu", "tanh", "sigmoid"]


def layer(rng, features, outputs):
    weight = rng.integers(-127, 128, (features, outputs)).astype(np.int8)
    scale = rng.uniform(1e-4, 1e-2, outputs).astype(np.float32)
    return weight, scale, rng.normal(size=outputs).astype(np.float32)


def rows(rng, lead, features):
    x = (rng.normal(size=(*lead, features)) * 10.0 ** rng.integers(-3, 4)).astype(np.float32)
    if x.size:
        x.reshape(-1, features)[rng.integers(x.size // features)] = 0
    return x


def run(x, parameters, residual=None, activation="none", *, isa, threads=1):
    weight, scale, bias = parameters
    attrs = {"features": weight.shape[0], "outputs": weight.shape[1], "activation": activation}
    inputs = [x, quad16(weight), scale, bias, residual]
    (y,) = run_step("int8_linear", inputs, attrs, constant=(1, 2, 3), isa=isa, threads=threads)
    return y


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    lead=st.one_of(st.sampled_from([(), (0,), (1,), (3, 0), (2, 3), (1, 17)]), st.tuples(st.integers(1, 300))),
    features=st.integers(1, 150),
    outputs=st.integers(1, 100),
    residual=st.booleans(),
    activation=st.sampled_from(["none", "relu"]),
    threads=st.sampled_from([1, 2]),
)
def test_bits_are_those_of_the_definition(isa, seed, lead, features, outputs, residual, activation, threads):
    rng = np.random.default_rng(seed)
    x, parameters = rows(rng, lead, features), layer(rng, features, outputs)
    expected = int8_linear(x, *parameters)
    if activation == "relu":
        expected = np.maximum(expected, 0)
    added = rng.normal(size=expected.shape).astype(np.float32) if residual else None
    if added is not None:
        expected = expected + added
    np.testing.assert_array_equal(run(x, parameters, added, activation, isa=isa, threads=threads), expected)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("shape", [(1, 3072, 17), (5, 1001, 65), (16, 64, 16), (130, 768, 200), (700, 1500, 48)])
@pytest.mark.parametrize("threads", [1, 2])
def test_long_sums_and_several_passes(isa, shape, threads):
    rng = np.random.default_rng(sum(shape))
    x, parameters = rows(rng, shape[:1], shape[1]), layer(rng, shape[1], shape[2])
    np.testing.assert_array_equal(run(x, parameters, isa=isa, threads=threads), int8_linear(x, *parameters))


@pytest.mark.parametrize("isa", ISAS)
def test_extreme_weights_and_inputs_do_not_saturate(isa):
    weight = np.full((513, 33), 127, np.int8)
    weight[:, ::2] = -127
    parameters = weight, np.ones(33, np.float32), np.zeros(33, np.float32)
    x = np.concatenate([np.ones((9, 513), np.float32), -np.ones((9, 513), np.float32)])
    np.testing.assert_array_equal(run(x, parameters, isa=isa), int8_linear(x, *parameters))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("residual", [False, True])
def test_activation_and_then_residual(isa, activation, residual):
    rng = np.random.default_rng(3)
    x, parameters = rows(rng, (21,), 50), layer(rng, 50, 70)
    added = rng.normal(size=(21, 70)).astype(np.float32) if residual else None
    plain = run(x, parameters, isa="scalar")
    name = {"gelu_tanh": "Gelu", "none": "Identity", "silu": "ai.lutc.Silu"}.get(activation, activation.capitalize())
    if activation == "silu":
        expected = plain / (1 + np.exp(-plain.astype(np.float64)))
    else:
        attributes = '<approximate = "tanh">' if activation == "gelu_tanh" else ""
        made = parse(f"g (float[n,m] x) => (float[n,m] y) {{ y = {name}{attributes}(x) }}")
        (expected,) = run_onnx(made, {"x": plain})
    if added is not None:
        expected = expected + added
    np.testing.assert_allclose(run(x, parameters, added, activation, isa=isa), expected, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("isa", ISAS)
def test_the_function_body_gives_the_same_bits(isa):
    rng = np.random.default_rng(5)
    x, (weight, scale, bias) = rows(rng, (3, 11), 45), layer(rng, 45, 37)
    text = "g (float[a,b,45] x) => (float[a,b,37] y) { y = ai.lutc.Int8Linear(x, w, s, c) }"
    model = parse(text, {"w": weight, "s": scale, "c": bias})
    for function in int8_functions():
        model.functions[function.identifier()] = function
    np.testing.assert_array_equal(run(x, (weight, scale, bias), isa=isa), run_onnx(model, {"x": x})[0])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e-45, 3e38])
def test_odd_numbers_stay_in_their_row(isa, value):
    rng = np.random.default_rng(6)
    x, parameters = rows(rng, (20,), 33), layer(rng, 33, 18)
    expected = int8_linear(x, *parameters)
    x[7, 4] = value
    got = run(x, parameters, isa=isa)
    others = np.arange(20) != 7
    np.testing.assert_array_equal(got[others], expected[others])


@pytest.mark.parametrize("isa", ISAS)
def test_numbers_whose_inverse_overflows(isa):
    rng = np.random.default_rng(9)
    x, parameters = rng.uniform(2e-38, 2e-37, (19, 37)).astype(np.float32), layer(rng, 37, 21)
    x[3], x[4, 5:], x[5] = 0, 0, -x[5]
    parameters = parameters[0], np.full(21, 1e38, np.float32), np.zeros(21, np.float32)
    expected = int8_linear(x, *parameters)
    assert np.isfinite(expected).all()
    np.testing.assert_array_equal(run(x, parameters, isa=isa), expected)


@pytest.mark.parametrize("isa", ISAS)
def test_the_widest_sums(isa):
    weight = np.full((133144, 3), 127, np.int8)
    weight[::2, 1], weight[:, 2] = -127, -127
    parameters = weight, np.full(3, 1e-3, np.float32), np.zeros(3, np.float32)
    x = np.ones((2, 133144), np.float32)
    x[1] = -1
    np.testing.assert_array_equal(run(x, parameters, isa=isa), int8_linear(x, *parameters))


def test_a_quantised_weight_is_close():
    rng = np.random.default_rng(7)
    x, weight = rng.normal(size=(64, 256)).astype(np.float32), rng.normal(size=(256, 128)).astype(np.float32)
    integers, scale = quantise_weight(weight, axis=1)
    y = run(x, (integers, scale, np.zeros(128, np.float32)), isa=ISAS[-1])
    error = np.linalg.norm(y - x @ weight) / np.linalg.norm(x @ weight)
    assert error < 0.015


@pytest.mark.parametrize(
    "change",
    [
        {"features": 0}, {"features": -4}, {"features": 2**62}, {"features": 133145}, {"features": 9}, {"outputs": 0},
        {"outputs": 2**62}, {"outputs": 33}, {"features": None}, {"outputs": None}, {"activation": "softmax"},
        {"weight": np.zeros((2, 3, 16, 4), np.int8)}, {"weight": np.zeros((2, 2, 16, 4), np.uint8)},
        {"weight": np.zeros(2 * 3 * 64, np.uint8)}, {"weight": np.zeros((2, 3, 64), np.uint8)},
        {"scale": np.zeros(19, np.float32)}, {"bias": np.zeros((20, 1), np.float32)}, {"scale": np.zeros(20)},
        {"x": np.zeros((3, 11), np.float32)}, {"x": np.zeros((), np.float32)}, {"x": np.zeros((3, 12))},
        {"residual": np.zeros((3, 19), np.float32)}, {"residual": np.zeros((3, 20), np.int32)},
    ],
)  # fmt: skip
def test_hostile_steps_are_refused(change):
    given = {
        "x": np.ones((3, 12), np.float32), "weight": np.zeros((2, 3, 16, 4), np.uint8),
        "scale": np.ones(20, np.float32), "bias": np.ones(20, np.float32), "residual": None,
        "features": 12, "outputs": 20, "activation": "none",
    }  # fmt: skip
    inputs = ("x", "weight", "scale", "bias", "residual")
    run_step(
        "int8_linear", [given[n] for n in inputs], {n: given[n] for n in ("features", "outputs")}, constant=(1, 2, 3)
    )
    given.update(change)
    attrs = {n: given[n] for n in ("features", "outputs", "activation") if given[n] is not None}
    with pytest.raises(Exception, match="step"):
        run_step("int8_linear", [given[n] for n in inputs], attrs, constant=(1, 2, 3))


def test_a_computed_weight_is_refused():
    x, weight = np.ones((3, 12), np.float32), np.zeros((2, 3, 16, 4), np.uint8)
    ones = np.ones(20, np.float32)
    with pytest.raises(Exception, match="constant"):
        step_session("int8_linear", [x, weight, ones, ones], {"features": 12, "outputs": 20}, constant=(2, 3))


def test_quad16_is_what_the_format_says():
    weight = np.random.default_rng(8).integers(-127, 128, (7, 18)).astype(np.int8)
    packed = quad16(weight)
    assert packed.shape == (2, 2, 16, 4)
    for p, g, j, i in np.ndindex(packed.shape):
        d, n = 4 * g + i, 16 * p + j
        assert packed[p, g, j, i] == (int(weight[d, n]) + 128 if d < 7 and n < 18 else 128)
