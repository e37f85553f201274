"""Learning after a selection: from a bolder draft first, which stays only where it comes back into the budget."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lutc.build import Built
from lutc.drop import Drop, Scored
from lutc.forms import Form, LayerChoice
from lutc.progress import Progress
from lutc.select import Budget, Selection
from lutc.select.search import Trial

module = importlib.import_module("lutc.compile")  # lutc.compile itself is the function


def trial(name: str, drop: float) -> Trial:
    choice = LayerChoice("layer", SimpleNamespace(), "linear", 64, 64, Form.parse("gain-v4"), "")
    return Trial(name, {}, [choice], {}, Built(Path("/x") / f"{name}.lut", 1, []), 1.0, 0.1, 0.1, Drop(drop, drop))


def selections(bolder: float | None) -> Selection:
    kept = Selection(trial("kept", 0.008), True, 0.008, {}, {}, SimpleNamespace())
    if bolder is None:
        return kept
    return dataclasses.replace(kept, bolder=Selection(trial("bolder", bolder), False, bolder, {}, {}, kept.source))


@pytest.mark.parametrize(
    ("bolder", "learned", "name", "drop"),
    [
        (0.012, 0.009, "bolder", 0.009),  # learning brought it back
        (0.012, 0.011, "kept", 0.008),  # it did not: nothing else is learned, the promise holds
        (None, 0.005, "kept", 0.005),
    ],
)
def test_a_bolder_draft_goes_first(monkeypatch, bolder, learned, name, drop):
    built: list[Any] = []

    def build(choices: Any, source: Any, path: Path, **options: Any) -> Built:
        built.append(path)
        return Built(path, 1, [])

    monkeypatch.setattr(module, "_refiner", lambda *args: SimpleNamespace(report={"kept": True}))
    monkeypatch.setattr(module, "InferenceSession", lambda path: path)
    builder = SimpleNamespace(progress=Progress(), build=build)
    found, report = module._learned(
        builder,
        selections(bolder),
        None,
        1.0,
        Budget("score", 0.01, "s"),
        {},
        Scored.of(lambda session: 0.8 if session is None else 0.8 - learned, None),
        False,
    )
    assert found.trial.name == name and found.met and found.trial.drop.mean == pytest.approx(drop)
    assert len(built) == 1 and report["learn"]["kept"] == (found.trial.built.path == built[0])
