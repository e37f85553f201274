"""Tiny ONNX models and samples for tests of the road itself: two linear layers, seconds to compile."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FEATURES, HIDDEN, CLASSES = 24, 48, 5


def mlp(seed: int = 0) -> onnx.ModelProto:
    """x [batch, 24] -> Gemm 48 -> Relu -> Gemm 5 -> logits; layers are named "up" and "down"."""
    generator = np.random.default_rng(seed)

    def weight(name: str, *shape: int) -> TensorProto:
        return numpy_helper.from_array(generator.normal(0, shape[0] ** -0.5, shape).astype(np.float32), name)

    nodes = [
        helper.make_node("Gemm", ["x", "up.weight", "up.bias"], ["hidden"], name="up"),
        helper.make_node("Relu", ["hidden"], ["active"], name="relu"),
        helper.make_node("Gemm", ["active", "down.weight", "down.bias"], ["logits"], name="down"),
    ]
    graph = helper.make_graph(
        nodes,
        "mlp",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", FEATURES])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])],
        [
            weight("up.weight", FEATURES, HIDDEN),
            weight("up.bias", HIDDEN),
            weight("down.weight", HIDDEN, CLASSES),
            weight("down.bias", CLASSES),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def deep_mlp(layers: int, width: int) -> onnx.ModelProto:
    """x [batch, width] -> (Gemm, Relu) x layers -> y."""
    generator = np.random.default_rng(0)
    nodes, weights = [], []
    for index in range(layers):
        source = "x" if index == 0 else f"r{index - 1}"
        target = "y" if index == layers - 1 else f"r{index}"
        weight = generator.normal(0, (2 / width) ** 0.5, (width, width)).astype(np.float32)
        weights.append(numpy_helper.from_array(weight, f"w{index}"))
        nodes.append(helper.make_node("MatMul", [source, f"w{index}"], [f"h{index}"], name=f"layer{index}"))
        nodes.append(helper.make_node("Relu", [f"h{index}"], [target]))
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width]) for name in "xy")
    graph = helper.make_graph(nodes, "deep", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def save_mlp(folder: Path) -> Path:
    """Writes the model to `folder/mlp.onnx`."""
    path = folder / "mlp.onnx"
    onnx.save(mlp(), path)
    return path


def samples(count: int = 400, seed: int = 1) -> np.ndarray:
    """Samples with structure: a random mixture of 8 factors, float32 [count, 24]."""
    generator = np.random.default_rng(seed)
    basis = np.random.default_rng(99).normal(size=(8, FEATURES))
    mixed = generator.normal(size=(count, 8)) @ basis + 0.1 * generator.normal(size=(count, FEATURES))
    return mixed.astype(np.float32)


def save_samples(folder: Path, name: str = "calib.npz", **arrays: np.ndarray) -> Path:
    """Writes an .npz of samples for the model's input (or of the arrays given)."""
    path = folder / name
    np.savez(path, **(arrays or {"x": samples()}))
    return path


def logit_mean(session: object) -> float:
    """A score for tests: minus the distance of the logits from the original model's."""
    import onnxruntime

    x = samples(100, seed=2)
    original = onnxruntime.InferenceSession(mlp().SerializeToString(), providers=["CPUExecutionProvider"])
    expected = original.run(None, {"x": x})[0]
    return -float(np.mean(np.abs(session.run(None, {"x": x})[0] - expected)))  # type: ignore[attr-defined]
