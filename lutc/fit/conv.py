"""Fitting one convolution: each input pixel is encoded once, the tables hold one entry per tap."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import scipy.sparse

from lutc.fit.encode import decode_rows, encode_rows
from lutc.fit.encoder import FittedEncoder, even_groups, fit_encoder, pad_groups
from lutc.fit.factored import factored_clips, round_factors, stays_tied
from lutc.fit.linear import HELD_OUT, Factors, FittedLayer, atom_matrix, refits_entries, usage
from lutc.fit.table_bits import choose_limit
from lutc.fit.tables import CLIPS, FittedTable, Moments, fit_table, round_table, rounding_noise
from lutc.forms import Form
from lutc.ir.parameters import ConvParameters

Floats = npt.NDArray[np.float32]

_LEARNING_PIXELS = 16384
_POSITIONS = 40000
"""Output positions from which the tables are fitted."""


@dataclasses.dataclass(frozen=True)
class Geometry:
    """Attributes of a 2-D convolution, as in docs/operators.md."""

    kernel_shape: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilations: tuple[int, int] = (1, 1)
    group: int = 1


def _pixels(images: list[Floats], limit: int, rng: np.random.Generator) -> Floats:
    """A sample of pixels, float32 [<= limit, Cin]."""
    total = sum(image.shape[0] * image.shape[2] * image.shape[3] for image in images)
    share = min(1.0, limit / max(total, 1))
    parts = []
    for image in images:
        rows = image.transpose(0, 2, 3, 1).reshape(-1, image.shape[1])
        if share < 1:
            rows = rows[np.sort(rng.choice(len(rows), max(1, round(share * len(rows))), replace=False))]
        parts.append(rows)
    return np.concatenate(parts)


@dataclasses.dataclass
class _Windows:
    """The receptive fields of sampled output positions of one batch.

    Attributes:
        pixels: Input pixels that occur, float32 [pixels, Cin]; the last row stands for padding (zeros).
        index: Which pixel each tap of each position reads, int64 [positions, taps].
        y: Target outputs, float32 [positions, N].
    """

    pixels: Floats
    index: npt.NDArray[np.int64]
    y: Floats


def _windows(x: Floats, y: Floats, geometry: Geometry, share: float, rng: np.random.Generator) -> _Windows:
    batch, _outputs, out_h, out_w = y.shape
    height, width = x.shape[2:]
    total = batch * out_h * out_w
    count = min(total, max(1, round(share * total)))
    chosen = np.sort(rng.choice(total, count, replace=False))
    b, i, j = np.unravel_index(chosen, (batch, out_h, out_w))
    (kh, kw), (sh, sw), (dh, dw) = geometry.kernel_shape, geometry.strides, geometry.dilations
    u, v = np.divmod(np.arange(kh * kw), kw)
    h = i[:, None] * sh - geometry.pads[0] + u * dh
    w = j[:, None] * sw - geometry.pads[1] + v * dw
    inside = (h >= 0) & (h < height) & (w >= 0) & (w < width)
    flat = np.where(inside, (b[:, None] * height + h) * width + w, batch * height * width)
    rows = x.transpose(0, 2, 3, 1).reshape(-1, x.shape[1])
    needed, index = np.unique(np.append(flat, len(rows)), return_inverse=True)
    pixels = np.zeros((len(needed), rows.shape[1]), np.float32)
    pixels[:-1] = rows[needed[:-1]]
    return _Windows(pixels, index[:-1].reshape(flat.shape), y[b, :, i, j])


def fit_conv(
    images: list[Floats],
    targets: list[Floats],
    weight: Floats,
    geometry: Geometry,
    form: Form,
    *,
    seed: int,
    size: str = "fast",
    narrow: bool = False,
    draft: bool = False,
) -> FittedLayer:
    """Fit lookups that map images to targets.

    Args:
        images: What the layer will read, float32 [B, Cin, H, W] each.
        targets: What it should answer, float32 [B, N, H', W'] each.
        weight: The dense layer's, float32 [N, Cin / group, kh, kw].
        geometry: The convolution's attributes.
        form: A gain or plain form without projection.
        seed: Of all sampling.
        size: As in `fit_linear`.
        narrow: Likewise.
        draft: Likewise.

    Returns:
        The layer.
    """
    rng = np.random.default_rng(seed)
    outputs, per_group = weight.shape[:2]
    group = geometry.group
    channels, per_output = per_group * group, outputs // group
    taps = geometry.kernel_shape[0] * geometry.kernel_shape[1]
    groups = pad_groups(
        [g for first in range(group) for g in even_groups(per_group, form.width, start=first * per_group)]
    )
    metric = np.zeros((channels, channels))
    for g in range(group):
        rows = weight[g * per_output : (g + 1) * per_output].transpose(1, 0, 2, 3).reshape(per_group, -1)
        part = slice(g * per_group, (g + 1) * per_group)
        metric[part, part] = rows.astype(np.float64) @ rows.T
    pixels = _pixels(images, _LEARNING_PIXELS, rng)
    # Zeros stay exact without an offset: after a ReLU they are many, and padding is one.
    offset = np.zeros(channels, np.float32)
    encoder = fit_encoder(pixels, metric, groups, form, offset=offset, seed=seed, draft=draft)

    total = sum(y.shape[0] * y.shape[2] * y.shape[3] for y in targets)
    share = min(1.0, _POSITIONS / max(total, 1))
    windows = [
        _windows(x, y, geometry, share, np.random.default_rng((seed, n)))
        for n, (x, y) in enumerate(zip(images, targets, strict=True))
    ]
    if len(windows) == 1:  # one batch: its last positions judge
        whole = windows[0]
        cut = max(len(whole.y) - max(len(whole.y) // HELD_OUT, 1), 1)
        held = min(cut, len(whole.y) - 1)
        windows = [
            _Windows(whole.pixels, whole.index[:cut], whole.y[:cut]),
            _Windows(whole.pixels, whole.index[held:], whole.y[held:]),
        ]
    codebooks, entries = len(groups) // group, form.entries
    encoded = [encode_rows(window.pixels, encoder) for window in windows]
    for _, gains in encoded:
        gains[:, -1] = 0  # padding is looked up by nobody
    free = size != "small" and refits_entries(form, taps * codebooks * entries)
    views = [_GroupView(encoder, g, codebooks, per_group) for g in range(group)]
    parts = [slice(g * per_output, (g + 1) * per_output) for g in range(group)]
    fits = []
    for view, columns in zip(views, parts, strict=True):
        dense = weight[columns].transpose(2, 3, 1, 0).reshape(taps * per_group, per_output)
        fits.append(_fit_group(windows, encoded, view, columns, dense, free=free))
    pooled = _pooled(fits)
    usages = np.stack([view.usage(windows, encoded, second=True) for view in views])
    product = np.empty_like(weight)
    for part, fit in zip(parts, fits, strict=True):
        kernel = fit.table.weights.reshape(*geometry.kernel_shape, per_group, per_output)
        product[part] = kernel.transpose(3, 2, 0, 1)
    expand = None
    table_size = outputs * codebooks * entries * taps
    tied = stays_tied(size, pooled, free=free, factors=encoder.atoms.size + weight.size, table=table_size)
    positions = sum(len(window.y) for window in windows)

    def noise(limit: int) -> float:
        clips = factored_clips(limit) if tied else CLIPS
        pairs = zip(fits, usages, strict=True)
        return sum(rounding_noise(fit.table.table, square, limit, clips) for fit, square in pairs)

    held_out = pooled.error * sum(fit.variance for fit in fits) / max(positions, 1)
    limit = choose_limit(form, held_out, noise, narrow=narrow)
    if tied:
        factored = round_factors(encoder.atoms, product, groups, usages, group=group, limit=limit)
        expand, table, scale = factored.factors, factored.table, factored.scale
    else:
        table = np.empty((outputs, codebooks, entries, *geometry.kernel_shape), np.int8)
        scale = np.empty(outputs, np.float32)
        for part, fit, mean_square in zip(parts, fits, usages, strict=True):
            integers, scale[part] = round_table(fit.table.table, mean_square, limit)
            taps_first = integers.reshape(*geometry.kernel_shape, codebooks, entries, per_output)
            table[part] = taps_first.transpose(4, 2, 3, 0, 1)
    bias = np.empty(outputs, np.float32)
    for part, fit in zip(parts, fits, strict=True):
        units = table[part].transpose(3, 4, 1, 2, 0).reshape(taps * codebooks * entries, per_output)
        bias[part] = fit.y_mean - (fit.gain_mean @ units.astype(np.float64)) * scale[part]
    lookup = ConvParameters(
        **encoder.constants(),  # type: ignore[arg-type]
        table=np.ascontiguousarray(table),
        scale=scale,
        bias=bias,
        **dataclasses.asdict(geometry),
    )
    factors = Factors(encoder.atoms, product, exact=tied or not free, limit=limit)
    return FittedLayer(lookup, None, pooled.tied_error if tied else pooled.error, factors, expand)


Encoded = tuple[npt.NDArray[np.uint8], Floats]


@dataclasses.dataclass(frozen=True)
class _GroupView:
    """One convolution group of an encoder: its codebooks and its channels."""

    encoder: FittedEncoder
    group: int
    codebooks: int
    channels: int

    @property
    def _books(self) -> slice:
        return slice(self.group * self.codebooks, (self.group + 1) * self.codebooks)

    def atoms(self, taps: int) -> scipy.sparse.csr_array:
        """Decoded window of one unit of gain: sparse float32 [taps * C * K, taps * channels]."""
        entries = self.encoder.atoms.shape[1]
        rows = slice(self._books.start * entries, self._books.stop * entries)
        channels = slice(self.group * self.channels, (self.group + 1) * self.channels)
        block = atom_matrix(self.encoder)[rows, channels]
        return scipy.sparse.csr_array(scipy.sparse.block_diag([block] * taps))

    def decoded(self, window: _Windows, encoded: Encoded) -> Floats:
        """Decoded windows, float32 [positions, taps * channels]."""
        codes, gains = encoded
        features = len(self.encoder.offset)
        rows = decode_rows(codes, gains, self.encoder.atoms, self.encoder.groups, features)
        rows = rows[:, self.group * self.channels : (self.group + 1) * self.channels]
        return rows[window.index].reshape(len(window.index), -1)

    def lookups(self, window: _Windows, encoded: Encoded, part: slice) -> Floats:
        """Gain-weighted one-hot windows, float32 [positions, taps * C * K]."""
        entries = self.encoder.atoms.shape[1]
        index = window.index[part]
        codes = encoded[0][self._books].T[index].astype(np.int64)  # [positions, taps, C]
        gains = encoded[1][self._books].T[index]
        width = codes[0].size * entries
        place = codes + np.arange(codes[0].size).reshape(codes.shape[1:]) * entries
        matrix = np.zeros((len(index), width), np.float32)
        np.put_along_axis(matrix, place.reshape(len(index), -1), gains.reshape(len(index), -1), axis=1)
        return matrix

    def usage(self, windows: list[_Windows], encoded: list[Encoded], *, second: bool) -> npt.NDArray[np.float64]:
        """Mean (or mean squared) gain of each entry at each tap, float64 [taps * C * K]."""
        entries, taps = self.encoder.atoms.shape[1], windows[0].index.shape[1]
        total = np.zeros((taps, self.codebooks * entries))
        for window, (codes, gains) in zip(windows, encoded, strict=True):
            for tap in range(taps):
                pixel = window.index[:, tap]
                mean, square = usage(codes[self._books][:, pixel], gains[self._books][:, pixel], entries)
                total[tap] += (square if second else mean) * len(pixel)
        return total.reshape(-1) / max(sum(len(window.y) for window in windows), 1)


@dataclasses.dataclass(frozen=True)
class _GroupFit:
    """Tables of one convolution group.

    Attributes:
        table: The tables.
        gain_mean: Mean gain of each entry at each tap, float64 [taps * C * K].
        y_mean: Mean target, float64 [outputs].
        variance: Of all targets, summed.
    """

    table: FittedTable
    gain_mean: npt.NDArray[np.float64]
    y_mean: npt.NDArray[np.float64]
    variance: float


def _pooled(fits: list[_GroupFit]) -> FittedTable:
    """The first group's tables with the errors of all groups together."""
    variance = max(sum(fit.variance for fit in fits), 1e-30)
    return dataclasses.replace(
        fits[0].table,
        error=sum(fit.table.error * fit.variance for fit in fits) / variance,
        tied_error=sum(fit.table.tied_error * fit.variance for fit in fits) / variance,
    )


