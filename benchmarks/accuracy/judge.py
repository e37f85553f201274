"""The fields of a row: the metric before and after on the test split, intervals, nearness to the original."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import lutc
from benchmarks import recognition
from benchmarks.accuracy import statistics
from benchmarks.accuracy.methods import Compiled, Method
from benchmarks.accuracy.tasks import Case, Recorder
from lutc._ort import ort_session


@functools.lru_cache(maxsize=16)
def original(case: Case, split: str = "test") -> tuple[NDArray[np.float64], NDArray[Any]]:
    """Answers and outputs of an original model (one fold of several), run by ONNX Runtime."""
    session = Recorder(ort_session(case.module.model(case.name), threads=1))
    return case.module.answers(session, split), session.outputs


def dense_score(case: Case) -> float:
    """The metric of an original (one fold of several) on the selection split."""
    return case.module.metric(original(case, "selection")[0])


def judge(case: Case, sessions: Sequence[Any], split: str = "test") -> dict[str, Any]:
    """Compares sessions, one for each fold of a case, with the originals: samples of all folds together.

    Returns:
        {metric, samples, before, after, drop, interval: {before, after, drop}, cosine} and, of a classifier, agreement,
        the share of samples that it answers as the original does, with its interval; of several folds also {folds:
        {name: [before, after]}}.
    """
    metric = case.module.metric
    befores, references, afters, outputs = [], [], [], []
    for fold, session in zip(case.folds, sessions, strict=True):
        before, reference = original(fold, split)
        recorder = Recorder(session)
        afters.append(fold.module.answers(recorder, split))
        befores.append(before)
        references.append(reference)
        outputs.append(recorder.outputs)
    before, after = np.concatenate(befores), np.concatenate(afters)
    interval = statistics.intervals(metric, before, after)
    found = {
        "metric": case.module.METRIC,
        "samples": len(before),
        "before": metric(before),
        "after": metric(after),
        "drop": metric(before) - metric(after),
        "interval": interval,
        "cosine": statistics.cosine(np.concatenate(references), np.concatenate(outputs)),
    }
    if case.classifies:
        same = recognition.right(np.concatenate(outputs), np.concatenate(references).argmax(1))
        found["agreement"] = recognition.metric(same)
        interval["agreement"] = statistics.interval(recognition.metric, same)
    if len(case.folds) > 1:
        pairs = zip(case.folds, befores, afters, strict=True)
        found["folds"] = {fold.fold.lower(): [metric(theirs), metric(ours)] for fold, theirs, ours in pairs}
    return found


def row(case: Case, method: Method, isa: str, compiled: Sequence[Compiled]) -> dict[str, Any]:
    """The row of the artifacts of a case's folds, without times; sizes and seconds are means."""
    reports = [each.report for each in compiled]
    layers = [layer for report in reports for layer in report.get("layers", ()) if layer["op"] != "attention"]
    lookups = sum(layer["form"] not in ("fp32", "int8") for layer in layers)
    seconds = [report["compile_seconds"] for report in reports if report.get("compile_seconds") is not None]
    return {
        **key(case, method, isa),
        "minutes": method.minutes,
        **judge(case, [lutc.InferenceSession(each.path, threads=1) for each in compiled]),
        "ratio_vs": {},
        "layers": f"{lookups} of {len(layers)}",
        "bytes": round(float(np.mean([Path(each.path).stat().st_size for each in compiled]))),
        "compile_seconds": round(float(np.mean(seconds)), 1) if seconds else None,
        **({"max_drop": method.max_drop, "budget_kept": all(c.kept for c in compiled)} if method.max_drop else {}),
    }


def key(case: Case, method: Method, isa: str) -> dict[str, Any]:
    """The fields that say which row it is."""
    return {"bench": "accuracy", "task": case.task, "model": case.model, "isa": isa, "form": method.form,
            "method": method.method, "minutes": method.minutes}  # fmt: skip
