"""Random lookup layers, a numpy reference of them written from docs/operators.md, and their steps on any ISA."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

kernels = pytest.importorskip("lutc._runtime").kernels

ISAS = [isa for isa in kernels.isas() if isa != "avxvnni"]  # whose lookups are AVX2's


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

    @property
    def entry_limit(self) -> int:
        """What a session finds out and tells the steps: how far the table's entries reach."""
        return next(limit for limit in (31, 63, 127) if (np.abs(self.table.astype(int)) <= limit).all())

    def encode_attrs(self, axis: int) -> dict:
        attrs = {"gain_limit": self.gain_limit, "axis": axis, "entry_limit": self.entry_limit}
        return attrs | ({"blocks": self.blocks} if self.blocks else {})

    def table_attrs(self, layout: str) -> dict:
        c, k = self.directions.shape[:2]
        return {
            "gain_limit": self.gain_limit,
            "entry_limit": self.entry_limit,
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


def layer_with_gains(gains, n, gain_limit, k=16, entry=127):
    """A layer and rows x [M, C] that encode to just these gains [M, C]; entries are `entry`, or -`entry`, by column."""
    c = gains.shape[1]
    layer = make_layer(np.random.default_rng(0), c, [1] * c, k, n, gain_limit)
    layer.offset[:], layer.inv_scale[:] = 0, 1
    layer.directions[:], layer.gain_mul[:] = 1, 1
    layer.table[:] = np.where(np.arange(n) % 2, entry, -entry)
    assert np.array_equal(reference_encode(layer, gains.astype(np.float32))[1], gains)
    return layer, gains.astype(np.float32)


def inputs_for(rng, m, d, layer):
    x = rng.normal(size=(m, d)).astype(np.float32) * 2
    if m > 1:
        x[rng.integers(m)] *= 1000  # everything clips
        x[rng.integers(m)] = 0
    return x


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


@dataclass
class Conv:
    """Geometry of a convolution."""

    kernel: tuple[int, int] = (3, 3)
    strides: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (1, 1, 1, 1)
    group: int = 1


def make_conv(rng, conv, sizes, k, n, gain_limit):
    """A random convolution whose groups have the given sub-vector sizes each."""
    per_group = sum(sizes)
    layer = make_layer(rng, per_group * conv.group, sizes * conv.group, k, n * conv.group, gain_limit)
    shape = (n * conv.group, len(sizes), k, *conv.kernel)
    layer.table = rng.integers(-127, 128, shape).astype(np.int8)
    return layer


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
