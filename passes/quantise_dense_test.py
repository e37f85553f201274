import numpy as np
import onnx_ir as ir
import pytest

from lutc.errors import UnsupportedModelError
from lutc.ir.attention import attention_function
from lutc.ir.graph import array
from lutc.ir.linear import linear_function
from lutc.ir.testing import operators, parse, run
from lutc.passes.quantise_dense import QuantiseDense

RNG = np.random.default_rng(0)
W = RNG.standard_normal((24, 16)).astype(np.float32)
B = RNG.standard_normal(16).astype(np.float32)


def with_functions(model: ir.Model) -> ir.Model:
    model.opset_imports["ai.lutc"] = 1
    for function in (linear_function(), attention_function()):
        model.functions[function.identifier()] = function
    return model


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))


def test_only_the_chosen_linear_is_quantised():
    model = with_functions(
        parse(
            "g (float[n,24] x) => (float[n,16] y) <float[n,24] h> "
            "{ h = ai.lutc.Linear(x, u, c) y = ai.lutc.Linear(h, w, b) }",
            {"w": W, "b": B, "u": np.eye(24, dtype=np.float32), "c": np.zeros(24, np.float32)},
        )
    )
    x = RNG.standard_normal((5, 24)).astype(np.float32)
    (before,) = run(model, {"x": x})
    after = QuantiseDense(["y"])(model.clone()).model
    assert operators(after) == {"Linear": 1, "Int8Linear": 1}
    node = list(after.graph)[1]
    assert array(node.inputs[1]).dtype == np.int8 and node.inputs[3].name == "b"
    assert not any(value.name == "w" for value in after.graph.initializers.values())
    assert cosine(run(after, {"x": x})[0], before) > 0.9995


@pytest.mark.parametrize("bias", [True, False])
def test_convolution_keeps_its_geometry(bias):
    call = "Conv<pads = [1, 0, 1, 2], strides = [2, 1], group = 2>(x, w" + (", b)" if bias else ")")
    kernel = RNG.standard_normal((16, 4, 3, 2)).astype(np.float32)
    model = parse(f"g (float[n,8,9,7] x) => (float[n,16,h,v] y) {{ y = {call} }}", {"w": kernel, "b": B})
    x = RNG.standard_normal((2, 8, 9, 7)).astype(np.float32)
    (before,) = run(model, {"x": x})
    after = QuantiseDense(["y"])(model.clone()).model
    assert operators(after) == {"Int8Conv": 1}
    got = run(after, {"x": x})[0]
    assert got.shape == before.shape and cosine(got, before) > 0.9995


@pytest.mark.parametrize("batch", [2, 0])
def test_attention_becomes_integer_and_stays_close(batch):
    model = with_functions(
        parse(
            "g (float[n,9,32] q, float[n,9,16] k, float[n,9,16] v, float[1,1,9,9] m) => (float[n,9,32] y) "
            "{ y = ai.lutc.Attention<num_heads = 4, kv_num_heads = 2, scale = 0.35>(q, k, v, m) }"
        )
    )
    feeds = {name: RNG.standard_normal((batch, 9, 32 if name == "q" else 16)).astype(np.float32) for name in "qkv"}
    feeds["m"] = np.where(np.arange(9)[None, None, :, None] >= np.arange(9), 0, -np.inf).astype(np.float32)
    (before,) = run(model, feeds)
    after = QuantiseDense(["y"])(model.clone()).model
    (got,) = run(after, feeds)
    assert got.shape == before.shape
    if batch:
        # a step of distance is 3 % of a weight, and few keys average that out
        assert np.abs(got - before).max() < 2e-2 * np.abs(before).max()
        assert not np.array_equal(got, before)


def test_broken_weight_is_named():
    broken = W.copy()
    broken[1, 1] = np.nan
    model = with_functions(
        parse("g (float[n,24] x) => (float[n,16] y) { [layer] y = ai.lutc.Linear(x, w, b) }", {"w": broken, "b": B})
    )
    with pytest.raises(Exception) as caught:
        QuantiseDense(["y"])(model)
    cause = caught.value if isinstance(caught.value, UnsupportedModelError) else caught.value.__cause__
    assert isinstance(cause, UnsupportedModelError) and "layer" in str(cause) and "--keep" in str(cause)
