"""Attention, in float32 and with integer products, against numpy in float64, on every ISA."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lutc.ir.attention import attention_function
from lutc.ir.graph import LUTC_DOMAIN, OPSET
from tests.one_step import MAIN_ISAS, normal, run_step

isas = st.sampled_from(MAIN_ISAS)
sizes = st.sampled_from([1, 2, 3, 8, 15, 16, 31, 32, 33, 64, 70])
counts = st.sampled_from([1, 2, 3, 5, 7, 8, 12, 13, 16, 17, 31, 33, 64, 127, 128, 129, 131, 257, 300])
masks = st.sampled_from(["none", "scalar", "minus", "key", "query", "row", "full", "broadcast_batch"])


def make_mask(kind: str, batch: int, heads: int, queries: int, keys: int) -> np.ndarray | None:
    """A mask of one of the broadcast shapes; `key` masks keys out as padding does."""
    if kind == "none":
        return None
    if kind == "scalar":
        return np.float32(0).reshape(())
    if kind == "key":
        mask = np.where(normal(4, batch, 1, 1, keys) > 0.5, np.float32(-3.4e38), np.float32(0))
        mask[..., 0] = 0
        return mask
    shapes = {
        "minus": (1, 1, 1, 1), "query": (1, 1, queries, 1), "row": (keys,),
        "full": (batch, heads, queries, keys), "broadcast_batch": (1, heads, queries, keys),
    }  # fmt: skip
    return normal(4, *shapes[kind])


def split(t: np.ndarray, n: int, heads: int) -> np.ndarray:
    """[B, L, n * d] as [B, heads, L, d] in float64, shared heads repeated."""
    t = t.astype(float).reshape(*t.shape[:2], n, t.shape[2] // n).transpose(0, 2, 1, 3)
    return np.repeat(t, heads // n, axis=1)


def quantise(t: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Integers in -127 .. 127 along an axis, and what one unit is worth, in float32."""
    largest = np.abs(t).max(axis=axis, keepdims=True, initial=0.0)
    with np.errstate(divide="ignore", over="ignore"):
        factor = np.minimum(np.float32(127) / largest, np.finfo(np.float32).max) * (largest > 0)
    return np.rint(t * factor).astype(np.int64), largest / np.float32(127)


def integer_reference(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: np.ndarray | None, heads: int, kv_heads: int, scale: float
) -> np.ndarray:
    """docs/operators.md to the bit: float32 where it says so, integers elsewhere."""
    q, k, v = (split(t, n, heads).astype(np.float32) for t, n in ((q, heads), (k, kv_heads), (v, kv_heads)))
    (q, query_step), (k, key_step), (v, value_step) = quantise(q, -1), quantise(k, -1), quantise(v, -2)
    products = (q @ k.swapaxes(-1, -2)).astype(np.float32) * (key_step * np.float32(scale)).swapaxes(-1, -2)
    added = np.float64(0) if mask is None else mask.astype(float)
    scores = (products.astype(float) * query_step + added).astype(np.float32)
    below = scores.max(axis=-1, keepdims=True, initial=-np.inf) - scores
    distance = np.minimum(np.rint(below.astype(float) * np.float32(22 / math.log(2))), 255)
    rounding = np.array([0.625, 0.125, 0.875, 0.375])[np.arange(scores.shape[-1]) // 4 % 4]
    weights = np.floor(np.float32(254.7) * np.exp2(distance / -22) + rounding).astype(np.int64)
    inverse = np.float32(1) / weights.sum(axis=-1, keepdims=True).astype(np.float32)
    y = (weights @ v).astype(np.float32) * inverse * value_step
    return y.transpose(0, 2, 1, 3).reshape(y.shape[0], y.shape[2], heads * y.shape[3])


def reference(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: np.ndarray | None, heads: int, kv_heads: int, scale: float
) -> np.ndarray:
    """Attention in float64."""
    q, k, v = split(q, heads, heads), split(k, kv_heads, heads), split(v, kv_heads, heads)
    scores = (q @ k.swapaxes(-1, -2)) * scale + (0 if mask is None else mask.astype(float))
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True, initial=-np.inf))
    y = (weights @ v) / weights.sum(axis=-1, keepdims=True)
    return y.transpose(0, 2, 1, 3).reshape(y.shape[0], y.shape[2], heads * y.shape[3])


