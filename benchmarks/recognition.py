"""Scores of tasks in which each sample is recognised or not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lutc.drop import Score


def metric(outcomes: NDArray[np.float64]) -> float:
    """Share of the samples that were recognised; outcomes are 0 or 1, float64 [samples, 1]."""
    return float(outcomes.mean())


def right(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Whether the largest of a sample's logits [n, classes] is its label [n]: float64 [n, 1], 0 or 1."""
    return (logits.argmax(1) == labels).astype(np.float64)[:, None]


def score(answers: Callable[[Any, str], NDArray[np.float64]], split: str) -> Score:
    """A function for `--score`: outcomes on a split, of a session with ONNX Runtime's `run` and `get_inputs`.

    Args:
        answers: Outcomes of a session on a split.
        split: "selection" or "test".
    """
    return lambda session: answers(session, split)[:, 0]