def _fit_group(
    windows: list[_Windows], encoded: list[Encoded], view: _GroupView, columns: slice, dense: Floats, *, free: bool
) -> _GroupFit:
    taps = windows[0].index.shape[1]
    entries = view.encoder.atoms.shape[1]
    width = taps * view.codebooks * entries
    features = width if free else taps * view.channels
    rows = sum(len(window.y) for window in windows)
    held_from, seen = len(windows) - 1, 0
    for n in range(len(windows) - 1, 0, -1):
        seen += len(windows[n].y)
        held_from = n
        if seen * HELD_OUT >= rows:
            break

    def chunks(first: int, last: int) -> Iterator[tuple[Floats, Floats]]:
        for window, codes in zip(windows[first:last], encoded[first:last], strict=True):
            if not free:
                yield view.decoded(window, codes), window.y[:, columns]
                continue
            for start in range(0, len(window.y), 4096):
                part = slice(start, start + 4096)
                yield view.lookups(window, codes, part), window.y[part, columns]

    train = Moments.collect(chunks(0, held_from), features, dense.shape[1])
    held_out = Moments.collect(chunks(held_from, len(windows)), features, dense.shape[1])
    fitted = fit_table(train, held_out, view.atoms(taps), dense, free=free)
    gain_mean = view.usage(windows, encoded, second=False)
    both = train + held_out
    return _GroupFit(fitted, gain_mean, both.y / max(rows, 1), float(both.centred().yy.sum()))
