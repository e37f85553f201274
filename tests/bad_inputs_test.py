"""Bad inputs through the command line: each ends with its exit code and a message that helps, never a traceback."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
import xxhash
from onnx import TensorProto, helper

from lutc.cli import main
from tests.small_models import FEATURES, deep_mlp, mlp, samples, save_mlp, save_samples

OK, USAGE, UNSUPPORTED, CORRUPT, INTERRUPTED = 0, 2, 3, 5, 130


@pytest.fixture
def lutc(capsys):
    def call(*arguments: object) -> tuple[int, str]:
        code = main([str(a) for a in arguments])
        captured = capsys.readouterr()
        return code, captured.err + captured.out

    return call


@pytest.fixture(scope="module")
def artifact(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("artifact")
    path = folder / "mlp.lut"
    arguments = ["compile", save_mlp(folder), "--calib", save_samples(folder), "--preset", "gain-v3", "-o", path, "-q"]
    assert main([str(a) for a in arguments]) == OK
    return path


# Models


def compile_model(lutc, path: Path, *more: object) -> tuple[int, str]:
    return lutc("compile", path, "--keep", ".*=fp32", "-o", path.parent / "out.lut", *more)


def test_not_protobuf(lutc, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"this is no model at all" * 10)
    code, text = compile_model(lutc, path)
    assert code == UNSUPPORTED and "model.onnx" in text


def test_truncated_model(lutc, tmp_path):
    path = save_mlp(tmp_path)
    path.write_bytes(path.read_bytes()[:-1000])
    code, text = compile_model(lutc, path)
    assert code == UNSUPPORTED and "mlp.onnx" in text


def test_empty_model_file(lutc, tmp_path):
    path = tmp_path / "model.onnx"
    path.touch()
    assert compile_model(lutc, path)[0] == UNSUPPORTED


def test_missing_model(lutc, tmp_path):
    code, text = compile_model(lutc, tmp_path / "absent.onnx")
    assert code == USAGE and "absent.onnx" in text


def test_cyclic_graph(lutc, tmp_path):
    model = mlp()
    model.graph.node[1].input[0] = "logits"  # relu reads what comes out at the end
    path = tmp_path / "cyclic.onnx"
    path.write_bytes(model.SerializeToString())
    assert compile_model(lutc, path)[0] == UNSUPPORTED


def external(folder: Path, location: str) -> Path:
    model = mlp()
    tensor = model.graph.initializer[0]
    data = tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": "0", "length": str(len(data))}.items():
        tensor.external_data.add(key=key, value=value)
    (folder.parent / "outside.bin").write_bytes(data)
    path = folder / "external.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_missing_external_data(lutc, tmp_path):
    code, text = compile_model(lutc, external(tmp_path, "weights.bin"))
    assert code == UNSUPPORTED and "weights.bin" in text


def test_external_data_outside_the_folder(lutc, tmp_path):
    folder = tmp_path / "inner"
    folder.mkdir()
    code, text = compile_model(lutc, external(folder, "../outside.bin"))
    assert code == UNSUPPORTED and "../outside.bin" in text


def test_unsupported_operators_are_all_listed(lutc, tmp_path):
    graph = helper.make_graph(
        [
            helper.make_node("Det", ["x"], ["a"], name="first"),
            helper.make_node("Relu", ["a"], ["b"], name="fine"),
            helper.make_node("Magic", ["b"], ["y"], name="second", domain="com.example"),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.example", 1)]
    path = tmp_path / "odd.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    code, text = compile_model(lutc, path)
    assert code == UNSUPPORTED
    assert "first" in text and "Det" in text and "second" in text and "Magic" in text and "fine" not in text


# Calibration


def calibrate(lutc, folder: Path, **arrays: np.ndarray) -> tuple[int, str]:
    calib = save_samples(folder, "bad.npz", **arrays)
    code, text = lutc("compile", save_mlp(folder), "--calib", calib, "-o", folder / "out.lut", "-q")
    assert code == OK or not (folder / "out.lut").exists()
    return code, text


def test_wrong_input_name(lutc, tmp_path):
    code, text = calibrate(lutc, tmp_path, pixels=samples())
    assert code == USAGE and "pixels" in text and "missing: x" in text


def test_wrong_dtype(lutc, tmp_path):
    code, text = calibrate(lutc, tmp_path, x=samples().astype(np.int64))
    assert code == USAGE and "int64" in text


def test_wrong_rank(lutc, tmp_path):
    code, text = calibrate(lutc, tmp_path, x=samples()[:, :, None])
    assert code == USAGE and "x" in text


def test_wrong_size(lutc, tmp_path):
    code, text = calibrate(lutc, tmp_path, x=samples()[:, :-1])
    assert code == USAGE and str(FEATURES) in text


def test_nan_in_calibration(lutc, tmp_path):
    x = samples()
    x[7, 3] = np.nan
    code, text = calibrate(lutc, tmp_path, x=x)
    assert code == USAGE and "x" in text and ("nan" in text.lower() or "finite" in text)


def test_empty_calibration(lutc, tmp_path):
    assert calibrate(lutc, tmp_path, x=samples()[:0])[0] == USAGE


def test_one_sample_compiles(lutc, tmp_path):
    assert calibrate(lutc, tmp_path, x=samples()[:1])[0] == OK
    assert lutc("inspect", tmp_path / "out.lut", "--verify")[0] == OK


def test_missing_calibration_says_what_is_needed(lutc, tmp_path):
    code, text = lutc("compile", save_mlp(tmp_path), "-o", tmp_path / "out.lut")
    assert code == USAGE
    assert "x" in text and f"{FEATURES}" in text and "--calib random" in text and "--preset int8" in text


# Artifacts


def run(lutc, path: Path, folder: Path, **arrays: np.ndarray) -> tuple[int, str]:
    feeds = save_samples(folder, "in.npz", **arrays)
    return lutc("run", path, "--inputs", feeds, "-o", folder / "out.npz")


def test_truncated_artifact(lutc, artifact, tmp_path):
    data = artifact.read_bytes()
    path = tmp_path / "cut.lut"
    for length in np.random.default_rng(0).integers(0, len(data), 50):
        path.write_bytes(data[:length])
        assert run(lutc, path, tmp_path)[0] == CORRUPT, length
        assert lutc("inspect", path, "--verify")[0] == CORRUPT, length


def test_flipped_byte(lutc, artifact, tmp_path):
    data = artifact.read_bytes()
    path = tmp_path / "flipped.lut"
    for position in [*np.random.default_rng(0).integers(0, len(data), 20), 0, 40, len(data) - 1]:
        damaged = bytearray(data)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        assert run(lutc, path, tmp_path)[0] == CORRUPT, position
        assert lutc("inspect", path, "--verify")[0] == CORRUPT, position


def test_newer_format(lutc, artifact, tmp_path):
    data = bytearray(artifact.read_bytes())
    version = data.index(b'"lutc.format":"') + len(b'"lutc.format":"')
    data[version : version + 1] = b"9"
    data[38:54] = b"0" * 16
    data[38:54] = xxhash.xxh64(bytes(data)).hexdigest().encode()
    path = tmp_path / "newer.lut"
    path.write_bytes(data)
    code, text = run(lutc, path, tmp_path)
    assert code == CORRUPT and "9" in text and "newer" in text.lower()
    assert lutc("inspect", path)[0] == CORRUPT


def test_not_an_artifact(lutc, tmp_path):
    model = save_mlp(tmp_path)
    assert run(lutc, model, tmp_path)[0] == CORRUPT
    assert lutc("inspect", model)[0] == CORRUPT


def test_run_with_wrong_name(lutc, artifact, tmp_path):
    code, text = run(lutc, artifact, tmp_path, pixels=samples())
    assert code == USAGE and "x" in text


def test_run_with_wrong_dtype(lutc, artifact, tmp_path):
    assert run(lutc, artifact, tmp_path, x=samples().astype(np.float64))[0] == USAGE


def test_run_with_wrong_rank(lutc, artifact, tmp_path):
    assert run(lutc, artifact, tmp_path, x=samples()[0])[0] == USAGE


# Flags


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (["--preset", "magic"], "balanced"),
        (["--form", "up=gain-v99"], "gain-v99"),
        (["--form", "up"], "up"),
        (["--form", "nowhere=gain-v3"], "nowhere"),
        (["--keep", "nowhere.*=fp32"], "nowhere"),
        (["--keep", "up=int4"], "int4"),
        (["--keep", "up=int16"], "int16"),
        (["--keep", "(=fp32"], "("),
        (["--target", "riscv"], "riscv"),
        (["--shape", "x=1xtwo"], "1xtwo"),
        (["--shape", "pixels=1x24"], "pixels"),
        (["--max-drop", "0.1"], "--score"),
        (["--score", "nowhere:fn"], "nowhere"),
        (["--learn", "-5"], "--learn"),
        (["--calib", "absent.npz"], "absent.npz"),
        (["--frobnicate"], "frobnicate"),
    ],
)
def test_bad_flag(lutc, tmp_path, flags, word):
    calib = [] if "--calib" in flags else ["--calib", save_samples(tmp_path)]
    code, text = lutc("compile", save_mlp(tmp_path), *calib, "-o", tmp_path / "out.lut", *flags)
    assert code == USAGE and word in text
    assert not (tmp_path / "out.lut").exists()


def test_bad_flag_as_json(capsys, tmp_path):
    assert main(["compile", str(save_mlp(tmp_path)), "--preset", "magic", "--json"]) == USAGE
    assert json.loads(capsys.readouterr().out)["exit_code"] == USAGE


def test_unwritable_output(lutc, tmp_path):
    code, text = compile_model(lutc, save_mlp(tmp_path), "-o", tmp_path / "absent" / "out.lut")
    assert code == USAGE and "absent" in text


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "lutc", *map(str, arguments)]


def test_disk_full_leaves_the_old_file_alone(tmp_path):
    output = tmp_path / "out.lut"
    output.write_bytes(b"the old one")
    before = {*os.listdir(tmp_path), save_mlp(tmp_path).name}

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))

    done = subprocess.run(
        command("compile", tmp_path / "mlp.onnx", "--keep", ".*=fp32", "-o", output),
        preexec_fn=limit,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        check=False,
    )
    assert done.returncode == USAGE, done.stderr
    assert "out.lut" in done.stderr and "Traceback" not in done.stderr
    assert output.read_bytes() == b"the old one" and set(os.listdir(tmp_path)) == before


def test_interrupted_while_fitting_then_resumed(tmp_path):
    model, resume = tmp_path / "deep.onnx", tmp_path / "checkpoints"
    onnx.save(deep_mlp(layers=8, width=256), model)
    calib = save_samples(tmp_path, x=np.random.default_rng(0).normal(size=(4000, 256)).astype(np.float32))
    flags = ["compile", model, "--calib", calib, "--threads", 1, "--preset", "gain-v3", "-o"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    quiet: dict = {"stderr": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}

    # A shell's background jobs ignore SIGINT and pass that on: give the compiler back what a terminal would.
    process = subprocess.Popen(
        command(*flags, tmp_path / "out.lut", "--resume", resume),
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        **quiet,
    )
    deadline = time.monotonic() + 120
    while not finished_layers(resume) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == INTERRUPTED and "Traceback" not in errors, errors
    assert not list(tmp_path.glob("*.lut")) and not list(tmp_path.glob(".*.tmp"))
    before = finished_layers(resume)
    assert 1 <= len(before) < 8

    subprocess.run(command(*flags, tmp_path / "out.lut", "--resume", resume), check=True, timeout=300, **quiet)
    after = finished_layers(resume)
    assert len(after) == 8 and before.items() <= after.items()  # what was finished is not fitted again
    subprocess.run(command(*flags, tmp_path / "again.lut"), check=True, timeout=300, **quiet)
    assert (tmp_path / "again.lut").read_bytes() == (tmp_path / "out.lut").read_bytes()


def finished_layers(folder: Path) -> dict[str, int]:
    """Checkpoints by name, each with the time it was written."""
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.npz")}
