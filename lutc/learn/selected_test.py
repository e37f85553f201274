"""Learning after a selection: a bolder draft first, kept only inside the budget, with layers in int8 if need be."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lutc.build import Built
from lutc.drop import Drop, Scored
from lutc.forms import INT8, Form, LayerChoice
from lutc.learn import selected
from lutc.learn.selected import SelectedLearning
from lutc.progress import Progress
from lutc.select import Budget, Selection
from lutc.select.curves import Point
from lutc.select.search import Trial

V4, V8 = map(Form.parse, ("gain-v4", "gain-v8"))
SECONDS = {INT8: 100.0, V4: 60.0, V8: 40.0}
LAYERS = ("a", "b", "c", "d")


def trial(name: str, form: Form, drop: float) -> Trial:
    choices = [LayerChoice(layer, SimpleNamespace(), "linear", 64, 64, form, "") for layer in LAYERS]  # type: ignore[arg-type]
    divergence = {"a": 0.04, "b": 0.03, "c": 0.02, "d": 0.01} if form != INT8 else dict.fromkeys(LAYERS, 1e-4)
    points = {layer: Point(form, SECONDS[form], 1, 0.0, divergence[layer]) for layer in LAYERS}
    built = Built(Path("x") / f"{name}.lut", 1, [])
    total = SECONDS[form] * len(LAYERS)
    return Trial(name, dict.fromkeys(LAYERS, form), choices, points, built, total, 0.1, 0.1, Drop(drop, drop))


def selections(bolder: float | None) -> Selection:
    def selection(found: Trial, met: bool, bolder: Selection | None = None) -> Selection:
        assert found.drop is not None
        rows = {layer: {"us": 5.0, "us_int8": 9.0} for layer in LAYERS}
        return Selection(found, met, found.drop.mean, rows, {}, source, int8, bolder)

    source, int8 = SimpleNamespace(), trial("int8", INT8, 0.0)  # type: ignore[var-annotated]
    if bolder is None:
        return selection(trial("kept", V4, 0.008), True)
    return selection(trial("kept", V4, 0.008), True, selection(trial("bolder", V8, bolder), False))


@pytest.mark.parametrize(
    ("bolder", "learned", "name", "back"),
    [
        (0.02, 0.009, "bolder", ()),  # learning brought it back
        (0.02, 0.012, "bolder", ("a",)),  # and the dearest layer in int8
        (0.02, 0.018, "kept", ()),  # too many would have to go: what was selected is faster
        (None, 0.005, "kept", ()),
    ],
)
def test_a_bolder_draft_goes_first(monkeypatch, bolder, learned, name, back):
    made: list[Any] = []

    class Fits:
        progress, graph = Progress(), None

        def fit(self, choices: Any, source: Any, **options: Any) -> dict[str, float]:
            return {"a": 0.4, "b": 0.3, "c": 0.2, "d": 0.1}

        def finish(self, fitted: Any, choices: Any, path: Path, **options: Any) -> Built:
            made.append((path, fitted))
            return Built(path, 1, [])

    class Learner:
        def __init__(self, *arguments: Any) -> None:
            self.report = {"kept": True}

        def __call__(self, fitted: Any) -> Any:
            return {layer: share * learned for layer, share in fitted.items()}

    def without(fitted: Any, original: Any, layers: Any) -> Any:
        names = {layer.name for layer in layers}
        return {name: lost for name, lost in fitted.items() if name not in names}

    monkeypatch.setattr(selected, "Refiner", Learner)
    monkeypatch.setattr(selected, "dense_again", without)
    monkeypatch.setattr(selected, "InferenceSession", lambda path: sum(dict(made)[path].values()))
    scored = Scored.of(lambda session: 0.8 if session is None else 0.8 - session, None)
    learning = SelectedLearning(Fits(), SimpleNamespace(), 1.0, Budget("score", 0.01, "s"), {}, scored)  # type: ignore[arg-type]
    found, report = learning.run(selections(bolder))
    assert found.trial.name == name and found.met and found.trial.drop.most <= 0.01
    assert report["learn"]["kept"] == (name == "bolder" or bolder is None)
    if name == "bolder":
        dense = tuple(choice.name for choice in found.trial.choices if choice.form == INT8)
        assert dense == back == tuple(layer for layer, row in found.rows.items() if row["us"] == 9.0)
        assert found.trial.predicted == 160 + 60 * len(back)
