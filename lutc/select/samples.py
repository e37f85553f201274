"""Samples with different duties: those that layers are fitted to, those that judge forms, those that verify."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from lutc.errors import UsageError
from lutc.observe import DEFAULT_BUDGET, CalibrationSource, input_specs, keep_samples
from lutc.observe.inputs import Batch, InputSpec, count_samples, split_batch

JUDGES = 128
"""Samples on which every candidate is tried."""

VERIFIERS = 256
"""Samples on which finished models are measured."""

_SHARE = 1 / 6  # of all samples that either kind takes at most
_PARTS = 24  # batches to deal out at least, where batches may be cut


@dataclasses.dataclass(frozen=True)
class Samples:
    """Disjoint batches, unless there are too few to deal out.

    Attributes:
        fit: Layers are fitted to these.
        judge: Candidates of one layer are compared on these. They join `fit` once all candidates are judged.
        verify: Whole models are measured on these.
        shared: Whether there were too few samples: every duty has all of them.
    """

    fit: list[Batch]
    judge: list[Batch]
    verify: list[Batch]
    shared: bool

    @property
    def final(self) -> list[Batch]:
        """What finished models are fitted to."""
        return self.fit if self.shared else self.fit + self.judge


def deal_samples(
    source: CalibrationSource,
    model: ir.Model,
    *,
    cost: Callable[[Batch], int],
    budget: int = DEFAULT_BUDGET,
    seed: int = 0,
) -> Samples:
    """Reads a source and deals its samples out.

    Args:
        source: The samples.
        model: Whose inputs they are.
        cost: Peak bytes of activations of one batch.
        budget: Bytes of activations that may be kept alive.
        seed: Of the draw.

    Raises:
        UsageError: The source is empty or a sample does not fit the model.
    """
    specs = input_specs(model)
    batches = keep_samples(source, specs, cost=cost, budget=budget, seed=seed).batches
    total = sum(map(count_samples, batches))
    if len(batches) < _PARTS:
        limit = max(1, -(-total // _PARTS))
        batches = [part for batch in batches for part in split_batch(batch, specs, limit)]
    if len(batches) < 3:
        return Samples(batches, batches, batches, shared=True)
    order = np.random.default_rng((seed, 12)).permutation(len(batches))
    shuffled = [batches[i] for i in order]
    judge = _take(shuffled, min(JUDGES, total * _SHARE))
    verify = _take(shuffled, min(VERIFIERS, total * _SHARE))
    return Samples(shuffled, judge, verify, shared=False)


def _take(batches: list[Batch], samples: float) -> list[Batch]:
    """Moves batches off the end until they hold so many samples; at least one moves and one stays."""
    taken = [batches.pop()]
    while len(batches) > 2 and sum(map(count_samples, taken)) < samples:
        taken.append(batches.pop())
    return taken


def first_samples(batches: Sequence[Batch], samples: int) -> list[Batch]:
    """Whole batches from the first on, until they hold so many samples."""
    taken: list[Batch] = []
    for batch in batches:
        if sum(map(count_samples, taken)) >= samples:
            break
        taken.append(batch)
    return taken


def time_shapes(
    model: ir.Model, samples: Sequence[Batch], given: Mapping[str, Sequence[int | None]]
) -> dict[str, tuple[int, ...]]:
    """The input shapes for which time counts.

    Args:
        model: Canonical.
        samples: Calibration batches.
        given: By input name, as the user wants them; None leaves a dim to the rule.

    Returns:
        By input name: what is given, what the model fixes, else batch 1 and the median of the samples. Dims of one
        symbolic name have one size.

    Raises:
        UsageError: `given` names no input, or has another rank or size than the model.
    """
    specs = input_specs(model)
    unknown = set(given) - {spec.name for spec in specs}
    if unknown:
        names = ", ".join(spec.name for spec in specs)
        raise UsageError(f"--time-shape names no input: {', '.join(sorted(unknown))}; the model's inputs: {names}")
    named: dict[str, int] = {}
    for spec in specs:
        for axis, wanted in enumerate(given.get(spec.name, ())):
            if spec.shape is None or axis >= len(spec.shape) or len(given[spec.name]) != len(spec.shape):
                raise UsageError(f"--time-shape '{spec.name}': the model's shape is {list(spec.shape or ())}")
            dim = spec.shape[axis]
            if isinstance(dim, int) and wanted not in (None, dim):
                raise UsageError(f"--time-shape '{spec.name}': dim {axis} is {dim} in the model, not {wanted}")
            if isinstance(dim, str) and wanted is not None:
                named[dim] = wanted
    return {spec.name: _time_shape(spec, samples, given.get(spec.name, ()), named) for spec in specs}


def _time_shape(
    spec: InputSpec, samples: Sequence[Batch], given: Sequence[int | None], named: Mapping[str, int]
) -> tuple[int, ...]:
    rank = len(spec.shape) if spec.shape is not None else samples[0][spec.name].ndim
    sizes = []
    for axis in range(rank):
        wanted = given[axis] if axis < len(given) else None
        dim = spec.shape[axis] if spec.shape is not None else None
        if wanted is None and isinstance(dim, str):
            wanted = named.get(dim)
        if wanted is None and isinstance(dim, int):
            wanted = dim
        if wanted is None and axis == 0:
            wanted = 1
        if wanted is None:
            seen = [batch[spec.name].shape[axis] for batch in samples for _ in range(count_samples(batch))]
            wanted = int(statistics.median_high(seen))
        sizes.append(int(wanted))
    return tuple(sizes)
