"""Compares a compiled model with the original on samples: cosine, error, top-1 agreement, a score of the user's."""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from lutc._ort import ort_session
from lutc.drop import Score, Scored
from lutc.errors import UsageError
from lutc.observe import InputSpec, open_source, validate
from lutc.observe.inputs import count_samples, split_batch
from lutc.progress import Progress
from lutc.synthetic import numpy_dtype

_BATCH = 64


def evaluate(
    compiled: Any,
    reference: str | os.PathLike[str] | bytes,
    data: Any,
    *,
    score: Score | None = None,
    threads: int = 1,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Runs both models on the same samples.

    Args:
        compiled: a session of the compiled model (`lutc.InferenceSession`, or any with its `run` and `get_outputs`).
        reference: the original model, run by ONNX Runtime: a path or serialised bytes.
        data: samples: whatever `lutc.observe.open_source` takes.
        score: see `lutc.drop.Score`; called once for each model.
        threads: of ONNX Runtime.
        progress: receives one unit for each batch.

    Returns:
        `samples`; `outputs`: by name {cosine (mean over samples), cosine_min, max_abs_error, top1_agreement (None where
        the output has not the shape of class scores)}; and `score` (see `lutc.drop.Scored.compare`) if asked for.

    Raises:
        UsageError: no samples.
    """
    progress = progress or Progress()
    try:
        original = ort_session(reference, threads=threads)
    except Exception as error:  # ONNX Runtime's exceptions share no base
        raise UsageError(f"ONNX Runtime cannot load the reference: {error}") from error
    names = [item.name for item in compiled.get_outputs()]
    measures = {name: _Agreement() for name in names}
    samples = 0
    progress.start("evaluate", 0)
    for count, feeds in enumerate(_batches(data, original.get_inputs()), 1):
        expected = original.run(names, feeds)
        found = compiled.run(names, feeds)
        for name, want, got in zip(names, expected, found, strict=True):
            measures[name].add(np.asarray(want), np.asarray(got))
        samples += count_samples(feeds)
        progress.update(count)
    progress.finish()
    if not samples:
        raise UsageError("the evaluation data holds no samples")
    result: dict[str, Any] = {"samples": samples, "outputs": {name: m.result() for name, m in measures.items()}}
    if score is not None:
        result["score"] = Scored.of(score, original).compare(compiled)
    return result


def load_callable(name: str, flag: str) -> Callable[..., Any]:
    """Imports `pkg.mod:function`.

    Raises:
        UsageError: not of this form, no such module or function; `flag` names the command line's flag.
    """
    module, colon, attribute = name.partition(":")
    if not colon or not module or not attribute:
        raise UsageError(f"{flag} '{name}' is not pkg.mod:function")
    try:
        found = functools.reduce(getattr, attribute.split("."), importlib.import_module(module))
    except (ImportError, AttributeError) as error:
        raise UsageError(f"{flag} '{name}': {error}") from error
    if not callable(found):
        raise UsageError(f"{flag} '{name}' cannot be called")
    return found


def _batches(data: Any, inputs: Sequence[Any]) -> Iterator[dict[str, np.ndarray]]:
    """The samples, checked against the model and cut into batches of moderate size."""
    specs = [InputSpec(item.name, np.dtype(numpy_dtype(item.type)), tuple(item.shape)) for item in inputs]
    for count, batch in enumerate(open_source(data).batches(specs)):
        checked = validate(batch, specs, count)
        yield from split_batch(checked, specs, _BATCH)


class _Agreement:
    """Running comparison of one output."""

    def __init__(self) -> None:
        self.cosines: list[float] = []
        self.max_error = 0.0
        self.agree = self.ranked = 0

    def add(self, want: np.ndarray, got: np.ndarray) -> None:
        """Adds a batch; the first axis holds the samples."""
        if want.shape != got.shape:
            raise UsageError(f"the models' outputs differ in shape: {list(want.shape)} and {list(got.shape)}")
        if not want.size:
            return
        with np.errstate(invalid="ignore"):
            self.max_error = float(np.maximum(self.max_error, np.max(np.abs(got.astype(np.float64) - want))))
        rows = (max(want.shape[0], 1), -1) if want.ndim else (1, 1)
        a, b = want.astype(np.float64).reshape(rows), got.astype(np.float64).reshape(rows)
        norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        equal = np.all(a == b, axis=1)
        self.cosines += list(np.where(equal, 1.0, np.sum(a * b, axis=1) / np.where(norms > 0, norms, 1.0)))
        if want.ndim == 2 and want.shape[1] > 1 and np.issubdtype(want.dtype, np.floating):
            self.agree += int(np.sum(want.argmax(1) == got.argmax(1)))
            self.ranked += len(want)

    def result(self) -> dict[str, float | None]:
        """The measures so far."""
        return {
            "cosine": float(np.mean(self.cosines)) if self.cosines else None,
            "cosine_min": float(np.min(self.cosines)) if self.cosines else None,
            "max_abs_error": self.max_error,
            "top1_agreement": self.agree / self.ranked if self.ranked else None,
        }
