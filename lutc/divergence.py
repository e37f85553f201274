"""How far a model's outputs have moved: squared error over variance, the worst output counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lutc.fit.sites import token_mask
from lutc.observe.inputs import Batch

Outputs = Mapping[str, npt.NDArray]


def session_outputs(session: Any, batches: Sequence[Batch]) -> list[Outputs]:
    """All outputs of a session, ours or ONNX Runtime's, a dict for each batch."""
    names = [output.name for output in session.get_outputs()]
    return [dict(zip(names, session.run(names, batch), strict=True)) for batch in batches]


class Reference:
    """What the original answers on some samples, and how far other answers are from it.

    The variance of an output is that of its features (classes, channels: the last axis, of images the second) about
    their means over samples and positions. Positions that an attention mask among the inputs leaves out do not count.
    Of a model whose outputs are all integers the divergence is the share that differs.

    Args:
        batches: Inputs.
        outputs: The original's outputs, a dict for each batch.
    """

    def __init__(self, batches: Sequence[Batch], outputs: Sequence[Outputs]) -> None:
        self._masks = [token_mask(batch) for batch in batches]
        floats = [name for name, array in outputs[0].items() if array.dtype.kind == "f"]
        self._exact = not floats
        self._names = floats or list(outputs[0])
        self._wanted = [{name: self._rows(found[name], i) for name in self._names} for i, found in enumerate(outputs)]
        self._variance = {name: _variance([rows[name] for rows in self._wanted]) for name in self._names}

    def _rows(self, array: npt.NDArray, batch: int) -> npt.NDArray[np.float64]:
        """An output as rows of features."""
        mask = self._masks[batch]
        if array.ndim == 4:
            array = np.moveaxis(array, 1, -1)
        elif array.ndim == 3 and mask is not None and mask.shape == array.shape[:2]:
            array = array[mask]
        return array.reshape((-1, array.shape[-1]) if array.ndim > 1 else (-1, 1)).astype(np.float64)

    def divergence(self, outputs: Sequence[Outputs]) -> float:
        """Of outputs of another model on the same batches; infinite where they are not finite but should be."""
        return max(self.by_output(outputs).values(), default=0.0)

    def by_output(self, outputs: Sequence[Outputs]) -> dict[str, float]:
        """`divergence` of each output."""
        found = {}
        for name in self._names:
            pairs = [
                (wanted[name], self._rows(outputs[i][name], i)) for i, wanted in enumerate(self._wanted)
            ]  # fmt: skip
            if self._exact:
                found[name] = float(np.mean([np.mean(a != b) for a, b in pairs]))
                continue
            squares = 0.0
            for a, b in pairs:
                finite = np.isfinite(a)
                if not np.isfinite(b[finite]).all():
                    squares = np.inf
                    break
                squares += float(((a[finite] - b[finite]) ** 2).sum())
            found[name] = squares / self._variance[name]
        return found


def _variance(parts: Sequence[npt.NDArray[np.float64]]) -> float:
    """Sum of squared distances from the mean of each feature (of everything, where there is but one row)."""
    rows = np.concatenate([np.where(np.isfinite(part), part, 0) for part in parts])
    mean = rows.mean(axis=0) if len(rows) > 1 else rows.mean()
    return max(float(((rows - mean) ** 2).sum()), 1e-30)
