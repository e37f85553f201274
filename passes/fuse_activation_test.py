import numpy as np
import pytest

from lutc.ir.testing import apply, operators, parse
from lutc.passes.fuse_activation import FuseActivation

X = np.linspace(-6, 6, 25).astype(np.float32)
C = {"three": np.float32(3), "zero": np.float32(0), "six": np.float32(6), "sixth": np.float32(1 / 6)}
FORMS = {
    "s = Sigmoid(x) y = Mul(x, s)": "Silu",
    "s = Sigmoid(x) y = Mul(s, x)": "Silu",
    "a = Add(x, three) c = Clip(a, zero, six) p = Mul(x, c) y = Div(p, six)": "HardSwish",
    "a = Add(x, three) c = Clip(a, zero, six) d = Div(c, six) y = Mul(x, d)": "HardSwish",
    "a = Add(three, x) c = Clip(a, zero, six) d = Mul(c, sixth) y = Mul(d, x)": "HardSwish",
    "h = HardSigmoid <alpha=0.16666667, beta=0.5> (x) y = Mul(x, h)": "HardSwish",
}


@pytest.mark.parametrize("body, expected", FORMS.items())
def test_recognised(body, expected):
    after = apply(FuseActivation(), parse(f"g (float[25] x) => (float[25] y) {{ {body} }}", C), {"x": X})
    assert operators(after) == {expected: 1}


@pytest.mark.parametrize(
    "body",
    [
        "s = Sigmoid(x) z = Neg(x) y = Mul(z, s)",
        "a = Add(x, six) c = Clip(a, zero, six) p = Mul(x, c) y = Div(p, six)",
        "h = HardSigmoid <alpha=0.2, beta=0.5> (x) y = Mul(x, h)",
    ],
)
def test_near_misses_stay(body):
    after = apply(FuseActivation(), parse(f"g (float[25] x) => (float[25] y) {{ {body} }}", C), {"x": X})
    assert not {"Silu", "HardSwish"} & set(operators(after))
