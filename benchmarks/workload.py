"""What a peer is given to run, and what it answers with."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import Call

Feed = Mapping[str, np.ndarray]
Maker = Callable[[], Call]
"""Opens one copy of a model; every copy has weights of its own."""


class Skipped(Exception):
    """A peer that cannot run here; the message says why."""


@dataclasses.dataclass(frozen=True)
class Workload:
    """What every peer runs.

    Attributes:
        key: Names the workload among the remembered choices.
        model: ONNX file with static shapes.
        folder: Where files derived from it are kept.
        feeds: Inputs; calls take them in turn.
        threads: At most so many.
        isa: "avx512" for all that the CPU has; under "avx2" the environment holds the peers to that.
        module: The same network in PyTorch, or None.
        transformer: Whether the model is one.
        weights: Entries of its weights.
        cold_bytes: Calls take turns over copies of the model whose weights exceed this together; 0: one copy.
    """

    key: str
    model: Path
    folder: Path
    feeds: Sequence[Feed]
    threads: int = 1
    isa: str = "avx512"
    module: Callable[[], Any] | None = None
    transformer: bool = False
    weights: int = 0
    cold_bytes: int = 0

    def copies(self, bytes_per_weight: float) -> int:
        """How many copies of a model with weights of this width take turns."""
        if not self.cold_bytes:
            return 1
        return int(min(256, max(2, np.ceil(self.cold_bytes / (self.weights * bytes_per_weight)))))


def in_turn(calls: Sequence[Call]) -> Call:
    """Calls one after another, from the first again after the last."""
    if len(calls) == 1:
        return calls[0]
    turn = itertools.cycle(calls)

    def call() -> object:
        return next(turn)()

    return call