def attention_session(heads: int, kv_heads: int, scale: float) -> onnxruntime.InferenceSession:
    """Quantised Attention of q, k, v and mask by its function body in ONNX Runtime."""
    names = ("q", "k", "v", "mask")
    inputs = [ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT)) for name in names]
    attributes = {"num_heads": heads, "kv_num_heads": kv_heads, "scale": scale, "quantised": 1}
    node = ir.node("Attention", inputs, attributes, domain=LUTC_DOMAIN)
    node.outputs[0].name, node.outputs[0].type = "y", inputs[0].type
    graph = ir.Graph(inputs, node.outputs, nodes=[node], opset_imports={"": OPSET, LUTC_DOMAIN: 1}, name="test")
    function = attention_function()
    model = ir.Model(graph, ir_version=10, functions=[function])
    return onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])


def assert_close(ours: np.ndarray, exact: np.ndarray, reach: np.ndarray, heads: int, tolerance: float) -> None:
    """Errors are counted against the largest output of the row (one head at one position) were no value negative."""
    assert ours.shape == exact.shape and ours.dtype == np.float32
    ours, exact, reach = (t.reshape(*t.shape[:2], heads, t.shape[2] // heads) for t in (ours, exact, reach))
    assert np.isfinite(ours).all()
    assert (np.abs(ours - exact) <= tolerance * reach.max(axis=-1, keepdims=True, initial=0.0)).all()


@given(
    batch=st.integers(0, 2), queries=counts, keys=counts, heads=st.sampled_from([(1, 1), (4, 4), (4, 2), (3, 1)]),
    size=sizes, value_size=sizes, mask=masks, isa=isas, threads=st.integers(1, 2), quantised=st.booleans(),
)  # fmt: skip
def test_attention(batch, queries, keys, heads, size, value_size, mask, isa, threads, quantised):
    h, hk = heads
    q, k, v = (
        normal(1, batch, queries, h * size),
        normal(2, batch, keys, hk * size),
        normal(3, batch, keys, hk * value_size),
    )
    m = make_mask(mask, batch, h, queries, keys)
    attrs: dict[str, Any] = {"num_heads": h, "kv_num_heads": hk, "scale": 1 / math.sqrt(size)}
    if quantised:
        attrs["quantised"] = 1
    (ours,) = run_step("attention", [q, k, v, m], attrs, isa=isa, threads=threads)
    if quantised and queries * (h // hk) >= 8:  # fewer are in float32
        np.testing.assert_array_equal(ours, integer_reference(q, k, v, m, h, hk, 1 / math.sqrt(size)))
    else:
        exact, reach = (reference(q, k, t, m, h, hk, 1 / math.sqrt(size)) for t in (v, np.abs(v)))
        assert_close(ours, exact, reach, h, 1e-5)
    if queries == keys:
        attrs["packed"] = [t.shape[2] for t in (q, k, v)]
        packed = np.concatenate([q, k, v], axis=2)
        (same,) = run_step("attention", [packed, None, None, m], attrs, isa=isa, threads=threads)
        np.testing.assert_array_equal(same, ours)


@pytest.mark.parametrize("quantised", [0, 1])
@pytest.mark.parametrize("isa", MAIN_ISAS)
def test_attention_over_nothing_but_masked_keys_is_nan(isa, quantised):
    q = k = v = normal(1, 1, 9, 8)
    mask = np.zeros((1, 1, 9, 9), np.float32)
    mask[..., 2, :] = -np.inf
    mask[..., 3, 1:] = -np.inf
    attrs = {"num_heads": 2, "scale": 0.5, "quantised": quantised}
    (ours,) = run_step("attention", [q, k, v, mask], attrs, isa=isa)
    assert np.isnan(ours[0, 2]).all()
    np.testing.assert_allclose(ours[0, 3], v[0, 0], rtol=1e-6, atol=2e-2 if quantised else 0)
    assert np.isfinite(np.delete(ours, 2, axis=1)).all()


@pytest.mark.parametrize("quantised", [0, 1])
@pytest.mark.parametrize("isa", MAIN_ISAS)
def test_guarded_attention_gives_zero_where_nan_would_come_out(isa, quantised):
    q, k, v = (normal(seed, 1, 14, 40) for seed in (1, 2, 3))
    v[0, 5, 33] = np.nan
    mask = np.where(np.arange(14)[:, None] % 5 == 2, -np.inf, np.zeros((14, 14))).astype(np.float32)
    attrs = {"num_heads": 2, "scale": 0.5, "quantised": quantised}
    (bare,) = run_step("attention", [q, k, v, mask], attrs, isa=isa)
    (ours,) = run_step("attention", [q, k, v, mask], {**attrs, "guarded": 1}, isa=isa)
    assert np.isnan(bare[0, [2, 7, 12]]).all() and np.isnan(bare[..., 33]).all()
    np.testing.assert_array_equal(ours, np.where(np.isnan(bare), np.float32(0), bare))


@pytest.mark.parametrize("quantised", [0, 1])
@pytest.mark.parametrize("isa", MAIN_ISAS)
def test_a_mask_of_the_lowest_float_everywhere_leaves_equal_weights(isa, quantised):
    q, k, v = (normal(seed, 1, 19, 8) for seed in (1, 2, 3))
    mask = np.full((1, 1, 1, 19), np.finfo(np.float32).min)
    attrs = {"num_heads": 1, "scale": 0.5, "quantised": quantised}
    (ours,) = run_step("attention", [q, k, v, mask], attrs, isa=isa)
    mean = np.broadcast_to(v.mean(axis=1, keepdims=True), ours.shape)
    np.testing.assert_allclose(ours, mean, atol=2e-2 if quantised else 1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("keys", [9, 40])
@pytest.mark.parametrize("isa", MAIN_ISAS)
def test_nan_and_infinity_reach_the_quantised_rows_and_columns_they_would_reach_in_float(isa, keys, bad):
    q, k, v = (normal(seed, 1, keys, 2 * 20) for seed in (1, 2, 3))
    attrs = {"num_heads": 2, "scale": 0.25, "quantised": 1}

    def touched(place: int, position: int, feature: int) -> np.ndarray:
        inputs = [q.copy(), k.copy(), v.copy()]
        inputs[place][0, position, feature] = bad
        (ours,) = run_step("attention", inputs, attrs, isa=isa)
        return np.isnan(ours[0])

    rows, columns, head = np.indices((keys, 40))[0], np.indices((keys, 40))[1], np.arange(40) // 20
    np.testing.assert_array_equal(touched(0, 3, 7), (rows == 3) & (head == 0))
    np.testing.assert_array_equal(touched(1, keys - 1, 25), np.broadcast_to(head == 1, (keys, 40)))
    np.testing.assert_array_equal(touched(2, 2, 39), columns == 39)


@pytest.mark.parametrize("payload", [0x7FC00001, 0xFFC00001, 0x7FC00100])
@pytest.mark.parametrize("isa", MAIN_ISAS)
def test_nan_in_a_mask_reaches_its_row(isa, payload):
    q = k = v = normal(1, 1, 37, 16)
    mask = np.zeros((37, 37), np.float32)
    mask.view(np.uint32)[[4, 9], [0, 36]] = payload
    (ours,) = run_step("attention", [q, k, v, mask], {"num_heads": 1, "scale": 0.5, "quantised": 1}, isa=isa)
    np.testing.assert_array_equal(np.isnan(ours[0]).any(axis=1), np.isin(np.arange(37), [4, 9]))


@pytest.mark.parametrize("magnitude", [0.0, 1e-41, 1e-30, 1e-3, 1e15, 1e18])
@pytest.mark.parametrize("isa", MAIN_ISAS)
def test_quantised_attention_at_extreme_magnitudes(isa, magnitude):
    q, k, v = (normal(seed, 1, 21, 2 * 24) * np.float32(magnitude) for seed in (1, 2, 3))
    (ours,) = run_step("attention", [q, k, v], {"num_heads": 2, "scale": 0.2, "quantised": 1}, isa=isa)
    np.testing.assert_array_equal(ours, integer_reference(q, k, v, None, 2, 2, 0.2))


def test_quantised_attention_stays_close_to_float_attention():
    q, k, v = (normal(seed, 1, 128, 12 * 32) for seed in (1, 2, 3))
    attrs = {"num_heads": 12, "scale": 1 / math.sqrt(32)}
    (exact,) = run_step("attention", [q, k, v], attrs)
    (ours,) = run_step("attention", [q, k, v], {**attrs, "quantised": 1})
    assert np.linalg.norm(ours - exact) < 2e-2 * np.linalg.norm(exact)


@pytest.mark.parametrize("quantised", [0, 1])
def test_no_keys_give_zeros(quantised):
    q, k, v = normal(1, 2, 3, 8), normal(2, 2, 0, 8), normal(3, 2, 0, 6)
    (ours,) = run_step("attention", [q, k, v], {"num_heads": 2, "scale": 0.5, "quantised": quantised})
    np.testing.assert_array_equal(ours, np.zeros((2, 3, 6), np.float32))


@pytest.mark.parametrize(
    ("shapes", "attrs"),
    [
        ([(1, 2, 6), (1, 2, 6), (1, 2, 6)], {"num_heads": 4, "scale": 1.0}),
        ([(1, 2, 6), (1, 2, 6), (1, 2, 6)], {"num_heads": 3, "kv_num_heads": 2, "scale": 1.0}),
        ([(1, 2, 6), (1, 2, 6), (1, 2, 6)], {"num_heads": 0, "scale": 1.0}),
        ([(1, 2, 6), (1, 2, 6), (1, 3, 6)], {"num_heads": 2, "scale": 1.0}),
        ([(1, 2, 6), (1, 2, 6), (1, 2, 6)], {"num_heads": 2, "scale": 1.0, "quantised": 2}),
        ([(1, 2, 0), (1, 2, 0), (1, 2, 0)], {"num_heads": 1 << 62, "scale": 1.0}),
        ([(1, 1 << 41, 0), (1, 1 << 41, 0), (1, 1 << 41, 0)], {"num_heads": 1, "scale": 1.0}),
        ([(1, 2, 6), (1, 2, 6), (1, 2, 6), (3, 1)], {"num_heads": 2, "scale": 1.0}),
        ([(1, 2, 6), (1, 2, 6), (1, 2, 6), (1, 1, 1, 1, 2)], {"num_heads": 2, "scale": 1.0}),
    ],
)
def test_what_does_not_fit_is_refused(shapes, attrs):
    with pytest.raises(Exception, match="step 'step'"):
        run_step("attention", [np.zeros(shape, np.float32) for shape in shapes], attrs)


@pytest.mark.parametrize(("keys", "size"), [(1, 65537), (65537, 1)])
def test_longer_sums_than_int32_holds_are_in_float32(keys, size):
    q, k, v = normal(1, 1, 8, size), normal(2, 1, keys, size), normal(3, 1, keys, 3)
    attrs = {"num_heads": 1, "scale": 0.01}
    (exact,) = run_step("attention", [q, k, v], attrs)
    (ours,) = run_step("attention", [q, k, v], {**attrs, "quantised": 1})
    np.testing.assert_array_equal(ours, exact)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("isa", MAIN_ISAS)
@pytest.mark.parametrize(("keys", "size"), [(12, 65536), (65536, 5)])
def test_the_largest_sums_do_not_overflow(isa, sign, keys, size):
    q, k = np.ones((1, 9, size), np.float32), np.full((1, keys, size), sign, np.float32)
    v = np.full((1, keys, 3), sign, np.float32)
    (ours,) = run_step("attention", [q, k, v], {"num_heads": 1, "scale": 1e-4, "quantised": 1}, isa=isa)
    np.testing.assert_allclose(ours, np.full((1, 9, 3), sign), rtol=1e-6)


@pytest.mark.parametrize("isa", MAIN_ISAS)
def test_a_long_row_keeps_its_tail(isa):
    """2,000 keys of a 600th of the largest weight outweigh it three times; rounding to nearest would drop them all."""
    k = np.zeros((1, 2001, 1), np.float32)
    k[0, 1000] = math.log(600)
    v = np.where(k > 0, np.float32(1), np.float32(-1))
    q = np.ones((1, 8, 1), np.float32)
    (ours,) = run_step("attention", [q, k, v], {"num_heads": 1, "scale": 1.0, "quantised": 1}, isa=isa)
    np.testing.assert_allclose(ours, reference(q, k, v, None, 1, 1, 1.0), atol=0.2)


@given(queries=counts, keys=counts, heads=st.sampled_from([(1, 1), (4, 2)]), size=sizes, mask=masks)
def test_the_function_body_computes_the_same(queries, keys, heads, size, mask):
    h, hk = heads
    q, k, v = normal(1, 2, queries, h * size), normal(2, 2, keys, hk * size), normal(3, 2, keys, hk * size)
    m = make_mask(mask, 2, h, queries, keys)
    (ours,) = attention_session(h, hk, 1 / math.sqrt(size)).run(
        None, {"q": q, "k": k, "v": v, "mask": np.asarray(0 if m is None else m, np.float32)}
    )
    expected = integer_reference(q, k, v, m, h, hk, 1 / math.sqrt(size))
    # a score that rounds to another step there changes one weight of a query and head by 3 %
    far = (np.abs(ours - expected) > 1e-5 * np.abs(v).max()).reshape(2, queries, h, size).any(axis=-1)
    assert far.mean() <= 0.01 or far.sum() <= 1
    np.testing.assert_allclose(ours, expected, rtol=0, atol=0.05 * np.abs(v).max())
