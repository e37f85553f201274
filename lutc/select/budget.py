"""What a selection may lose."""

from __future__ import annotations

import dataclasses

PRESETS = {"accurate": 0.02, "balanced": 0.06, "fast": 0.15}
"""Largest divergence of the model's outputs: squared error over variance, the worst output counts."""

_MARGIN = 0.87
"""A search begins with this part of a divergence: what is measured is up to 1.14 times the sum over layers, and a first
draft that keeps the budget saves the fits of a second one."""

_SCORE_BEGIN, _SCORE_WIDEST = 0.1, 0.3
"""Divergences that a search under a score begins with, and that it could come to allow a single layer."""


@dataclasses.dataclass(frozen=True)
class Budget:
    """A limit and what it limits.

    Attributes:
        metric: "divergence" (of the outputs on samples that verify) or "score" (its drop).
        limit: Largest allowed value.
        name: For people: the preset, or the score's name.
    """

    metric: str
    limit: float
    name: str

    @classmethod
    def of_preset(cls, preset: str) -> Budget:
        """The budget that a preset names."""
        return cls("divergence", PRESETS[preset], preset)

    def holds(self, loss: float) -> bool:
        """Whether a loss is allowed; one that is not a number is not."""
        return loss <= self.limit

    def first_target(self) -> float:
        """The predicted divergence to begin the search with."""
        return _MARGIN * self.limit if self.metric == "divergence" else _SCORE_BEGIN

    def widest(self) -> float:
        """The divergence that the search could come to allow."""
        return self.limit if self.metric == "divergence" else _SCORE_WIDEST

    def __str__(self) -> str:
        """For people."""
        if self.metric == "divergence":
            return f"a divergence of the outputs of at most {self.limit:g} ({self.name})"
        return f"a drop of {self.name} of at most {self.limit:g}"
