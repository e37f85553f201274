"""`--size` from the command line to the artifact: what is stored, what is made at load, and that they answer alike."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest

import lutc
from lutc.cli import main
from lutc.fit.session import LookupSession
from tests.small_models import samples, save_mlp, save_samples

FORMS = ("--preset", "gain-v3", "--form", "down=gain-v6", "-q")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """mlp.onnx, calib.npz, and the artifact of every size with its ONNX."""
    made = tmp_path_factory.mktemp("sizes")
    save_samples(made)
    model = str(save_mlp(made))
    for size in ("small", "fast", "auto"):
        flags = ["--size", size, "-o", str(made / f"{size}.lut"), "--save-onnx", str(made / f"{size}.onnx")]
        assert main(["compile", model, "--calib", str(made / "calib.npz"), *FORMS, *flags]) == 0
    return made


def inspect(path, capsys, *flags):
    assert main(["inspect", str(path), *flags]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(("size", "tables"), [("small", 2), ("fast", 0), ("auto", 1)])
def test_what_is_stored(folder, size, tables, capsys):
    summary = json.loads(inspect(folder / f"{size}.lut", capsys, "--json", "--layers", "--verify"))
    assert summary["tables_made_at_load"] == tables and summary["format"] == (2 if tables else 1)
    assert (summary["expanded_bytes"] > 0) == (tables > 0)
    up, down = summary["layers"]
    assert (up["bytes"] < up["bytes_expanded"]) == (size != "fast")  # 16 directions and 48 outputs pay
    if size == "fast":
        assert up["bytes"] == up["bytes_expanded"] and down["bytes"] == down["bytes_expanded"]
    text = inspect(folder / f"{size}.lut", capsys)
    assert ("made at load" in text) == (tables > 0)


@pytest.mark.parametrize("size", ["small", "fast", "auto"])
def test_the_artifact_answers_like_its_onnx(folder, size):
    x = {"x": samples(50, seed=8)}
    want = onnxruntime.InferenceSession(folder / f"{size}.onnx").run(None, x)[0]
    np.testing.assert_allclose(lutc.load(folder / f"{size}.lut").run(None, x)[0], want, rtol=0, atol=1e-5)


def test_the_quick_session_answers_like_the_artifact(folder):
    x = {"x": samples(50, seed=8)}
    got = LookupSession(onnx.load(folder / "small.onnx")).run(None, x)[0]
    np.testing.assert_allclose(got, lutc.load(folder / "small.lut").run(None, x)[0], rtol=0, atol=1e-5)


def test_sizes_are_equally_accurate(folder):
    x = samples(400, seed=8)
    want = onnxruntime.InferenceSession(folder / "mlp.onnx").run(None, {"x": x})[0]
    errors = {}
    for size in ("small", "fast", "auto"):
        gap = lutc.load(folder / f"{size}.lut").run(None, {"x": x})[0] - want
        errors[size] = np.square(gap).sum() / np.square(want - want.mean(0)).sum()
    assert max(errors.values()) < 1.4 * min(errors.values()), errors


def test_unknown_sizes(folder, capsys):
    flags = ["--calib", str(folder / "calib.npz"), *FORMS, "--size", "tiny"]
    assert main(["compile", str(folder / "mlp.onnx"), *flags]) == 2
    assert "small, fast, auto" in capsys.readouterr().err
