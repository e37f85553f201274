"""The fields of a row: the metric before and after on the test split, intervals, cosine."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import lutc
from benchmarks.accuracy import statistics
from benchmarks.accuracy.methods import Compiled, Method
from benchmarks.accuracy.tasks import Case, Recorder
from lutc._ort import ort_session


@functools.lru_cache(maxsize=2)
def original(case: Case, split: str = "test") -> tuple[NDArray[np.float64], NDArray[Any]]:
    """Answers and outputs of the original model, run by ONNX Runtime."""
    session = Recorder(ort_session(case.module.model(case.name), threads=1))
    return case.module.answers(session, split), session.outputs


def dense_score(case: Case) -> float:
    """The original's metric on the selection split."""
    return case.module.metric(original(case, "selection")[0])


def judge(case: Case, session: Any, split: str = "test") -> dict[str, Any]:
    """Compares a session with the original.

    Returns:
        {metric, samples, before, after, drop, interval: {before, after, drop}, cosine}.
    """
    before, reference = original(case, split)
    recorder = Recorder(session)
    after = case.module.answers(recorder, split)
    metric = case.module.metric
    return {
        "metric": case.module.METRIC,
        "samples": len(before),
        "before": metric(before),
        "after": metric(after),
        "drop": metric(before) - metric(after),
        "interval": statistics.intervals(metric, before, after),
        "cosine": statistics.cosine(reference, recorder.outputs),
    }


def row(case: Case, method: Method, isa: str, compiled: Compiled) -> dict[str, Any]:
    """The row of an artifact, without times."""
    layers = [layer for layer in compiled.report.get("layers", ()) if layer["op"] != "attention"]
    lookups = sum(layer["form"] not in ("fp32", "int8") for layer in layers)
    return {
        **key(case, method, isa),
        "minutes": method.minutes,
        **judge(case, lutc.InferenceSession(compiled.path, threads=1)),
        "ratio_vs": {},
        "layers": f"{lookups} of {len(layers)}",
        "bytes": Path(compiled.path).stat().st_size,
        "compile_seconds": compiled.report.get("compile_seconds"),
        **({"max_drop": method.max_drop, "budget_kept": compiled.kept} if method.max_drop else {}),
    }


def key(case: Case, method: Method, isa: str) -> dict[str, Any]:
    """The fields that say which row it is."""
    return {"bench": "accuracy", "task": case.task, "model": case.name, "isa": isa, "form": method.form,
            "method": method.method, "minutes": method.minutes}  # fmt: skip
