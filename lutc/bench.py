"""Side by side timing of compiled and ONNX models: interleaved rounds, wall and CPU time, median and spread."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lutc._ort import ort_session
from lutc.errors import UsageError
from lutc.progress import Progress
from lutc.session import InferenceSession
from lutc.synthetic import synthesise

_MIN_BATCH_SECONDS = 0.02  # runs are repeated within a measurement until it lasts this long
_WARM_UP = 2


@dataclasses.dataclass
class Timing:
    """Time of one model at one number of threads, milliseconds for each inference.

    `spread` is half the distance of the quartiles: half of all rounds lie within median +- spread, roughly.
    """

    model: str
    threads: int
    rounds: int
    wall_ms: float
    wall_spread_ms: float
    cpu_ms: float
    cpu_spread_ms: float
    wall_min_ms: float


def open_session(path: str | os.PathLike[str], threads: int) -> Any:
    """A session of a `.lut` (this runtime) or `.onnx` (ONNX Runtime).

    Raises:
        UsageError: another kind of file, or missing.
    """
    suffix = Path(path).suffix.lower()
    if not Path(path).is_file():
        raise UsageError(f"'{path}' is not a file")
    if suffix == ".onnx":
        try:
            return ort_session(path, threads=threads)
        except Exception as error:  # ONNX Runtime's exceptions share no base
            raise UsageError(f"ONNX Runtime cannot load '{path}': {error}") from error
    if suffix == ".lut":
        return InferenceSession(path, threads=threads)
    raise UsageError(f"'{path}': lutc bench takes .lut and .onnx files")


def bench(
    models: Sequence[str | os.PathLike[str]],
    *,
    threads: Sequence[int] = (1,),
    rounds: int = 20,
    shapes: Mapping[str, Sequence[int | None]] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Timing]:
    """Times models on the same made-up inputs, a little of each in turn, so that the machine's moods hit all alike.

    Args:
        models: `.lut` and `.onnx` files.
        threads: each model runs with each of these numbers of threads.
        rounds: measurements of each.
        shapes: sizes by input name, see `synthesise`.
        seed: of the inputs.
        progress: receives one unit for each round.

    Returns:
        One timing for each model and number of threads.

    Raises:
        UsageError: a file that is no model, or shapes that do not fit.
    """
    progress = progress or Progress()
    contenders: list[tuple[str, int, Callable[[], Any], int]] = []
    for count in threads:
        for path in models:
            session = open_session(path, count)
            inputs = session.get_inputs()
            wanted = {name: shape for name, shape in (shapes or {}).items() if name in {i.name for i in inputs}}
            if shapes and not wanted:
                synthesise(inputs, shapes)  # names the inputs that exist
            feeds = synthesise(inputs, wanted, seed=seed)
            run = _runner(session, feeds)
            for _ in range(_WARM_UP):
                run()
            begin = time.perf_counter()
            run()
            repeats = max(1, round(_MIN_BATCH_SECONDS / max(time.perf_counter() - begin, 1e-9)))
            contenders.append((os.fspath(path), count, run, repeats))

    wall: list[list[float]] = [[] for _ in contenders]
    cpu: list[list[float]] = [[] for _ in contenders]
    progress.start("bench", rounds)
    for number in range(rounds):
        for index, (_, _, run, repeats) in enumerate(contenders):
            cpu_begin, begin = time.process_time(), time.perf_counter()
            for _ in range(repeats):
                run()
            wall[index].append((time.perf_counter() - begin) / repeats * 1e3)
            cpu[index].append((time.process_time() - cpu_begin) / repeats * 1e3)
        progress.update(number + 1)
    progress.finish()
    return [
        Timing(path, count, rounds, *_summary(wall[i]), *_summary(cpu[i]), wall_min_ms=min(wall[i]))
        for i, (path, count, _, _) in enumerate(contenders)
    ]


def _runner(session: Any, feeds: dict[str, np.ndarray]) -> Callable[[], Any]:
    return lambda: session.run(None, feeds)


def _summary(times: Sequence[float]) -> tuple[float, float]:
    low, median, high = np.percentile(times, (25, 50, 75))
    return float(median), float((high - low) / 2)
