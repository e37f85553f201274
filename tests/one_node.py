"""Runs small ONNX graphs on lutc's runtime as they are: no canonicalisation, no calibration, one step a node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper

from lutc._ort import ort_session
from lutc.fuse.lower import lower
from tests.plan_session import plan_session

OPSET = 23


def runtime_session(model: onnx.ModelProto, **options: Any) -> Any:
    """A session of lutc's runtime over the model's nodes.

    Raises:
        UnsupportedModelError, ValueError: the plan has no such operator, dtype or attribute.
    """
    return plan_session(lower(ir.from_proto(model)), **options)


def with_constants(model: onnx.ModelProto, constants: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """The model with some inputs made initializers, as shapes and axes nearly always are."""
    frozen = onnx.ModelProto()
    frozen.CopyFrom(model)
    kept = [value for value in frozen.graph.input if value.name not in constants]
    del frozen.graph.input[:]
    frozen.graph.input.extend(kept)
    frozen.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in constants.items())
    return frozen


def single_node(
    op: str, inputs: Sequence[np.ndarray | None], outputs: int = 1, opset: int = OPSET, **attrs: Any
) -> onnx.ModelProto:
    """A model of one node: inputs `x0`, `x1` ... (None: omitted), outputs `y0` ... of inferred types.

    ONNX's shape inference crashes on some hostile attributes where it knows the shapes, so it is not told them.
    """
    names = ["" if array is None else f"x{i}" for i, array in enumerate(inputs)]
    node = helper.make_node(op, names, [f"y{i}" for i in range(outputs)], name="node", **attrs)
    used = [(name, array) for name, array in zip(names, inputs, strict=True) if array is not None]
    dtypes = [helper.np_dtype_to_tensor_dtype(array.dtype) for _, array in used]

    def model(shapes: Sequence[Any], results: Sequence[onnx.ValueInfoProto]) -> onnx.ModelProto:
        values = [
            helper.make_tensor_value_info(name, dtype, shape)
            for (name, _), dtype, shape in zip(used, dtypes, shapes, strict=True)
        ]
        graph = helper.make_graph([node], "one_node", values, results)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)

    unknown = [helper.make_empty_tensor_value_info(f"y{i}") for i in range(outputs)]
    inferred = onnx.shape_inference.infer_shapes(model([None] * len(used), unknown)).graph.output
    results = [helper.make_tensor_value_info(value.name, value.type.tensor_type.elem_type, None) for value in inferred]
    return model([array.shape for _, array in used], results)


def run_both(
    op: str,
    inputs: Sequence[np.ndarray | None],
    *,
    outputs: int = 1,
    constant: Sequence[int] = (),
    opset: int = OPSET,
    **attrs: Any,
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Results of lutc and of ONNX Runtime for one node; the inputs listed in `constant` are initializers."""
    model = with_constants(
        single_node(op, inputs, outputs, opset, **attrs),
        {f"x{i}": inputs[i] for i in constant if inputs[i] is not None},
    )
    feeds = {value.name: np.asarray(inputs[int(value.name[1:])]) for value in model.graph.input}
    ours = runtime_session(model, threads=1).run(None, feeds)
    theirs = ort_session(model.SerializeToString()).run(None, feeds)
    return ours, theirs


def assert_same(
    ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray], rtol: float = 2e-6, atol: float = 2e-6
) -> None:
    """Same dtypes, shapes and values; integers and booleans exactly, NaN where NaN."""
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        if a.dtype.kind == "f":
            np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)
        else:
            np.testing.assert_array_equal(a, b)


def check(
    op: str, inputs: Sequence[np.ndarray | None], *, rtol: float = 2e-6, atol: float = 2e-6, **options: Any
) -> None:
    """lutc and ONNX Runtime agree on one node; options as for `run_both`."""
    ours, theirs = run_both(op, inputs, **options)
    assert_same(ours, theirs, rtol, atol)


def run_ours(
    op: str, inputs: Sequence[np.ndarray | None], *, outputs: int = 1, constant: Sequence[int] = (), **attrs: Any
) -> list[np.ndarray]:
    """Results of lutc alone for one node; options as for `run_both`."""
    constants = {f"x{i}": inputs[i] for i in constant if inputs[i] is not None}
    model = with_constants(single_node(op, inputs, outputs, **attrs), constants)
    feeds = {value.name: np.asarray(inputs[int(value.name[1:])]) for value in model.graph.input}
    return runtime_session(model, threads=1, memory_limit=1 << 26).run(None, feeds)
