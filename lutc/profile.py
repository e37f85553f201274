"""Time by step and by operator, for both runtimes, and how near to this core's limits ours comes."""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lutc._ort import ort_session
from lutc.roofline import Work, constant_bytes, measure_peaks, work_of
from lutc.session import InferenceSession
from lutc.synthetic import synthesise

_RUNS = 20


@dataclasses.dataclass(frozen=True)
class Profile:
    """Where the time of one inference goes.

    Attributes:
        operators: one dict a kind of step, largest first: op, calls (in one inference), ms (of all of them, each the
            median of some runs), share (of the sum over all kinds), roofline (the least time this core could take over
            the time it took, see `lutc.roofline`; None in ONNX Runtime) and bound (what that least time is made of:
            "lookups", "multiply_adds", "int8_products" or "memory").
        steps: one dict a step in plan order: name and the entries of `operators` but calls, and for ours multiply_adds,
            int8_products, lookups and bytes.
        peaks: what this core can do per second, None in ONNX Runtime.
    """

    operators: list[dict[str, Any]]
    steps: list[dict[str, Any]]
    peaks: dict[str, float] | None


def profile(
    path: str | os.PathLike[str], threads: int, shapes: Mapping[str, Sequence[int | None]], seed: int
) -> Profile:
    """Runs a model some times with made-up inputs and measures every step.

    Args:
        path: a `.lut` or `.onnx` file.
        threads: of the session.
        shapes: sizes by input name, see `synthesise`.
        seed: of the inputs.
    """
    if Path(path).suffix.lower() == ".onnx":
        steps, peaks = _onnx_steps(path, threads, shapes, seed), None
    else:
        steps, peaks = _lut_steps(path, threads, shapes, seed)
    everything = sum(step["ms"] for step in steps) or 1.0
    for step in steps:
        step["share"] = step["ms"] / everything
    return Profile(_by_operator(steps, everything), steps, peaks)


def _by_operator(steps: Sequence[dict[str, Any]], everything: float) -> list[dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}
    bounds: dict[tuple[str, str | None], float] = {}
    for step in steps:
        row = rows.setdefault(step["op"], {"op": step["op"], "calls": 0, "ms": 0.0, "share": 0.0, "floor": 0.0})
        row["calls"] += 1
        row["ms"] += step["ms"]
        row["floor"] += (step["roofline"] or 0.0) * step["ms"]
        key = step["op"], step["bound"]
        bounds[key] = bounds.get(key, 0.0) + step["ms"]
    for row in rows.values():
        row["share"] = row["ms"] / everything
        row["bound"] = max((b for b in bounds if b[0] == row["op"]), key=lambda b: bounds[b])[1]
        floor = row.pop("floor")
        row["roofline"] = None if row["bound"] is None else floor / row["ms"] if row["ms"] else 0.0
    return sorted(rows.values(), key=lambda row: -row["ms"])


def _feeds(session: Any, shapes: Mapping[str, Sequence[int | None]], seed: int) -> dict[str, Any]:
    inputs = session.get_inputs()
    names = {item.name for item in inputs}
    return synthesise(inputs, {name: shape for name, shape in shapes.items() if name in names}, seed=seed)


def _onnx_steps(
    path: str | os.PathLike[str], threads: int, shapes: Mapping[str, Sequence[int | None]], seed: int
) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        session = ort_session(path, threads=threads, profile=os.path.join(folder, "ort"))
        feeds = _feeds(session, shapes, seed)
        for _ in range(_RUNS):
            session.run(None, feeds)
        events = json.loads(Path(session.end_profiling()).read_text())
    durations: dict[tuple[str, str], list[float]] = {}
    for event in events:
        op = event.get("args", {}).get("op_name")
        if event.get("cat") == "Node" and op and event["name"].endswith("_kernel_time"):
            name = event["name"].removesuffix("_kernel_time")
            durations.setdefault((name, op), []).append(event["dur"] / 1e3)
    return [
        {"name": name, "op": op, "ms": statistics.median(times), "roofline": None, "bound": None}
        for (name, op), times in durations.items()
    ]


def _lut_steps(
    path: str | os.PathLike[str], threads: int, shapes: Mapping[str, Sequence[int | None]], seed: int
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    session = InferenceSession(path, threads=threads)
    feeds = _feeds(session, shapes, seed)
    runs = []
    for _ in range(_RUNS + 1):  # the first prepares and warms up
        with session.profiling():
            session.run(None, feeds)
        runs.append(session.profile())
    rows = runs[-1]
    durations = [[run[i]["microseconds"] / 1e3 for run in runs[1:]] for i in range(len(rows))]
    peaks = measure_peaks(session.isa, constant_bytes(rows))
    plan = iter(json.loads(session.metadata("lutc.plan"))["steps"])
    steps = []
    for row, times in zip(rows, durations, strict=True):  # in plan order, without the steps that no run executes
        attrs = next(step for step in plan if (step["name"], step["op"]) == (row["name"], row["op"])).get("attrs", {})
        work = work_of(row["op"], attrs, row["inputs"], row["outputs"])
        ms = statistics.median(times)
        steps.append({"name": row["name"], "op": row["op"], "ms": ms, **_judged(work, ms, peaks, session.threads)})
    return steps, peaks


def _judged(work: Work, ms: float, peaks: Mapping[str, float], threads: int) -> dict[str, Any]:
    """A step's part of the roofline, and the counts behind it."""
    seconds, bound = work.floor(peaks)
    return {
        "roofline": seconds * 1e3 / threads / ms if ms else 0.0,
        "bound": bound,
        "multiply_adds": work.multiply_adds,
        "int8_products": work.int8_products,
        "lookups": work.lookups,
        "bytes": work.constant_bytes + work.activation_bytes,
    }
