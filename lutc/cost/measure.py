"""Measuring a cost model: chains of layers run in turn, step by step timed, prices fitted."""

from __future__ import annotations

import dataclasses
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from lutc import _runtime
from lutc.cost.chains import write_chain
from lutc.cost.fit import Sample, fit_price
from lutc.cost.grid import Chain, full_grid
from lutc.cost.machine import cpu_name
from lutc.cost.model import CostModel, is_shared
from lutc.cost.shape import LayerShape
from lutc.cost.terms import Work, works
from lutc.errors import UsageError
from lutc.forms import Form
from lutc.progress import Progress
from lutc.session import InferenceSession

TARGETS = {"avx512": "x86-64-v4", "avx2": "x86-64-v3", "scalar": "scalar"}
"""The target whose layouts an ISA's kernels read."""

_RATE_BYTES = tuple(1 << n for n in range(18, 29))
_BATCH = 8  # chains that take turns
_ROUNDS = 3
_LEAST_RUNS, _MOST_RUNS = 4, 12
_VISIT_S = 0.12  # of a round at one chain and number of rows


@dataclasses.dataclass(frozen=True)
class Timing:
    """A step and its least time.

    Attributes:
        shape: Its layer.
        form: The layer's.
        work: What the step does.
        constant_bytes: Of all layers of its chain.
        seconds: The least of all runs, on one thread.
    """

    shape: LayerShape
    form: Form
    work: Work
    constant_bytes: float
    seconds: float


def measure(isa: str, progress: Progress | None = None, grid: Sequence[Chain] | None = None) -> CostModel:
    """Measures the kernels of an ISA on this machine, a few minutes for the full grid.

    Args:
        isa: "scalar", "avx2" or "avx512".
        progress: Receives progress.
        grid: What to measure; all that forms depend on by default.

    Raises:
        UsageError: This CPU does not have the ISA.
    """
    if isa not in _runtime.available_isas():
        raise UsageError(f"this CPU has no {isa}; it can measure {', '.join(_runtime.available_isas())}")
    rates = reading_rates(isa)
    timings = run_grid(isa, full_grid(isa) if grid is None else grid, progress)
    return fit_model(isa, rates, timings)


def reading_rates(isa: str) -> list[tuple[float, float]]:
    """(bytes, bytes per second) of reading buffers of rising size; rates never rise with the size."""
    rates = [_runtime.peaks(isa, size, size) for size in _RATE_BYTES]
    best = [max(found["cache_bytes"], found["memory_bytes"]) for found in rates]
    falling = np.maximum.accumulate(np.array(best)[::-1])[::-1]
    return [(float(size), float(rate)) for size, rate in zip(_RATE_BYTES, falling, strict=True)]


def run_grid(isa: str, grid: Sequence[Chain], progress: Progress | None = None) -> list[Timing]:
    """The least time of every step of every chain."""
    timings: list[Timing] = []
    with tempfile.TemporaryDirectory(prefix="lutc-cost-") as folder:
        for first in range(0, len(grid), _BATCH):
            runs = [_ChainRun(isa, chain, Path(folder)) for chain in grid[first : first + _BATCH]]
            for _ in range(_ROUNDS):
                for run in runs:
                    run.visit()
            for run in runs:
                timings += run.timings()
            if progress is not None:
                progress(f"measure {isa}", min(first + _BATCH, len(grid)), len(grid))
    return timings


class _ChainRun:
    """One chain's session, and the least times seen so far."""

    def __init__(self, isa: str, chain: Chain, folder: Path) -> None:
        self._isa, self._chain = isa, chain
        path = folder / "chain.lut"
        _, self._bytes = write_chain(path, chain.layers, TARGETS[isa], open_rows=len(chain.rows) > 1)
        self._session = InferenceSession(path, threads=1, isa=isa)
        os.unlink(path)  # the mapping stays
        self._least: dict[int, dict[tuple[str, str], float]] = {}

    def visit(self) -> None:
        """Runs every number of rows a few times."""
        for rows in self._chain.rows or (0,):
            x = self._input(rows)
            names = [output.name for output in self._session.get_outputs()]
            outputs = dict(zip(names, self._session.run(None, {"x": x}), strict=True))
            least, stop = self._least.setdefault(rows, {}), time.perf_counter() + _VISIT_S
            for number in range(_MOST_RUNS):
                if number >= _LEAST_RUNS and time.perf_counter() > stop:
                    break
                with self._session.profiling():
                    self._session.run(None, {"x": x}, outputs=outputs)
                for step in self._session.profile():
                    key = step["name"], step["op"]
                    least[key] = min(least.get(key, np.inf), step["microseconds"] * 1e-6)

    def _input(self, rows: int) -> np.ndarray:
        shape = [int(dim) if isinstance(dim, int) else rows for dim in self._session.get_inputs()[0].shape]
        return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)

    def timings(self) -> Iterator[Timing]:
        """What was measured."""
        for rows, least in self._least.items():
            for number, (shape, form) in enumerate(self._chain.shapes(rows)):
                for work in works(shape, form, self._isa):
                    name = f"layer{number}/encode" if work.part == "encode" else f"layer{number}"
                    found = [seconds for (step, _), seconds in least.items() if step == name]
                    if len(found) == 1 and found[0] > 0:
                        yield Timing(shape, form, work, self._bytes, found[0])


def fit_model(isa: str, rates: Sequence[tuple[float, float]], timings: Sequence[Timing]) -> CostModel:
    """The model that explains the timings best."""
    model = CostModel(isa, cpu_name(), "measured", {}, {}, rates)
    plain = [timing for timing in timings if not any(is_shared(name) for name in timing.work.terms)]
    families: dict[str, list[Sample]] = {}
    for timing in plain:
        arrival = model.arrival(timing.work, timing.constant_bytes)
        families.setdefault(timing.work.family, []).append(Sample(timing.work.terms, arrival, timing.seconds))
    prices = {family: fit_price(samples) for family, samples in families.items()}
    model = dataclasses.replace(model, prices=prices)
    shared: dict[str, list[float]] = {}
    for timing in timings:
        extra = [name for name in timing.work.terms if is_shared(name)]
        if len(extra) == 1 and timing.work.family in prices:
            base = model.step_seconds(timing.work, constant_bytes=timing.constant_bytes)
            shared.setdefault(extra[0], []).append((timing.seconds - base) / timing.work.terms[extra[0]])
    model = dataclasses.replace(model, shared={name: max(float(np.median(x)), 0.0) for name, x in shared.items()})
    errors = [abs(model.step_seconds(t.work, constant_bytes=t.constant_bytes) / t.seconds - 1) for t in timings]
    return dataclasses.replace(model, error=float(np.median(errors)) if errors else 0.0)
