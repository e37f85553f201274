"""What the analysis proves, and what it must not claim."""

import numpy as np
import pytest

from lutc.ir.symbolic import SymbolicShapes, show
from lutc.ir.testing import parse


def dims(body: str, **constants: np.ndarray) -> list[str] | None:
    """The dimensions found for y in a graph of x float32 [n, c, 6, 4]."""
    model = parse(f"g (float[n,c,6,4] x) => (float[a,b,d,e] y) {{ {body} }}", constants)
    y = next(value for node in model.graph for value in node.outputs if value.name == "y")
    found = SymbolicShapes(model.graph).dims(y)
    return None if found is None else [show(term) for term in found]


@pytest.mark.parametrize(
    ("pads", "expected"),
    [
        ([0, 0, 1, 2, 0, 0, 1, 0], ["n", "c", "8", "6"]),
        ([0, 4, 0, 0, 0, 4, 0, 0], ["n", "y[1]", "6", "4"]),
        ([0, 0, -1, 0, 0, 0, 0, -2], ["n", "c", "5", "2"]),
    ],
)
def test_pad_keeps_what_it_does_not_pad(pads, expected):
    assert dims("y = Pad(x, p)", p=np.array(pads)) == expected


def test_pad_of_named_axes():
    assert dims("y = Pad(x, p, , a)", p=np.array([1, 0, 1, 0]), a=np.array([-1, 0])) == ["n", "c", "6", "6"]


def test_pad_by_computed_amounts_claims_nothing():
    found = dims("s = Shape(x) p = Concat<axis=0>(s, s) y = Pad(x, p)")
    assert found is None or not {"n", "c"} & set(found)


def test_reshape_through_the_shape_of_the_input():
    body = "s = Shape<start=0, end=2>(x) t = Concat<axis=0>(s, last) y = Reshape(x, t)"
    assert dims(body, last=np.array([4, -1])) == ["n", "c", "4", "6"]


def test_a_dimension_that_may_be_one_is_not_taken_for_the_other():
    body = "s = ReduceMax<keepdims=1>(x, axis) h = Reshape(s, t) y = Mul(h, x)"
    assert dims(body, axis=np.array([1]), t=np.array([0, 1, 6, 4])) == ["n", "c", "6", "4"]
    assert dims("h = Transpose<perm=[1, 0, 2, 3]>(x) y = Add(h, x)") == ["y[0]", "y[1]", "6", "4"]
