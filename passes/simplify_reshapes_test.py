import numpy as np

from lutc.ir.graph import ints
from lutc.ir.testing import apply, operators, parse
from lutc.passes.clean import Clean
from lutc.passes.merge_transposes import MergeTransposes
from lutc.passes.simplify_reshapes import SimplifyReshapes

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 5, 12)).astype(np.float32)
C = {"zero": np.array(0), "one": np.array(1), "ax": np.array([0]), "rest": np.array([-1]), "size": np.array([4])}


def test_exporters_shape_arithmetic_becomes_a_constant():
    model = parse(
        "g (float[b,l,12] x) => (float[b,l,3,4] y) { s = Shape(x) b = Gather(s, zero) l = Gather(s, one) "
        "bu = Unsqueeze(b, ax) lu = Unsqueeze(l, ax) t = Concat <axis=0> (bu, lu, rest, size) y = Reshape(x, t) }", C,
    )  # fmt: skip
    after = apply(SimplifyReshapes(), model, {"x": X})
    assert operators(after) == {"Reshape": 1}
    assert ints(next(iter(after.graph)).inputs[1]) == [0, 0, 3, 4]


def test_two_unknown_dimensions_stay():
    model = parse("g (float[b,l,12] x, int64[2] t) => (float[u,v] y) { y = Reshape(x, t) }", C)
    feeds = {"x": X, "t": np.array([6, 20])}
    assert ints(next(iter(apply(SimplifyReshapes(), model, feeds).graph)).inputs[1]) is None


def test_expand_to_its_own_shape_goes():
    model = parse("g (float[b,l,12] x) => (float[b,l,12] y) { s = Shape(x) e = Expand(x, s) y = Relu(e) }", C)
    assert operators(apply(SimplifyReshapes(), model, {"x": X})) == {"Relu": 1}


def test_expand_that_grows_stays():
    model = parse(
        "g (float[1,l,12] x) => (float[2,l,12] y) { e = Expand(x, t) y = Relu(e) }", {"t": np.array([2, 1, 1])}
    )
    assert operators(apply(SimplifyReshapes(), model, {"x": X[:1]})) == {"Expand": 1, "Relu": 1}


def test_transposes_merge_and_cancel():
    model = parse(
        "g (float[b,l,12] x) => (float[b,l,12] y) { a = Transpose <perm=[0,2,1]> (x) r = Relu(a) "
        "c = Transpose <perm=[2,0,1]> (r) d = Transpose <perm=[1,0,2]> (c) e = Transpose <perm=[0,2,1]> (d) "
        "f = Transpose <perm=[1,2,0]> (e) h = Transpose <perm=[2,0,1]> (f) i = Transpose <perm=[0,2,1]> (h) "
        "y = Neg(i) }"
    )
    once = apply(MergeTransposes(), model, {"x": X})
    after = apply(Clean(), apply(MergeTransposes(), once, {"x": X}), {"x": X})
    assert operators(after)["Transpose"] <= 2


def test_hidden_matrix_transpose_is_uncovered():
    constants = {"flat": np.array([-1, 5, 4]), "full": np.array([2, 3, 4, 5])}
    model = parse(
        "g (float[2,3,5,4] x) => (float[2,3,4,5] y) "
        "{ a = Reshape(x, flat) t = Transpose <perm=[0,2,1]> (a) y = Reshape(t, full) }", constants,
    )  # fmt: skip
    after = apply(MergeTransposes(), model, {"x": RNG.standard_normal((2, 3, 5, 4)).astype(np.float32)})
    assert operators(after) == {"Transpose": 1}
