"""Rows have the documented fields; newer rows replace older ones; goals read them."""

from __future__ import annotations

import json
import re

import numpy as np

from benchmarks import costs, goals, harness, memory, ops, result_files
from benchmarks.single_layers import Linear
from lutc import _runtime

FIELDS = {"bench", "op", "shape", "form", "isa", "threads", "ours_us", "peers", "ratio"}


def test_a_measured_layer_gives_rows_of_the_documented_form(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ops, "COLD_BYTES", 1 << 16)
    isa = _runtime.available_isas()[-1]
    names = ["onnxruntime_fp32", "onnxruntime_int8_dynamic", "tvm_fp32"]
    layer, forms = Linear(2, 32, 48), ["fp32", "gain-v4", "plain-v8"]
    rows, skipped = ops.measure(layer, forms, names, isa=isa, threads=1, seconds=0.01)
    assert [row["form"] for row in rows] == forms
    for row in rows:
        assert row.keys() >= FIELDS
        assert row["bench"] == "ops" and row["op"] == "linear" and row["shape"] == "2x32x48"
        assert row["isa"] == isa and row["threads"] == 1
        assert row["ours_us"] > 0
        assert row["peers"].keys() == row["ratio"].keys() == {n for n in names if f"{n} on 2x32x48" not in skipped}
        assert ("tables" in row and row["tables"] is not None) == (row["form"] != "fp32")
    assert "tvm_fp32 on 2x32x48" in skipped  # never tuned

    cold, _ = ops.measure(layer, ["plain-v8"], names[:1], isa=isa, threads=1, cold=True, seconds=0.01)
    file = tmp_path / "ops.json"
    result_files.merge(file, rows, {"tvm_fp32": "not tuned"})
    result_files.merge(file, [*rows[:1], *cold])
    stored = json.loads(file.read_text())
    assert len(stored["rows"]) == len(forms) + 1
    assert stored["skipped"] == {"tvm_fp32": "not tuned"}


def test_a_newer_row_takes_the_place_of_the_older(tmp_path):
    row = {"bench": "ops", "op": "linear", "shape": "1x2x3", "form": "fp32", "isa": "scalar", "threads": 1}
    file = tmp_path / "rows.json"
    result_files.merge(file, [{**row, "ours_us": 1.0}, {**row, "form": "int8", "ours_us": 2.0}])
    result_files.merge(file, [{**row, "ours_us": 3.0}])
    assert [each["ours_us"] for each in result_files.load(file)["rows"]] == [3.0, 2.0]


def test_goals_take_the_best_int8_peer(tmp_path, capsys):
    times = {"onnxruntime_fp32": 100, "onnxruntime_int8_dynamic": 40, "openvino_int8": 30}
    samples = {name: harness.Samples(np.full(3, t * 1e-6), np.full(3, t * 1e-6)) for name, t in times.items()}
    ours = harness.Samples(np.full(3, 1e-5), np.full(3, 1e-5))
    rows = [
        harness.row("ops", "128x768x768", "gain-v3", isa, ours, samples, op="linear", tables_in="cache")
        for isa in ("avx512", "avx2")
    ]
    found = goals.Rows(rows)
    assert (
        dict((name, value) for name, value, _ in goals.op_goals(found, "avx512"))["128x768x768 gain-v3 x best int8"]
        == 3
    )
    result_files.merge(tmp_path / "ops.json", rows)
    goals.main(["--folder", str(tmp_path)])
    assert re.search(r"128x768x768 gain-v3 x ORT fp32 +10.00 / 6 +ok", capsys.readouterr().out)


def test_operations_are_counted_by_hand():
    assert costs.linear(2, 3, 5) == 2 * 2 * 3 * 5
    assert costs.lookups(2, 64, 5, 32, 16) == 2 * (2 * 64 * 16) + 2 * 2 * 5
    assert costs.attention(4, 8) == 2 * (2 * 4 * 4 * 8)


def test_memory_and_time_of_loading(tmp_path):
    layer = Linear(2, 512, 2048)
    layer.write(tmp_path / "layer.onnx")
    feed = {"x": np.zeros((2, 512), np.float32)}
    found = memory.measure(tmp_path / "layer.onnx", feed)
    assert found["load_ms"] > 0
    assert found["peak_mb"] >= found["running_mb"] > 3.5  # the weights are 4.2 MB
