import numpy as np
import pytest

from lutc.ir.graph import array
from lutc.ir.testing import apply, operators, parse
from lutc.passes.fuse_linear import FuseLinear

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 5, 4)).astype(np.float32)
W = RNG.standard_normal((4, 3)).astype(np.float32)
B = RNG.standard_normal(3).astype(np.float32)


@pytest.mark.parametrize("operands", ["p, b", "b, p"])
def test_matmul_and_add_become_one_linear(operands):
    model = parse(
        f"g (float[n,5,4] x) => (float[n,5,3] y) {{ p = MatMul(x, w) y = Add({operands}) }}", {"w": W, "b": B}
    )
    after = apply(FuseLinear(), model, {"x": X})
    assert operators(after) == {"Linear": 1}
    assert after.graph.outputs[0].name == "y"


def test_matmul_alone_gets_a_zero_bias():
    after = apply(
        FuseLinear(), parse("g (float[n,5,4] x) => (float[n,5,3] y) { y = MatMul(x, w) }", {"w": W}), {"x": X}
    )
    bias = array(next(iter(after.graph)).inputs[2])
    assert bias is not None and not bias.any() and bias.shape == (3,)


@pytest.mark.parametrize("trans_a", [0, 1])
@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize("bias", [B, B[:1], B[None], None])
def test_gemm_with_all_its_attributes(trans_a, trans_b, bias):
    shape = "4,n" if trans_a else "n,4"
    call = f"Gemm <transA={trans_a}, transB={trans_b}, alpha=0.5, beta=2.0> (x, w{'' if bias is None else ', b'})"
    constants = {"w": np.ascontiguousarray(W.T) if trans_b else W}
    if bias is not None:
        constants["b"] = bias
    model = parse(f"g (float[{shape}] x) => (float[n,3] y) {{ y = {call} }}", constants)
    x = np.ascontiguousarray(X[0].T) if trans_a else X[0]
    after = apply(FuseLinear(), model, {"x": x})
    assert operators(after) == {"Linear": 1} | ({"Transpose": 1} if trans_a else {})
    weight = array(next(node for node in after.graph if node.op_type == "Linear").inputs[1])
    assert weight is not None and weight.shape == (4, 3)


def test_gemm_with_computed_bias_or_weight_becomes_matmul_and_add():
    text = "g (float[5,4] x, float[4,3] w, float[5,3] c) => (float[5,3] y) { y = Gemm <beta=3.0> (x, w, c) }"
    c = RNG.standard_normal((5, 3)).astype(np.float32)
    after = apply(FuseLinear(), parse(text), {"x": X[0], "w": W, "c": c})
    assert operators(after) == {"MatMul": 1, "Mul": 1, "Add": 1}


def test_bias_that_broadcasts_the_output_stays():
    c = RNG.standard_normal((5, 3)).astype(np.float32)
    model = parse("g (float[n,5,4] x) => (float[n,5,3] y) { p = MatMul(x, w) y = Add(p, c) }", {"w": W, "c": c})
    assert operators(apply(FuseLinear(), model, {"x": X})) == {"Linear": 1, "Add": 1}


def test_constant_with_batch_dimensions_or_on_the_left_stays_matmul():
    batched = parse("g (float[2,5,4] x) => (float[2,5,3] y) { y = MatMul(x, w) }", {"w": np.stack([W, W])})
    assert operators(apply(FuseLinear(), batched, {"x": X})) == {"MatMul": 1}
    left = parse("g (float[3,5] x) => (float[4,5] y) { y = MatMul(w, x) }", {"w": W})
    assert operators(apply(FuseLinear(), left, {"x": X[0, :3, :].repeat(2, 1)[:, :5]})) == {"MatMul": 1}


def test_product_read_twice_keeps_its_value():
    text = "g (float[n,5,4] x) => (float[n,5,3] y, float[n,5,3] p) { p = MatMul(x, w) y = Add(p, b) }"
    assert operators(apply(FuseLinear(), parse(text, {"w": W, "b": B}), {"x": X})) == {"Linear": 1, "Add": 1}
