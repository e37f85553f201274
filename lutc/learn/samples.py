"""Unlabelled samples as minibatches: any step's minibatch follows from the seed and the step's number alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lutc.learn.blends import blended, can_blend
from lutc.observe import InputSpec
from lutc.observe.inputs import count_samples

Batch = dict[str, npt.NDArray]

HELD_OUT_SHARE = 8
"""One in so many samples judges and is not learned from."""

HELD_OUT_LIMIT = 512
"""Samples that judge, at most."""


def hold_out(batches: Sequence[Batch], seed: int) -> tuple[list[Batch], list[Batch]]:
    """Batches to learn from and batches that judge; a single batch is cut in two."""
    if len(batches) == 1:
        (batch,) = batches
        sizes = {array.shape[0] if array.ndim else 0 for array in batch.values()}
        size = sizes.pop()
        if sizes or size < 2:
            return list(batches), list(batches)
        cut = size - max(size // HELD_OUT_SHARE, 1)
        return [{k: v[:cut] for k, v in batch.items()}], [{k: v[cut:] for k, v in batch.items()}]
    order = np.random.default_rng((seed, 0x1EA2)).permutation(len(batches))
    total = sum(map(count_samples, batches))
    limit = min(total // HELD_OUT_SHARE, HELD_OUT_LIMIT)
    held: list[int] = []
    while len(held) < len(batches) - 1 and (not held or sum(count_samples(batches[i]) for i in held) < limit):
        held.append(int(order[len(held)]))
    chosen = set(held)
    return [b for i, b in enumerate(batches) if i not in chosen], [batches[i] for i in sorted(held)]


@dataclasses.dataclass(frozen=True)
class _Pool:
    """Samples of equal shape, stacked; or one batch that cannot be cut."""

    arrays: Batch
    samples: int
    whole: bool


class Minibatches:
    """Endless minibatches, shuffled anew in every epoch.

    Args:
        batches: To learn from.
        specs: The model's inputs; samples share a minibatch only where the first axis is free.
        size: Samples per minibatch.
        seed: Of the shuffling.
        blend: Whether samples are blended where they can be (`lutc.learn.blends`).
    """

    def __init__(
        self, batches: Sequence[Batch], specs: Sequence[InputSpec], size: int, seed: int, *, blend: bool = False
    ) -> None:
        free = all(spec.shape is not None and spec.shape and not isinstance(spec.shape[0], int) for spec in specs)
        groups: dict[tuple, list[Batch]] = {}
        self._pools: list[_Pool] = []
        for batch in batches:
            firsts = {array.shape[0] if array.ndim else -1 for array in batch.values()}
            if free and len(firsts) == 1 and -1 not in firsts:
                groups.setdefault(tuple((k, batch[k].shape[1:]) for k in sorted(batch)), []).append(batch)
            else:
                self._pools.append(_Pool(batch, count_samples(batch), True))
        for members in groups.values():
            arrays = {name: np.concatenate([member[name] for member in members]) for name in members[0]}
            self._pools.append(_Pool(arrays, sum(map(count_samples, members)), False))
        self._size, self._seed, self._blend = size, seed, blend
        self._epoch, self._plan = -1, self._shuffled(0)
        self._epoch = 0

    def _shuffled(self, epoch: int) -> list[tuple[int, npt.NDArray | None]]:
        rng = np.random.default_rng((self._seed, epoch))
        plan: list[tuple[int, npt.NDArray | None]] = []
        for number, pool in enumerate(self._pools):
            if pool.whole:
                plan.append((number, None))
                continue
            pieces = max(1, round(pool.samples / self._size))
            plan += [(number, np.sort(part)) for part in np.array_split(rng.permutation(pool.samples), pieces)]
        return [plan[i] for i in rng.permutation(len(plan))]

    def __len__(self) -> int:
        """Minibatches in an epoch."""
        return len(self._plan)

    @property
    def samples(self) -> int:
        """Samples to learn from."""
        return sum(pool.samples for pool in self._pools)

    def at(self, step: int) -> Batch:
        """The minibatch of a step."""
        epoch, place = divmod(step, len(self._plan))
        if epoch != self._epoch:
            self._epoch, self._plan = epoch, self._shuffled(epoch)
        number, rows = self._plan[place]
        arrays = self._pools[number].arrays
        if rows is None:
            return arrays
        batch = {name: array[rows] for name, array in arrays.items()}
        if self._blend and can_blend(batch):
            return blended(batch, np.random.default_rng((self._seed, 0x313, step)))
        return batch


def tensors(batch: Mapping[str, npt.NDArray], device: torch.device) -> dict[str, Tensor]:
    """A batch on a device."""
    return {name: torch.from_numpy(np.ascontiguousarray(array)).to(device) for name, array in batch.items()}


def token_mask(feeds: Mapping[str, Tensor]) -> Tensor | None:
    """The attention mask among the inputs: integers or booleans of rank 2 called like a mask."""
    for name, value in feeds.items():
        if "mask" in name.lower() and not value.is_floating_point() and value.dim() == 2:
            return value != 0
    return None


def chunks(batches: Sequence[Batch], size: int) -> Iterator[Batch]:
    """Batches in order, at most `size` samples each where all inputs share their first axis."""
    for batch in batches:
        firsts = {array.shape[0] if array.ndim else -1 for array in batch.values()}
        total = firsts.pop()
        if firsts or total <= size:
            yield batch
            continue
        for start in range(0, total, size):
            yield {name: array[start : start + size] for name, array in batch.items()}
