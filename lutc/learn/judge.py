"""How far a compressed model's outputs are from the original's on samples that nothing is learned from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch

from lutc.divergence import Reference
from lutc.learn.loss import TOLD_WEIGHT, class_divergence, tells_classes
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
    """Compares outputs with the original's.

    Args:
        batches: Inputs.
        outputs: The original's outputs, a dict for each batch.
    """

    def __init__(self, batches: Sequence[Batch], outputs: Sequence[Outputs]) -> None:
        self._reference = Reference(batches, outputs)
        self._wanted = outputs
        self.classes = [name for name in outputs[0] if tells_classes(_joined(outputs, name))]
        self._all_told = all(name in self.classes for name, y in outputs[0].items() if y.dtype.kind == "f")

    def __call__(self, outputs: Sequence[Outputs]) -> Verdict:
        """The verdict on another model's outputs on the same batches."""
        divergence = self._reference.divergence(outputs)
        found = [float(class_divergence(_joined(outputs, name), _joined(self._wanted, name))) for name in self.classes]
        classes = sum(found) / len(found) if found else 0.0
        told = TOLD_WEIGHT if self._all_told else 1.0
        return Verdict(told * divergence + classes, divergence, classes)


def _joined(outputs: Sequence[Outputs], name: str) -> torch.Tensor:
    """Rows of one output over all batches, float32 [rows, features]; empty where it is no list of features."""
    parts = [part[name] for part in outputs]
    if parts[0].dtype.kind != "f" or parts[0].ndim not in (2, 3):
        return torch.zeros(0)
    rows = [part.reshape(-1, part.shape[-1]) for part in parts]
    if len({part.shape[1] for part in rows}) > 1:
        return torch.zeros(0)
    return torch.from_numpy(np.concatenate(rows).astype(np.float32))
