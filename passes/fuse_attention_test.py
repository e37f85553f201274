import numpy as np
import pytest

from lutc.ir.testing import apply, assert_same, operators, parse
from lutc.passes.fuse_attention import FuseAttention
from lutc.passes.merge_transposes import MergeTransposes
from lutc.passes.split_packed_heads import SplitPackedHeads

RNG = np.random.default_rng(0)
B, L, H, D = 2, 5, 3, 4
Q, K, V = (RNG.standard_normal((B, L, H * D)).astype(np.float32) for _ in range(3))
C = {
    "heads": np.array([0, 0, H, D]), "flat": np.array([0, 0, H * D]), "root": np.float32(0.7), "two": np.float32(2),
    "zero": np.float32(0), "inf": np.float32(-np.inf), "low": np.float32(-3.4e38), "mild": np.float32(-1e4),
}  # fmt: skip
FRONT = (
    "g (float[b,l,12] q, float[b,l,12] k, float[b,l,12] v, {mask} m) => (float[b,l,12] y) {{ "
    "q4 = Reshape(q, heads) qt = Transpose <perm=[0,2,1,3]> (q4) "
    "k4 = Reshape(k, heads) kt = Transpose <perm=[0,2,3,1]> (k4) "
    "v4 = Reshape(v, heads) vt = Transpose <perm=[0,2,1,3]> (v4) "
)
BACK = "o = MatMul(w, vt) ot = Transpose <perm=[0,2,1,3]> (o) y = Reshape(ot, flat) }"
PLAIN = "w = Softmax(s) "
GUARD = "p = Softmax(s) nan = IsNaN(p) w = Where(nan, zero, p) "
FLOAT_MASK = RNG.standard_normal((B, 1, 1, L)).astype(np.float32)
BOOL_MASK = np.ones((B, 1, L, L), bool)
BOOL_MASK[0, :, :, 3:] = False
ALL_MASKED = BOOL_MASK.copy()
ALL_MASKED[1, 0, 2] = False


def build(scores, mask="float[b,1,1,l]", weights=PLAIN):
    return parse(FRONT.format(mask=mask) + scores + weights + BACK, C)


def feeds(mask):
    return {"q": Q, "k": K, "v": V, "m": mask}


@pytest.mark.parametrize(
    "scores, scale",
    [
        ("a = MatMul(qt, kt) t = Div(a, two) s = Add(t, m) ", 0.5),
        ("a = MatMul(qt, kt) t = Mul(two, a) s = Add(m, t) ", 2.0),
        ("qs = Mul(qt, root) ks = Mul(kt, root) a = MatMul(qs, ks) s = Add(a, m) ", 0.49),
        ("a = MatMul(qt, kt) t = Add(a, m) s = Add(t, m) ", 1.0),
    ],
)
def test_scale_and_added_masks(scores, scale):
    after = apply(FuseAttention(), build(scores), feeds(FLOAT_MASK))
    assert "Softmax" not in operators(after) and "Transpose" not in operators(after)
    fused = [node for node in after.graph if node.op_type == "Attention"]
    assert len(fused) == 1 and fused[0].attributes["num_heads"].as_int() == H
    assert fused[0].attributes["scale"].as_float() == pytest.approx(scale, rel=1e-6)


def test_without_a_mask():
    model = build("s = MatMul(qt, kt) ")
    assert operators(apply(FuseAttention(), model, feeds(FLOAT_MASK))) == {"Attention": 1}


@pytest.mark.parametrize("fill", ["inf", "low"])
def test_overwritten_scores_become_an_added_mask(fill):
    model = build(f"a = MatMul(qt, kt) s = Where(m, a, {fill}) ", "bool[b,1,l,l]")
    after = apply(FuseAttention(), model, feeds(BOOL_MASK))
    assert operators(after) == {"Where": 1, "Attention": 1}


def test_mildly_overwritten_scores_stay():
    model = build("a = MatMul(qt, kt) s = Where(m, a, mild) ", "bool[b,1,l,l]")
    assert "Attention" not in operators(apply(FuseAttention(), model, feeds(ALL_MASKED)))


def test_guard_goes_when_the_mask_is_finite():
    model = build("f = Where(m, zero, low) a = MatMul(qt, kt) s = Add(a, f) ", "bool[b,1,l,l]", GUARD)
    after = apply(FuseAttention(), model, feeds(BOOL_MASK))
    assert operators(after) == {"Where": 1, "Attention": 1}
    assert_same(model, after, feeds(ALL_MASKED))


def test_guard_stays_behind_when_a_row_may_be_fully_masked():
    model = build("f = Where(m, zero, inf) a = MatMul(qt, kt) s = Add(a, f) ", "bool[b,1,l,l]", GUARD)
    after = apply(FuseAttention(), model, feeds(ALL_MASKED))
    assert operators(after) == {"Where": 2, "Attention": 1, "IsNaN": 1}


def test_fully_masked_row_without_a_guard_is_nan_before_and_after():
    model = build("f = Where(m, zero, inf) a = MatMul(qt, kt) s = Add(a, f) ", "bool[b,1,l,l]")
    after = apply(FuseAttention(), model, feeds(ALL_MASKED))
    assert operators(after) == {"Where": 1, "Attention": 1}


def test_weights_that_are_an_output_stay():
    text = FRONT.format(mask="float[b,1,1,l]").replace("(float[b,l,12] y)", "(float[b,l,12] y, float[b,3,l,l] w)")
    model = parse(text + "a = MatMul(qt, kt) s = Add(a, m) " + PLAIN + BACK, C)
    assert "Attention" not in operators(apply(FuseAttention(), model, feeds(FLOAT_MASK)))


def test_another_head_order_stays():
    text = FRONT.format(mask="float[b,1,1,l]").replace("Transpose <perm=[0,2,1,3]> (v4)", "Identity(v4)")
    model = parse(text + "a = MatMul(qt, kt) s = Add(a, m) " + PLAIN + BACK, C)
    assert "Attention" not in [node.op_type for node in FuseAttention()(model).model.graph]


@pytest.mark.parametrize(
    "take",
    [
        "q = Gather <axis=0> (t, i0) k = Gather <axis=0> (t, i1) v = Gather <axis=0> (t, i2) ",
        "qa, ka, va = Split <axis=0> (t, ones) q = Squeeze(qa, ax) k = Squeeze(ka, ax) v = Squeeze(va, ax) ",
    ],
)
def test_packed_heads_of_vision_transformers(take):
    constants = C | {
        "packed": np.array([0, 0, 3, H, D]), "i0": np.array(0), "i1": np.array(1), "i2": np.array(2),
        "ones": np.array([1, 1, 1]), "ax": np.array([0]),
    }  # fmt: skip
    text = (
        "g (float[b,l,36] x) => (float[b,l,12] y) { p = Reshape(x, packed) t = Transpose <perm=[2,0,3,1,4]> (p) "
        + take
        + "kt = Transpose <perm=[0,1,3,2]> (k) a = MatMul(q, kt) s = Mul(a, two) w = Softmax(s) o = MatMul(w, v) "
        "ot = Transpose <perm=[0,2,1,3]> (o) y = Reshape(ot, flat) }"
    )
    x = {"x": RNG.standard_normal((B, L, 36)).astype(np.float32)}
    model = parse(text, constants)
    after = apply(FuseAttention(), apply(MergeTransposes(), apply(SplitPackedHeads(), model, x), x), x)
    assert operators(after) == {"Split": 1, "Attention": 1}
