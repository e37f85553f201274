"""Folding, cleaning, opset conversion, float16 and --shape."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from lutc.errors import UnsupportedModelError, UsageError
from lutc.ir.testing import apply, assert_same, operators, parse, run
from lutc.passes.clean import Clean
from lutc.passes.convert_opset import ConvertOpset
from lutc.passes.fold_constants import FoldConstants
from lutc.passes.set_input_shapes import SetInputShapes
from lutc.passes.to_float32 import ToFloat32

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 3)).astype(np.float32)


def test_constant_expressions_fold_and_large_weights_transpose():
    w = RNG.standard_normal((400, 300)).astype(np.float32)
    body = "t = Transpose <perm=[1,0]> (w) c = Add(a, a) p = MatMul(x, t) y = Mul(p, c)"
    text = f"g (float[n,300] x) => (float[n,400] y) {{ {body} }}"
    model = parse(text, {"w": w, "a": np.float32(1)})
    after = apply(FoldConstants(), model, {"x": RNG.standard_normal((2, 300)).astype(np.float32)})
    assert operators(after) == {"MatMul": 1, "Mul": 1}


def test_a_constant_that_would_grow_is_not_folded():
    text = "g (float[1] x) => (float[1] y) { e = Expand(a, s) m = ReduceSum <keepdims=0> (e) y = Mul(x, m) }"
    model = parse(text, {"a": np.float32(1), "s": np.array([30000, 30000])})
    assert operators(FoldConstants()(model).model)["Expand"] == 1


def test_constant_condition_inlines_the_branch():
    branch = "g{0} () => (float[n,3] r{0}) {{ r{0} = {1}(x) }}"
    text = (
        "g (float[n,3] x) => (float[n,3] y) { c = Constant <value = bool {1}> () z = If (c) <then_branch = "
        + branch.format("a", "Relu") + ", else_branch = " + branch.format("b", "Neg") + "> y = Abs(z) }"
    )  # fmt: skip
    assert operators(apply(FoldConstants(), parse(text), {"x": X})) == {"Relu": 1, "Abs": 1}


def test_identity_dropout_duplicates_and_dead_code_go():
    text = (
        "g (float[n,3] x) => (float[n,3] y) { i = Identity(x) a = Relu(i) b = Relu(x) d = Dropout(a) u = Exp(x) "
        "s = Add(d, b) y = Identity(s) }"
    )
    assert operators(apply(Clean(), parse(text), {"x": X})) == {"Relu": 1, "Add": 1}


@pytest.mark.parametrize("version", [11, 13, 17, 18, 20])
def test_opset_becomes_23_and_names_stay(version):
    model = parse("g (float[n,3] x) => (float[n,3] y) { h = Relu(x) y = Softmax <axis=1> (h) }", opset=version)
    after = ConvertOpset()(model).model
    assert after.opset_imports[""] == 23
    assert_same(model, after, {"x": X})
    assert [value.name for node in after.graph for value in node.outputs] == ["h", "y"]


def test_a_newer_opset_is_refused():
    model = parse("g (float[n,3] x) => (float[n,3] y) { y = Relu(x) }")
    model.opset_imports[""] = 99
    with pytest.raises(Exception) as caught:
        ConvertOpset()(model)
    assert isinstance(caught.value.__cause__ or caught.value, UnsupportedModelError)


def test_float16_becomes_float32():
    w = RNG.standard_normal((3, 2)).astype(np.float16)
    text = "g (float16[n,3] x) => (float16[n,2] y) { h = Cast <to=1> (x) k = Cast <to=10> (h) y = MatMul(k, w) }"
    after = ToFloat32()(parse(text, {"w": w})).model
    onnx.checker.check_model(ir.to_proto(after))
    (y,) = run(after, {"x": X})
    np.testing.assert_allclose(y, X @ w.astype(np.float32), atol=1e-5)


def test_input_shapes():
    model = parse("g (float[n,3] x, float[n,k] z) => (float[n,3] y) { y = Relu(x) }")
    after = SetInputShapes({"x": [4, 3]})(model).model
    assert [value.shape[0] for value in after.graph.inputs] == [4, 4]
    for wanted in ({"q": [1]}, {"x": [1, 2, 3]}, {"x": [1, 5]}):
        with pytest.raises(Exception) as caught:
            SetInputShapes(wanted)(parse("g (float[n,3] x) => (float[n,3] y) { y = Relu(x) }"))
        assert isinstance(caught.value.__cause__ or caught.value, UsageError)
