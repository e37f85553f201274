"""Learning after a selection.

Under a score a bolder draft goes first. Where learning does not bring it into the budget, layers of it go back to int8,
those first whose lookups cost most for the time they save; it is kept if it is still faster than what was selected.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from lutc.build import Builder
from lutc.drop import Scored
from lutc.fit import FitResult
from lutc.forms import INT8, LayerChoice
from lutc.learn.dense_again import dense_again
from lutc.learn.refine import Refiner
from lutc.observe import CalibrationSource
from lutc.select import Budget, Selection
from lutc.select.search import Trial
from lutc.session import InferenceSession

_RETURNS = 5
"""Times that more layers go back to int8 at most."""

_AIM, _STEP = 0.9, 0.9
"""What is left is to lose this part of the budget, and each time at most this part of what it was to lose before."""

_WORTH = 0.985
"""Part of the selection's predicted time that a learned draft must stay below."""


@dataclasses.dataclass(frozen=True)
class SelectedLearning:
    """How selections are learned.

    Attributes:
        builder: Of the model's artifacts.
        source: Unlabelled samples.
        minutes: To spend.
        budget: To be kept.
        report: What every artifact says of itself beside its layers.
        scored: The user's score of the original, if there is one.
        save_onnx: Whether each artifact has its ONNX model beside it.
    """

    builder: Builder
    source: CalibrationSource
    minutes: float
    budget: Budget
    report: Mapping[str, Any]
    scored: Scored | None
    save_onnx: bool = False

    def run(self, selection: Selection) -> tuple[Selection, dict[str, Any]]:
        """Learns a selection, or the bolder one that comes with it.

        Returns:
            The one to keep, and `{"learn": ...}` for the report.
        """
        bolder = selection.bolder if selection.met else None
        begun = bolder or selection
        if all(choice.form.dense for choice in begun.trial.choices):
            self.builder.progress.note("learn: no layer has lookups, there is nothing to learn")
            return selection, {}
        refiner = Refiner(self.builder, begun.trial.choices, self.source, self.minutes)
        fitted = self.builder.fit(begun.trial.choices, begun.source, budget=1 << 62)
        learned = refiner(fitted)
        found = self._built(begun, learned, "learned") if refiner.report["kept"] else begun
        if bolder is None or found.met:
            return found, {"learn": refiner.report}
        inside = self._returned(found, learned, selection.trial)
        if inside is None:
            self.builder.progress.note("learn: the faster draft stays outside the budget: the selection is kept")
            return selection, {"learn": {**refiner.report, "kept": False}}
        return inside, {"learn": refiner.report}

    def _built(self, selection: Selection, fitted: FitResult, name: str) -> Selection:
        """The artifact of a selection's choices, measured."""
        trial = selection.trial
        path = trial.built.path.with_name(f"{name}.lut")
        built = self.builder.finish(
            fitted, trial.choices, path, report=self.report, rows=selection.rows,
            save_onnx=path.with_suffix(".onnx") if self.save_onnx else None,
        )  # fmt: skip
        drop, met, loss = trial.drop, selection.met, selection.loss
        if self.scored is not None:
            drop = self.scored.drop(InferenceSession(path))
            if self.budget.metric == "score":
                met, loss = self.budget.holds(drop.most), drop.most
        trial = dataclasses.replace(trial, built=built, drop=drop)
        return dataclasses.replace(selection, trial=trial, met=met, loss=loss)

    def _returned(self, selection: Selection, learned: FitResult, safe: Trial) -> Selection | None:
        """The same with so many layers in int8 that it keeps the budget; None where it is no faster then."""
        order = _dearest_first(selection)
        costs = [selection.trial.points[choice.name].divergence for choice in order]
        share = 1.0
        found = selection
        for number in range(_RETURNS):
            share *= min(_AIM * self.budget.limit / found.loss, _STEP) if found.loss > 0 else _STEP
            back = _first(costs, (1 - share) * sum(costs))
            found = _with_int8(selection, order[:back])
            if back == len(order) or found.trial.predicted > _WORTH * safe.predicted:
                return None
            found = self._built(found, dense_again(learned, self.builder.graph, order[:back]), f"returned-{number}")
            self.builder.progress.note(
                f"learn: {back} of {len(order)} layers with lookups back in int8: drop of the score {found.trial.drop}"
            )
            if found.met:
                return found
        return None


def _dearest_first(selection: Selection) -> list[LayerChoice]:
    """Layers with lookups by the time that they save for what they move the outputs, least first."""
    points, int8 = selection.trial.points, selection.int8.points

    def saved(choice: LayerChoice) -> float:
        ours, dense = points[choice.name], int8[choice.name]
        return (dense.seconds - ours.seconds) / max(ours.divergence - dense.divergence, 1e-12)

    lookups = [choice for choice in selection.trial.choices if not choice.form.dense and not choice.fixed]
    return sorted(lookups, key=saved)


def _first(costs: Sequence[float], target: float) -> int:
    """How many of the first costs add up to the target; at least one."""
    total = 0.0
    for count, cost in enumerate(costs, 1):
        total += cost
        if total >= target:
            return count
    return len(costs)


def _with_int8(selection: Selection, layers: Sequence[LayerChoice]) -> Selection:
    """The selection with other forms, not built yet."""
    trial, int8 = selection.trial, selection.int8
    names = {layer.name for layer in layers}
    why = "in int8 again: learning did not make its lookups good enough"
    choices = [dataclasses.replace(c, form=INT8, why=why) if c.name in names else c for c in trial.choices]
    points = {name: int8.points[name] if name in names else point for name, point in trial.points.items()}
    more = sum(int8.points[name].seconds - trial.points[name].seconds for name in names)
    changed = dataclasses.replace(
        trial,
        choices=choices,
        forms={name: points[name].form for name in trial.forms},
        points=points,
        predicted=trial.predicted + more,
        expected=sum(point.divergence for point in points.values()),
    )
    rows = {
        name: {**row, "us": row["us_int8"]} if name in names and "us_int8" in row else row
        for name, row in selection.rows.items()
    }
    return dataclasses.replace(selection, trial=changed, rows=rows)
