"""Is a budget kept? Random budgets: the artifact meets its own on the test split, or the compiler exits with 4."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from benchmarks.accuracy import judge, methods
from benchmarks.accuracy.methods import Skipped
from benchmarks.accuracy.tasks import Case

SMALLEST, LARGEST = 0.001, 0.1
"""Of the original's metric."""


def draws(count: int, seed: int = 0) -> list[float]:
    """Shares of the metric that may be lost, logarithmically uniform."""
    low, high = np.log([SMALLEST, LARGEST])
    return [round(float(v), 5) for v in np.exp(np.random.default_rng(seed).uniform(low, high, count))]


def test(cases: Sequence[Case], isa: str, count: int) -> Iterator[dict[str, Any]]:
    """Compiles for one budget after another, the models in turn.

    Yields:
        Rows: the budget (a drop of the metric), whether the compiler claims to have kept it on the selection split (in
        every fold), the drop on the test split, its interval, and `kept`: whether the budget lies within or above that.
    """
    for number, share in enumerate(draws(count)):
        case = cases[number % len(cases)]
        method = methods.budgeted(share)
        row: dict[str, Any] = {
            "bench": "accuracy budget",
            "task": case.task,
            "model": case.model,
            "isa": isa,
            "form": method.form,
        }
        budget = share * float(np.mean([judge.dense_score(fold) for fold in case.folds]))
        try:
            compiled = methods.compile_all(case, method, isa, judge.dense_score)
            judged = judge.row(case, method, isa, compiled)
        except Skipped as reason:
            yield {**row, "budget": budget, "skipped": str(reason)}
            continue
        low, _ = judged["interval"]["drop"]
        claimed = all(each.kept for each in compiled)
        row |= judged | {"bench": "accuracy budget", "budget": budget, "exit": 0 if claimed else methods.MISSED}
        row["kept"] = low <= budget if claimed else None
        print(line(row), file=sys.stderr, flush=True)
        yield row


def verdict(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One row: whether every claim held."""
    judged = [row for row in rows if "exit" in row]
    broken = [row for row in judged if row["kept"] is False]
    return {
        "bench": "accuracy budgets",
        "at": "verdict",
        "budgets": len(rows),
        "kept": sum(row["kept"] is True for row in judged),
        "declared_missed": sum(row["exit"] == methods.MISSED for row in judged),
        "broken": [f"{row['task']} {row['model']} {row['budget']:.4f}" for row in broken],
        "above_point_estimate": sum(row["exit"] == 0 and row["drop"] > row["budget"] for row in judged),
        "skipped": len(rows) - len(judged),
        "holds": bool(judged) and not broken,
    }


def line(row: dict[str, Any]) -> str:
    """A row for people."""
    low, high = row["interval"]["drop"]
    word = {True: "kept", False: "BROKEN", None: "said to be missed (exit 4)"}[row["kept"]]
    drop = f"drop {row['drop']:+.4f} [{low:+.4f}, {high:+.4f}]"
    return f"{row['task']:8}{row['model']:9} budget {row['budget']:.4f}  {drop}  {word}"
