"""Measuring a cost model: chains of layers run in turn, step by step timed, prices fitted."""

from __future__ import annotations

import dataclasses
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from scipy.optimize import nnls

from lutc import _runtime
from lutc.cost.chains import write_chain
from lutc.cost.fit import Sample, fit_price
from lutc.cost.grid import Chain, full_grid, streaming_chain
from lutc.cost.machine import cpu_name
from lutc.cost.model import CostModel, is_shared
from lutc.cost.shape import LayerShape
from lutc.cost.store import shipped_target
from lutc.cost.terms import Work, works
from lutc.errors import UsageError
from lutc.fit.parallel import use_threads
from lutc.forms import Form
from lutc.progress import Progress
from lutc.session import InferenceSession

_LOOP_BYTES = (128 << 10, 256 << 10, 512 << 10)
_CHAIN_BYTES = tuple(n << 20 for n in (2, 4, 8, 12, 16, 24, 32, 48, 96))
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


def measure(
    isa: str,
    progress: Progress | None = None,
    grid: Sequence[Chain] | None = None,
    rates: Sequence[tuple[float, float]] | None = None,
) -> CostModel:
    """Measures the kernels of an ISA on this machine, a few minutes for the full grid.

    Args:
        isa: "scalar", "avx2", "avxvnni" or "avx512".
        progress: Receives progress.
        grid: What to measure; all that forms depend on by default.
        rates: As `reading_rates` returns them; measured by default.

    Raises:
        UsageError: This CPU does not have the ISA.
    """
    if isa not in _runtime.available_isas():
        raise UsageError(f"this CPU has no {isa}; it can measure {', '.join(_runtime.available_isas())}")
    rates = reading_rates(isa, progress) if rates is None else rates
    timings = run_grid(isa, full_grid(isa) if grid is None else grid, progress)
    with use_threads(1):  # small problems: several threads of BLAS would only wait for each other
        return fit_model(isa, rates, timings)


def reading_rates(isa: str, progress: Progress | None = None) -> list[tuple[float, float]]:
    """(bytes, bytes per second): how fast the constants of a model of that size can be read.

    Within a level 2 cache, by a loop that reads; beyond, by kernels that do little else, so that page walks and what
    other programs take of a shared cache count, too.
    """
    found = {float(size): _runtime.peaks(isa, size, size)["cache_bytes"] for size in _LOOP_BYTES}
    if isa == "scalar":  # whose kernels take longer than any memory
        found |= {float(size): _runtime.peaks(isa, size, size)["cache_bytes"] for size in _CHAIN_BYTES}
    else:
        found |= _streaming_rates(isa, progress)
    sizes = sorted(found)
    falling = np.minimum.accumulate([found[size] for size in sizes])
    return [(size, float(rate)) for size, rate in zip(sizes, falling, strict=True)]


def _streaming_rates(isa: str, progress: Progress | None) -> dict[float, float]:
    """Rates of reading by bytes in all: means over two kernels."""
    rates: dict[float, list[float]] = {}
    cases = [(size, form, rows) for size in _CHAIN_BYTES for form, rows in (("int8", 1), ("plain-v8", 16))]
    grid = [streaming_chain(form, rows, size) for size, form, rows in cases]
    for (size, _, _), timings in zip(cases, _by_chain(isa, grid, f"memory {isa}", progress), strict=True):
        main = [timing for timing in timings if timing.work.part == "main"]
        read = sum(timing.work.constant_bytes for timing in main)
        rates.setdefault(float(size), []).append(read / sum(timing.seconds for timing in main))
    return {size: float(np.exp(np.mean(np.log(found)))) for size, found in rates.items()}


def run_grid(isa: str, grid: Sequence[Chain], progress: Progress | None = None) -> list[Timing]:
    """The least time of every step of every chain."""
    return [timing for timings in _by_chain(isa, grid, f"measure {isa}", progress) for timing in timings]


def _by_chain(isa: str, grid: Sequence[Chain], stage: str, progress: Progress | None) -> list[list[Timing]]:
    found: list[list[Timing]] = []
    with tempfile.TemporaryDirectory(prefix="lutc-cost-") as folder:
        for first in range(0, len(grid), _BATCH):
            runs = [_ChainRun(isa, chain, Path(folder)) for chain in grid[first : first + _BATCH]]
            for _ in range(_ROUNDS):
                for run in runs:
                    run.visit()
            found += [list(run.timings()) for run in runs]
            if progress is not None:
                progress(stage, len(found), len(grid))
    return found


class _ChainRun:
    """One chain's session, and the least times seen so far."""

    def __init__(self, isa: str, chain: Chain, folder: Path) -> None:
        self._isa, self._chain = isa, chain
        path = folder / "chain.lut"
        _, self._bytes = write_chain(path, chain.layers, shipped_target(isa), open_rows=len(chain.rows) > 1)
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
        amounts = model.amounts(timing.work, timing.constant_bytes)
        arrival = model.arrival(timing.work, timing.constant_bytes)
        families.setdefault(timing.work.family, []).append(Sample(amounts, arrival, timing.seconds))
    prices = {family: fit_price(samples) for family, samples in families.items()}
    model = dataclasses.replace(model, prices=prices)
    model = dataclasses.replace(model, shared=_shared(model, timings))
    errors = [abs(model.step_seconds(t.work, constant_bytes=t.constant_bytes) / t.seconds - 1) for t in timings]
    return dataclasses.replace(model, error=float(np.median(errors)) if errors else 0.0)


def _shared(model: CostModel, timings: Sequence[Timing]) -> dict[str, float]:
    """Prices of activations and residuals: what the steps that have one take beyond the model's prediction."""
    having = [t for t in timings if t.work.family in model.prices and any(is_shared(name) for name in t.work.terms)]
    names = sorted({name for timing in having for name in timing.work.terms if is_shared(name)})
    if not names:
        return {}
    seconds = np.array([timing.seconds for timing in having])
    base = np.array([model.step_seconds(t.work, constant_bytes=t.constant_bytes) for t in having])
    amounts = np.array([[timing.work.terms.get(name, 0.0) for name in names] for timing in having])
    prices, _ = nnls(amounts / seconds[:, None], np.maximum(1 - base / seconds, 0.0))
    return dict(zip(names, map(float, prices), strict=True))
