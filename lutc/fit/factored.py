"""Rounding a table's factors to int8, so that the table made from them is what is measured and stored."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lutc.errors import UsageError
from lutc.fit.tables import CLIPS, FittedTable, round_table
from lutc.ir.expand import LARGEST_MUL, TableFactors, expanded

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

SIZES = ("small", "fast", "auto")
"""Tables always as factors, never, or where that loses nothing on held-out rows."""

TOLERANCE = 1.01
"""A tied table loses nothing where its held-out error is at most this many times the free one's."""


@dataclasses.dataclass(frozen=True)
class FactoredTable:
    """A table and what it is made from.

    Attributes:
        factors: Constants of the ExpandTable or ExpandConvTable.
        table: What it makes, int8 [C, K, N] or [N, C/group, K, kh, kw].
        scale: What one unit of an entry is worth, float32 [N].
    """

    factors: TableFactors
    table: npt.NDArray[np.int8]
    scale: Floats


def check_size(size: str) -> None:
    """Raise UsageError unless `size` is one of `SIZES`."""
    if size not in SIZES:
        raise UsageError(f"--size '{size}' is none of: {', '.join(SIZES)}")


def stays_tied(size: str, fitted: FittedTable, *, free: bool, factors: int, table: int) -> bool:
    """Whether a layer stores factors.

    Args:
        size: One of `SIZES`.
        fitted: Its tables.
        free: Whether single entries were refitted.
        factors: Bytes of atoms and weight.
        table: Bytes of the table.
    """
    if size != "auto":
        return size == "small"
    return factors < table and (not free or fitted.tied_error <= TOLERANCE * fitted.error)


def round_factors(
    atoms: Floats,
    weight: Floats,
    groups: npt.NDArray[np.int32],
    usage: Doubles,
    *,
    group: int = 1,
    limit: int = 127,
) -> FactoredTable:
    """Round atoms and weight to int8, and choose the scale of every column.

    A feature's scale may move between the two: it goes to the atoms, so that all rows of the weight matter alike and
    an atom's slots are worth what they move at the output.

    Args:
        atoms: float32 [C, K, V], 0 in empty slots.
        weight: float32 [D, N], or of a convolution [N, Cin/group, kh, kw].
        groups: int32 [C, V], -1 in empty slots.
        usage: Mean squared gain of each entry by convolution group, float64 [group, taps * C/group * K].
        group: Convolution groups.
        limit: Largest magnitude of the table's entries.

    Returns:
        The rounded factors and their table.
    """
    convolution = weight.ndim == 4
    codebooks, entries, _ = atoms.shape
    # [group, tap, channel, output]: a linear layer is a convolution with one tap and one group.
    if convolution:
        outputs, channels = weight.shape[:2]
        planes = weight.reshape(group, outputs // group, channels, -1).transpose(0, 3, 2, 1)
    else:
        planes = weight[None, None]
    columns = np.sqrt(np.mean(np.square(planes, dtype=np.float64), axis=(1, 2), keepdims=True))
    relative = planes / np.maximum(columns, 1e-30)
    spread = np.sqrt(np.mean(np.square(relative), axis=(1, 3)))  # of each feature: [group, channel]
    spread = np.where(spread > 0, spread, 1).reshape(-1)
    used = groups >= 0
    moved = np.where(used[:, None], atoms * np.where(used, spread[groups], 0)[:, None], 0).astype(np.float64)
    largest = np.abs(moved).max(axis=(1, 2))
    codebook_mul = (np.minimum(np.maximum(largest, 1e-30), LARGEST_MUL) / 127).astype(np.float32)
    integers = np.clip(np.rint(moved / codebook_mul[:, None, None]), -127, 127).astype(np.int8)

    by_entry = usage.reshape(group, -1, codebooks // group, entries).sum(axis=1).reshape(codebooks, entries)
    energy = np.zeros(len(spread) + 1)  # of each decoded feature; the last takes the empty slots
    np.add.at(energy, groups, np.einsum("ck,ckv->cv", by_entry, moved**2))
    balanced = planes / spread.reshape(group, 1, -1, 1)
    step = _column_steps(balanced, energy[:-1].reshape(group, 1, -1, 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        rounded = np.where(step > 0, np.rint(balanced / step), 0)
    rounded = np.clip(rounded, -127, 127).astype(np.int8)
    rounded = rounded.transpose(0, 3, 2, 1).reshape(weight.shape) if convolution else rounded[0, 0]
    step = step.reshape(-1)
    factors = TableFactors(
        atoms=integers,
        weight=np.ascontiguousarray(rounded),
        groups=groups,
        codebook_mul=codebook_mul,
        column_mul=np.ones(len(step), np.float32),
        group=group,
    )
    scale = _table_scales(factors, step, usage, limit)
    with np.errstate(divide="ignore", invalid="ignore"):
        column_mul = np.where(scale > 0, step / scale, 0).astype(np.float32)
    factors = dataclasses.replace(factors, column_mul=column_mul)
    return FactoredTable(factors, expanded(factors), scale)


def _column_steps(planes: npt.NDArray, importance: Doubles) -> Doubles:
    """Step that rounds each column of [group, tap, channel, output] to int8 with the least weighted squared error."""
    largest = np.abs(planes).max(axis=(1, 2), keepdims=True)
    best, chosen = np.full(largest.shape, np.inf), largest / 127
    for fraction in CLIPS:
        step = np.maximum(largest * fraction / 127, 1e-30)
        gap = np.clip(np.rint(planes / step), -127, 127) * step - planes
        error = (gap * gap * importance).sum(axis=(1, 2), keepdims=True)
        better = error < best
        best[better], chosen[better] = error[better], step[better]
    return np.where(largest > 0, chosen, 0)


def factored_clips(limit: int) -> Sequence[float]:
    """Clipping points for tables made from factors: ExpandTable clips at 127, to entries below that nothing does."""
    return CLIPS if limit == 127 else (1.0,)


def _table_scales(factors: TableFactors, step: Doubles, usage: Doubles, limit: int) -> Floats:
    """Scale of each column of the table that the rounded factors make, clipped as `round_table` does."""
    clips = factored_clips(limit)
    codebooks, group, outputs = len(factors.atoms), factors.group, len(step)
    rows = factors.weight.astype(np.float32)
    if factors.convolution:
        channels = rows.shape[1]
        planes = rows.reshape(group, outputs // group, channels, -1).transpose(0, 3, 2, 1)
    else:
        planes = rows[None, None]
    atoms = factors.atoms * factors.codebook_mul[:, None, None]
    scale = np.empty(outputs, np.float32)
    own = codebooks // group
    for g in range(group):
        books, columns = slice(g * own, (g + 1) * own), slice(g * outputs // group, (g + 1) * outputs // group)
        slots = np.where(factors.groups[books] >= 0, factors.groups[books] - g * planes.shape[2], planes.shape[2])
        padded = np.concatenate([planes[g], np.zeros_like(planes[g][:, :1])], axis=1)
        table = np.matmul(atoms[books], padded[:, slots])  # [tap, codebook, entry, output]
        table *= step[columns].astype(np.float32)
        scale[columns] = round_table(table.reshape(-1, table.shape[-1]), usage[g], limit, clips)[1]
    return scale
