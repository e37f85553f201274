"""The one place that imports ONNX Runtime: its telemetry is switched off first, its pool sleeps when idle."""

from __future__ import annotations

import os
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime as ort

__all__ = ["ort", "ort_session"]

_QUIET = 3  # errors only


def ort_session(model: str | os.PathLike[str] | bytes, *, threads: int = 1, profile: str | None = None) -> Any:
    """An ONNX Runtime session on the CPU.

    Args:
        model: path or serialised model.
        threads: threads inside an operator; operators run one after another.
        profile: prefix of a profile file to write, or None.

    Returns:
        onnxruntime.InferenceSession.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _QUIET
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = profile
    source = model if isinstance(model, bytes) else os.fspath(model)
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
