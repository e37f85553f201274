"""Bootstrap intervals of a metric and of its drop, paired over the samples of the test split."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

RESAMPLINGS = 1000
LEVEL = 0.95

Metric = Callable[[NDArray[np.float64]], float]


def intervals(
    metric: Metric,
    before: NDArray[np.float64],
    after: NDArray[np.float64],
    *,
    resamplings: int = RESAMPLINGS,
    seed: int = 0,
) -> dict[str, list[float]]:
    """95 % percentile intervals.

    Args:
        metric: Of rows.
        before: The original's answers, float64 [samples, k].
        after: The compiled model's, of the same samples.
        resamplings: Of the samples with replacement; both models see the same ones.
        seed: Of the draws.

    Returns:
        [low, high] of "before", "after" and "drop" (before - after).
    """
    if before.shape != after.shape:
        raise ValueError(f"answers of shapes {before.shape} and {after.shape}")
    rng = np.random.default_rng(seed)
    draws = np.empty((resamplings, 2))
    for i in range(resamplings):
        rows = rng.integers(0, len(before), len(before))
        draws[i] = metric(before[rows]), metric(after[rows])
    tail = 50 * (1 - LEVEL)
    found = {"before": draws[:, 0], "after": draws[:, 1], "drop": draws[:, 0] - draws[:, 1]}
    return {name: [float(v) for v in np.percentile(values, [tail, 100 - tail])] for name, values in found.items()}


def interval(metric: Metric, outcomes: NDArray[np.float64], *, seed: int = 0) -> list[float]:
    """The 95 % percentile interval [low, high] of a metric of outcomes [samples, k]."""
    return intervals(metric, outcomes, outcomes, seed=seed)["before"]


def cosine(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Mean cosine of the rows of a [n, d] with the same rows of b."""
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(np.mean(np.sum(a * b, 1) / np.maximum(norms, 1e-12)))
