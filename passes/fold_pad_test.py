import numpy as np
import pytest

from lutc.ir.testing import apply, operators, parse
from lutc.passes.fold_pad import FoldPad

RNG = np.random.default_rng(0)
X = RNG.standard_normal((1, 3, 7, 6)).astype(np.float32)
W = RNG.standard_normal((4, 3, 3, 2)).astype(np.float32)


def pads(*values):
    return {"w": W, "p": np.array(values, np.int64)}


def test_asymmetric_zero_padding_is_added_to_the_convolutions_own():
    model = parse(
        "g (float[n,3,7,6] x) => (float[n,4,a,b] y) { q = Pad(x, p) y = Conv <pads=[1,0,0,1]> (q, w) }",
        pads(0, 0, 1, 2, 0, 0, 0, 1),
    )
    after = apply(FoldPad(), model, {"x": X})
    assert operators(after) == {"Conv": 1}
    assert list(next(iter(after.graph)).attributes["pads"].as_ints()) == [2, 2, 0, 2]


@pytest.mark.parametrize(
    "call, values",
    [
        ('Pad <mode="reflect"> (x, p)', (0, 0, 1, 1, 0, 0, 1, 1)),
        ("Pad(x, p, one)", (0, 0, 1, 1, 0, 0, 1, 1)),
        ("Pad(x, p)", (0, 0, -1, 1, 0, 0, 1, 1)),
    ],
)
def test_other_padding_stays(call, values):
    constants = pads(*values) | {"one": np.float32(1)}
    model = parse(f"g (float[n,3,7,6] x) => (float[n,4,a,b] y) {{ q = {call} y = Conv(q, w) }}", constants)
    assert operators(apply(FoldPad(), model, {"x": X})) == {"Pad": 1, "Conv": 1}


@pytest.mark.parametrize("kind", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("stride", [1, 2])
def test_auto_pad_becomes_explicit(kind, stride):
    call = f'Conv <auto_pad="{kind}", strides=[{stride},{stride}], kernel_shape=[3,2]> (x, w)'
    after = apply(FoldPad(), parse(f"g (float[1,3,7,6] x) => (float[1,4,a,b] y) {{ y = {call} }}", {"w": W}), {"x": X})
    assert "auto_pad" not in next(iter(after.graph)).attributes
