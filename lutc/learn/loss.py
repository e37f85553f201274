"""How far a compressed model is from the original: outputs and hidden values, each over its variance, and classes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

OUTPUT_WEIGHT = 1.0
TOLD_WEIGHT = 0.2
"""Of outputs that tell classes: what counts is who wins, which is the classes' own divergence."""
HIDDEN_WEIGHT = 1.0
"""Of the mean over all hidden values, beside the outputs'."""
CLASS_WEIGHT = 1.0
"""Of the classes' Kullback-Leibler divergence."""

_SURE = 0.5
"""Outputs are scores of classes where the entropy of their softmax is below so much of the largest possible."""
_ONE_CLASS = 0.9
"""But not where the largest is the same one in so many rows: that is an outlier, not a class."""


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


def class_scores(y: Tensor) -> Tensor | None:
    """Logarithms of probabilities [rows, classes] where an output seems to be scores or probabilities of classes."""
    if y.dim() not in (2, 3) or y.shape[-1] < 2 or not bool(torch.isfinite(y).all()):
        return None
    rows = y.reshape(-1, y.shape[-1])
    if bool((rows >= 0).all()) and bool(((rows.sum(dim=1) - 1).abs() < 1e-3).all()):
        return (rows + 1e-9).log()
    return torch.log_softmax(rows, dim=1)


def tells_classes(y: Tensor) -> bool:
    """Whether an output [..., classes] of the original on several samples is scores or probabilities of classes."""
    scores = class_scores(y)
    if scores is None:
        return False
    entropy = -(scores.exp() * scores).sum(dim=1).mean()
    chosen = torch.bincount(scores.argmax(dim=1), minlength=2)
    return bool(entropy < _SURE * math.log(scores.shape[1])) and bool(chosen.max() < _ONE_CLASS * chosen.sum())


def class_divergence(ours: Tensor, theirs: Tensor) -> Tensor:
    """Mean Kullback-Leibler divergence of outputs that tell classes, in nats."""
    target, scores = class_scores(theirs), class_scores(ours)
    if target is None or scores is None:
        return torch.full((), math.inf, device=ours.device)
    return F.kl_div(scores, target, reduction="batchmean", log_target=True)


class Distillation:
    """The loss.

    Args:
        variance: Of the original's hidden values and outputs, by name.
        hidden: Names of hidden values that are compared.
        outputs: Names of the floating-point outputs.
        classes: Names of those that tell classes; also an attribute, for those who judge by the same ones.
    """

    def __init__(
        self, variance: Mapping[str, float], hidden: Sequence[str], outputs: Sequence[str], classes: Sequence[str] = ()
    ) -> None:
        self._variance = {name: max(value, 1e-12) for name, value in variance.items()}
        self._hidden, self._outputs, self.classes = list(hidden), list(outputs), list(classes)

    def __call__(self, ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], mask: Tensor | None) -> Tensor:
        """The loss of one minibatch, a number."""
        total = torch.zeros((), device=next(iter(ours.values())).device)
        for names, weight in ((self._outputs, OUTPUT_WEIGHT), (self._hidden, HIDDEN_WEIGHT)):
            for name in names:
                told = TOLD_WEIGHT if name in self.classes and names is self._outputs else 1.0
                error = told * F.mse_loss(counted(ours[name], mask), counted(theirs[name], mask))
                total = total + error * (weight / (len(names) * self._variance[name]))
        for name in self.classes:
            divergence = class_divergence(counted(ours[name], mask), counted(theirs[name], mask))
            total = total + divergence * (CLASS_WEIGHT / len(self.classes))
        return total
