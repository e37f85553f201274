"""Time by operator, for both runtimes."""

from __future__ import annotations

import collections
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lutc._ort import ort_session
from lutc.session import InferenceSession
from lutc.synthetic import synthesise

_RUNS = 20


def per_op_times(
    path: str | os.PathLike[str], threads: int, shapes: Mapping[str, Sequence[int | None]], seed: int
) -> list[dict[str, Any]]:
    """Mean milliseconds of each kind of operator in one inference, largest first.

    Args:
        path: a `.lut` or `.onnx` file.
        threads: of the session.
        shapes: sizes by input name, see `synthesise`.
        seed: of the inputs.

    Returns:
        Dicts of op, calls (in one inference), ms, share (of the sum).
    """
    times = _onnx_times if Path(path).suffix.lower() == ".onnx" else _lut_times
    totals, calls = times(path, threads, shapes, seed)
    everything = sum(totals.values()) or 1.0
    return [
        {"op": op, "calls": calls[op] // _RUNS, "ms": total / _RUNS, "share": total / everything}
        for op, total in sorted(totals.items(), key=lambda item: -item[1])
    ]


def _run(session: Any, shapes: Mapping[str, Sequence[int | None]], seed: int) -> None:
    inputs = session.get_inputs()
    names = {item.name for item in inputs}
    feeds = synthesise(inputs, {name: shape for name, shape in shapes.items() if name in names}, seed=seed)
    for _ in range(_RUNS):
        session.run(None, feeds)


def _onnx_times(
    path: str | os.PathLike[str], threads: int, shapes: Mapping[str, Sequence[int | None]], seed: int
) -> tuple[dict[str, float], dict[str, int]]:
    with tempfile.TemporaryDirectory() as folder:
        session = ort_session(path, threads=threads, profile=os.path.join(folder, "ort"))
        _run(session, shapes, seed)
        events = json.loads(Path(session.end_profiling()).read_text())
    totals: dict[str, float] = collections.defaultdict(float)
    calls: dict[str, int] = collections.Counter()
    for event in events:
        op = event.get("args", {}).get("op_name")
        if event.get("cat") == "Node" and op and event["name"].endswith("_kernel_time"):
            totals[op] += event["dur"] / 1e3
            calls[op] += 1
    return totals, calls


def _lut_times(
    path: str | os.PathLike[str], threads: int, shapes: Mapping[str, Sequence[int | None]], seed: int
) -> tuple[dict[str, float], dict[str, int]]:
    session = InferenceSession(path, threads=threads)
    with session.profiling():
        _run(session, shapes, seed)
    totals: dict[str, float] = collections.defaultdict(float)
    calls: dict[str, int] = collections.Counter()
    for step in session.profile():
        totals[step["op"]] += step["microseconds"] / 1e3
        calls[step["op"]] += step["calls"]
    return totals, calls
