import onnx
import pytest

import lutc
from benchmarks import cifar10, onnx_pack, recognition
from benchmarks.accuracy import __main__ as command
from benchmarks.accuracy import methods, never_slower
from benchmarks.result_files import load
from lutc import _runtime
from tests.small_models import deep_mlp


@pytest.fixture
def pack(tmp_path, monkeypatch):
    """A data folder with one model that compiles and one that does not."""
    folder = tmp_path / "data" / "onnx" / "a"
    folder.mkdir(parents=True)
    onnx.save(deep_mlp(3, 64), folder / "deep.onnx")
    strange = deep_mlp(1, 16)
    strange.graph.node[-1].op_type = "Det"  # ONNX has it, lutc has not
    onnx.save(strange, folder / "strange.onnx")
    monkeypatch.setenv("LUTC_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(methods, "FOLDER", tmp_path / "work")
    monkeypatch.setattr(never_slower, "FOLDER", tmp_path / "work")
    return tmp_path


def test_rows_of_every_model_and_a_verdict(pack, monkeypatch):
    monkeypatch.setattr(never_slower, "_SLICE_S", 0.001)
    monkeypatch.setattr(never_slower, "NOISE", 0.5)  # this test measures nothing
    output = pack / "rows.json"
    isa = _runtime.available_isas()[-1]
    status = command.main(["--never-slower", "--isa", isa, "--samples", "6", "--output", str(output)])
    found = load(output)
    row, verdict = found["rows"]
    assert status == 0 and verdict["holds"] and verdict["compiled"] == 1
    assert (row["model"], row["form"], row["samples"]) == ("deep", "fast", "random")
    assert row["ratio"] > 0.5 and row["ours_us"] > 0 and row["layers"].split(" ")[0].isdigit()
    assert any("strange" in name for name in found["skipped"])


def test_where_int8_misses_the_budget_it_is_met_under_its_own(pack, monkeypatch):
    monkeypatch.setattr(never_slower, "_SLICE_S", 0.001)
    monkeypatch.setattr(never_slower, "NOISE", 0.5)
    monkeypatch.setattr(never_slower, "_int8_keeps", lambda report: False)
    isa = _runtime.available_isas()[-1]
    networks = onnx_pack.every_model("deep")
    rows = [row for row, _, _ in never_slower.test(networks, isa, ["fast"], 6) if row]
    assert [(row["form"], row["int8_keeps_budget"]) for row in rows] == [("fast", False), ("as int8", True)]
    found = never_slower.verdict(rows, isa)
    assert (found["compiled"], found["int8_loses_too_much"], found["least"]) == (1, 1, rows[1]["ratio"])
    # The budget is what int8 loses on these samples, and its own artifact keeps it.
    model = pack / "data" / "onnx" / "a" / "deep.onnx"
    score = never_slower.Nearness(model, onnx_pack.samples(model, 6)[1])
    int8, own = (
        lutc.InferenceSession(never_slower.FOLDER / "never-slower" / f"deep-{form}-{isa}.lut")
        for form in ("int8", "as-int8")
    )
    assert score(own) < 0 and score(own) >= 3 * score(int8)


def test_a_slower_artifact_is_measured_again_and_told(pack, monkeypatch):
    """float32 of the same model in the place of a selection."""
    monkeypatch.setattr(never_slower, "_SLICE_S", 0.002)
    isa, model = _runtime.available_isas()[-1], deep_mlp(4, 512)
    paths = {form: pack / f"{form}.lut" for form in ("fp32", "int8")}
    for form, path in paths.items():
        lutc.compile(model, output=path, preset=form)
    feed = onnx_pack.synthetic(_saved(model, pack))
    found = never_slower.compare(paths["fp32"], paths["int8"], feed, isa)
    if isa == "avx512":  # int8 is several times as fast
        assert found["slower"] and found["measurements"] == 3 and found["ratio"] < 0.9
    other = never_slower.compare(paths["int8"], paths["fp32"], feed, isa)
    assert other["ratio"] * found["ratio"] == pytest.approx(1, rel=0.3)


def _saved(model, folder):
    path = folder / "model.onnx"
    onnx.save(model, path)
    return path


def test_int8_counts_where_it_keeps_the_budget():
    def report(divergence):
        return {"selection": {"budget": {"limit": 0.15}, "points": [{"name": "all int8", "divergence": divergence}]}}

    assert never_slower._int8_keeps(report(0.15)) and not never_slower._int8_keeps(report(0.2))
    assert never_slower._int8_keeps({"layers": []})
    assert not never_slower._int8_keeps({"selection": {"points": []}})


def test_verdict_names_what_is_slower():
    rows = [
        {"model": "a", "form": "fast", "ratio": 1.2, "slower": False, "int8_keeps_budget": True},
        {"model": "b", "form": "fast", "ratio": 0.9, "slower": True, "int8_keeps_budget": True},
    ]
    found = never_slower.verdict(rows, "avx512")
    assert not found["holds"] and found["slower"] == ["b, fast: 0.9"] and found["least"] == 0.9
    assert never_slower.verdict(rows[:1], "avx512")["holds"]
    price = {**rows[1], "slower": False, "int8_keeps_budget": False}  # of a budget that int8 does not keep
    found = never_slower.verdict([rows[0], price], "avx512")
    assert found["holds"] and found["least"] == 1.2 and found["int8_loses_too_much"] == 1
    assert not never_slower.verdict([], "avx512")["holds"]  # nothing was tested


def test_the_networks_of_cifar_get_natural_samples(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10, "calibration", lambda: iter([{"x": "first"}, {"x": "second"}, {"x": "third"}]))
    model = tmp_path / "resnet-cifar10" / "resnet20.onnx"
    assert onnx_pack.samples(model, 24) == ("natural", [{"x": "first"}])
    assert onnx_pack.samples(model, 2 * recognition.BATCH) == ("natural", [{"x": "first"}, {"x": "second"}])
