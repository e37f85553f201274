"""How far a compressed model is from the original: outputs and hidden values, each over its variance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

OUTPUT_WEIGHT = 1.0
HIDDEN_WEIGHT = 1.0
"""Of the mean over all hidden values, beside the outputs'."""


def counted(y: Tensor, mask: Tensor | None) -> Tensor:
    """What counts of a value: of [B, L, ...] only positions inside a token mask [B, L]."""
    return y[mask] if mask is not None and y.dim() >= 3 and y.shape[:2] == mask.shape else y


class Moments:
    """Sums from which a value's variance follows, batch after batch."""

    def __init__(self) -> None:
        self._count, self._sum, self._square = 0, 0.0, 0.0

    def add(self, y: Tensor) -> None:
        """Count another batch's values."""
        wide = y.double()
        self._count += y.numel()
        self._sum += float(wide.sum())
        self._square += float(wide.square().sum())

    @property
    def deviation(self) -> float:
        """Sum of squared deviations from the mean."""
        return max(self._square - self._sum**2 / max(self._count, 1), 1e-30)

    @property
    def variance(self) -> float:
        """Mean of the same."""
        return self.deviation / max(self._count, 1)


class Distillation:
    """The loss.

    Args:
        variance: Of the original's hidden values and outputs, by name.
        hidden: Names of hidden values that are compared.
        outputs: Names of the floating-point outputs.
    """

    def __init__(self, variance: Mapping[str, float], hidden: Sequence[str], outputs: Sequence[str]) -> None:
        self._variance = {name: max(value, 1e-12) for name, value in variance.items()}
        self._hidden, self._outputs = list(hidden), list(outputs)

    def __call__(self, ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], mask: Tensor | None) -> Tensor:
        """The loss of one minibatch, a number."""
        total = torch.zeros((), device=next(iter(ours.values())).device)
        for names, weight in ((self._outputs, OUTPUT_WEIGHT), (self._hidden, HIDDEN_WEIGHT)):
            for name in names:
                error = F.mse_loss(counted(ours[name], mask), counted(theirs[name], mask))
                total = total + error * (weight / (len(names) * self._variance[name]))
        return total
