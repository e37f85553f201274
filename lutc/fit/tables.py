"""Fitting the tables of a lookup layer to its true outputs, and rounding them to int8.

Two nested least-squares problems, both solved from the same sums of products:

* *tied*: table = atoms W*, with W* the ridge regression of the outputs on the decoded inputs, centred on the layer's
  own weights;
* *free*: every entry of its own, a ridge regression on the gain-weighted one-hot rows, centred on the tied tables.

The strength of each ridge is chosen for every output column on held-out rows, infinity (nothing refitted) among
the choices: a refit is never worse than none there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import scipy.linalg

from lutc.fit.parallel import blas_threads

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Matrix: TypeAlias = Any
"""A dense array or one of scipy.sparse."""

TIED_GRID = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Ridges of the tied refit, relative to the mean of the Gram matrix' diagonal."""

FREE_GRID = (0.01, 0.1, 1.0)
"""Ridges of the free refit, likewise."""

_MERGE_ROWS = 4096

CLIPS = (1.0, 0.92, 0.84, 0.76, 0.68, 0.6, 0.5)
"""Clipping points tried when rounding to int8, as fractions of the largest value of a column."""


@dataclasses.dataclass
class Moments:
    """Sums of products of regressors a [rows, F] and targets y [rows, N]; add them to pool rows.

    Attributes:
        rows: Number of rows.
        aa: a^T a, float64 [F, F] (float32 once centred: no large mean is left to cancel).
        ay: a^T y, float64 [F, N].
        yy: Column sums of y^2, float64 [N].
        a: Column sums of a.
        y: Column sums of y.
    """

    rows: int
    aa: npt.NDArray
    ay: Doubles
    yy: Doubles
    a: Doubles
    y: Doubles

    @classmethod
    def collect(cls, chunks: Iterable[tuple[Floats, Floats]], features: int, outputs: int) -> Moments:
        """Accumulate over chunks (a, y)."""
        total = cls(
            0,
            np.zeros((features, features)),
            np.zeros((features, outputs)),
            np.zeros(outputs),
            np.zeros(features),
            np.zeros(outputs),
        )
        for a, y in _merged(chunks):
            total.rows += len(a)
            with blas_threads(features):
                total.aa += a.T @ a
                total.ay += a.T @ y
            total.yy += np.einsum("tn,tn->n", y, y)
            total.a += a.sum(axis=0, dtype=np.float64)
            total.y += y.sum(axis=0, dtype=np.float64)
        return total

    def __add__(self, other: Moments) -> Moments:
        """The moments of both sets of rows."""
        names = [field.name for field in dataclasses.fields(self)]
        return Moments(*(getattr(self, name) + getattr(other, name) for name in names))

    def centred(self) -> Moments:
        """The moments about the means."""
        rows = max(self.rows, 1)
        aa = np.multiply.outer(self.a, self.a / -rows)
        aa += self.aa
        return Moments(
            self.rows,
            aa.astype(np.float32),
            self.ay - np.outer(self.a, self.y) / rows,
            self.yy - self.y**2 / rows,
            np.zeros_like(self.a),
            np.zeros_like(self.y),
        )

    def mapped(self, matrix: Matrix) -> Moments:
        """The moments of the regressors a @ matrix."""
        thin = matrix.astype(np.float32)
        return Moments(self.rows, thin.T @ (self.aa @ thin), matrix.T @ self.ay, self.yy, self.a @ matrix, self.y)

    def error(self, weights: npt.NDArray) -> Doubles:
        """Sum of squared errors of a @ weights, by column: float64 [N]."""
        product = (self.aa @ weights.astype(np.float32)).astype(np.float64)
        return np.maximum(self.yy - 2 * (self.ay * weights).sum(axis=0) + (product * weights).sum(axis=0), 0)


def _merged(chunks: Iterable[tuple[Floats, Floats]]) -> Iterator[tuple[Floats, Floats]]:
    """Chunks of at least `_MERGE_ROWS` rows, but for the last: products of thin slices waste bandwidth."""
    waiting: list[tuple[Floats, Floats]] = []
    for chunk in chunks:
        waiting.append(chunk)
        if sum(len(a) for a, _ in waiting) >= _MERGE_ROWS:
            yield _stacked(waiting)
            waiting = []
    if waiting:
        yield _stacked(waiting)


def _stacked(chunks: list[tuple[Floats, Floats]]) -> tuple[Floats, Floats]:
    if len(chunks) == 1:
        return chunks[0]
    return np.concatenate([a for a, _ in chunks]), np.concatenate([y for _, y in chunks])


class Ridge:
    """Weights that minimise the error plus strength * mean diagonal * |weights - start|^2, for several strengths.

    Args:
        moments: Centred.
        start: [F, N].
    """

    def __init__(self, moments: Moments, start: npt.NDArray) -> None:
        self._size = max(len(moments.aa), 1)
        level = max(float(np.trace(moments.aa, dtype=np.float64)) / self._size, 1e-30)
        self._start, self._level, self._aa = start, np.float32(level), moments.aa
        gap = (moments.ay - moments.aa @ start.astype(np.float32)) / level
        self._gap = np.asfortranarray(gap, np.float32)  # as LAPACK takes it

    def weights(self, strength: float, columns: npt.NDArray[np.bool_] | slice = slice(None)) -> Doubles:
        """float64 [F, N], or some columns of it; `strength` is at least 0."""
        regular = (self._aa / self._level).T  # symmetric: the transpose is what LAPACK overwrites without a copy
        regular[np.diag_indices(self._size)] += np.float32(max(strength, 1e-6))
        start = self._start[:, columns]
        try:
            factor = scipy.linalg.cho_factor(regular, lower=True, overwrite_a=True, check_finite=False)
        except scipy.linalg.LinAlgError:
            return np.array(start, np.float64)
        return start + scipy.linalg.cho_solve(factor, self._gap[:, columns], check_finite=False)


