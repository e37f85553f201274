"""The ONNX files that other runtimes are given: cleaned up, quantised as each likes it best.

Files are kept beside the work folder's other ones and made once.
"""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx.version_converter

from benchmarks.data import made_once

_OLDEST_OPSET = 13  # of quantisation per channel

Feed = Mapping[str, np.ndarray]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what the quantiser and the optimiser have to say."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
        root.setLevel(level)


def _modern(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Constants are no inputs; an opset without quantisation per channel is converted to one that has it."""
    constants = {tensor.name for tensor in proto.graph.initializer}
    kept = [value for value in proto.graph.input if value.name not in constants]
    del proto.graph.input[:]
    proto.graph.input.extend(kept)
    version = next(each.version for each in proto.opset_import if each.domain in ("", "ai.onnx"))
    return proto if version >= _OLDEST_OPSET else onnx.version_converter.convert_version(proto, _OLDEST_OPSET)


def static(model: Path, folder: Path, feed: Feed) -> Path:
    """The model with the feed's shapes written in and constants that no caller can override: best for every runtime."""

    def make(path: Path) -> None:
        proto = _modern(onnx.load(model))
        sizes: dict[str, int] = {}
        for value in proto.graph.input:
            for dim, size in zip(value.type.tensor_type.shape.dim, feed[value.name].shape, strict=True):
                if dim.dim_param:
                    sizes[dim.dim_param] = size
                dim.dim_value = size
        for value in (*proto.graph.output, *proto.graph.value_info):
            for dim in value.type.tensor_type.shape.dim:
                if dim.dim_param in sizes:
                    dim.dim_value = sizes[dim.dim_param]
        onnx.save(proto, path)

    return made_once(folder / "static.onnx", _quiet()(make))


def dynamic_int8(model: Path, folder: Path, name: str) -> Path:
    """ONNX Runtime's dynamic quantisation: weights int8 per output channel, activations measured at run time."""

    def make(path: Path) -> None:
        from onnxruntime.quantization import QuantType, quant_pre_process, quantize_dynamic

        prepared = path.with_name(f"{os.getpid()}-prepared.onnx")
        quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True, skip_optimization=True)
        options = {"DefaultTensorType": onnx.TensorProto.FLOAT}
        quantize_dynamic(prepared, path, per_channel=True, weight_type=QuantType.QInt8, extra_options=options)

    return made_once(folder / f"{name}.onnx", _quiet()(make))


def modern(model: Path, folder: Path) -> Path:
    """The model with open dims, constants that no caller can override, and an opset with quantisation per channel."""

    def make(path: Path) -> None:
        onnx.save(_modern(onnx.load(model)), path)

    return made_once(folder / "modern.onnx", _quiet()(make))


def qdq(model: Path, folder: Path, *feeds: Feed, unsigned: bool, scope: str, optimise: bool) -> Path:
    """Static int8 in the QDQ format, weights symmetric per channel, scales from the extremes seen.

    Args:
        model: The model.
        folder: Where to keep the result.
        *feeds: Inputs to calibrate on; for time alone one will do, the scales do not matter.
        unsigned: uint8 activations with a zero point, rather than symmetric int8 ones.
        scope: "layers": products with constant weights; "products": those of two activations, too; "all": every
            operator that the quantiser knows.
        optimise: Let ONNX Runtime rewrite the graph first: good for convolutions (it folds what surrounds them), bad
            for transformers (it makes Gemm and Reshape of MatMul and Add).
    """
    name = f"qdq-{'u8' if unsigned else 's8'}-{scope}.onnx"

    def make(path: Path) -> None:
        from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process

        class Reader(CalibrationDataReader):
            def __init__(self) -> None:
                self._left = [dict(feed) for feed in feeds]

            def get_next(self) -> dict | None:
                return self._left.pop() if self._left else None

        prepared = path.with_name(f"{os.getpid()}-prepared.onnx")
        quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True, skip_optimization=not optimise)
        graph = onnx.load(prepared, load_external_data=False).graph
        constants = {tensor.name for tensor in graph.initializer}
        layers = [
            node.name for node in graph.node
            if node.op_type in ("MatMul", "Gemm", "Conv") and node.input[1] in constants
        ]  # fmt: skip
        quantize_static(
            prepared, path, Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
            activation_type=QuantType.QUInt8 if unsigned else QuantType.QInt8, weight_type=QuantType.QInt8,
            nodes_to_quantize=layers if scope == "layers" else None,
            op_types_to_quantize=None if scope == "all" else ["MatMul", "Gemm", "Conv"],
            extra_options={
                "ActivationSymmetric": not unsigned,
                "WeightSymmetric": True,
                "DefaultTensorType": onnx.TensorProto.FLOAT,
            },
        )  # fmt: skip

    return made_once(folder / name, _quiet()(make))
