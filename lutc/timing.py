"""Fair timing: candidates take turns.

Turns make a slow moment of the machine hit every candidate alike; CPU time leaves out the moments in which another
process had the core.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

Call = Callable[[], object]


@dataclasses.dataclass(frozen=True)
class Samples:
    """Times of one candidate, one entry a round.

    Attributes:
        cpu: CPU seconds a call, of all threads of the process; float64 [rounds].
        wall: Wall seconds a call; float64 [rounds].
    """

    cpu: NDArray[np.float64]
    wall: NDArray[np.float64]

    def cpu_us(self) -> float:
        """Median CPU time of a call in microseconds."""
        return round(float(np.median(self.cpu)) * 1e6, 1)

    def wall_us(self) -> float:
        """Median wall time of a call in microseconds: the p50 latency."""
        return round(float(np.median(self.wall)) * 1e6, 1)


def settle_s(threads: int) -> float:
    """Seconds of rest between candidates of so many threads: some runtimes' workers spin for a while after a run."""
    return 0.02 if threads > 1 else 0.0


def interleave(
    candidates: Mapping[str, Call],
    rounds: int = 40,
    slice_s: float = 0.02,
    settle_s: float = 0.0,
    after_round: Callable[[int], object] | None = None,
) -> dict[str, Samples]:
    """Times the candidates in turn, in an order that rotates from round to round.

    Args:
        candidates: What to call, by name. Each is called a few times first.
        rounds: Measurements of each.
        slice_s: Each measurement repeats its call until about this many seconds have passed.
        settle_s: Seconds of rest before each measurement, and of calls that are not counted behind it. Workers of the
            candidate before may still wait awake; where candidates have several threads each, they would take cores
            from the next one. But cores that have rested are slow at first, the more of them the more.
        after_round: Receives the number of finished rounds.

    Returns:
        Samples by name.
    """
    repeats = {}
    for name, call in candidates.items():
        call()
        start = time.perf_counter()
        call()
        repeats[name] = max(1, round(slice_s / max(time.perf_counter() - start, 1e-7)))
    cpu: dict[str, list[float]] = {name: [] for name in candidates}
    wall: dict[str, list[float]] = {name: [] for name in candidates}
    order = list(candidates)
    for number in range(rounds):
        for name in order:
            call, count = candidates[name], repeats[name]
            if settle_s > 0:
                time.sleep(settle_s)
            warm = time.perf_counter() + settle_s
            call()  # brings this candidate's weights back into the caches
            while time.perf_counter() < warm:
                call()
            wall_start, cpu_start = time.perf_counter(), time.process_time()
            for _ in range(count):
                call()
            cpu[name].append((time.process_time() - cpu_start) / count)
            wall[name].append((time.perf_counter() - wall_start) / count)
        order.append(order.pop(0))
        if after_round is not None:
            after_round(number + 1)
    return {name: Samples(np.array(cpu[name]), np.array(wall[name])) for name in candidates}


def quiet_rounds(samples: Mapping[str, Samples]) -> NDArray[np.intp]:
    """The quarter of the rounds that took the least CPU time, all candidates together; at least one.

    What else a machine does only ever adds to times, and not alike: lookups, which stream tables, lose more to programs
    that take caches and memory than dense layers, which compute. Medians of all rounds say who stands a noisy neighbour
    best; and a candidate's least times may stem from other moments than the others'.

    Returns:
        Indices into the samples' entries.
    """
    together = np.sum([each.cpu / np.median(each.cpu) for each in samples.values()], axis=0)
    return np.argsort(together)[: max(1, together.size // 4)]
