"""Learning the entries of all codebooks of a layer at once: directions (k-lines) or centroids (k-means).

Sub-vectors are given in metric coordinates, float32 [C, V, rows], where the Euclidean distance is the error that
they cause at the layer's output. Both are seeded as k-means++ seeds, restarted, and their empty entries re-seeded.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lutc.fit.parallel import parallel_map

Floats = npt.NDArray[np.float32]

_BLOCK = 16
"""Codebooks learned together, so that their scores stay in cache."""

_EXACT_WIDTH = 4
"""Widest sub-vector whose principal direction is computed exactly at every step; wider ones take a power step."""


def learn_codebooks(
    z: Floats, entries: int, *, lines: bool, seed: int, iterations: int = 12, restarts: int = 2
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

    Returns:
        float32 [C, K, V].
    """
    codebooks, width, _ = z.shape
    best = np.zeros((codebooks, entries, width), np.float32)

    def learn(start: int) -> None:
        part = slice(start, start + _BLOCK)
        best[part] = _learn_block(z[part], entries, lines, (seed, start), iterations, restarts)

    parallel_map(learn, range(0, codebooks, _BLOCK))
    return best


def _learn_block(z: Floats, entries: int, lines: bool, seed: tuple[int, int], iterations: int, restarts: int) -> Floats:
    best_error = np.full(len(z), np.inf)
    best = np.zeros((len(z), entries, z.shape[1]), np.float32)
    energy = np.einsum("cvt,cvt->ct", z, z)
    for restart in range(restarts):
        rng = np.random.default_rng((*seed, restart))
        book = _seed_entries(z, energy, entries, lines, rng)
        for _ in range(iterations):
            codes, score = _assign(z, book, lines)
            book = _update(z, book, codes, lines)
            _reseed_empty(z, energy, book, codes, score, lines, rng)
        error = (energy - _explained(_assign(z, book, lines)[1], lines)).sum(axis=1, dtype=np.float64)
        better = error < best_error
        best[better], best_error[better] = book[better], error[better]
    return best


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
    codes = score.argmax(axis=1).astype(np.int32)
    return codes, np.take_along_axis(score, codes[:, None], axis=1)[:, 0]


def _sums(codes: npt.NDArray[np.int32], weights: Floats | None, entries: int) -> npt.NDArray[np.float64]:
    """Sum of the weights [C, rows] (or the count) by entry: [C, K]."""
    index = (codes + np.arange(len(codes), dtype=np.int32)[:, None] * entries).reshape(-1)
    flat = None if weights is None else weights.reshape(-1)
    return np.bincount(index, flat, len(codes) * entries).astype(np.float64).reshape(-1, entries)


def _update(z: Floats, book: Floats, codes: npt.NDArray[np.int32], lines: bool) -> Floats:
    codebooks, width, _ = z.shape
    entries = book.shape[1]
    if not lines:
        count = np.maximum(_sums(codes, None, entries), 1)
        return np.stack([_sums(codes, z[:, v], entries) / count for v in range(width)], axis=2).astype(np.float32)
    if width <= _EXACT_WIDTH:
        moments = np.empty((codebooks, entries, width, width))
        for i in range(width):
            for j in range(i, width):
                moments[..., i, j] = moments[..., j, i] = _sums(codes, z[:, i] * z[:, j], entries)
        return np.linalg.eigh(moments)[1][..., -1].astype(np.float32)
    chosen = np.take_along_axis(book, codes[..., None].astype(np.int64), axis=1)
    product = np.einsum("ctv,cvt->ct", chosen, z)
    moved = np.stack([_sums(codes, z[:, v] * product, entries) for v in range(width)], axis=2)
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
    empty = _sums(codes, None, book.shape[1]) == 0
    for c, k in zip(*np.nonzero(empty), strict=True):
        left = np.maximum(energy[c] - _explained(score[c], lines), 0)
        chosen = z[c, :, _draw(left[None], rng)[0]]
        book[c, k] = _normalise(chosen) if lines else chosen
