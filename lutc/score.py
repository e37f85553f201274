"""The user's accuracy budget: a score of the original and of the artifact, and what to do when it is missed."""

from __future__ import annotations

import os
from typing import Any

import onnx

from lutc._ort import ort_session
from lutc.drop import Score, Scored
from lutc.errors import BudgetMissedError
from lutc.report import keep_lines
from lutc.select import Budget, Selection
from lutc.session import InferenceSession


def check_budget(
    score: Score,
    model: str | os.PathLike[str] | onnx.ModelProto,
    artifact: str | os.PathLike[str],
    report: dict[str, Any],
    max_drop: float | None,
) -> dict[str, float]:
    """Measures the score of the original (ONNX Runtime) and of the artifact.

    Args:
        score: brings its own data.
        model: the original.
        artifact: the compiled model.
        report: the compiler's report, for the message.
        max_drop: largest allowed drop; None allows any.

    Returns:
        See `lutc.drop.Scored.compare`.

    Raises:
        BudgetMissedError: the drop is larger (or not a number); `report` is attached to it.
    """
    source = model.SerializeToString() if isinstance(model, onnx.ModelProto) else model
    scored = Scored.of(score, ort_session(source))
    drop = scored.drop(InferenceSession(artifact))
    result = scored.told(drop)
    if max_drop is not None and not drop.most <= max_drop:
        lines = keep_lines(report["layers"])
        advice = "\nThe layers of largest error can stay dense:\n  " + "\n  ".join(lines) if lines else ""
        error = BudgetMissedError(
            f"the score fell from {result['reference']:.4f} to {result['compiled']:.4f}: "
            f"a drop of {drop}, allowed {max_drop:g}. The artifact is kept: {artifact}{advice}\n"
            "Or let the compiler choose the forms: --preset accurate"
        )
        error.report = {**report, "score": result}  # type: ignore[attr-defined]
        raise error
    return result


def missed(
    budget: Budget, selection: Selection, artifact: str | os.PathLike[str], report: dict[str, Any]
) -> BudgetMissedError:
    """The error of a selection that found nothing within its budget; `report` is attached to it."""
    lines = keep_lines(report["layers"])
    advice = "\nThe layers that cost most can stay dense:\n  " + "\n  ".join(lines) if lines else ""
    error = BudgetMissedError(
        f"nothing keeps {budget}: the most accurate model loses {selection.loss:.4g}. It is kept: {artifact}{advice}"
    )
    error.report = report  # type: ignore[attr-defined]
    return error
