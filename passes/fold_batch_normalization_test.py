import numpy as np
import pytest

from lutc.ir.testing import apply, operators, parse
from lutc.passes.fold_batch_normalization import FoldBatchNormalization
from lutc.passes.fuse_linear import FuseLinear

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 4, 6, 6)).astype(np.float32)
W = RNG.standard_normal((8, 4, 3, 3)).astype(np.float32)
G = RNG.standard_normal((8, 2, 3, 3)).astype(np.float32)


def norm(n):
    names = ("scale", "shift", "mean", "var")
    values = [RNG.standard_normal(n) for _ in names[:3]] + [RNG.uniform(0.5, 2, n)]
    return {k: v.astype(np.float32) for k, v in zip(names, values, strict=True)}


BN = "BatchNormalization <epsilon=0.01> ({}, scale, shift, mean, var)"


@pytest.mark.parametrize("bias", [True, False])
def test_behind_a_convolution(bias):
    constants = {"w": W} | norm(8) | ({"b": RNG.standard_normal(8).astype(np.float32)} if bias else {})
    text = "g (float[n,4,6,6] x) => (float[n,8,6,6] y) {{ c = Conv <pads=[1,1,1,1]> (x, w{}) y = {} }}"
    model = parse(text.format(", b" if bias else "", BN.format("c")), constants)
    assert operators(apply(FoldBatchNormalization(), model, {"x": X})) == {"Conv": 1}


@pytest.mark.parametrize("groups, weight", [(1, W), (2, G)])
def test_in_front_of_an_unpadded_convolution(groups, weight):
    text = f"g (float[n,4,6,6] x) => (float[n,8,4,4] y) {{ c = {BN.format('x')} y = Conv <group={groups}> (c, w) }}"
    model = parse(text, {"w": weight} | norm(4))
    assert operators(apply(FoldBatchNormalization(), model, {"x": X})) == {"Conv": 1}


def test_in_front_of_a_padded_convolution_it_stays():
    text = f"g (float[n,4,6,6] x) => (float[n,8,6,6] y) {{ c = {BN.format('x')} y = Conv <pads=[1,1,1,1]> (c, w) }}"
    model = parse(text, {"w": W} | norm(4))
    assert operators(apply(FoldBatchNormalization(), model, {"x": X})) == {"Conv": 1, "BatchNormalization": 1}


def test_per_channel_arithmetic_behind_a_convolution():
    constants = {
        "w": W,
        "m": RNG.standard_normal((8, 1, 1)),
        "a": RNG.standard_normal((1, 8, 1, 1)),
        "d": np.array(2.0),
    }
    text = "g (float[n,4,6,6] x) => (float[n,8,4,4] y) { c = Conv(x, w) p = Mul(c, m) q = Add(a, p) y = Div(q, d) }"
    model = parse(text, {k: v.astype(np.float32) for k, v in constants.items()})
    assert operators(apply(FoldBatchNormalization(), model, {"x": X})) == {"Conv": 1}


def test_a_map_added_to_a_convolution_stays():
    constants = {"w": W, "a": RNG.standard_normal((1, 8, 4, 4)).astype(np.float32)}
    model = parse("g (float[n,4,6,6] x) => (float[n,8,4,4] y) { c = Conv(x, w) y = Add(c, a) }", constants)
    assert operators(apply(FoldBatchNormalization(), model, {"x": X})) == {"Conv": 1, "Add": 1}


@pytest.mark.parametrize("front", [True, False])
def test_beside_a_linear(front):
    w = {"w": RNG.standard_normal((4, 5)).astype(np.float32), "b": RNG.standard_normal(5).astype(np.float32)}
    body = f"c = {BN.format('x')} y = Gemm(c, w, b)" if front else f"c = Gemm(x, w, b) y = {BN.format('c')}"
    model = parse(f"g (float[n,4] x) => (float[n,5] y) {{ {body} }}", w | norm(4 if front else 5))
    after = apply(FoldBatchNormalization(), FuseLinear()(model).model, {"x": X[:, :, 0, 0]})
    assert operators(after) == {"Linear": 1}
