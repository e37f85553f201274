"""The original network, opened at the layers whose forms are to be chosen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy.typing as npt
import onnx

from lutc.errors import UsageError
from lutc.fit.executor import CutModel, Tensors
from lutc.fit.sites import activation_bytes, dense_layer
from lutc.observe.inputs import Batch


class Network:
    """A model that can be run up to a layer, and from a layer on with another output in its place.

    Args:
        proto: The model.
        outputs: First output of each layer to open.
        threads: CPU threads.

    Attributes:
        cut: The model in pieces.
        sites: The opened layers' nodes in the order in which they run.
    """

    def __init__(self, proto: onnx.ModelProto, outputs: Iterable[str], threads: int) -> None:
        self.cut = CutModel(proto, outputs, threads)
        self.sites = self.cut.sites
        self._dense = [dense_layer(site, self.cut, threads) for site in self.sites]

    def cost(self, batch: Batch) -> int:
        """Most bytes that a batch keeps alive: the original's tensors, and those behind a changed layer.

        Raises:
            UsageError: The original cannot run the batch.
        """
        try:
            return 2 * activation_bytes(self.cut, batch)
        except Exception as error:  # ONNX Runtime's exceptions share no base
            if not type(error).__module__.startswith("onnxruntime"):
                raise
            shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in batch.items())
            raise UsageError(f"the model cannot run the calibration sample of shapes {shapes}: {error}") from error

    def rows(self, batch: Batch) -> list[int]:
        """Rows of the outputs of each layer for a batch: what it is fitted to; of a convolution, positions."""
        state = dict(batch)
        found = []
        for index in range(len(self.sites)):
            self.cut.run_clean(index, state)
            y = self.answers(index, [state])[0]
            found.append(y.size // y.shape[1 if y.ndim == 4 else -1])
            state[self.sites[index].output[0]] = y
        return found

    def reach(self, index: int, live: Sequence[Tensors]) -> None:
        """Carries batches, in place, from behind layer index - 1 to the input of layer `index`."""
        for tensors in live:
            self.cut.run_clean(index, tensors)

    def answers(self, index: int, live: Sequence[Tensors]) -> list[npt.NDArray]:
        """What layer `index` answers to each batch."""
        return [self._dense[index](tensors[self.sites[index].input[0]]) for tensors in live]

    def outputs_with(self, index: int, live: Sequence[Tensors], answers: Sequence[npt.NDArray]) -> list[Tensors]:
        """The model's outputs where layer `index` gives these answers; `live` is as `reach` left it, and stays so."""
        found = []
        for tensors, answer in zip(live, answers, strict=True):
            state = {**tensors, self.sites[index].output[0]: answer}
            found.append(self._finish(index + 1, state))
        return found

    def outputs(self, batches: Sequence[Batch]) -> list[Tensors]:
        """The original's outputs, a dict for each batch."""
        return [self._finish(0, dict(batch)) for batch in batches]

    def _finish(self, piece: int, state: Tensors) -> Tensors:
        for index in range(piece, len(self.cut)):
            self.cut.run_clean(index, state)
            if index < len(self.sites):
                site = self.sites[index]
                state[site.output[0]] = self._dense[index](state[site.input[0]])
        return {name: state[name] for name in self.cut.outputs}
