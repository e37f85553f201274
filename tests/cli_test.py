"""The command line from end to end on a tiny model: every command, its JSON, and reproducibility."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from safetensors import safe_open

import lutc
from lutc.cli import main
from tests.small_models import logit_mean, samples, save_mlp, save_samples

COMPILE = ("--preset", "gain-v3", "-q", "--seed", "3")


@pytest.fixture(scope="module")
def road(tmp_path_factory) -> Path:
    """A folder with mlp.onnx, calib.npz, in.npz and the compiled mlp.lut."""
    folder = tmp_path_factory.mktemp("road")
    save_samples(folder)
    save_samples(folder, "in.npz", x=samples(20, seed=5))
    assert main(["compile", str(save_mlp(folder)), "--calib", str(folder / "calib.npz"), *COMPILE]) == 0
    return folder


@pytest.fixture
def as_json(capsys):
    def call(*arguments: object) -> tuple[int, dict]:
        code = main([*map(str, arguments), "--json"])
        return code, json.loads(capsys.readouterr().out)

    return call


def outputs(folder: Path, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    original = onnxruntime.InferenceSession(folder / "mlp.onnx", providers=["CPUExecutionProvider"])
    return original.run(None, {"x": x})[0], lutc.load(folder / "mlp.lut").run(None, {"x": x})[0]


def test_compiled_model_is_close(road):
    want, got = outputs(road, samples(200, seed=7))
    assert np.linalg.norm(want - got) < 0.3 * np.linalg.norm(want)
    assert not np.array_equal(want, got)


def test_safetensors_opens_the_artifact(road):
    with safe_open(road / "mlp.lut", "np") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert metadata["lutc.format"] in ("1", "2") and json.loads(metadata["lutc.plan"])["steps"]
    assert any(tensor.dtype == np.int8 and tensor.ndim >= 3 for tensor in tensors.values())


def test_tensors_are_aligned(road):
    data = (road / "mlp.lut").read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    assert (8 + length) % 64 == 0
    offsets = [
        entry["data_offsets"] for name, entry in header.items() if name != "__metadata__" and name[:5] != "_pad."
    ]
    assert offsets and all(begin % 64 == 0 for begin, _ in offsets)


def test_same_input_same_bytes(road, tmp_path):
    again = tmp_path / "again.lut"
    command = ["compile", road / "mlp.onnx", "--calib", road / "calib.npz", *COMPILE, "--threads", "1", "-o", again]
    subprocess.run([sys.executable, "-m", "lutc", *map(str, command)], check=True, timeout=300, capture_output=True)
    assert again.read_bytes() == (road / "mlp.lut").read_bytes()


def test_other_seed_other_bytes(road, tmp_path):
    other = tmp_path / "other.lut"
    arguments = ["compile", road / "mlp.onnx", "--calib", road / "calib.npz", *COMPILE, "-o", other, "--seed", "4"]
    assert main([str(a) for a in arguments]) == 0
    assert other.read_bytes() != (road / "mlp.lut").read_bytes()


def test_compile_json(road, as_json, tmp_path):
    output = tmp_path / "out.lut"
    code, report = as_json(
        "compile", road / "mlp.onnx", "--calib", road / "calib.npz", "--preset", "gain-v3t8", "-o", output
    )
    assert code == 0 and report["output"] == str(output) and report["bytes"] == output.stat().st_size
    assert [layer["form"] for layer in report["layers"]] == ["gain-v3t8", "fp32"]


def test_dry_run_writes_nothing(road, as_json, tmp_path):
    arguments = ("compile", road / "mlp.onnx", "--dry-run", "-o", tmp_path / "out.lut")
    code, report = as_json(*arguments, "--preset", "gain-v4")
    assert code == 0 and not list(tmp_path.iterdir()) and report["output"] is None
    up, down = report["layers"]
    assert up["form"] == "gain-v4" and "preset" in up["why"] and down["form"] == "fp32" and "tiny" in down["why"]
    up, down = as_json(*arguments)[1]["layers"]
    assert up["form"] == "selected" and "int8" in up["why"] and down["form"] == "fp32"


def test_inspect(road, as_json):
    code, summary = as_json("inspect", road / "mlp.lut", "--layers", "--verify")
    assert code == 0 and summary["verified"] and summary["lookup_layers"] == 1
    up = summary["layers"][0]
    assert {"name", "op", "form", "group_sizes", "codebooks", "rank", "bytes", "error"} <= set(up)
    assert sum(up["group_sizes"]) == 24 and up["codebooks"] == len(up["group_sizes"]) and 0 < up["error"] < 0.5


def test_run(road, as_json, tmp_path):
    code, _ = as_json("run", road / "mlp.lut", "--inputs", road / "in.npz", "-o", tmp_path / "out.npz")
    assert code == 0
    with np.load(tmp_path / "out.npz") as results:
        np.testing.assert_array_equal(results["logits"], outputs(road, samples(20, seed=5))[1])


def test_eval(road, as_json):
    score = f"{logit_mean.__module__}:logit_mean"
    code, result = as_json(
        "eval", road / "mlp.lut", "--ref", road / "mlp.onnx", "--data", road / "in.npz", "--score", score
    )
    assert code == 0 and result["samples"] == 20
    logits = result["outputs"]["logits"]
    want, got = outputs(road, samples(20, seed=5))
    assert logits["cosine"] > 0.95 and logits["max_abs_error"] == pytest.approx(np.abs(want - got).max(), rel=1e-4)
    assert logits["top1_agreement"] == np.mean(want.argmax(1) == got.argmax(1))
    assert result["score"]["reference"] == pytest.approx(0, abs=1e-6) and result["score"]["drop"] > 0


def test_bench(road, as_json):
    code, result = as_json(
        "bench", road / "mlp.lut", road / "mlp.onnx", "--rounds", "3", "--shape", "x=7x24", "--per-op"
    )
    assert code == 0 and [Path(t["model"]).suffix for t in result["timings"]] == [".lut", ".onnx"]
    assert all(t["wall_ms"] > 0 for t in result["timings"])
    assert all(result["per_op"][str(road / name)] for name in ("mlp.lut", "mlp.onnx"))


def test_budget_kept_and_missed(road, as_json, tmp_path):
    score = f"{logit_mean.__module__}:logit_mean"
    output = tmp_path / "out.lut"
    flags = ["compile", road / "mlp.onnx", "--calib", road / "calib.npz", "-o", output, "--preset", "gain-v4"]
    flags += ["--score", score, "--max-drop"]
    assert as_json(*flags, "10")[0] == 0
    output.unlink()
    code, error = as_json(*flags, "1e-6")
    assert code == 4 and output.exists() and "--keep '^" in error["error"]


def test_compressed_onnx_runs_in_onnx_runtime(road, tmp_path):
    saved = tmp_path / "compressed.onnx"
    flags = ["compile", road / "mlp.onnx", "--calib", road / "calib.npz", *COMPILE, "-o", tmp_path / "a.lut"]
    assert main([*map(str, flags), "--save-onnx", str(saved)]) == 0
    x = samples(50, seed=11)
    session = onnxruntime.InferenceSession(saved, providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"x": x})[0], outputs(road, x)[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("target", ["scalar", "x86-64-v3", "x86-64-v4", "aarch64"])
def test_tables_of_every_target_give_the_same_result(road, tmp_path, target):
    """Of as many bits, which are a target's choice where the form does not name them."""
    output = tmp_path / "other.lut"
    flags = ["compile", road / "mlp.onnx", "--calib", road / "calib.npz", *COMPILE, "-o", output, "--target", target]
    flags += ["--form", "up=gain-v3t8"]
    assert main([*map(str, flags)]) == 0
    x = samples(50, seed=11)
    np.testing.assert_array_equal(lutc.load(output).run(None, {"x": x})[0], outputs(road, x)[1])


def test_python_api(road, tmp_path):
    result = lutc.compile(road / "mlp.onnx", keep=[".*=fp32"], output=tmp_path / "dense.lut")
    assert result.path == tmp_path / "dense.lut" and all(layer["form"] == "fp32" for layer in result.report["layers"])
    x = samples(9)
    want, _ = outputs(road, x)
    np.testing.assert_allclose(lutc.load(result.path).run(["logits"], {"x": x})[0], want, atol=1e-5)


def test_version_and_help(capsys):
    assert main(["--version"]) == 0 and lutc.__version__ in capsys.readouterr().out
    assert main(["compile", "--help"]) == 0 and "--calib" in capsys.readouterr().out
