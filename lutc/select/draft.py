"""The measured candidates of all layers, and drafts: one form for each."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from lutc.cost import CostModel, LayerShape
from lutc.forms import FP32, INT8, Form, LayerChoice, with_attention
from lutc.select.candidates import EXPECTED, EXPECTED_INT8, MOVES, Layers, Priced, seconds_of
from lutc.select.curves import Curves, Point, point_of
from lutc.select.slope import Option, allocate

_REPRICINGS = 4


def expected_points(priced: Layers, curves: Curves) -> dict[str, list[Point]]:
    """What candidates lose or, where they have not been tried, are expected to: enough to guess a first draft.

    Args:
        priced: Candidates.
        curves: Those that have been tried: what a layer's others are expected to lose is in proportion to them.

    Returns:
        Points of every candidate by layer name.
    """
    share = MOVES / max(len(priced), 1)

    def guess(item: Priced, factor: float = 1.0) -> Point:
        dense = 0.0 if item.form == FP32 else EXPECTED_INT8
        error = dense if item.form.dense else EXPECTED.get(str(item.form), 0.0)
        return Point(item.form, item.seconds, item.bytes, error, factor * share * error)

    def points(name: str, items: Sequence[Priced]) -> list[Point]:
        tried = {item.form: found for item in items if (found := curves.get(name, item.form)) is not None}
        lookups = [item for item in items if item.form in tried and not item.form.dense]
        real = sum(tried[item.form]["divergence"] for item in lookups)
        factor = real / max(sum(guess(item).divergence for item in lookups), 1e-30) if lookups else 1.0
        return [point_of(item, tried[item.form]) if item.form in tried else guess(item, factor) for item in items]

    return {choice.name: points(choice.name, items) for choice, items in priced.values()}


@dataclasses.dataclass(frozen=True)
class Draft:
    """A form for each layer.

    Attributes:
        forms: By layer name; without attention.
        points: Likewise, what is known of it.
        seconds: Predicted, of all layers.
        divergence: Sum over all layers.
    """

    forms: dict[str, Form]
    points: dict[str, Point]
    seconds: float
    divergence: float


@dataclasses.dataclass
class Table:
    """What a selection chooses from.

    Attributes:
        layers: All layers as `choose_layers` gave them, in graph order; forms do not matter where the user fixed none.
        points: Candidates by layer name, for all layers but attention.
        shapes: By layer name, where a run executes the layer.
        cost: Prices.
        rest_bytes: Of constants that belong to no layer.
        integer_attention: Whether attention may be in integers.
    """

    layers: Sequence[LayerChoice]
    points: Mapping[str, Sequence[Point]]
    shapes: Mapping[str, LayerShape]
    cost: CostModel
    rest_bytes: float
    integer_attention: bool = True

    def is_fixed(self, name: str) -> bool:
        """Whether the user named the layer's form."""
        return len(self.points[name]) < 2

    def alike(self, name: str) -> list[str]:
        """The layers of this one's shape, itself among them."""
        shape = self.shapes.get(name)
        return [name] if shape is None else [other for other in self.points if self.shapes.get(other) == shape]

    def has_choice(self) -> bool:
        """Whether any layer has more than one candidate."""
        return any(len(points) > 1 for points in self.points.values())

    def uniform(self, form: Form) -> Draft:
        """Every layer in this form where it can be; in fp32, or as the user fixed it, elsewhere."""

        def pick(points: Sequence[Point]) -> Point:
            return next((point for point in points if point.form == form), points[0])

        return self._priced({name: pick(points) for name, points in self.points.items()})

    def level(self, form: Form, reverted: Mapping[str, Collection[Form]]) -> Draft:
        """The least time of each layer by itself in int8, in this form or in lookups that are expected to lose less.

        Args:
            form: One of `candidates.EXPECTED`.
            reverted: Forms that are out of question, by layer name.
        """
        most = EXPECTED[str(form)]

        def pick(name: str) -> Point:
            usable = [p for p in self.points[name] if p.form not in reverted.get(name, ())]
            fine = [p for p in usable if p.form.dense or EXPECTED.get(str(p.form), math.inf) <= most]
            return min(fine or usable, key=lambda point: point.seconds)

        return self._priced({name: pick(name) for name in self.points})

    def draft(self, target: float, reverted: Mapping[str, Collection[Form]]) -> Draft:
        """The least predicted time whose layers' divergences sum up to at most `target`.

        Args:
            target: Sum of divergences.
            reverted: Forms that are out of question, by layer name.
        """
        names = list(self.points)
        usable = [[p for p in self.points[name] if p.form not in reverted.get(name, ())] for name in names]
        draft = self.uniform(INT8)
        for _ in range(_REPRICINGS):  # tables of all layers together decide from where each one's arrive
            total = self.total_bytes(draft.points)
            options = [
                [Option(self._seconds(name, point.form, total), point.divergence) for point in points]
                for name, points in zip(names, usable, strict=True)
            ]
            picks = allocate(options, target)
            found = self._priced({n: points[i] for n, points, i in zip(names, usable, picks, strict=True)})
            if found.forms == draft.forms:
                break
            draft = found
        return draft

    def total_bytes(self, points: Mapping[str, Point]) -> float:
        """Of all constants of a draft."""
        return self.rest_bytes + sum(point.bytes for point in points.values())

    def _seconds(self, name: str, form: Form, total: float) -> float:
        return seconds_of(form, self.shapes.get(name), self.cost, total)

    def _priced(self, points: dict[str, Point]) -> Draft:
        total = self.total_bytes(points)
        priced = {
            name: dataclasses.replace(point, seconds=self._seconds(name, point.form, total))
            for name, point in points.items()
        }
        seconds = sum(point.seconds for point in priced.values())
        for layer in self._with_attention(self._chosen(priced)):
            if layer.kind == "attention":
                seconds += self._seconds(layer.name, layer.form, total)
        forms = {name: point.form for name, point in priced.items()}
        return Draft(forms, priced, seconds, sum(point.divergence for point in priced.values()))

    def _chosen(self, points: Mapping[str, Point]) -> list[LayerChoice]:
        """The layers in these forms; attention without integers unless the user named its form."""
        made = []
        for layer in self.layers:
            if layer.name in points:
                made.append(dataclasses.replace(layer, form=points[layer.name].form))
            elif layer.fixed:
                made.append(layer)
            else:
                made.append(dataclasses.replace(layer, form=FP32, why="float32: its integers would cost too much"))
        return made

    def _with_attention(self, layers: list[LayerChoice]) -> list[LayerChoice]:
        return with_attention(layers) if self.integer_attention else layers

    def choices(self, draft: Draft) -> list[LayerChoice]:
        """What to build, with reasons."""
        int8 = self.uniform(INT8)
        total = sum(point.divergence for point in draft.points.values()) or 1.0
        made = []
        for layer in self._chosen(draft.points):
            if layer.name in draft.points and not self.is_fixed(layer.name):
                why = self._why(layer.name, draft.points[layer.name], int8.points[layer.name], total)
                layer = dataclasses.replace(layer, why=why)  # noqa: PLW2901
            made.append(layer)
        return self._with_attention(made)

    def _why(self, name: str, point: Point, int8: Point, total: float) -> str:
        percent = 100 * point.divergence / total
        share = f"{percent:.0f} % of the divergence" if percent >= 10 else f"{percent:.1g} % of the divergence"
        if point.form == int8.form:
            rivals = [rival for rival in self.points[name] if not rival.form.dense]
            return f"no lookups are faster; {share}" if not rivals else f"lookups would cost too much; {share}"
        if point.seconds <= 0 or int8.seconds <= 0:
            return share
        return f"{int8.seconds / point.seconds:.1f}x {int8.form}; {share}"

    def rows(self, draft: Draft) -> dict[str, dict[str, Any]]:
        """More entries for the report's rows: predicted time, divergence, and errors that no fit will tell."""
        found: dict[str, dict[str, Any]] = {}
        for name, point in draft.points.items():
            found[name] = {
                "us_predicted": round(point.seconds * 1e6, 2),
                "divergence": float(f"{point.divergence:.4g}"),
            }
            if point.form.dense:
                found[name]["error"] = float(f"{point.error:.4g}")
        return found

    def summary(self, forms: Mapping[str, Form]) -> str:
        """How many layers have which form."""
        counts: dict[str, int] = {}
        for form in forms.values():
            counts[str(form)] = counts.get(str(form), 0) + 1
        return ", ".join(f"{count} {form}" for form, count in sorted(counts.items(), key=lambda item: -item[1]))
