"""Normalisations, softmax and GELU against numpy in float64 (and ONNX Runtime), on every ISA."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lutc._ort import ort_session
from lutc.plan import Plan, Port, Step
from tests.one_node import single_node
from tests.one_step import MAIN_ISAS, normal, run_step
from tests.plan_session import plan_session

isas = st.sampled_from(MAIN_ISAS)
lengths = st.sampled_from([1, 2, 7, 15, 16, 17, 31, 33, 63, 64, 65, 100, 384])


def layer_norm(t: np.ndarray, epsilon: float, axes: tuple[int, ...]) -> np.ndarray:
    t = t.astype(float)
    centred = t - t.mean(axis=axes, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=axes, keepdims=True) + epsilon)


def softmax(t: np.ndarray, axis: int = -1) -> np.ndarray:
    e = np.exp(t - t.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


@given(rows=st.integers(0, 5), d=lengths, bias=st.booleans(), offset=st.sampled_from([0, 100]), isa=isas)
def test_layer_normalization(rows, d, bias, offset, isa):
    x, scale = normal(1, 2, rows, d) + np.float32(offset), normal(2, d)
    b = normal(3, d) if bias else None
    (ours,) = run_step(
        "layer_normalization", [x, scale, b], {"epsilon": 1e-5}, constant=[1, 2] if bias else [1], isa=isa
    )
    exact = layer_norm(x, 1e-5, (-1,)) * scale + (0 if b is None else b)
    np.testing.assert_allclose(ours, exact, rtol=1e-5, atol=2e-3 if offset else 2e-5)


@given(rows=st.integers(0, 5), d=lengths, bias=st.booleans(), outputs=st.integers(1, 2), isa=isas)
def test_add_layer_normalization(rows, d, bias, outputs, isa):
    a, r, scale = normal(1, 2, rows, d), normal(2, 2, rows, d), normal(3, d)
    b = normal(4, d) if bias else None
    ours = run_step(
        "add_layer_normalization", [a, r, scale, b], {"axis": -1, "epsilon": 1e-12}, outputs=outputs, isa=isa
    )
    if d > 1:
        exact = layer_norm(a + r, 1e-12, (-1,)) * scale + (0 if b is None else b)
        np.testing.assert_allclose(ours[0], exact, rtol=2e-4, atol=2e-5)
    if outputs == 2:
        np.testing.assert_array_equal(ours[1], a + r)


@pytest.mark.parametrize("isa", MAIN_ISAS)
@pytest.mark.parametrize("used_again", [(), ("a",), ("r",), ("a", "r")])
def test_add_layer_normalization_takes_the_place_of_an_operand_that_ends_there(used_again, isa):
    a, r, scale, bias = normal(1, 3, 100), normal(2, 3, 100), normal(3, 100), normal(4, 100)
    plan = Plan()
    given = {name: plan.add_value("f32") for name in "ar"}
    negative = {name: plan.add_value("f32") for name in "ar"}
    plan.inputs = [Port(name, value, "f32", (3, 100)) for name, value in given.items()]
    plan.steps = [Step("neg", f"neg {name}", [given[name]], [negative[name]]) for name in "ar"]
    y = plan.add_value("f32")
    constants = [plan.add_constant("scale", scale), plan.add_constant("bias", bias)]
    plan.steps.append(Step("add_layer_normalization", "norm", [*negative.values(), *constants], [y], {"axis": -1}))
    plan.outputs = [Port("y", y, "f32", (3, 100))]
    for name in used_again:
        value = plan.add_value("f32")
        plan.steps.append(Step("neg", f"again {name}", [negative[name]], [value]))
        plan.outputs.append(Port(f"again {name}", value, "f32", (3, 100)))
    # The caller owns outputs of the model: the normalisation must not be one.
    final = plan.add_value("f32")
    plan.steps.append(Step("neg", "final", [y], [final]))
    plan.outputs[0] = Port("y", final, "f32", (3, 100))
    ours, *others = plan_session(plan, isa=isa).run(None, {"a": a, "r": r})
    np.testing.assert_allclose(-ours, layer_norm(-a - r, 1e-5, (-1,)) * scale + bias, rtol=2e-4, atol=2e-5)
    for name, other in zip(used_again, others, strict=True):
        np.testing.assert_array_equal(other, {"a": a, "r": r}[name])


@pytest.mark.parametrize("isa", MAIN_ISAS)
def test_layer_normalization_over_several_axes_with_statistics(isa):
    x, scale = normal(1, 3, 4, 5), normal(2, 4, 5)
    ours = run_step("layer_normalization", [x, scale], {"axis": 1}, outputs=3, isa=isa)
    model = single_node("LayerNormalization", [x, scale], 3, axis=1)
    theirs = ort_session(model.SerializeToString()).run(None, {"x0": x, "x1": scale})
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@given(rows=st.integers(0, 5), d=lengths, isa=isas)
def test_rms_normalization(rows, d, isa):
    x, scale = normal(1, rows, d), normal(2, d)
    (ours,) = run_step("rms_normalization", [x, scale], {"epsilon": 1e-6}, isa=isa)
    exact = x / np.sqrt((x.astype(float) ** 2).mean(-1, keepdims=True) + 1e-6) * scale
    np.testing.assert_allclose(ours, exact, rtol=1e-5, atol=1e-5)


@given(batch=st.integers(0, 3), c=st.integers(1, 5), image=st.lists(st.integers(1, 19), max_size=2), isa=isas)
def test_batch_and_instance_normalization(batch, c, image, isa):
    x, scale, bias, mean, var = normal(1, batch, c, *image), normal(2, c), normal(3, c), normal(4, c), normal(5, c) ** 2
    tall = (slice(None),) + (None,) * len(image)
    (ours,) = run_step("batch_normalization", [x, scale, bias, mean, var], {"epsilon": 1e-3}, isa=isa)
    exact = (x - mean[tall].astype(float)) / np.sqrt(var[tall] + 1e-3) * scale[tall] + bias[tall]
    np.testing.assert_allclose(ours, exact, rtol=1e-4, atol=1e-4)
    if image:
        (ours,) = run_step("instance_normalization", [x, scale, bias], {"epsilon": 1e-3}, isa=isa)
        exact = layer_norm(x, 1e-3, tuple(range(2, x.ndim))) * scale[tall] + bias[tall]
        np.testing.assert_allclose(ours, exact, rtol=1e-4, atol=1e-4)


@given(shape=st.lists(st.sampled_from([1, 2, 3, 17, 40]), min_size=1, max_size=3), data=st.data(), isa=isas)
def test_softmax(shape, data, isa):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    x = normal(1, *shape) * 5
    (ours,) = run_step("softmax", [x], {"axis": axis}, isa=isa, threads=2)
    (logs,) = run_step("log_softmax", [x], {"axis": axis}, isa=isa, threads=2)
    exact = softmax(x.astype(float), axis)
    np.testing.assert_allclose(ours, exact, rtol=3e-6, atol=1e-9)
    np.testing.assert_allclose(logs, np.log(exact), rtol=1e-6, atol=3e-6)


@pytest.mark.parametrize("isa", MAIN_ISAS)
@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
def test_softmax_of_nan_and_infinity_is_onnx_runtimes(isa, op):
    x = normal(1, 6, 21)
    x[0, 3], x[1, 20], x[2], x[3, :5], x[4, 2] = np.nan, np.nan, -np.inf, -np.inf, np.inf
    (theirs,) = ort_session(single_node(op, [x]).SerializeToString()).run(None, {"x0": x})
    (ours,) = run_step({"Softmax": "softmax", "LogSoftmax": "log_softmax"}[op], [x], isa=isa)
    np.testing.assert_allclose(ours[[0, 1, 3, 5]], theirs[[0, 1, 3, 5]], rtol=1e-5, atol=1e-6)
    assert np.isnan(ours[2]).all()
    assert np.isnan(ours[4, 2])


@pytest.mark.parametrize("isa", MAIN_ISAS)
@pytest.mark.parametrize("form", ["none", "tanh"])
def test_gelu(isa, form):
    x = np.concatenate([np.linspace(-12, 12, 5001), [0.0, -0.0, 1e-30, 50, -50]]).astype(np.float32)
    wide = x.astype(float)
    inner = (
        np.vectorize(math.erf)(wide / math.sqrt(2))
        if form == "none"
        else np.tanh(math.sqrt(2 / math.pi) * (wide + 0.044715 * wide**3))
    )
    (ours,) = run_step("gelu", [x], {"approximate": form}, isa=isa)
    np.testing.assert_allclose(ours, wide / 2 * (1 + inner), rtol=2e-7, atol=6e-7)


@pytest.mark.parametrize(
    ("op", "shapes", "attrs"),
    [
        ("layer_normalization", [(2, 3), (4,)], {}),
        ("layer_normalization", [(2, 3), (3,)], {"axis": 2}),
        ("add_layer_normalization", [(2, 3), (1, 3), (3,)], {}),
        ("batch_normalization", [(2, 3), (3,), (3,), (3,), (2,)], {}),
        ("softmax", [(2, 3)], {"axis": -3}),
        ("gelu", [(2, 3)], {"approximate": "roughly"}),
    ],
)
def test_shapes_that_do_not_fit_are_refused(op, shapes, attrs):
    with pytest.raises(Exception, match="step 'step'"):
        run_step(op, [normal(1, *shape) for shape in shapes], attrs)
