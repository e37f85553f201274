import numpy as np
import pytest

from lutc.ir.testing import apply, operators, parse
from lutc.passes.fuse_gelu import FuseGelu

X = np.linspace(-6, 6, 41).astype(np.float32)
C = {
    "root": np.float32(np.sqrt(2)), "inverse": np.float32(np.sqrt(0.5)), "one": np.float32(1), "half": np.float32(0.5),
    "c": np.float32(0.044715), "k": np.float32(np.sqrt(2 / np.pi)), "three": np.float32(3), "two": np.float32(2),
}  # fmt: skip
ERF = {
    "torchscript": "d = Div(x, root) e = Erf(d) g = Add(e, one) p = Mul(x, g) y = Mul(p, half)",
    "half first": "d = Mul(x, inverse) e = Erf(d) g = Add(e, one) h = Mul(x, half) y = Mul(h, g)",
    "gate halved": "d = Mul(x, inverse) e = Erf(d) g = Add(one, e) h = Mul(half, g) y = Mul(x, h)",
    "over two": "d = Mul(x, inverse) e = Erf(d) g = Add(one, e) h = Mul(x, g) y = Div(h, two)",
}
TANH = {
    "pow": "q = Pow(x, three) r = Mul(c, q) s = Add(x, r) u = Mul(s, k) t = Tanh(u) g = Add(t, one) "
    "h = Mul(x, half) y = Mul(h, g)",
    "nested": "m = Mul(c, x) n = Mul(x, m) o = Mul(x, n) s = Add(x, o) u = Mul(k, s) t = Tanh(u) g = Add(one, t) "
    "h = Mul(half, g) y = Mul(x, h)",
}


@pytest.mark.parametrize("body", [*ERF.values(), *TANH.values()], ids=[*ERF, *TANH])
def test_gelu_is_recognised(body):
    after = apply(FuseGelu(), parse(f"g (float[41] x) => (float[41] y) {{ {body} }}", C), {"x": X})
    assert operators(after) == {"Gelu": 1}
    kind = next(iter(after.graph)).attributes["approximate"].as_string()
    assert kind == ("none" if body in ERF.values() else "tanh")


@pytest.mark.parametrize(
    "body",
    [
        "d = Div(x, two) e = Erf(d) g = Add(e, one) p = Mul(x, g) y = Mul(p, half)",
        "d = Div(x, root) e = Erf(d) g = Add(e, two) p = Mul(x, g) y = Mul(p, half)",
        "d = Div(x, root) e = Erf(d) g = Add(e, one) p = Mul(x, g) y = Mul(p, two)",
    ],
)
def test_near_misses_stay(body):
    assert "Gelu" not in operators(
        apply(FuseGelu(), parse(f"g (float[41] x) => (float[41] y) {{ {body} }}", C), {"x": X})
    )
