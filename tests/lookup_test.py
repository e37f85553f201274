"""The lookup operators on every ISA against a numpy reference written from docs/operators.md: equal bits."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

kernels = pytest.importorskip("lutc._runtime").kernels

ISAS = kernels.isas()


@dataclass
class Layer:
    """Tensors of a lookup layer, named as in docs/operators.md."""

    offset: np.ndarray
    inv_scale: np.ndarray
    groups: np.ndarray
    directions: np.ndarray
    code_bias: np.ndarray
    gain_mul: np.ndarray
    table: np.ndarray
    scale: np.ndarray
    bias: np.ndarray
    gain_limit: int
    project: list[np.ndarray] = field(default_factory=list)
    blocks: list[int] = field(default_factory=list)

    @property
    def encode_inputs(self) -> list[np.ndarray]:
        tensors = [self.offset, self.inv_scale, self.groups, self.directions, self.code_bias, self.gain_mul]
        return [*tensors, *self.project]

    def encode_attrs(self, axis: int) -> dict:
        attrs = {"gain_limit": self.gain_limit, "axis": axis}
        return attrs | ({"blocks": self.blocks} if self.blocks else {})

    def table_attrs(self, layout: str) -> dict:
        c, k = self.directions.shape[:2]
        return {
            "gain_limit": self.gain_limit,
            "codebooks": c,
            "entries": k,
            "outputs": len(self.scale),
            "layout": layout,
        }


def make_layer(rng, d, sizes, k, n, gain_limit, *, extreme=False, shuffle=False, ties=False, offset=False):
    """A random linear layer with the given sub-vector sizes."""
    c, v = len(sizes), max(sizes)
    order = rng.permutation(d) if shuffle else np.arange(d)
    groups = np.full((c, v), -1, np.int32)
    directions = np.zeros((c, k, v), np.int8)
    at = 0
    for i, size in enumerate(sizes):
        groups[i, :size] = order[(at + np.arange(size)) % d]
        at += size
        low, high = (2, 3) if ties else (127, 128)
        directions[i, :, :size] = rng.integers(-low, high, (k, size))
        if extreme:
            directions[i, :, :size] = rng.choice([-127, 127], (k, size))
    bias = np.zeros((c, k), np.int32)
    if gain_limit == 0:
        norms = (directions.astype(np.int64) ** 2).sum(-1)
        bias = (-np.rint(norms / 2)).astype(np.int32)
    table = rng.integers(-127, 128, (c, k, n)).astype(np.int8)
    if extreme:
        table = rng.choice([-127, 127], (c, k, n)).astype(np.int8)
    return Layer(
        offset=(rng.normal(size=d) if offset else np.zeros(d)).astype(np.float32),
        inv_scale=np.abs(rng.normal(40, 10, d)).astype(np.float32),
        groups=groups,
        directions=directions,
        code_bias=bias,
        gain_mul=(rng.uniform(0.2, 2, c) * max(gain_limit, 1) / (v * 127 * 64)).astype(np.float32),
        table=table,
        scale=np.ones(n, np.float32),
        bias=np.zeros(n, np.float32),
        gain_limit=gain_limit,
    )


def quantise(x, offset, inv_scale):
    with np.errstate(invalid="ignore", over="ignore"):
        v = (x - offset) * inv_scale
    v = np.where(np.isnan(v), np.float32(-127), v)
    return np.rint(np.clip(v, -127, 127)).astype(np.int64)


def reference_encode(layer, x):
    """Codes and gains [M, C] of rows x [M, D]."""
    if layer.project:
        offset, inv_scale, matrix, mul = layer.project
        x = (quantise(x, offset, inv_scale) @ matrix.astype(np.int64)).astype(np.float32) * mul
    q = quantise(x, layer.offset, layer.inv_scale)
    q = np.concatenate([q, np.zeros((len(q), 1), np.int64)], 1)
    parts = q[:, layer.groups]  # [M, C, V]; -1 reads the zero at the end
    scores = np.einsum("mcv,ckv->mck", parts, layer.directions.astype(np.int64)) + layer.code_bias
    if layer.gain_limit == 0:
        codes = scores.argmax(-1)
        return codes, np.ones_like(codes)
    codes = np.abs(scores).argmax(-1)
    best = np.take_along_axis(scores, codes[..., None], -1)[..., 0].astype(np.float32)
    limit = np.float32(layer.gain_limit)
    return codes, np.rint(np.clip(best * layer.gain_mul, -limit, limit)).astype(np.int64)


def reference_linear(layer, x):
    codes, gains = reference_encode(layer, x)
    acc = np.zeros((len(x), layer.table.shape[2]), np.int64)
    for c in range(codes.shape[1]):
        acc += gains[:, c, None] * layer.table[c, codes[:, c]].astype(np.int64)
    return acc


def run_encode(isa, layer, x, axis=-1, threads=1):
    return kernels.Step(isa, "lut_encode", [x, *layer.encode_inputs], layer.encode_attrs(axis), threads=threads).run()


def run_linear(isa, layer, x, layout=None, residual=None, activation="none", threads=1):
    layout = layout or kernels.layouts_for(isa)[0]
    table = layer.table if layout == "ckn" else kernels.pack_table(layer.table, layout)
    codes = run_encode(isa, layer, x, threads=threads)
    inputs = [codes, table, layer.scale, layer.bias, residual]
    attrs = layer.table_attrs(layout) | {"activation": activation}
    return kernels.Step(isa, "lut_linear", inputs, attrs, threads=threads).run()


def inputs_for(rng, m, d, layer):
    x = rng.normal(size=(m, d)).astype(np.float32) * 2
    if m > 1:
        x[rng.integers(m)] *= 1000  # everything clips
        x[rng.integers(m)] = 0
    return x


sizes_of = st.lists(st.integers(1, 12) | st.sampled_from([16, 17, 31, 32]), min_size=1, max_size=23)


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    m=st.integers(1, 70) | st.sampled_from([128, 129, 300]),
    n=st.integers(1, 70),
    k=st.sampled_from([4, 8, 16]),
    sizes=sizes_of,
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
@pytest.mark.parametrize("layout", ["ckn", None])
@pytest.mark.parametrize("shape", [(0, 12), (2, 0, 12), (2, 3, 12), (12,)])
def test_leading_shapes(isa, shape, layout):
    rng = np.random.default_rng(0)
    layer = make_layer(rng, 12, [3] * 4, 16, 7, 63)
    x = rng.normal(size=shape).astype(np.float32)
    y = run_linear(isa, layer, x, layout)
    assert y.shape == (*shape[:-1], 7)
    assert np.array_equal(y.reshape(-1, 7), reference_linear(layer, x.reshape(-1, 12)).astype(np.float32))


def layer_with_gains(gains, n, gain_limit, k=16):
    """A layer and rows x [M, C] that encode to exactly these gains [M, C]; every entry is 127 or -127 by column."""
    c = gains.shape[1]
    layer = make_layer(np.random.default_rng(0), c, [1] * c, k, n, gain_limit)
    layer.offset[:], layer.inv_scale[:] = 0, 1
    layer.directions[:], layer.gain_mul[:] = 1, 1
    layer.table[:] = np.where(np.arange(n) % 2, 127, -127)
    assert np.array_equal(reference_encode(layer, gains.astype(np.float32))[1], gains)
    return layer, gains.astype(np.float32)


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
@pytest.mark.parametrize("c", [78, 79, 80, 81, 87, 88, 95, 96, 160, 167, 168, 169, 175, 176, 184])
@pytest.mark.parametrize("kind", ["random", "extreme", "rounded"])
def test_plain_sums_of_rounded_averages(isa, c, kind):
    """Kernels may average eight entries before they sum: "rounded" are bytes that every average rounds up."""
    rng = np.random.default_rng(c)
    layer = make_layer(rng, 2 * c, [2] * c, 16, 10, 0, extreme=kind == "extreme")
    if kind == "rounded":
        eight = np.array([2, 1, 3, 2, 3, 2, 4, 3]) - 128
        layer.table[:] = np.resize(eight, c)[:, None, None]
        layer.table[:, :, 1::2] += 100
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


@dataclass
class Conv:
    """Geometry of a convolution."""

    kernel: tuple[int, int] = (3, 3)
    strides: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (1, 1, 1, 1)
    group: int = 1


def reference_conv(layer, x, conv):
    """Integer sums [B, N, Ho, Wo]; layer.table is [N, C/group, K, kh, kw]."""
    b, cin, h, w = x.shape
    codes, gains = reference_encode(layer, x.transpose(0, 2, 3, 1).reshape(-1, cin))
    c = codes.shape[1]
    top, left, bottom, right = conv.pads
    pad = ((0, 0), (top, bottom), (left, right), (0, 0))
    codes = np.pad(codes.reshape(b, h, w, c), pad)
    gains = np.pad(gains.reshape(b, h, w, c), pad)
    kh, kw = conv.kernel
    out_h = (codes.shape[1] - conv.dilations[0] * (kh - 1) - 1) // conv.strides[0] + 1
    out_w = (codes.shape[2] - conv.dilations[1] * (kw - 1) - 1) // conv.strides[1] + 1
    n = layer.table.shape[0]
    acc = np.zeros((b, n, out_h, out_w), np.int64)
    per_group, outputs = c // conv.group, n // conv.group
    for u in range(kh):
        for v in range(kw):
            rows = u * conv.dilations[0] + np.arange(out_h) * conv.strides[0]
            cols = v * conv.dilations[1] + np.arange(out_w) * conv.strides[1]
            k = codes[:, rows][:, :, cols]
            g = gains[:, rows][:, :, cols]
            for i in range(c):
                group = i // per_group
                table = layer.table[group * outputs : (group + 1) * outputs, i % per_group, :, u, v].astype(np.int64)
                product = g[None, ..., i] * table[:, k[..., i]]
                acc[:, group * outputs : (group + 1) * outputs] += product.transpose(1, 0, 2, 3)
    return acc


def run_conv(isa, layer, x, conv, layout=None, residual=None, activation="none", first=0, threads=1):
    layout = layout or kernels.layouts_for(isa)[0]
    table = layer.table if layout == "ckn" else kernels.pack_table(layer.table, layout, conv.group)
    attrs = layer.table_attrs(layout) | {
        "kernel_shape": list(conv.kernel),
        "strides": list(conv.strides),
        "dilations": list(conv.dilations),
        "pads": list(conv.pads),
        "group": conv.group,
        "activation": activation,
        "activation_after_residual": first,
    }
    codes = run_encode(isa, layer, x, axis=1, threads=threads)
    inputs = [codes, table, layer.scale, layer.bias, residual]
    return kernels.Step(isa, "lut_conv", inputs, attrs, threads=threads).run()


def make_conv(rng, conv, sizes, k, n, gain_limit):
    """A random convolution whose groups have the given sub-vector sizes each."""
    per_group = sum(sizes)
    layer = make_layer(rng, per_group * conv.group, sizes * conv.group, k, n * conv.group, gain_limit)
    shape = (n * conv.group, len(sizes), k, *conv.kernel)
    layer.table = rng.integers(-127, 128, shape).astype(np.int8)
    return layer


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


def hostile(change):
    """A layer with one tensor or attribute broken by `change(layer)`."""
    rng = np.random.default_rng(0)
    layer = make_layer(rng, 12, [3] * 4, 16, 7, 15)
    change(layer)
    return layer


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
    layer = hostile(change)
    with pytest.raises(ValueError, match=f"lut_encode.*{message}"):
        run_encode(ISAS[-1], layer, np.zeros((2, 12), np.float32))


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
    layer = hostile(lambda a: None)
    codes = run_encode(isa, layer, np.zeros((2, 12), np.float32))
    with pytest.raises(ValueError, match=f"lut_linear.*{message}"):
        step = kernels.Step(
            isa, "lut_linear", [codes, layer.table, layer.scale, layer.bias], layer.table_attrs("ckn") | attrs
        )
        step.run()


@pytest.mark.parametrize("isa", ISAS)
def test_codes_that_no_encode_made_are_refused(isa):
    layer = hostile(lambda a: None)
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
