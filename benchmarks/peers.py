"""Other runtimes at their best settings, each as something callable on the same feed."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import Call
from lutc._ort import ort_session

Feed = Mapping[str, np.ndarray]


def session_call(session: Any, feed: Feed) -> Call:
    """A call of anything with ONNX Runtime's `run` on the inputs it declares."""
    names = {value.name for value in session.get_inputs()}
    bound = {name: value for name, value in feed.items() if name in names}
    return lambda: session.run(None, bound)


def quantize_int8(model: Path, output: Path) -> Path:
    """ONNX Runtime's dynamic int8 quantisation: pre-processed graph, weights per output channel.

    Args:
        model: The fp32 model.
        output: The file to write; `<stem>.pre.onnx` is left beside it.

    Returns:
        `output`.
    """
    from onnxruntime.quantization import QuantType, quant_pre_process, quantize_dynamic

    prepared = output.with_suffix(".pre.onnx")
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it warns about its own symbolic shapes
    try:
        quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True)
        quantize_dynamic(prepared, output, per_channel=True, weight_type=QuantType.QInt8)
    finally:
        root.setLevel(level)
    prepared.unlink()
    return output


def onnxruntime_calls(fp32: Path, int8: Path, feed: Feed) -> dict[str, Call]:
    """ONNX Runtime on one thread: fp32 and dynamic int8."""
    return {
        "onnxruntime_fp32": session_call(ort_session(fp32), feed),
        "onnxruntime_int8_dynamic": session_call(ort_session(int8), feed),
    }


def openvino_calls(fp32: Path, feed: Feed) -> tuple[dict[str, Call], dict[str, str]]:
    """OpenVINO on one thread: fp32, and bf16 where the CPU multiplies it.

    Returns:
        Calls by name, and the reason for each peer that is skipped.
    """
    if importlib.util.find_spec("openvino") is None:
        return {}, {name: "openvino is not installed" for name in ("openvino_fp32", "openvino_bf16")}
    os.environ.setdefault("OPENVINO_TELEMETRY_CONSENT", "0")
    import openvino

    core = openvino.Core()
    calls: dict[str, Call] = {}
    skipped: dict[str, str] = {}
    for name, precision in (("openvino_fp32", "f32"), ("openvino_bf16", "bf16")):
        if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            skipped[name] = "this CPU has no bf16 arithmetic"
            continue
        model = core.read_model(fp32)
        # Static shapes are its best case.
        model.reshape({port.any_name: list(feed[port.any_name].shape) for port in model.inputs})
        options = {
            "INFERENCE_NUM_THREADS": 1,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": precision,
            "ENABLE_CPU_PINNING": False,
        }
        compiled = core.compile_model(model, "CPU", options)
        request = compiled.create_infer_request()
        inputs = {port.any_name: np.ascontiguousarray(feed[port.any_name]) for port in compiled.inputs}
        calls[name] = lambda request=request, inputs=inputs: request.infer(inputs)  # type: ignore[misc]
    return calls, skipped
