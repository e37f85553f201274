"""How much a model loses of a score of the user's, and how sure that is.

A score is measured on samples, and among several models the search keeps one that looked good on them: its drop on
other samples is larger on average. Where the score tells its samples one by one, a budget therefore has to hold for the
upper end of a confidence interval (paired, one-sided, normal approximation), not for the mean alone.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lutc.errors import UsageError

Score = Callable[[Any], ArrayLike]
"""Takes a session; returns a number or one number a sample, whose mean is the score. Higher is better."""

CONFIDENCE = 0.95
"""Of a drop's upper end."""

_SIGMAS = 1.6449  # of the normal distribution at CONFIDENCE


@dataclasses.dataclass(frozen=True)
class Drop:
    """What is lost of a score.

    Attributes:
        mean: The original's score minus the model's.
        most: Upper end of its confidence interval; the mean where the score tells no samples.
    """

    mean: float
    most: float

    def __str__(self) -> str:
        """For people."""
        sure = f" (at most {self.most:+.4f}, {100 * CONFIDENCE:g} %)" if self.most != self.mean else ""
        return f"{self.mean:+.4f}{sure}"


@dataclasses.dataclass(frozen=True)
class Scored:
    """What a score says of the original model.

    Attributes:
        score: Measures any session.
        original: Of the original: one value, or one a sample.
    """

    score: Score
    original: NDArray[np.float64]

    @classmethod
    def of(cls, score: Score, original: Any) -> Scored:
        """Measures the original.

        Args:
            score: See `Score`.
            original: Session of the original model.

        Raises:
            UsageError: The score is neither a number nor a vector of them.
        """
        return cls(score, _values(score(original)))

    @property
    def reference(self) -> float:
        """The original's score."""
        return float(self.original.mean())

    def drop(self, session: Any) -> Drop:
        """What a session loses.

        Raises:
            UsageError: The score tells another number of samples than of the original.
        """
        values = _values(self.score(session))
        if values.shape != self.original.shape:
            raise UsageError(
                f"the score told {self.original.size} samples of the original and {values.size} of the compiled model: "
                "let it return one number, or one for each of the same samples in the same order"
            )
        lost = self.original - values
        mean = float(lost.mean())
        if lost.size == 1:
            return Drop(mean, mean)
        return Drop(mean, mean + _SIGMAS * float(lost.std(ddof=1)) / math.sqrt(lost.size))

    def compare(self, session: Any) -> dict[str, float]:
        """For reports: {reference, compiled, drop}, and drop_most where the score tells samples."""
        return self.told(self.drop(session))

    def told(self, drop: Drop) -> dict[str, float]:
        """The same of a drop that is known."""
        result = {"reference": self.reference, "compiled": self.reference - drop.mean, "drop": drop.mean}
        return {**result, "drop_most": drop.most} if self.original.size > 1 else result


def score_line(told: Mapping[str, float]) -> str:
    """`Scored.told` for people."""
    drop = Drop(told["drop"], told.get("drop_most", told["drop"]))
    return f"score: original {told['reference']:.4f}, compiled {told['compiled']:.4f}, drop {drop}"


def _values(told: ArrayLike) -> NDArray[np.float64]:
    """What a score returned, float64 [samples] or [1]."""
    try:
        values = np.asarray(told)
    except ValueError:  # ragged
        values = np.empty(0)
    if values.ndim > 1 or not values.size or values.dtype.kind not in "biuf":
        raise UsageError("the score must return a number or a vector with one number a sample")
    return values.astype(np.float64).reshape(-1)
