"""The compiler's report as the page needs it: every field typed, whatever is missing None.

`report["selection"]`, where there is one, holds

    points      [{name, us, divergence, drop, measured, chosen, forms}]: whole models that were weighed
    layers      [{name, chosen, candidates: [{form, us, bytes, error, divergence}]}]
    budget      {metric ("divergence" or "score"), limit, name}
    time_shape  sizes by input name
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from lutc.forms import DENSE_FORMS
from lutc.report_page.facts import Facts


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A form that a layer could take: time in microseconds, size in bytes, error of the layer, of the output."""

    form: str
    us: float | None
    bytes: float | None
    error: float | None
    divergence: float | None


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer as it was compiled."""

    name: str
    op: str
    form: str
    why: str
    bytes: float | None
    bytes_dense: float | None
    error: float | None
    divergence: float | None
    us: float | None
    us_int8: float | None
    candidates: Sequence[Candidate]

    @property
    def family(self) -> str:
        """Which kind of form it took: "lookup", "int" or "fp32"."""
        return "fp32" if self.form == "fp32" else "int" if self.form == "int8" else "lookup"


@dataclasses.dataclass(frozen=True)
class Point:
    """A whole model that was weighed: time in microseconds, what it loses, how many layers took which form."""

    name: str
    forms: str
    us: float
    loss: float
    measured: bool
    chosen: bool


@dataclasses.dataclass(frozen=True)
class View:
    """What the page shows.

    Attributes:
        layers: In graph order.
        points: By rising time.
        loss_name: What the points lose: "drop of the score" or "divergence of the outputs".
        limit: Of that loss; None without a budget.
        time_shape: Of the inputs that times are for.
        score: {reference, compiled, drop} or None.
        bytes: Of the artifact.
        dense_bytes: Of the original's constants.
        target: The ISA that the tables are laid out for.
        how: The preset, or other words for how forms were chosen.
    """

    layers: Sequence[Layer]
    points: Sequence[Point]
    loss_name: str
    limit: float | None
    time_shape: str
    score: Mapping[str, float] | None
    bytes: float | None
    dense_bytes: float | None
    target: str
    how: str

    @property
    def chosen(self) -> Point | None:
        """The model that was kept, among the points."""
        return next((point for point in self.points if point.chosen), None)

    def us_of(self, name: str) -> float | None:
        """Time of the model with every layer in this form."""
        return next((point.us for point in self.points if point.name in (name, f"all {name}")), None)


def view(report: Mapping[str, Any], facts: Facts) -> View:
    """Reads the report; entries of an unexpected kind count as missing."""
    selection = report.get("selection") or {}
    weighed = {str(row.get("name")): row for row in selection.get("layers", ())}
    layers = [_layer(row, weighed.get(str(row.get("name")), {}), facts) for row in report.get("layers", ())]
    budget = selection.get("budget") or {}
    drops = [row for row in selection.get("points", ()) if _real(row.get("drop")) is not None]
    field = "drop" if budget.get("metric") == "score" and len(drops) > 1 else "divergence"
    points = [made for row in selection.get("points", ()) if (made := _point(row, field))]
    fits = (budget.get("metric") == "score") == (field == "drop")
    return View(
        layers=layers,
        points=sorted(points, key=lambda point: (point.us, point.loss, point.name)),
        loss_name="drop of the score" if field == "drop" else "divergence of the outputs",
        limit=_real(budget.get("limit")) if fits else None,
        time_shape=shape_text(selection.get("time_shape")) or (facts.times.shape if facts.times else ""),
        score=report.get("score"),
        bytes=_real(report.get("bytes")),
        dense_bytes=_real(report.get("dense_bytes")),
        target=str(report.get("target", "")),
        how=f"preset {report['preset']}" if report.get("preset") else "",
    )


def shape_text(shapes: object) -> str:
    """Sizes by input name for people: "input_ids 1 x 128"."""
    if isinstance(shapes, Mapping):
        sizes = {name: " \u00d7 ".join(map(str, shape)) for name, shape in shapes.items()}
        if len(set(sizes.values())) == 1 and len(sizes) > 1:
            return f"every input {next(iter(sizes.values()))}"
        return ", ".join(f"{name} {shape}" for name, shape in sizes.items())
    return str(shapes or "")


def _layer(row: Mapping[str, Any], weighed: Mapping[str, Any], facts: Facts) -> Layer:
    candidates = [
        Candidate(
            str(each.get("form", "")),
            *(_real(each.get(field)) for field in ("us", "bytes", "error", "divergence")),
        )
        for each in weighed.get("candidates", ())
    ]
    name, form = str(row.get("name", "")), str(row.get("form", ""))
    mine = next((each for each in candidates if each.form == form), None)
    int8 = next((each for each in candidates if each.form == "int8"), None)
    times = facts.times
    us = times.layers.get(name) if times else None
    us_int8 = times.layers_int8.get(name) if times else None
    if us is None:
        us, us_int8 = _real(row.get("us")), _real(row.get("us_int8"))
    if us is None:  # times of one kind only: a prediction beside a measurement would mislead
        us, us_int8 = (mine.us if mine else None), (int8.us if int8 else None)
    return Layer(
        name=name,
        op=str(row.get("op", "")),
        form=form,
        why=str(row.get("why", "")),
        bytes=_real(row.get("bytes")),
        bytes_dense=_real(row.get("bytes_dense")),
        error=_real(row.get("error")),
        divergence=_first(_real(row.get("divergence")), mine.divergence if mine else None),
        us=us,
        us_int8=us_int8 if form not in DENSE_FORMS else None,
        candidates=candidates,
    )


def _point(row: Mapping[str, Any], field: str) -> Point | None:
    us, loss = _real(row.get("us")), _real(row.get(field))
    if us is None or loss is None:
        return None
    name, forms = str(row.get("name", "")), row.get("forms") or ""
    if isinstance(forms, Mapping):
        forms = ", ".join(f"{count} {form}" for form, count in forms.items())
    return Point(name, str(forms), us, loss, bool(row.get("measured")), bool(row.get("chosen")))


def _first(*values: float | None) -> float | None:
    """The first that is there."""
    return next((value for value in values if value is not None), None)


def _real(value: object) -> float | None:
    """A finite number, or None."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return None
