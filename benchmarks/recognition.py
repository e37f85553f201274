"""Scores of tasks in which each sample is recognised or not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lutc.drop import Score

Answers = Callable[[Any, str], NDArray[np.float64]]
"""Outcomes of a session (with ONNX Runtime's `run` and `get_inputs`) on the split "selection" or "test"."""

METRIC = "top-1"

BATCH = 50


def batches(name: str, samples: NDArray[np.float32]) -> Iterator[dict[str, NDArray[Any]]]:
    """Cuts samples into feeds `{name: float32 [<= 50, ...]}`."""
    for start in range(0, len(samples), BATCH):
        yield {name: samples[start : start + BATCH]}


def logits(session: Any, samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """The first output, float32 [n, classes], for samples [n, ...] in a session's only input."""
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, feed)[0] for feed in batches(name, samples)])


def metric(outcomes: NDArray[np.float64]) -> float:
    """Share of the samples that were recognised; outcomes are 0 or 1, float64 [samples, 1]."""
    return float(outcomes.mean())


def right(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Whether the largest of a sample's logits [n, classes] is its label [n]: float64 [n, 1], 0 or 1."""
    return (logits.argmax(1) == labels).astype(np.float64)[:, None]


def answers(labelled: Callable[[str], Any], logits: Callable[[Any, Any], NDArray[np.float32]] = logits) -> Answers:
    """Whether each sample of a split is recognised: float64 [samples, 1], 0 or 1.

    Args:
        labelled: Samples and labels int64 [n] of a split.
        logits: Float32 [n, classes] of a session and samples.
    """

    def found(session: Any, split: str) -> NDArray[np.float64]:
        samples, labels = labelled(split)
        return right(logits(session, samples), labels)

    return found


def score(answers: Answers, split: str) -> Score:
    """A function for `--score`: the outcomes on a split."""
    return lambda session: answers(session, split)[:, 0]
