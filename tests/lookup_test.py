"""The lookup operators on every ISA against a numpy reference written from docs/operators.md: equal bits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.lookup_layers import (
    ISAS,
    Conv,
    inputs_for,
    kernels,
    layer_with_gains,
    make_conv,
    make_layer,
    reference_conv,
    reference_linear,
    run_conv,
    run_encode,
    run_linear,
)


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    m=st.integers(1, 70) | st.sampled_from([128, 129, 300]),
    n=st.integers(1, 70),
    k=st.sampled_from([4, 8, 16]),
    sizes=st.lists(st.integers(1, 12) | st.sampled_from([16, 17, 31, 32]), min_size=1, max_size=23),
    gain_limit=st.sampled_from([0, 1, 7, 15, 31, 63, 64, 127]),
    extra=st.integers(0, 5),
    kind=st.sampled_from(["plain", "extreme", "ties", "shuffle", "offset"]),
)
def test_linear(isa, seed, m, n, k, sizes, gain_limit, extra, kind):
    rng = np.random.default_rng(seed)
    d = sum(sizes) + extra
    layer = make_layer(rng, d, sizes, k, n, gain_limit, **({} if kind == "plain" else {kind: True}))
    x = inputs_for(rng, m, d, layer)
    expected = reference_linear(layer, x)
    assert np.array_equal(run_linear(isa, layer, x), expected.astype(np.float32))
    assert np.array_equal(run_linear(isa, layer, x, layout="ckn"), expected.astype(np.float32))


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    m=st.integers(1, 300),
    n=st.sampled_from([48, 95, 96, 97, 144, 240, 250, 384]),
    k=st.sampled_from([4, 8, 16, 16]),
    c=st.integers(1, 140),
    gain_limit=st.sampled_from([0, 15, 63]),
    residual=st.booleans(),
    relu=st.booleans(),
    threads=st.integers(1, 3),
)
def test_tiles_of_outputs(isa, seed, m, n, k, c, gain_limit, residual, relu, threads):
    """Kernels may write a tile of outputs while they compute the next one."""
    rng = np.random.default_rng(seed)
    layer = make_layer(rng, 2 * c, [2] * c, k, n, gain_limit)
    x = rng.normal(size=(m, 2 * c)).astype(np.float32)
    expected = reference_linear(layer, x).astype(np.float32)
    if relu:
        expected = np.maximum(expected, 0)
    added = rng.integers(-9, 9, size=(m, n)).astype(np.float32) if residual else None
    activation = "relu" if relu else "none"
    y = run_linear(isa, layer, x, residual=added, activation=activation, threads=threads)
    assert np.array_equal(y, expected if added is None else expected + added)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("gain_limit", [0, 7, 15, 31, 63, 127])
@pytest.mark.parametrize("k", [4, 8, 16])
def test_many_codebooks_at_the_extremes(isa, gain_limit, k):
    """Sums as large as they get: all entries and gains at their limits with one sign."""
    rng = np.random.default_rng(3)
    c = 301
    layer = make_layer(rng, 4 * c, [4] * c, k, 13, gain_limit, extreme=True)
    layer.directions[:] = 127
    layer.code_bias[:] = 0
    layer.table[:] = rng.choice([-127, 127], (1, 1, 13))
    layer.gain_mul[:] = 1
    x = np.full((33, 4 * c), 1e9, np.float32)
    x[::2] *= -1
    expected = reference_linear(layer, x)
    assert np.abs(expected).max() == c * 127 * max(gain_limit, 1)
    assert np.array_equal(run_linear(isa, layer, x), expected.astype(np.float32))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("layout", ["ckn", None])
@pytest.mark.parametrize("shape", [(0, 12), (2, 0, 12), (2, 3, 12), (12,)])
def test_leading_shapes(isa, shape, layout):
    rng = np.random.default_rng(0)
    layer = make_layer(rng, 12, [3] * 4, 16, 7, 63)
    x = rng.normal(size=shape).astype(np.float32)
    y = run_linear(isa, layer, x, layout)
    assert y.shape == (*shape[:-1], 7)
    assert np.array_equal(y.reshape(-1, 7), reference_linear(layer, x.reshape(-1, 12)).astype(np.float32))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("gain_limit", [1, 15, 63, 127])
@pytest.mark.parametrize("m", [1, 2, 32, 33])
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), c=st.integers(1, 150), level=st.integers(0, 127), spikes=st.integers(0, 3))
def test_windows_of_small_gains(isa, gain_limit, m, seed, c, level, spikes):
    """Kernels may add up more small gains before they widen: one large gain in one row must still fit."""
    rng = np.random.default_rng(seed)
    gains = np.full((m, c), min(level, gain_limit))
    for _ in range(spikes):
        gains[rng.integers(m), rng.integers(c)] = gain_limit
    gains[rng.random(m) < 0.5] *= -1
    layer, x = layer_with_gains(gains, 5, gain_limit)
    expected = reference_linear(layer, x).astype(np.float32)
    assert np.array_equal(run_linear(isa, layer, x), expected)
    assert np.array_equal(run_linear(isa, layer, x, layout="ckn"), expected)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("total", range(252, 261))
def test_the_longest_windows_are_full(isa, total):
    """Windows of 3 units whose gains sum to about the most a 16-bit sum of entries of 127 holds."""
    gains = np.zeros((2, 12), np.int64)
    gains[1] = np.tile([43, 43, 43, 43, 43, total - 215], 2)
    layer, x = layer_with_gains(gains, 35, 63)
    expected = reference_linear(layer, x).astype(np.float32)
    assert np.array_equal(run_linear(isa, layer, x), expected)
    assert np.array_equal(run_linear(isa, layer, x, layout="ckn"), expected)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("total", range(250, 259))
@pytest.mark.parametrize("before", [129, 1, 128])
def test_full_windows_after_a_full_low_byte(isa, total, before):
    """What windows hand to each other, a low byte (127 * 129 ends in 255) and 128 of a start, needs room in them."""
    gains = np.tile([43, 43, 43, 43, 43, 39], (2, 5))  # of the second row: windows of 3 units, not more
    for window, most in enumerate([before, total, before, total, before]):
        gains[0, 6 * window : 6 * window + 6] = np.diff(np.arange(7) * most // 6)
    layer, x = layer_with_gains(gains, 35, 63)
    expected = reference_linear(layer, x).astype(np.float32)
    assert np.array_equal(run_linear(isa, layer, x), expected)
    layer, x = layer_with_gains(-gains, 35, 63)
    assert np.array_equal(run_linear(isa, layer, x), -expected)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("c", [40, 47, 48, 49, 55, 56, 96, 160, 167, 168, 169, 175, 176, 184, 255, 256, 257, 264, 520])
@pytest.mark.parametrize("kind", ["random", "extreme", "rounded", "highest"])
def test_plain_sums_of_rounded_averages(isa, c, kind):
    """Kernels may average eight entries before they sum: "rounded" are bytes that every average rounds up."""
    rng = np.random.default_rng(c)
    layer = make_layer(rng, 2 * c, [2] * c, 16, 10, 0, extreme=kind == "extreme")
    if kind == "rounded":
        eight = np.array([2, 1, 3, 2, 3, 2, 4, 3]) - 128
        layer.table[:] = np.resize(eight, c)[:, None, None]
        layer.table[:, :, 1::2] += 100
    if kind == "highest":
        layer.table[:] = 127
    x = rng.normal(size=(101, 2 * c)).astype(np.float32)
    expected = reference_linear(layer, x).astype(np.float32)
    assert np.array_equal(run_linear(isa, layer, x), expected)


ACTIVATIONS = {
    "none": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
}


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("m", [1, 5, 67])
@pytest.mark.parametrize("layout", ["ckn", None])
def test_epilogue(isa, activation, m, layout):
    rng = np.random.default_rng(5)
    layer = make_layer(rng, 40, [4] * 10, 16, 101, 63)
    layer.scale = rng.uniform(1e-5, 1e-4, 101).astype(np.float32)
    layer.bias = rng.normal(size=101).astype(np.float32)
    x = rng.normal(size=(m, 40)).astype(np.float32)
    residual = rng.normal(size=(m, 101)).astype(np.float32)
    pre = reference_linear(layer, x) * layer.scale.astype(np.float64) + layer.bias
    expected = ACTIVATIONS[activation](pre)
    for extra in (None, residual):
        y = run_linear(isa, layer, x, layout, extra, activation)
        np.testing.assert_allclose(y, expected + (0 if extra is None else extra), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    batch=st.integers(1, 3),
    size=st.tuples(st.integers(1, 37), st.integers(1, 37)),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilations=st.tuples(st.integers(1, 2), st.integers(1, 3)),
    pads=st.tuples(*[st.integers(0, 3)] * 4),
    group=st.sampled_from([1, 1, 2, 3]),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=7),
    k=st.sampled_from([4, 8, 16]),
    n=st.integers(1, 15),
    gain_limit=st.sampled_from([0, 7, 15, 31, 63, 127]),
)
def test_conv(isa, seed, batch, size, kernel, strides, dilations, pads, group, sizes, k, n, gain_limit):
    reach = [d * (s - 1) + 1 for d, s in zip(dilations, kernel, strict=True)]
    if size[0] + pads[0] + pads[2] < reach[0] or size[1] + pads[1] + pads[3] < reach[1]:
        return
    rng = np.random.default_rng(seed)
    conv = Conv(kernel, strides, dilations, pads, group)
    layer = make_conv(rng, conv, sizes, k, n, gain_limit)
    x = rng.normal(size=(batch, sum(sizes) * group, *size)).astype(np.float32)
    expected = reference_conv(layer, x, conv).astype(np.float32)
    assert np.array_equal(run_conv(isa, layer, x, conv), expected)
    assert np.array_equal(run_conv(isa, layer, x, conv, layout="ckn"), expected)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("activation", ["none", "relu", "tanh"])
@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("pads", [(1, 1, 1, 1), (0, 0, 0, 0)])
def test_conv_epilogue(isa, activation, first, pads):
    rng = np.random.default_rng(1)
    conv = Conv(kernel=(3, 3) if any(pads) else (1, 1), pads=pads)
    layer = make_conv(rng, conv, [3, 4, 3], 16, 50, 15)
    layer.scale = rng.uniform(1e-4, 1e-3, 50).astype(np.float32)
    layer.bias = rng.normal(size=50).astype(np.float32)
    x = rng.normal(size=(2, 10, 19, 23)).astype(np.float32)
    acc = reference_conv(layer, x, conv) * layer.scale[:, None, None].astype(np.float64) + layer.bias[:, None, None]
    residual = rng.normal(size=acc.shape).astype(np.float32)
    act = ACTIVATIONS[activation]
    y = run_conv(isa, layer, x, conv, None, residual, activation, first)
    np.testing.assert_allclose(y, act(acc + residual) if first else act(acc) + residual, rtol=1e-5, atol=1e-5)
    y = run_conv(isa, layer, x, conv, None, None, activation, first)
    np.testing.assert_allclose(y, act(acc), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("isa", ISAS)
def test_threads_give_the_same_bits(isa):
    rng = np.random.default_rng(2)
    layer = make_layer(rng, 192, [3] * 64, 16, 200, 15)
    x = rng.normal(size=(700, 192)).astype(np.float32)
    assert np.array_equal(run_linear(isa, layer, x, threads=3), run_linear(isa, layer, x))
    conv = Conv()
    layer = make_conv(rng, conv, [4] * 8, 16, 100, 63)
    for batch in (1, 5):
        x = rng.normal(size=(batch, 32, 40, 41)).astype(np.float32)
        assert np.array_equal(run_conv(isa, layer, x, conv, threads=3), run_conv(isa, layer, x, conv))


@settings(max_examples=60, deadline=None)
@given(
    c=st.integers(1, 9),
    k=st.sampled_from([4, 8, 16]),
    n=st.integers(1, 14),
    kernel=st.none() | st.tuples(st.integers(1, 3), st.integers(1, 3)),
    group=st.integers(1, 3),
    layout=st.sampled_from(sorted({name for isa in ["scalar", "avx2", "avx512"] for name in kernels.layouts_for(isa)})),
)
def test_layouts_keep_every_entry(c, k, n, kernel, group, layout):
    rng = np.random.default_rng(0)
    shape = (c, k, n) if kernel is None else (n * group, c, k, *kernel)
    group = 1 if kernel is None else group
    table = rng.integers(-127, 128, shape).astype(np.int8)
    packed = kernels.pack_table(table, layout, group)
    assert np.array_equal(kernels.unpack_table(packed, layout, shape, group), table)
    with pytest.raises(ValueError, match="size"):
        kernels.unpack_table(packed[:-1], layout, shape, group)


@pytest.mark.parametrize(
    ("attrs", "message"),
    [
        ({"codebooks": 5}, "table"),
        ({"outputs": 8}, "scale"),
        ({"entries": 8}, "table"),
        ({"entries": 7}, "entries"),
        ({"gain_limit": 128}, "gain_limit"),
        ({"layout": "nonsense"}, "nonsense"),
        ({"activation": "softsign"}, "softsign"),
        ({"codebooks": 2**40}, "codebooks"),
        ({"codebooks": -4}, "codebooks"),
        ({"gain_limit": 63}, "codes"),
    ],
)
@pytest.mark.parametrize("isa", ISAS)
def test_hostile_linear(isa, attrs, message):
    layer = make_layer(np.random.default_rng(0), 12, [3] * 4, 16, 7, 15)
    codes = run_encode(isa, layer, np.zeros((2, 12), np.float32))
    with pytest.raises(ValueError, match=f"lut_linear.*{message}"):
        step = kernels.Step(
            isa, "lut_linear", [codes, layer.table, layer.scale, layer.bias], layer.table_attrs("ckn") | attrs
        )
        step.run()


@pytest.mark.parametrize("isa", ISAS)
def test_codes_that_no_encode_made_are_refused(isa):
    layer = make_layer(np.random.default_rng(0), 12, [3] * 4, 16, 7, 15)
    inputs = [np.zeros((2, 4000), np.uint8), layer.table, layer.scale, layer.bias]
    with pytest.raises(ValueError, match="lut_encode"):
        kernels.Step(isa, "lut_linear", inputs, layer.table_attrs("ckn")).run()
    inputs[0] = np.zeros((2, 4), np.uint8)
    with pytest.raises(ValueError, match="too small"):
        kernels.Step(isa, "lut_linear", inputs, layer.table_attrs("ckn")).run()


@pytest.mark.parametrize("isa", ISAS)
def test_convolutions_refuse_codes_of_rows(isa):
    rng = np.random.default_rng(0)
    conv = Conv()
    layer = make_conv(rng, conv, [4], 16, 3, 15)
    x = rng.normal(size=(1, 4, 5, 5)).astype(np.float32)
    codes = run_encode(isa, layer, x.transpose(0, 2, 3, 1))
    assert np.isfinite(run_conv(isa, layer, x, conv)).all()
    attrs = layer.table_attrs("ckn") | {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    with pytest.raises(ValueError, match="axis 1"):
        kernels.Step(isa, "lut_conv", [codes, layer.table, layer.scale, layer.bias], attrs).run()


@pytest.mark.parametrize("isa", ISAS)
def test_padding_needs_zero_offsets(isa):
    rng = np.random.default_rng(0)
    conv = Conv()
    layer = make_conv(rng, conv, [4], 16, 3, 15)
    layer.offset[:] = 1
    with pytest.raises(ValueError, match="offset"):
        run_conv(isa, layer, np.zeros((1, 4, 5, 5), np.float32), conv)
