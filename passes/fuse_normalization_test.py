import numpy as np
import pytest

from lutc.ir.testing import apply, operators, parse
from lutc.passes.fuse_layer_normalization import FuseLayerNormalization
from lutc.passes.fuse_rms_normalization import FuseRmsNormalization

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 5, 8)).astype(np.float32) + 3
C = {
    "last": np.array([-1]), "second": np.array([1]), "two": np.float32(2), "eps": np.float32(1e-5),
    "scale": RNG.standard_normal(8).astype(np.float32), "shift": RNG.standard_normal(8).astype(np.float32),
    "inv": np.float32(1 / 8), "zero": np.float32(0), "one": np.float32(1),
}  # fmt: skip
LAYER = {
    "torch": "m = ReduceMean(x, last) d = Sub(x, m) q = Pow(d, two) v = ReduceMean(q, last) e = Add(v, eps) "
    "r = Sqrt(e) n = Div(d, r) s = Mul(n, scale) y = Add(s, shift)",
    "square as a product": "m = ReduceMean(x, last) d = Sub(x, m) q = Mul(d, d) v = ReduceMean(q, last) "
    "e = Add(eps, v) r = Sqrt(e) n = Div(d, r) s = Mul(scale, n) y = Add(shift, s)",
    "x - mean twice": "m = ReduceMean(x, last) d = Sub(x, m) d2 = Sub(x, m) q = Mul(d2, d2) v = ReduceMean(q, last) "
    "e = Add(v, eps) r = Sqrt(e) n = Div(d, r) s = Mul(scale, n) y = Add(shift, s)",
    "moments": "su = ReduceSum(x, last) m = Mul(su, inv) q = Mul(x, x) sq = ReduceSum(q, last) mq = Mul(sq, inv) "
    "mm = Mul(m, m) v0 = Sub(mq, mm) v = Max(zero, v0) e = Add(v, eps) r = Sqrt(e) i = Reciprocal(r) "
    "f = Mul(i, scale) d = Sub(x, m) s = Mul(d, f) y = Add(s, shift)",
    "no scale": "m = ReduceMean(x, last) d = Sub(x, m) q = Pow(d, two) v = ReduceMean(q, last) e = Add(v, eps) "
    "r = Sqrt(e) y = Div(d, r)",
}
RMS = {
    "reciprocal": "q = Pow(x, two) v = ReduceMean(q, last) e = Add(v, eps) r = Sqrt(e) i = Reciprocal(r) "
    "n = Mul(x, i) y = Mul(scale, n)",
    "one over": "q = Mul(x, x) v = ReduceMean(q, last) e = Add(v, eps) r = Sqrt(e) i = Div(one, r) n = Mul(x, i) "
    "y = Mul(n, scale)",
    "divided": "q = Mul(x, x) v = ReduceMean(q, last) e = Add(v, eps) r = Sqrt(e) y = Div(x, r)",
}


def model(body):
    return parse(f"g (float[n,5,8] x) => (float[n,5,8] y) {{ {body} }}", C)


@pytest.mark.parametrize("body", LAYER.values(), ids=LAYER)
def test_layer_normalization(body):
    after = apply(FuseLayerNormalization(), model(body), {"x": X})
    assert operators(after) == {"LayerNormalization": 1}


@pytest.mark.parametrize("body", RMS.values(), ids=RMS)
def test_rms_normalization(body):
    assert operators(apply(FuseRmsNormalization(), model(body), {"x": X})) == {"RMSNormalization": 1}


@pytest.mark.parametrize(
    "body",
    [
        LAYER["torch"].replace("ReduceMean(x, last)", "ReduceMean(x, second)"),
        LAYER["torch"].replace("Pow(d, two)", "Pow(d, one)"),
        LAYER["moments"].replace("Mul(su, inv)", "Mul(su, eps)"),
        LAYER["torch"].replace("q = Pow(d, two)", "q = Pow(x, two)"),
    ],
)
def test_near_misses_stay(body):
    assert "LayerNormalization" not in operators(apply(FuseLayerNormalization(), model(body), {"x": X}))
