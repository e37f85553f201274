"""Selection from end to end on a small network: budgets kept and missed, rules, resumption, nothing left behind."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import lutc
from lutc.cli import main
from lutc.errors import BudgetMissedError
from lutc.forms import Form
from lutc.select import curves
from tests.small_models import deep_mlp

WIDTH = 128
SHAPE = {"x": (128, WIDTH)}


def network_samples(count: int, seed: int) -> np.ndarray:
    basis = np.random.default_rng(8).normal(size=(24, WIDTH))
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(count, 24)) @ basis + 0.3 * rng.normal(size=(count, WIDTH))).astype(np.float32)


def minus_divergence(session: object) -> float:
    """A score for tests: minus the outputs' divergence on samples of its own."""
    x = network_samples(200, seed=5)
    original = onnxruntime.InferenceSession(deep_mlp(3, WIDTH).SerializeToString(), providers=["CPUExecutionProvider"])
    want, got = original.run(None, {"x": x})[0], session.run(None, {"x": x})[0]  # type: ignore[attr-defined]
    return -float(((want - got) ** 2).sum() / ((want - want.mean(0)) ** 2).sum())


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """deep.onnx (layer0 .. layer2), samples, checkpoints of the first selection in res/, its artifact and report."""
    path = tmp_path_factory.mktemp("selection")
    onnx.save(deep_mlp(3, WIDTH), path / "deep.onnx")
    np.savez(path / "calib.npz", x=network_samples(900, seed=1))
    report = select(path, "selected.lut", preset="fast").report
    (path / "selected.json").write_text(json.dumps(report))
    return path


def select(folder: Path, name: str, **arguments):
    arguments = {"resume": folder / "res", "time_shape": SHAPE, "threads": 1, **arguments}
    return lutc.compile(folder / "deep.onnx", calib=folder / "calib.npz", output=folder / name, **arguments)


@pytest.fixture
def selected(folder) -> dict:
    return json.loads((folder / "selected.json").read_text())


def forms(report: dict) -> dict[str, str]:
    return {row["name"]: row["form"] for row in report["layers"]}


def test_the_budget_is_kept_on_samples_of_ones_own(folder, selected):
    budget = selected["selection"]["budget"]
    assert budget["metric"] == "divergence" and 0 < budget["spent"] <= budget["limit"]
    assert -minus_divergence(lutc.load(folder / "selected.lut")) < 1.5 * budget["limit"]


def test_lookups_are_chosen_where_they_are_predicted_to_be_faster(selected):
    chosen = {name: Form.parse(form) for name, form in forms(selected).items()}
    for layer in selected["selection"]["layers"]:
        us = {c["form"]: c["us"] for c in layer["candidates"]}
        assert us[layer["chosen"]] <= 1.001 * us["int8"]
    faster = [c for layer in selected["selection"]["layers"] for c in layer["candidates"] if "-v" in c["form"]]
    assert not faster or any(not form.dense for form in chosen.values())


def test_the_report_tells_what_was_weighed(selected):
    selection = selected["selection"]
    points = {point["name"]: point for point in selection["points"]}
    assert sum(point["chosen"] for point in points.values()) == 1
    best = next(point for point in points.values() if point["chosen"])
    assert best["us_predicted"] <= points["all int8"]["us_predicted"]
    assert points["fp32"]["divergence"] < points["all int8"]["divergence"] < best["divergence"]
    assert selection["time_shape"] == {"x": [128, WIDTH]}
    for row in selected["layers"]:
        assert row["why"] and row["us_predicted"] > 0 and row["divergence"] >= 0


def test_nothing_but_the_artifact_is_left(folder):
    assert {path.name for path in folder.iterdir()} >= {"selected.lut", "deep.onnx", "calib.npz", "res"}
    assert not list(folder.glob(".*"))


def test_the_artifact_holds_what_the_report_says_but_no_measured_times(folder, selected):
    stored = json.loads(lutc.load(folder / "selected.lut").metadata("lutc.report"))
    assert [row["form"] for row in stored["layers"]] == list(forms(selected).values())
    assert all("us" not in row for row in stored["layers"])


def test_what_was_tried_is_not_tried_again(folder, monkeypatch):
    def never(*_args, **_more):
        raise AssertionError("a candidate was fitted again")

    monkeypatch.setattr(curves, "fit_linear", never)
    again = select(folder, "again.lut", preset="fast")
    assert again.path.read_bytes() == (folder / "selected.lut").read_bytes()


def test_rules_are_kept(folder):
    report = select(folder, "rules.lut", preset="fast", keep=["layer0=fp32"], form=["layer2=gain-v2"]).report
    assert forms(report)["layer0"] == "fp32" and forms(report)["layer2"] == "gain-v2"
    assert "--keep" in report["layers"][0]["why"] and "--form" in report["layers"][2]["why"]


def test_a_missed_budget_keeps_the_artifact_and_says_what_costs(folder, capsys):
    flags = ["compile", folder / "deep.onnx", "--calib", folder / "calib.npz", "-o", folder / "missed.lut", "--json"]
    flags += ["--form", "layer1=plain-v16", "--preset", "accurate", "--resume", folder / "res", "-q"]
    assert main([*map(str, flags), "--time-shape", f"x=128x{WIDTH}", "--threads", "1"]) == 4
    out = capsys.readouterr()
    error = json.loads(out.out)["error"]
    assert "--keep '^layer1$=fp32'" in error and (folder / "missed.lut").exists()
    assert lutc.load(folder / "missed.lut").get_outputs()


@pytest.mark.parametrize("limit", [0.02, 0.2])
def test_a_drop_of_the_score_is_a_budget(folder, limit):
    result = select(folder, "score.lut", score=minus_divergence, max_drop=limit)
    assert result.report["score"]["drop"] <= limit and result.report["selection"]["budget"]["metric"] == "score"
    assert minus_divergence(lutc.load(result.path)) == pytest.approx(-result.report["score"]["drop"], abs=1e-5)


def test_a_drop_that_cannot_be_kept(folder):
    with pytest.raises(BudgetMissedError, match="score"):
        select(folder, "never.lut", score=minus_divergence, max_drop=-1.0)
    assert (folder / "never.lut").exists()


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (["--time-shape", "y=1x2"], "y"),
        (["--time-shape", "x=1x2x3"], "--time-shape"),
        (["--time-shape", f"x=1x{WIDTH + 1}"], "not 129"),
        (["--time-shape", "x"], "--time-shape"),
    ],
)
def test_bad_time_shapes(folder, capsys, flags, word):
    arguments = ["compile", folder / "deep.onnx", "--calib", folder / "calib.npz", "-o", folder / "bad.lut", "-q"]
    assert main([*map(str, arguments), *flags]) == 2
    assert word in capsys.readouterr().err
