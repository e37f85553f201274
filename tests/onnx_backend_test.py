"""ONNX's own node tests, which the onnx package carries, for every operator of the plan."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.backend.test.case.node import collect_testcases

from lutc.ir.opset import ONNX_STEPS
from tests.one_node import runtime_session, with_constants

_HELD = {
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.DOUBLE,
    onnx.TensorProto.INT64,
    onnx.TensorProto.INT32,
    onnx.TensorProto.INT8,
    onnx.TensorProto.UINT8,
    onnx.TensorProto.BOOL,
}

# Inputs that decide the output's shape: constants in nearly every model, so constants here.
_SHAPING = {
    "Reshape": [1],
    "Expand": [1],
    "Tile": [1],
    "Slice": [1, 2, 3, 4],
    "Pad": [1, 3],
    "Split": [1],
    "Squeeze": [1],
    "Unsqueeze": [1],
    "ConstantOfShape": [0],
    "Range": [0, 1, 2],
    "OneHot": [1],
    "TopK": [1],
    "Resize": [1, 2, 3],
} | {op: [1] for op in ONNX_STEPS if op.startswith("Reduce")}

# What is left out, and why. The names are those of the tests, as regular expressions.
EXCLUDED = {
    r"test_(averagepool|maxpool|convtranspose)_3d.*": "windows over three dims are not executed",
    r"test_batchnorm_.*_training_mode": "training: lutc compiles inference",
    r"test_maxpool_with_argmax_.*": "MaxPool's second output (indices) is not computed",
    r"test_maxpool_2d_uint8": "pooling is float32 only",
    r"test_convtranspose_output_shape": "an output_shape beyond the windows' reach is refused",
    r"test_flexattention_double_.*": "matrix products are float32 only",
    r"test_resize_downsample_scales_(linear|cubic)_align_corners": (
        "the reference aligns to scale * length, unrounded; ONNX Runtime and lutc to the output's last pixel"
    ),
}


def _cases() -> list[Any]:
    """Tests whose operators the plan has and whose inputs and outputs are of dtypes that it holds."""
    cases = []
    for case in collect_testcases(None):
        model = case.model
        operators = {node.op_type if node.domain in ("", "ai.onnx") else None for node in model.graph.node}
        if not operators <= ONNX_STEPS.keys() | {"Constant"}:
            continue
        types = [value.type for value in (*model.graph.input, *model.graph.output)]
        if all(t.HasField("tensor_type") and t.tensor_type.elem_type in _HELD for t in types):
            cases.append(pytest.param(case, id=case.name))
    return cases


def _array(value: Any) -> np.ndarray:
    return onnx.numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)


@pytest.mark.parametrize("case", _cases())
def test_node(case: Any) -> None:
    for pattern, reason in EXCLUDED.items():
        if re.fullmatch(pattern, case.name):
            pytest.skip(reason)
    graph = case.model.graph
    # Those of functions that ONNX expands: a window's length, the shape of CenterCropPad.
    shaping = {value.name for value in graph.input if "window" in case.name or value.name == "shape"}
    for node in graph.node:
        shaping |= {name for i, name in enumerate(node.input) if i in _SHAPING.get(node.op_type, [])}
    for inputs, outputs in case.data_sets:
        feeds = {value.name: _array(array) for value, array in zip(graph.input, inputs, strict=True)}
        frozen = with_constants(case.model, {name: array for name, array in feeds.items() if name in shaping})
        session = runtime_session(frozen, threads=1)
        results = session.run(None, {name: array for name, array in feeds.items() if name not in shaping})
        for result, array, value in zip(results, outputs, graph.output, strict=True):
            expected = _array(array)
            assert result.dtype == expected.dtype, value.name
            assert result.shape == expected.shape, value.name
            np.testing.assert_allclose(result, expected, rtol=case.rtol, atol=case.atol, err_msg=value.name)
