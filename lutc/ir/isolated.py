"""onnx's checker, shape inference and version converter in a child process: on hostile models they can crash."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import onnx
import onnx_ir as ir

from lutc.errors import UnsupportedModelError

SMALL = 4096  # elements; larger initialisers stay at home, their type and shape travel
TIMEOUT_S = 60
MAX_BYTES = 256 << 20  # a graph above this without its weights is not sent


def run_worker(task: str, data: bytes, timeout_s: float = TIMEOUT_S) -> bytes | None:
    """Runs one task of onnx_worker.py on a serialised model.

    Returns:
        The resulting model, or None when it took longer than `timeout_s`.

    Raises:
        UnsupportedModelError: onnx rejects the model, or its process died on it.
    """
    worker = Path(__file__).with_name("onnx_worker.py")
    try:
        done = subprocess.run(
            [sys.executable, "-I", str(worker), task], input=data, capture_output=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        return None
    if done.returncode == 0:
        return done.stdout
    said = done.stderr.decode(errors="replace").strip()
    if done.returncode == 3:
        raise UnsupportedModelError(f"onnx cannot {task.partition(':')[0]} this model: {said[:2000]}")
    how = f"signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
    raise UnsupportedModelError(
        f"onnx's own code crashed on this model ({how}) in '{task}'; the model is damaged or malicious. {said[-500:]}"
    )


def without_weights(model: ir.Model) -> bytes:
    """The model serialised with every large initialiser turned into a model input of the same type and shape."""
    taken: list[ir.Value] = []
    added: list[ir.Value] = []
    for value in list(model.graph.initializers.values()):
        tensor = value.const_value
        if tensor is None or tensor.size > SMALL or isinstance(tensor, ir.ExternalTensor):
            if tensor is not None:
                value.shape, value.type = ir.Shape(tensor.shape.numpy()), ir.TensorType(tensor.dtype)
            del model.graph.initializers[value.name]  # type: ignore[arg-type]
            if not value.is_graph_input():
                model.graph.inputs.append(value)
                added.append(value)
            taken.append(value)
    try:
        return ir.to_proto(model).SerializeToString()
    finally:
        for value in added:
            model.graph.inputs.remove(value)
        for value in taken:
            model.graph.register_initializer(value)


def convert_with_onnx(model: ir.Model, version: int) -> ir.Model:
    """Converts a model to another opset with onnx's C++ converter; large weights never leave this process."""
    weights = {name: value.const_value for name, value in model.graph.initializers.items()}
    inputs = [value.name for value in model.graph.inputs]
    data = without_weights(model)
    result = run_worker(f"convert:{version}", data) if len(data) <= MAX_BYTES else None
    if result is None:
        raise UnsupportedModelError(
            f"converting the model to opset {version} took too long; export it again with opset_version={version}"
        )
    converted = ir.from_proto(onnx.load_model_from_string(result))
    kept = set(inputs)
    for value in [v for v in converted.graph.inputs if v.name not in kept]:
        converted.graph.inputs.remove(value)
        value.const_value = weights.get(value.name or "")
        if value.const_value is not None:
            converted.graph.register_initializer(value)
    return converted
