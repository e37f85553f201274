"""What the encode of lookup layers does with its inputs and its constants, on every ISA: equal bits with numpy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lutc._runtime import kernels
from tests.lookup_layers import (
    ISAS,
    Conv,
    inputs_for,
    make_conv,
    make_layer,
    reference_conv,
    reference_linear,
    run_conv,
    run_encode,
    run_linear,
)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("size, gain_limit", [(2, 15), (3, 15), (4, 15), (4, 0), (8, 0)])
@pytest.mark.parametrize("offset", [False, True])
def test_products_beyond_integers(isa, size, gain_limit, offset):
    rng = np.random.default_rng(size)
    layer = make_layer(rng, 48 + size, [size] * (48 // size + 1), 16, 9, gain_limit, offset=offset)
    x = rng.normal(size=(64, 48 + size)).astype(np.float32)
    x[5, 20], x[21, 40], x[33, -1], x[50, 0] = np.nan, 1e9, 1e38, -np.inf  # a run of features each, others without
    assert np.array_equal(run_linear(isa, layer, x), reference_linear(layer, x).astype(np.float32))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("size", [2, 3, 4, 8])
def test_gains_beyond_integers(isa, size):
    rng = np.random.default_rng(size)
    layer = make_layer(rng, 12 * size, [size] * 12, 16, 9, 63)
    layer.gain_mul = np.resize(np.float32([1e38, -1e38, 300, -255.5, 0, 1e-30]), 12)
    x = rng.normal(size=(40, 12 * size)).astype(np.float32)
    x[3] = 0  # scores of zero stay zero
    with np.errstate(over="ignore"):
        expected = reference_linear(layer, x).astype(np.float32)
    assert np.array_equal(run_linear(isa, layer, x), expected)


@pytest.mark.skipif("avx512" not in kernels.isas(), reason="the other ISAs' encodes have one stage")
@pytest.mark.parametrize("size, gain_limit", [(2, 63), (3, 63), (4, 15), (8, 0), (8, 15)])
def test_scores_by_themselves(size, gain_limit):
    rng = np.random.default_rng(size)
    layer = make_layer(rng, 24 * size, [size] * 24, 16, 9, gain_limit)
    x = rng.normal(size=(32, 24 * size)).astype(np.float32)
    constants, header = layer.encode_inputs, 64
    whole = run_encode("avx512", layer, x).ravel()[header:]
    codes = kernels.EncodeScores("avx512", x, *constants, gain_limit).run()
    assert np.array_equal(codes, whole[: codes.size])
    with pytest.raises(ValueError, match="one stage"):
        kernels.EncodeScores("scalar", x, *constants, gain_limit)
    with pytest.raises(ValueError, match=r"x is \[32, "):
        kernels.EncodeScores("avx512", x[:31], *constants, gain_limit)


@pytest.mark.parametrize("isa", ISAS)
def test_not_finite_inputs(isa):
    rng = np.random.default_rng(0)
    layer = make_layer(rng, 30, [3] * 10, 16, 9, 15)
    x = rng.normal(size=(17, 30)).astype(np.float32)
    x[rng.random(x.shape) < 0.2] = np.nan
    x[rng.random(x.shape) < 0.2] = np.inf
    x[rng.random(x.shape) < 0.2] = -np.inf
    layer.inv_scale[3] = 0  # inf * 0 is NaN
    assert np.array_equal(run_linear(isa, layer, x), reference_linear(layer, x).astype(np.float32))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("gain_limit", [0, 63])
@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    blocks=st.lists(st.tuples(st.integers(1, 70), st.integers(1, 30)), min_size=1, max_size=3),
    m=st.integers(1, 40),
    shuffle=st.booleans(),
    listed=st.booleans(),
)
def test_projection(isa, gain_limit, seed, blocks, m, shuffle, listed):
    rng = np.random.default_rng(seed)
    rows, columns = sum(b[0] for b in blocks), sum(b[1] for b in blocks)
    matrix = np.zeros((rows, columns), np.int8)
    r = c = 0
    for height, width in blocks:
        matrix[r : r + height, c : c + width] = rng.integers(-127, 128, (height, width))
        r, c = r + height, c + width
    layer = make_layer(rng, columns, [3] * -(-columns // 3), 16, 11, gain_limit, shuffle=shuffle)
    layer.offset[:], layer.inv_scale[:] = 0, 1
    layer.project = [
        rng.normal(size=rows).astype(np.float32),
        np.abs(rng.normal(40, 10, rows)).astype(np.float32),
        matrix,
        rng.uniform(1e-4, 1e-3, columns).astype(np.float32),
    ]
    layer.blocks = [n for block in blocks for n in block] if listed or len(blocks) > 1 else []
    x = inputs_for(rng, m, rows, layer)
    assert np.array_equal(run_linear(isa, layer, x), reference_linear(layer, x).astype(np.float32))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("size, gain_limit", [(2, 15), (3, 15), (4, 15), (4, 0), (8, 0)])
@pytest.mark.parametrize("offset", [False, True])
def test_pixels_beyond_integers(isa, size, gain_limit, offset):
    rng = np.random.default_rng(size)
    conv = Conv(kernel=(1, 1), pads=(0, 0, 0, 0))
    layer = make_conv(rng, conv, [size] * 9, 16, 5, gain_limit)
    if offset:
        layer.offset = rng.normal(size=9 * size).astype(np.float32)
    x = rng.normal(size=(1, 9 * size, 10, 11)).astype(np.float32)
    x[0, 0, 0, 0], x[0, 5, 3, 3], x[0, -1, 6, 6], x[0, 7, 9, 10] = np.nan, 1e9, 1e38, -np.inf
    assert np.array_equal(run_conv(isa, layer, x, conv), reference_conv(layer, x, conv).astype(np.float32))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.groups.__setitem__((0, 0), 12), "groups"),
        (lambda a: a.groups.__setitem__((0, 0), -1), "groups"),
        (lambda a: a.groups.__setitem__((0, 1), -1), "groups"),
        (lambda a: a.groups.__setitem__((0, 0), -2), "groups"),
        (lambda a: a.offset.__setitem__(0, np.nan), "offset"),
        (lambda a: a.inv_scale.__setitem__(0, -1), "inv_scale"),
        (lambda a: a.inv_scale.__setitem__(0, np.inf), "inv_scale"),
        (lambda a: a.gain_mul.__setitem__(0, np.nan), "gain_mul"),
        (lambda a: a.code_bias.__setitem__((0, 0), 1), "code_bias"),
        (lambda a: setattr(a, "gain_limit", 128), "gain_limit"),
        (lambda a: setattr(a, "gain_limit", -1), "gain_limit"),
        (lambda a: setattr(a, "directions", a.directions[:, :5]), "code_bias"),
        (lambda a: setattr(a, "offset", a.offset[:5]), "inv_scale"),
    ],
)
def test_hostile_encode(change, message):
    layer = make_layer(np.random.default_rng(0), 12, [3] * 4, 16, 7, 15)
    change(layer)
    with pytest.raises(ValueError, match=f"lut_encode.*{message}"):
        run_encode(ISAS[-1], layer, np.zeros((2, 12), np.float32))
