"""Learning lookup layers end to end, without labels: the extra `learn` (PyTorch)."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from lutc.errors import UsageError
from lutc.fit import FitResult
from lutc.observe import CalibrationSource

if TYPE_CHECKING:
    from lutc.learn.driver import LearnResult

__all__ = ["check_available", "check_learning", "learn_model"]


def check_available(model: ir.Model | None = None) -> None:
    """Raise before any long work if learning is impossible.

    Args:
        model: A canonical model that is to be learned, if there is one yet.

    Raises:
        UsageError: PyTorch is not installed.
        UnsupportedModelError: The model has nodes that learning cannot follow; the message names them.
    """
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise UsageError("--learn needs PyTorch: pip install 'lutc[learn]'") from error
    if model is not None:
        from lutc.learn.graph import check_learnable

        check_learnable(model)


def check_learning(minutes: float, model: ir.Model | None = None) -> None:
    """`check_available`, and whether the minutes make sense."""
    if not 0 < minutes < math.inf:
        raise UsageError(f"--learn {minutes}: say how many minutes to learn for, such as --learn 10")
    check_available(model)


def learn_model(
    original: ir.Model,
    fitted: FitResult,
    source: CalibrationSource,
    *,
    minutes: float,
    steps: int | None = None,
    integer: Collection[str] = (),
    seed: int = 0,
    threads: int | None = None,
    progress: Callable[[str, int, int, str], Any] | None = None,
    checkpoint_dir: str | os.PathLike[str] | None = None,
    **settings: Any,
) -> LearnResult:
    """Learn entries, weights, biases and normalisations of a fitted model end to end, from unlabelled samples.

    Args:
        original: Canonical model before the fit.
        fitted: From `lutc.fit.fit_model`.
        source: Unlabelled samples, more than the fit kept are welcome; an eighth judges and is not learned from.
        minutes: To spend; the schedule of rates follows them.
        steps: Instead of minutes.
        integer: Outputs of dense layers that become int8 later: simulated, not changed.
        seed: Of the minibatches.
        threads: CPU threads; PyTorch's choice when None.
        progress: Called as progress(stage, done, total, note); its method `note`, if any, gets lines.
        checkpoint_dir: Folder of checkpoints, written every minute; an interrupted run continues from there.
        settings: Further fields of `lutc.learn.trainer.Settings`.

    Returns:
        The learned model, or the fitted one where it does better on the held-out samples.

    Raises:
        UsageError: PyTorch is not installed, or the samples do not fit.
        UnsupportedModelError: Learning cannot follow a node; the message names it.
    """
    check_available()
    from lutc.learn.driver import learn
    from lutc.learn.trainer import Settings

    return learn(
        original,
        fitted,
        source,
        Settings(minutes=minutes, steps=steps, seed=seed, **settings),
        integer=integer,
        threads=threads,
        progress=progress,
        checkpoint_dir=checkpoint_dir,
    )
