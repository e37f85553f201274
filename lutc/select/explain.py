"""What a selection says of itself: rows of layers, and the whole accuracy-time curve."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lutc.cost import ModelShapes
from lutc.forms import INT8
from lutc.select.search import Search, Trial

_CURVE = 24
"""Predicted points of the curve."""


def measured_rows(search: Search, best: Trial) -> dict[str, dict[str, Any]]:
    """Measured entries of the rows of the layers: us and us_int8, where times were measured."""
    int8 = search.trials[0].layers
    return {
        name: {"us": _us(seconds), **({"us_int8": _us(int8[name])} if name in int8 else {})}
        for name, seconds in best.layers.items()
    }


def selection_report(
    search: Search, best: Trial, times: Mapping[str, tuple[int, ...]], shapes: ModelShapes
) -> dict[str, Any]:
    """`report["selection"]`: points, layers, budget, time_shape, reverted.

    A point is {name, us, us_predicted, divergence, drop, measured, chosen, forms}; a layer is {name, chosen,
    candidates: [{form, us, bytes, error, divergence}]}; the budget is {metric, limit, name, spent}.

    Args:
        search: Finished.
        best: The trial that was kept.
        times: Input shapes for which time counts.
        shapes: Of the layers, with the time of everything else.
    """
    rest = shapes.rest_seconds
    points: list[dict[str, Any]] = []
    for trial in search.trials:
        predicted = _us(trial.predicted + rest)
        points.append(
            {
                "name": trial.name,
                "us": predicted if trial.seconds is None else _us(trial.seconds),
                "us_predicted": predicted,
                "divergence": _short(trial.divergence),
                "drop": None if trial.drop is None else trial.drop.mean,
                "measured": trial.seconds is not None,
                "chosen": trial is best,
                "forms": search.table.summary(trial.forms),
            }
        )
    draft = search.table.draft(best.expected, search.reverted)
    chosen = {name: point for name, point in draft.points.items()}
    return {
        "points": points + _predicted_curve(search, rest),
        "layers": [
            {
                "name": name,
                "chosen": str(best.forms[name]),
                "candidates": [
                    {
                        "form": str(point.form),
                        "us": _us(point.seconds),
                        "bytes": point.bytes,
                        "error": _short(point.error),
                        "divergence": _short(point.divergence),
                    }
                    for point in candidates
                ],
            }
            for name, candidates in search.table.points.items()
            if name in chosen
        ],
        "budget": {
            "metric": search.budget.metric,
            "limit": search.budget.limit,
            "name": search.budget.name,
            "spent": best.loss(search.budget),
        },
        "time_shape": {name: list(shape) for name, shape in times.items()},
        "reverted": {name: sorted(map(str, forms)) for name, forms in search.reverted.items()},
    }


def _predicted_curve(search: Search, rest: float) -> list[dict[str, Any]]:
    """Drafts at rising targets that nobody built: each faster than the one before."""
    table = search.table
    most = sum(max(p.divergence for p in points) for points in table.points.values())
    least = table.uniform(INT8).divergence
    found: list[dict[str, Any]] = []
    seen = {tuple(trial.forms.items()) for trial in search.trials}
    last = float("inf")
    for step in range(_CURVE):
        low = max(least / 4, most * 1e-5, 1e-12)
        target = low * (max(most, low) / low) ** (step / (_CURVE - 1))
        draft = table.draft(target, search.reverted)
        if tuple(draft.forms.items()) in seen or draft.seconds >= last:
            continue
        seen.add(tuple(draft.forms.items()))
        last = draft.seconds
        found.append(
            {
                "name": f"predicted {len(found) + 1}",
                "us": _us(draft.seconds + rest),
                "us_predicted": _us(draft.seconds + rest),
                "divergence": _short(draft.divergence),
                "drop": None,
                "measured": False,
                "chosen": False,
                "forms": table.summary(draft.forms),
            }
        )
    return found


def conclusion(search: Search, best: Trial) -> list[str]:
    """What became of the search, a line each."""
    budget, loss = search.budget, best.loss(search.budget)
    first = search.trials[0]
    line = f"kept {best.name}: {search.table.summary(best.forms)}; {loss:.4g} of {budget.limit:g} spent"
    if not budget.holds(loss):
        line = f"nothing keeps {budget}; the most accurate is {best.name}, which loses {loss:.4g}"
    # What the result is compared with must keep the budget itself.
    name, rival = ("all-int8", first) if budget.holds(first.loss(budget)) else ("fp32", search.baselines()[-1])
    if best.seconds and rival.seconds:
        line += f"; {rival.seconds / best.seconds:.2f}x {name} measured"
        line += f", {rival.predicted / best.predicted:.2f}x predicted for the layers" if best.predicted else ""
    lines = [line]
    if all(form.dense for form in best.forms.values()):
        tried = any(not point.form.dense for points in search.table.points.values() for point in points)
        lines.append(
            "no lookups: none keep the budget and save time"
            if tried
            else "no lookups: dense int8 or fp32 is faster in every layer, on this target at these shapes"
        )
    return lines


def _us(seconds: float) -> float:
    return round(seconds * 1e6, 2)


def _short(value: float) -> float:
    return float(f"{value:.4g}")
