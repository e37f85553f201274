"""Side by side timing of compiled and ONNX models: interleaved rounds, wall and CPU time, median and spread."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lutc._ort import ort_session
from lutc.errors import UsageError
from lutc.progress import Progress
from lutc.session import InferenceSession
from lutc.synthetic import synthesise
from lutc.timing import Call, interleave, settle_s


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
    raise UsageError(f"'{path}' is neither a .lut nor an .onnx file")


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
    calls: dict[str, Call] = {}
    keys = [(os.fspath(path), count) for count in threads for path in models]
    for number, (path, count) in enumerate(keys):
        session = open_session(path, count)
        inputs = session.get_inputs()
        wanted = {name: shape for name, shape in (shapes or {}).items() if name in {i.name for i in inputs}}
        if shapes and not wanted:
            synthesise(inputs, shapes)  # names the inputs that exist
        calls[str(number)] = functools.partial(session.run, None, synthesise(inputs, wanted, seed=seed))

    progress.start("bench", rounds)
    samples = interleave(calls, rounds, settle_s=settle_s(max(threads)), after_round=progress.update)
    progress.finish()
    return [
        Timing(
            path,
            count,
            rounds,
            *_summary(times.wall),
            *_summary(times.cpu),
            wall_min_ms=float(times.wall.min()) * 1e3,
        )
        for (path, count), times in zip(keys, samples.values(), strict=True)
    ]


def _summary(seconds: NDArray[np.float64]) -> tuple[float, float]:
    """Median and half the distance of the quartiles, milliseconds."""
    low, median, high = np.percentile(seconds, (25, 50, 75)) * 1e3
    return float(median), float((high - low) / 2)
