"""For tests: small graphs from ONNX's text format, and equality of two graphs in ONNX Runtime."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping

import numpy as np
import onnx
import onnx_ir as ir

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def parse(text: str, constants: Mapping[str, np.ndarray] | None = None, opset: int = 23) -> ir.Model:
    """A model from the text of a graph, "g (float[2,3] x) => (float[2,3] y) { y = Relu(x) }", and its initialisers."""
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : {opset}, "ai.lutc" : 1]>\n{text}')
    for name, data in (constants or {}).items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(data), name))
    return ir.from_proto(onnx.shape_inference.infer_shapes(model))


def run(model: ir.Model, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The model's outputs in ONNX Runtime, unoptimised."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), options)
    return list(session.run(None, dict(feeds)))


def operators(model: ir.Model) -> dict[str, int]:
    """How often each operator occurs in the main graph."""
    return dict(Counter(node.op_type for node in model.graph))


def assert_same(before: ir.Model, after: ir.Model, feeds: Mapping[str, np.ndarray], tolerance: float = 1e-5) -> None:
    """Asserts equal outputs, up to `tolerance` times the output's largest magnitude (at least 1)."""
    for expected, got in zip(run(before, feeds), run(after, feeds), strict=True):
        assert expected.shape == got.shape
        assert expected.dtype == got.dtype
        np.testing.assert_array_equal(np.isnan(expected.astype(np.float64)), np.isnan(got.astype(np.float64)))
        scale = max(1.0, float(np.nanmax(np.abs(expected), initial=0.0)))
        np.testing.assert_allclose(got / scale, expected / scale, rtol=0, atol=tolerance)


def apply(graph_pass: ir.passes.PassBase, model: ir.Model, feeds: Mapping[str, np.ndarray]) -> ir.Model:
    """Runs one pass on a copy, asserts that it changed no output, and returns the result."""
    after = graph_pass(model.clone()).model
    assert_same(model, after, feeds)
    return after
