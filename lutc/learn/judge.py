"""How far a compressed model's outputs are from the original's on samples that nothing is learned from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch

from lutc.divergence import Reference
from lutc.fit.sites import token_mask
from lutc.learn.loss import TOLD_WEIGHT, class_divergence, counted
from lutc.learn.samples import Batch

Outputs = Mapping[str, npt.NDArray]


@dataclasses.dataclass(frozen=True, order=True)
class Verdict:
    """What learning wants to be small; ordered by `total`.

    Attributes:
        total: The sum of the other two, weighed as in the loss (`lutc.learn.loss`).
        divergence: Squared error over variance of the worst output, as everywhere (`lutc.divergence`).
        classes: Mean Kullback-Leibler divergence of the outputs that tell classes, in nats; 0 where none does.
    """

    total: float
    divergence: float
    classes: float

    def __str__(self) -> str:
        """The divergence, and that of the classes where there are any."""
        return f"{self.divergence:.5f}" + (f" (classes {self.classes:.5f})" if self.classes else "")


class Judge:
    """Compares outputs with the original's; as in the loss, positions outside a token mask do not count.

    Args:
        batches: Inputs.
        outputs: The original's outputs, a dict for each batch.
        classes: Names of those that tell classes.
    """

    def __init__(self, batches: Sequence[Batch], outputs: Sequence[Outputs], classes: Sequence[str]) -> None:
        self._reference = Reference(batches, outputs)
        self._wanted, self._classes = outputs, classes
        self._masks = [_mask_of(batch) for batch in batches]
        self._all_told = all(name in classes for name, y in outputs[0].items() if y.dtype.kind == "f")

    def __call__(self, outputs: Sequence[Outputs]) -> Verdict:
        """The verdict on another model's outputs on the same batches."""
        divergence = self._reference.divergence(outputs)
        found = [self._class_divergence(outputs, name) for name in self._classes]
        classes = sum(found) / len(found) if found else 0.0
        told = TOLD_WEIGHT if self._all_told else 1.0
        return Verdict(told * divergence + classes, divergence, classes)

    def _class_divergence(self, outputs: Sequence[Outputs], name: str) -> float:
        """Mean over all rows of one output."""
        batches = zip(outputs, self._wanted, self._masks, strict=True)
        pairs = [(_rows(ours[name], mask), _rows(theirs[name], mask)) for ours, theirs, mask in batches]
        total = sum(len(theirs) * float(class_divergence(ours, theirs)) for ours, theirs in pairs)
        return total / sum(len(theirs) for _, theirs in pairs)


def _mask_of(batch: Batch) -> torch.Tensor | None:
    """The token mask [B, L] among a batch's inputs, if there is one."""
    mask = token_mask(batch)
    return None if mask is None else torch.from_numpy(mask)


def _rows(output: npt.NDArray, mask: torch.Tensor | None) -> torch.Tensor:
    """An output [..., classes] as float32 [rows, classes], of [B, L, classes] the positions that count."""
    y = counted(torch.from_numpy(output.astype(np.float32)), mask)
    return y.reshape(-1, y.shape[-1])
