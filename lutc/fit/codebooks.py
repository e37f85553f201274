"""Learning the entries of all codebooks of a layer at once: directions (k-lines) or centroids (k-means).

Sub-vectors are given in metric coordinates, float32 [C, V, rows], where the Euclidean distance is the error that
they cause at the layer's output. Both are seeded as k-means++ seeds, restarted, and their empty entries re-seeded.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lutc.fit.parallel import parallel_map

Floats = npt.NDArray[np.float32]

_BLOCK = 16
"""Codebooks learned together, so that their scores stay in cache."""

_EXACT_WIDTH = 4
"""Widest sub-vector whose principal direction is computed exactly at every step; wider ones take a power step."""

FIRST = 128
"""Sub-vectors for each entry on which restarts compete; the winner is then refined on all of them."""

_REFINED = 6
"""Iterations of that refinement, which begins near its end."""


def learn_codebooks(
    z: Floats, entries: int, *, lines: bool, seed: int, iterations: int = 12, restarts: int = 2, first: int = FIRST
) -> Floats:
    """Entries of every codebook.

    Args:
        z: Sub-vectors float32 [C, V, rows].
        entries: K.
        lines: Unit directions for gain-shape codes (maximise the sum of squared products) or, if false,
            centroids (minimise the sum of squared distances).
        seed: Of the sampling; the result depends on nothing else.
        iterations: Of assignment and update.
        restarts: Runs from different seeds, of which each codebook keeps its best.
        first: Where there are at least twice as many sub-vectors for each entry, iterations and restarts see about as
            many, and a few more iterations all of them. 0: every iteration sees all.

    Returns:
        float32 [C, K, V].
    """
    codebooks, width, _ = z.shape
    best = np.zeros((codebooks, entries, width), np.float32)

    def learn(start: int) -> None:
        part = slice(start, start + _BLOCK)
        best[part] = _learn_block(z[part], entries, lines, (seed, start), iterations, restarts, first)

    parallel_map(learn, range(0, codebooks, _BLOCK))
    return best


def learning_rows(rows: float, entries: int, *, restarts: int, iterations: int = 12, first: int = FIRST) -> float:
    """How many sub-vectors all iterations of `learn_codebooks` assign to entries, where there are `rows`."""
    stride = int(rows) // (first * entries) if first else 1
    return restarts * iterations * rows / max(stride, 1) + (_REFINED * rows if stride > 1 else 0)


def _learn_block(
    z: Floats, entries: int, lines: bool, seed: tuple[int, int], iterations: int, restarts: int, first: int
) -> Floats:
    stride = z.shape[2] // (first * entries) if first else 1
    some = _Block(np.ascontiguousarray(z[:, :, ::stride]) if stride > 1 else z, lines)
    best_error = np.full(len(z), np.inf)
    best = np.zeros((len(z), entries, z.shape[1]), np.float32)
    for restart in range(restarts):
        rng = np.random.default_rng((*seed, restart))
        book = some.refined(some.seeds(entries, rng), iterations, rng)
        error = some.error(book)
        better = error < best_error
        best[better], best_error[better] = book[better], error[better]
    return _Block(z, lines).refined(best, _REFINED, np.random.default_rng(seed)) if stride > 1 else best


class _Block:
    """Sub-vectors of some codebooks, float32 [C, V, rows], and what every iteration needs of them."""

    def __init__(self, z: Floats, lines: bool) -> None:
        self._z, self._lines = z, lines
        self._energy = np.einsum("cvt,cvt->ct", z, z)
        # The upper triangle of every outer product, as `bincount` takes it.
        pairs = itertools.combinations_with_replacement(range(z.shape[1]), 2)
        exact = lines and z.shape[1] <= _EXACT_WIDTH
        self._products = [(i, j, (z[:, i] * z[:, j]).ravel().astype(np.float64)) for i, j in pairs if exact]

    def seeds(self, entries: int, rng: np.random.Generator) -> Floats:
        """Entries to begin with."""
        return _seed_entries(self._z, self._energy, entries, self._lines, rng)

    def refined(self, book: Floats, iterations: int, rng: np.random.Generator) -> Floats:
        """Entries after so many rounds of assignment and update."""
        for _ in range(iterations):
            codes, score = _assign(self._z, book, self._lines)
            book = _update(self._z, self._products, book, codes, self._lines)
            _reseed_empty(self._z, self._energy, book, codes, score, self._lines, rng)
        return book

    def error(self, book: Floats) -> npt.NDArray[np.float64]:
        """What the entries leave unexplained, by codebook."""
        score = _assign(self._z, book, self._lines)[1]
        return (self._energy - _explained(score, self._lines)).sum(axis=1, dtype=np.float64)


def _explained(score: Floats, lines: bool) -> Floats:
    return score * score if lines else 2 * score


def _normalise(u: Floats) -> Floats:
    return u / np.maximum(np.linalg.norm(u, axis=-1, keepdims=True), 1e-30)


def _draw(weights: Floats, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """One column per row, with probability proportional to the weights [C, rows]."""
    total = np.cumsum(weights, axis=1, dtype=np.float64)
    target = rng.random((len(weights), 1)) * total[:, -1:]
    return np.minimum((total <= target).sum(axis=1), weights.shape[1] - 1)


def _seed_entries(z: Floats, energy: Floats, entries: int, lines: bool, rng: np.random.Generator) -> Floats:
    every = np.arange(len(z))
    book = np.zeros((len(z), entries, z.shape[1]), np.float32)
    left = energy.copy() if lines else np.ones_like(energy)
    for k in range(entries):
        chosen = z[every, :, _draw(left, rng)]
        if lines:
            chosen = _normalise(chosen)
        book[:, k] = chosen
        product = np.matmul(chosen[:, None, :], z)[:, 0]
        if lines:
            residual = energy - product * product
        else:
            residual = energy - 2 * product + (chosen * chosen).sum(axis=1)[:, None]
        residual = np.maximum(residual, 0)
        left = residual if k == 0 else np.minimum(left, residual)
    return book


def _assign(z: Floats, book: Floats, lines: bool) -> tuple[npt.NDArray[np.int32], Floats]:
    """Entry of each sub-vector and its score: |<z, u>|, or <z, c> - |c|^2 / 2 of centroids; both [C, rows]."""
    score = np.matmul(book, z)
    entries = book.shape[1]
    if lines:
        # The bits of non-negative floats are ordered like integers: put the entry into the four lowest ones.
        bits = score.view(np.int32)
        bits &= 0x7FFFFFF0
        bits |= (entries - 1 - np.arange(entries, dtype=np.int32))[:, None]
        key = bits.max(axis=1)
        return entries - 1 - (key & 15), (key & ~np.int32(15)).view(np.float32)
    score -= (book * book).sum(axis=2)[..., None] / 2
    return score.argmax(axis=1).astype(np.int32), score.max(axis=1)


def _places(codes: npt.NDArray[np.int32], entries: int) -> npt.NDArray[np.int64]:
    """Entry of each sub-vector among those of all codebooks, int64 [C * rows], from codes [C, rows]."""
    return (codes + np.arange(len(codes), dtype=np.int64)[:, None] * entries).reshape(-1)


def _sums(places: npt.NDArray[np.int64], weights: npt.NDArray | None, shape: tuple[int, int]) -> npt.NDArray:
    """Sum of the weights [C * rows] (or the count) by entry: of this shape, [C, K]."""
    return np.bincount(places, weights, shape[0] * shape[1]).reshape(shape)


def _update(
    z: Floats,
    products: Sequence[tuple[int, int, npt.NDArray[np.float64]]],
    book: Floats,
    codes: npt.NDArray[np.int32],
    lines: bool,
) -> Floats:
    width = z.shape[1]
    shape = book.shape[:2]
    places = _places(codes, shape[1])
    if not lines:
        count = np.maximum(_sums(places, None, shape), 1)
        return np.stack([_sums(places, z[:, v].ravel(), shape) / count for v in range(width)], 2).astype(np.float32)
    if width <= _EXACT_WIDTH:
        moments = np.empty((*shape, width, width))
        for i, j, product in products:
            moments[..., i, j] = moments[..., j, i] = _sums(places, product, shape)
        return np.linalg.eigh(moments)[1][..., -1].astype(np.float32)
    product = np.zeros(codes.shape, np.float32)
    for v in range(width):
        product += book[:, :, v].ravel()[places].reshape(codes.shape) * z[:, v]
    moved = np.stack([_sums(places, (z[:, v] * product).ravel(), shape) for v in range(width)], axis=2)
    return _normalise(moved.astype(np.float32))


def _reseed_empty(
    z: Floats,
    energy: Floats,
    book: Floats,
    codes: npt.NDArray[np.int32],
    score: Floats,
    lines: bool,
    rng: np.random.Generator,
) -> None:
    """Move entries that nobody chose to badly represented sub-vectors, in place."""
    empty = _sums(_places(codes, book.shape[1]), None, book.shape[:2]) == 0
    for c, k in zip(*np.nonzero(empty), strict=True):
        left = np.maximum(energy[c] - _explained(score[c], lines), 0)
        chosen = z[c, :, _draw(left[None], rng)[0]]
        book[c, k] = _normalise(chosen) if lines else chosen
