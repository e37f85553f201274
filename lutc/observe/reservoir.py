"""A bounded, fair sample of a stream of unknown length."""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Callable, Sequence

import numpy as np

from lutc.errors import UsageError
from lutc.observe.inputs import Batch, InputSpec, batch_bytes, count_samples, split_batch, validate
from lutc.observe.sources import CalibrationSource

DEFAULT_BUDGET = 1_500_000_000
"""Bytes of activations that calibration may keep alive."""

_BATCH = 32
"""Samples that run through the model at once."""


@dataclasses.dataclass(frozen=True)
class Kept:
    """The samples that were kept.

    Attributes:
        batches: In the order of the stream.
        samples: How many samples they hold.
        seen: How many samples the source gave.
        cost: Bytes of activations they are expected to need at most.
    """

    batches: list[Batch]
    samples: int
    seen: int
    cost: int


def keep_samples(
    source: CalibrationSource,
    specs: Sequence[InputSpec],
    *,
    cost: Callable[[Batch], int],
    budget: int = DEFAULT_BUDGET,
    seed: int = 0,
) -> Kept:
    """Read a source to its end and keep a random subset whose activations fit the budget.

    Every batch draws a random number and the smallest are kept, so that each batch is as likely to stay wherever it
    stands in the stream, and memory does not depend on the stream's length.

    Args:
        source: The samples.
        specs: The model's inputs.
        cost: Peak bytes of activations of one batch; called for the first batch, and scaled by the bytes of the inputs
            for the others.
        budget: Bytes of activations.
        seed: Of the draw.

    Returns:
        The kept batches; at least one.

    Raises:
        UsageError: The source is empty or a sample does not fit the model.
    """
    rng = np.random.default_rng(seed)
    heap: list[tuple[float, int, int, Batch]] = []  # the largest draw first
    spent = seen = index = 0
    ratio = 0.0
    for raw in source.batches(specs):
        checked = split_batch(dict(raw), specs, _BATCH) if _splittable(raw, specs) else [dict(raw)]
        for part in checked:
            batch = validate(part, specs, seen)
            seen += count_samples(batch)
            if ratio == 0.0:
                ratio = cost(batch) / max(batch_bytes(batch), 1)
            price = round(ratio * batch_bytes(batch))
            heapq.heappush(heap, (-float(rng.random()), index, price, batch))
            spent, index = spent + price, index + 1
            while spent > budget and len(heap) > 1:
                spent -= heapq.heappop(heap)[2]
    if not heap:
        raise UsageError(f"{source.name}: no calibration samples; one is enough to start, a thousand are good")
    batches = [batch for _, _, _, batch in sorted(heap, key=lambda entry: entry[1])]
    return Kept(batches, sum(map(count_samples, batches)), seen, spent)


def _splittable(raw: object, specs: Sequence[InputSpec]) -> bool:
    """Whether names and ranks are right, so that the first axis may be cut; if not, validation will say so."""
    if set(raw) != {spec.name for spec in specs}:  # type: ignore[call-overload]
        return False
    return all(
        isinstance(raw[spec.name], np.ndarray)  # type: ignore[index]
        and (spec.shape is None or raw[spec.name].ndim == len(spec.shape))  # type: ignore[index]
        for spec in specs
    )
