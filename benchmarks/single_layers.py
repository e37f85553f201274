"""ONNX models of one layer with random weights: what `benchmarks.ops` and `benchmarks.scaling` time."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.data import made_once
from benchmarks.harness import on_cache_line
from benchmarks.networks import WORK

_OPSET = 17


@dataclasses.dataclass(frozen=True)
class Linear:
    """`rows` rows of `features` inputs each to `outputs` outputs, with a bias."""

    rows: int
    features: int
    outputs: int

    op = "linear"

    @property
    def shape(self) -> str:
        """As rows call it: "128x768x768"."""
        return f"{self.rows}x{self.features}x{self.outputs}"

    @property
    def weights(self) -> int:
        """Entries of the weight."""
        return self.features * self.outputs

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of x."""
        return (self.rows, self.features)

    @property
    def fan_in(self) -> int:
        """Products that one output adds up."""
        return self.features

    def write(self, path: Path) -> None:
        """The layer as MatMul and Add."""
        nodes = [helper.make_node("MatMul", ["x", "w"], ["p"]), helper.make_node("Add", ["p", "b"], ["y"])]
        _write(path, nodes, self, (self.rows, self.outputs), (self.features, self.outputs))

    def module(self) -> Any:
        """The layer in PyTorch."""
        import torch

        return torch.nn.Linear(self.features, self.outputs).eval()


@dataclasses.dataclass(frozen=True)
class Conv:
    """A `kernel` x `kernel` convolution, stride 1, "same" padding, over one square image."""

    channels: int
    size: int
    outputs: int
    kernel: int = 3

    op = "conv"

    @property
    def shape(self) -> str:
        """As rows call it: "64x56x56->64"."""
        return f"{self.channels}x{self.size}x{self.size}->{self.outputs}"

    @property
    def weights(self) -> int:
        """Entries of the weight."""
        return self.outputs * self.fan_in

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of x."""
        return (1, self.channels, self.size, self.size)

    @property
    def fan_in(self) -> int:
        """Products that one output adds up."""
        return self.channels * self.kernel**2

    def write(self, path: Path) -> None:
        """The layer as Conv."""
        pads = [self.kernel // 2] * 4
        node = helper.make_node("Conv", ["x", "w", "b"], ["y"], pads=pads, kernel_shape=[self.kernel] * 2)
        weight = (self.outputs, self.channels, self.kernel, self.kernel)
        _write(path, [node], self, (1, self.outputs, self.size, self.size), weight)

    def module(self) -> Any:
        """The layer in PyTorch."""
        import torch

        return torch.nn.Conv2d(self.channels, self.outputs, self.kernel, padding=self.kernel // 2).eval()


Layer = Linear | Conv

LAYERS: tuple[Layer, ...] = (
    Linear(128, 768, 768),
    Linear(128, 384, 384),
    Linear(128, 384, 1536),
    Linear(128, 768, 3072),
    Linear(128, 3072, 768),
    Linear(128, 1536, 384),
    Linear(512, 384, 384),
    Linear(1, 768, 3072),
    Linear(1, 4096, 4096),
    Conv(64, 56, 64),
    Conv(128, 28, 128),
    Conv(256, 14, 256),
    Conv(16, 32, 16),
)
"""Those of a whole comparison."""


def model_of(layer: Layer) -> Path:
    """The layer's ONNX file, in a folder of its own; made once."""
    return made_once(WORK / "ops" / layer.shape.replace("->", "-") / "layer.onnx", layer.write)


def inputs(layer: Layer, count: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """Feeds of standard normal numbers.

    Returns:
        `count` feeds with "x", float32 of `layer.input_shape`.
    """
    rng = np.random.default_rng(seed)
    return [{"x": on_cache_line(rng.standard_normal(layer.input_shape, dtype=np.float32))} for _ in range(count)]


def _write(path: Path, nodes: list, layer: Layer, output: Sequence[int], weight: Sequence[int]) -> None:
    rng = np.random.default_rng(0)
    outputs = weight[0] if isinstance(layer, Conv) else weight[-1]
    w = rng.standard_normal(weight, dtype=np.float32) / np.float32(np.sqrt(layer.fan_in))
    graph = helper.make_graph(
        nodes,
        layer.op,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, layer.input_shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, output)],
        [
            numpy_helper.from_array(w, "w"),
            numpy_helper.from_array(rng.standard_normal(outputs, dtype=np.float32), "b"),
        ],
    )
    for node in nodes:
        node.name = f"{layer.op}/{node.op_type}"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=9), path)
