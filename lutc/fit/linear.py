"""Fitting one linear layer: encode (behind a projection if asked), tables, bias."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import scipy.sparse

from lutc.fit.encode import decode_rows, encode_rows, lookup_chunks, lookup_linear
from lutc.fit.encoder import FittedEncoder, even_groups, fit_encoder, pad_groups
from lutc.fit.factored import factored_clips, round_factors, stays_tied
from lutc.fit.projection import apply_projection, fit_projection
from lutc.fit.table_bits import choose_limit
from lutc.fit.tables import CLIPS, Moments, fit_table, round_table, rounding_noise
from lutc.forms import Form
from lutc.ir.expand import TableFactors
from lutc.ir.parameters import LookupParameters, ProjectParameters

Floats = npt.NDArray[np.float32]

FREE_LIMIT = 3200
"""Largest C * K (times taps) whose entries are refitted one by one; beyond it tables stay tied to their atoms."""

HELD_OUT = 6
"""One in so many rows, the last ones, judges the refits."""


@dataclasses.dataclass(frozen=True)
class Factors:
    """What a lookup layer's table is made from: the layer as a dense one that reads decoded inputs.

    Attributes:
        atoms: The input that one unit of gain of each entry stands for, float32 [C, K, V], after subtraction of the
            offset; 0 in empty slots.
        weight: float32 [F, N] (behind a projection, F is its rank) or, of a convolution, [N, Cin / group, kh, kw].
        exact: Whether the table is nothing but their product, rounded; false where single entries were refitted.
        limit: Largest magnitude of the table's entries.
    """

    atoms: Floats
    weight: Floats
    exact: bool
    limit: int = 127


@dataclasses.dataclass(frozen=True)
class FittedLayer:
    """A lookup layer.

    Attributes:
        lookup: Constants of the LutLinear or LutConv.
        projection: Constants of the Project in front of it, if any.
        error: Squared error over variance of the outputs on held-out rows.
        factors: What the table was made from.
        expand: The same rounded to int8, where the layer's table is exactly what these make.
    """

    lookup: LookupParameters
    projection: ProjectParameters | None
    error: float
    factors: Factors
    expand: TableFactors | None = None


def refits_entries(form: Form, columns: int) -> bool:
    """Whether single table entries are refitted.

    Plain codes need it. Gain-shape codes of up to 3 features lose so little that tied tables answer as well, at a
    fraction of the time.

    Args:
        form: The layer's.
        columns: Entries of all codebooks (and taps).
    """
    return columns <= FREE_LIMIT and (form.kind == "plain" or form.width > 3)


def atom_matrix(encoder: FittedEncoder) -> scipy.sparse.csr_array:
    """Decoded input of one unit of gain of each entry: sparse float32 [C * K, D]."""
    codebooks, entries, _ = encoder.atoms.shape
    rows = np.arange(codebooks * entries).reshape(codebooks, entries, 1)
    rows, columns = np.broadcast_arrays(rows, encoder.groups[:, None, :])
    used = columns >= 0
    place = (rows[used], columns[used])
    return scipy.sparse.csr_array((encoder.atoms[used], place), (codebooks * entries, len(encoder.offset)))


def _split(rows: int) -> int:
    """Rows that are fitted; the others judge. A single row does both."""
    return max(rows - max(rows // HELD_OUT, 1), 1)


def _moments(encoder: FittedEncoder, codes: npt.NDArray[np.uint8], gains: Floats, y: Floats, free: bool) -> Moments:
    entries = encoder.atoms.shape[1]
    features = len(encoder.offset)

    def lookups() -> Iterator[tuple[Floats, Floats]]:
        for part, matrix in lookup_chunks(codes, gains, entries):
            yield matrix, y[part]

    def decoded() -> Iterator[tuple[Floats, Floats]]:
        for start in range(0, len(y), 8192):
            part = slice(start, start + 8192)
            yield decode_rows(codes[:, part], gains[:, part], encoder.atoms, encoder.groups, features), y[part]

    if free:
        return Moments.collect(lookups(), len(codes) * entries, y.shape[1])
    return Moments.collect(decoded(), features, y.shape[1])


def fit_linear(
    x: Floats,
    y: Floats,
    weight: Floats,
    form: Form,
    *,
    seed: int,
    size: str = "fast",
    narrow: bool = False,
    draft: bool = False,
) -> FittedLayer:
    """Fit lookups that map x to y.

    Args:
        x: What the layer will read, float32 [rows, D].
        y: What it should answer, float32 [rows, N].
        weight: The dense layer's, float32 [D, N].
        form: A gain or plain form.
        seed: Of all sampling.
        size: "small" makes the table from int8 factors, "auto" where that loses nothing, "fast" never.
        narrow: Whether tables of fewer than 8 bits are wanted where they are free.
        draft: Whether the layer is only to be compared with others: see `fit_encoder`.

    Returns:
        The layer.
    """
    projection = None
    if form.projection == "none":
        groups = pad_groups(even_groups(x.shape[1], form.width))
        offset = x.mean(axis=0, dtype=np.float64).astype(np.float32)
        metric = weight.astype(np.float64) @ weight.T
        encoder = fit_encoder(x, metric, groups, form, offset=offset, seed=seed, draft=draft)
    else:
        fitted = fit_projection(x, y, weight, form)
        projection, weight = fitted.parameters, fitted.weight
        x = apply_projection(x, projection)
        ones = np.ones(x.shape[1], np.float32)
        encoder = fit_encoder(
            x, fitted.metric, fitted.groups, form, offset=ones * 0, seed=seed, inv_scale=ones, draft=draft
        )
    codes, gains = encode_rows(x, encoder)
    entries = encoder.atoms.shape[1]
    free = size != "small" and refits_entries(form, len(codes) * entries)
    cut = _split(len(x))
    held = slice(min(cut, len(x) - 1), None)
    train = _moments(encoder, codes[:, :cut], gains[:, :cut], y[:cut], free)
    held_out = _moments(encoder, codes[:, held], gains[:, held], y[held], free)
    tables = fit_table(train, held_out, atom_matrix(encoder), weight, free=free)
    mean_gain, mean_square = usage(codes, gains, entries)
    expand = None
    factors_size = encoder.atoms.size + tables.weights.size
    tied = stays_tied(size, tables, free=free, factors=factors_size, table=tables.table.size)
    limit = choose_limit(
        form,
        tables.error * float(y[held].var(axis=0, dtype=np.float64).sum()),
        lambda n: rounding_noise(tables.table, mean_square, n, factored_clips(n) if tied else CLIPS),
        narrow=narrow,
    )
    if tied:
        factored = round_factors(encoder.atoms, tables.weights, encoder.groups, mean_square[None], limit=limit)
        expand, table, scale = factored.factors, factored.table, factored.scale
    else:
        integers, scale = round_table(tables.table, mean_square, limit)
        table = integers.reshape(len(codes), entries, -1)
    unit = mean_gain @ table.reshape(len(mean_gain), -1).astype(np.float64)
    bias = y.mean(axis=0, dtype=np.float64) - unit * scale
    lookup = LookupParameters(
        **encoder.constants(),  # type: ignore[arg-type]
        table=table,
        scale=scale,
        bias=bias.astype(np.float32),
    )
    error = tables.tied_error if tied else tables.error
    factors = Factors(encoder.atoms, tables.weights, exact=tied or not free, limit=limit)
    return FittedLayer(lookup, projection, error, factors, expand)


def usage(
    codes: npt.NDArray[np.uint8], gains: Floats, entries: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean gain and mean squared gain of each entry, float64 [C * K] each."""
    codebooks, rows = codes.shape
    index = (codes.astype(np.int64) + np.arange(codebooks)[:, None] * entries).reshape(-1)
    size = codebooks * entries
    mean = np.bincount(index, gains.reshape(-1), size) / max(rows, 1)
    return mean, np.bincount(index, (gains * gains).reshape(-1), size) / max(rows, 1)


def run_linear(x: Floats, layer: FittedLayer) -> Floats:
    """The layer's output: float32 [..., N] of float32 [..., D]."""
    if layer.projection is not None:
        x = apply_projection(x, layer.projection)
    return lookup_linear(x, layer.lookup)