def chosen_ridge(
    train: Moments, held_out: Moments, start: npt.NDArray, grid: Iterable[float]
) -> tuple[Doubles, npt.NDArray[np.float64]]:
    """The refit whose strength suits the held-out rows best, column by column.

    Args:
        train: Centred moments that are fitted.
        held_out: Centred moments that judge.
        start: What the ridge pulls to, [F, N]; it is one of the candidates.
        grid: Strengths to try.

    Returns:
        Weights fitted to `train` alone, float64 [F, N], and the strength of each column (inf: start).
    """
    best = np.array(start, np.float64)
    best_error = held_out.error(best)
    strengths = np.full(best.shape[1], np.inf)
    ridge = Ridge(train, start)
    for strength in grid:
        weights = ridge.weights(strength)
        error = held_out.error(weights)
        better = error < best_error
        best[:, better], best_error[better], strengths[better] = weights[:, better], error[better], strength
    return best, strengths


def refit(moments: Moments, start: npt.NDArray, strengths: npt.NDArray[np.float64]) -> Doubles:
    """The ridge whose strength is that of each column (inf: start)."""
    weights = np.array(start, np.float64)
    ridge = Ridge(moments, weights)
    for strength in np.unique(strengths[np.isfinite(strengths)]):
        columns = strengths == strength
        weights[:, columns] = ridge.weights(float(strength), columns)
    return weights


@dataclasses.dataclass(frozen=True)
class FittedTable:
    """Real-valued tables.

    Attributes:
        table: float32 [C * K, N], output per unit of gain.
        error: Squared error over variance on held-out rows, before rounding.
        tied: Share of columns whose free refit did not pay.
        weights: Of the tied refit, float32 [F, N]: a tied table is atoms @ weights.
        tied_error: `error` of that tied table.
    """

    table: Floats
    error: float
    tied: float
    weights: Floats
    tied_error: float


def fit_table(train: Moments, held_out: Moments, atoms: Matrix, weights: npt.NDArray, *, free: bool) -> FittedTable:
    """Tied and (if asked for) free tables.

    Args:
        train: Moments of the gain-weighted one-hots when `free`, else of the decoded inputs.
        held_out: Likewise, other rows.
        atoms: Decoded input of one unit of gain of each entry, [C * K, F]; best sparse.
        weights: The layer's own, [F, N].
        free: Whether to refit single entries.
    """
    with blas_threads(len(train.aa)):
        return _fit_table(train, held_out, atoms, weights, free)


def _fit_table(train: Moments, held_out: Moments, atoms: Matrix, weights: npt.NDArray, free: bool) -> FittedTable:
    both = (train + held_out).centred()
    train, held_out = train.centred(), held_out.centred()
    decoded = [moments.mapped(atoms) for moments in (train, held_out, both)] if free else [train, held_out, both]
    tied, tied_strength = chosen_ridge(decoded[0], decoded[1], weights, TIED_GRID)
    final = refit(decoded[2], weights, tied_strength)
    table = atoms @ final
    share = 1.0
    error = tied_error = decoded[1].error(tied).sum()
    if free:
        start = atoms @ tied
        trained, strength = chosen_ridge(train, held_out, start, FREE_GRID)
        table = refit(both, table, strength)
        error = held_out.error(trained).sum()
        share = float(np.isinf(strength).mean())
    variance = max(held_out.yy.sum(), 1e-30)
    return FittedTable(
        table.astype(np.float32),
        float(error / variance),
        share,
        final.astype(np.float32),
        float(tied_error / variance),
    )


def round_table(
    table: Floats, weight: npt.NDArray, limit: int = 127, clips: Sequence[float] = CLIPS
) -> tuple[npt.NDArray[np.int8], Floats]:
    """Round to int8 with one scale per column, clipped where that lowers the expected squared error.

    Args:
        table: float32 [entries, N].
        weight: Mean squared gain of each entry, [entries].
        limit: Largest magnitude of an integer.
        clips: Clipping points to try, as fractions of the largest value of a column.

    Returns:
        int8 [entries, N] and the scales float32 [N].
    """
    largest = np.abs(table).max(axis=0)
    best = np.full(table.shape[1], np.inf)
    chosen = np.maximum(largest, 1e-30)
    for fraction in clips:
        scale = np.maximum(largest * fraction / limit, 1e-30)
        gap = np.clip(np.rint(table / scale), -limit, limit) * scale - table
        error = weight.astype(np.float32) @ (gap * gap)
        better = error < best
        best[better], chosen[better] = error[better], scale[better]
    scale = np.where(largest > 0, chosen, 0).astype(np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        integers = np.where(scale > 0, np.rint(table / scale), 0)
    return np.clip(integers, -limit, limit).astype(np.int8), scale


def rounding_noise(table: Floats, weight: npt.NDArray, limit: int, clips: Sequence[float] = CLIPS) -> float:
    """Squared error, summed over columns, that `round_table` adds to an output; arguments as there."""
    integers, scale = round_table(table, weight, limit, clips)
    return float(weight @ np.square(integers * scale - table).sum(axis=1, dtype=np.float64))
