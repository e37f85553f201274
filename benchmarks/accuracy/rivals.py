"""What int8 in other runtimes keeps of the metric: quantised with the task's own calibration samples, judged alike."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import peer_models
from benchmarks.accuracy.methods import FOLDER, Skipped
from benchmarks.accuracy.tasks import Case, Feed
from lutc._ort import ort_session

NAMES = ("onnxruntime_int8_dynamic", "onnxruntime_int8_qdq", "openvino_int8")
CALIBRATION_BATCHES = 24


@dataclasses.dataclass(frozen=True)
class _Input:
    name: str


class OpenVinoSession:
    """OpenVINO with ONNX Runtime's `run` and `get_inputs`; float32 wherever the model is not int8."""

    def __init__(self, path: Path, precision: str = "f32") -> None:
        import openvino

        core = openvino.Core()
        options = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": precision}
        self._model = core.compile_model(core.read_model(path), "CPU", options)
        self._request = self._model.create_infer_request()

    def get_inputs(self) -> list[_Input]:
        """The inputs' names."""
        return [_Input(port.any_name) for port in self._model.inputs]

    def run(self, names: Any, feed: Feed) -> list[NDArray[Any]]:
        """Every output, in the model's order."""
        del names
        results = self._request.infer(dict(feed))
        return [np.array(results[port]) for port in self._model.outputs]


def session(case: Case, name: str, variant: str) -> Any:
    """An int8 model in another runtime.

    Args:
        case: Which model; one fold of several.
        name: One of `NAMES`.
        variant: As `benchmarks.peers` names it: what is quantised to what.

    Raises:
        Skipped: The peer cannot do this here.
    """
    folder = FOLDER / case.folder / "rivals"
    try:
        original = peer_models.modern(case.module.model(case.name), folder)
        if name == "onnxruntime_int8_dynamic":
            return ort_session(peer_models.dynamic_int8(original, folder, "dynamic"), threads=1)
        kind, _, rest = variant.partition("-")
        scope, _, float_type = rest.partition(", rest ")
        feeds = list(itertools.islice(case.module.calibration(), CALIBRATION_BATCHES))
        path = peer_models.qdq(
            original, folder, *feeds, unsigned=kind == "u8", scope=scope, optimise=not case.transformer
        )
        if name == "onnxruntime_int8_qdq":
            return ort_session(path, threads=1)
        return OpenVinoSession(path, float_type or "f32")
    except Exception as error:  # a peer that fails must not end the comparison
        raise Skipped(f"{type(error).__name__}: {str(error).splitlines()[0][:200]}") from error


def judge_all(
    case: Case, variants: Mapping[str, str], judge: Callable[[Sequence[Any]], dict[str, Any]]
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """What every peer of which a variant was timed keeps.

    Args:
        case: Which model.
        variants: The fastest variant by peer.
        judge: Makes the fields of a row from the sessions of the case's folds.

    Returns:
        Rows, and reasons by name of those left out.
    """
    rows, skipped = [], {}
    for name in NAMES:
        if name not in variants:
            continue
        try:
            rows.append(
                {
                    "form": "int8",
                    "method": name,
                    "variant": variants[name],
                    **judge([session(fold, name, variants[name]) for fold in case.folds]),
                }
            )
        except Skipped as reason:
            skipped[name] = str(reason)
    return rows, skipped
