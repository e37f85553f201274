"""The tasks: each a module that knows its models, its three disjoint splits and its metric."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks import recognition

NAMES = ("sts", "sst2", "cifar10", "speech")
"""Modules of `benchmarks`."""

Feed = Mapping[str, NDArray[Any]]


class Task(Protocol):
    """What the module of a task offers.

    Attributes:
        METRIC: What `metric` computes; higher is better.
        MODELS: Names that `model` takes.
    """

    METRIC: str
    MODELS: tuple[str, ...]

    def model(self, name: str) -> Path:
        """The ONNX model, made if need be; raises FileNotFoundError or ImportError where that is impossible."""

    def calibration(self) -> Iterator[Feed]:
        """Unlabelled samples to compile with."""

    def selection(self) -> Iterator[Feed]:
        """Samples on which the compiler may judge."""

    def test(self) -> Iterator[Feed]:
        """Samples that nothing is chosen by."""

    def timing(self) -> Feed:
        """Inputs of one inference."""

    def answers(self, session: Any, split: str) -> NDArray[np.float64]:
        """What the metric is computed from: one row a sample of "selection" or "test"."""

    def metric(self, outcomes: NDArray[np.float64]) -> float:
        """The metric of such rows, or of a resampling of them."""

    def selection_score(self, session: Any) -> float:
        """The metric on the selection split: for `lutc compile --score`."""


@dataclasses.dataclass(frozen=True)
class Case:
    """One model of one task, or one of the networks of a model that is cross-validated.

    Attributes:
        task: The task's module.
        name: The model's.
        fold: Which of the task's folds, as its module names it; empty: all of them, or there are none.
        limit: Of several folds only so many are used; 0: all.
    """

    task: str
    name: str
    fold: str = ""
    limit: int = 0

    @property
    def module(self) -> Task:
        """The task's module, or the fold in it. Where there are folds, the module itself only knows the metric."""
        found = importlib.import_module(f"benchmarks.{self.task}")
        return getattr(found, self.fold) if self.fold else found  # type: ignore[return-value]

    @property
    def folds(self) -> tuple[Case, ...]:
        """The networks whose test samples are judged together: of most models the only one."""
        names = () if self.fold else getattr(self.module, "FOLDS", ())
        chosen = names[: self.limit or len(names)]
        return tuple(Case(self.task, self.name, name) for name in chosen) or (self,)

    @property
    def model(self) -> str:
        """The model's name in results; some of the folds are not the model."""
        return f"{self.name} ({self.limit} folds)" if self.limit and self.limit < len(self.all_folds) else self.name

    @property
    def all_folds(self) -> tuple[Case, ...]:
        """`folds` without a limit."""
        return dataclasses.replace(self, limit=0).folds

    @property
    def folder(self) -> str:
        """A name for what is made of it."""
        return "-".join(filter(None, (self.task, self.name, self.fold.lower())))

    @property
    def transformer(self) -> bool:
        """Whether the model is one."""
        return self.task in ("sts", "sst2")

    @property
    def classifies(self) -> bool:
        """Whether the largest output is the answer."""
        return self.module.METRIC == recognition.METRIC

    def source(self, function: str) -> str:
        """What `lutc` is given to find one of the task's functions."""
        return f"benchmarks.{self.task}:{'.'.join(filter(None, (self.fold, function)))}"

    def __str__(self) -> str:
        return " ".join(filter(None, (self.task, self.model, self.fold.lower())))


def cases(tasks: str, limit: int = 0) -> list[Case]:
    """Every model of these tasks, separated by commas, with `limit` folds at most (0: all).

    Raises:
        ValueError: No such task.
    """
    found = []
    for task in tasks.split(","):
        if task not in NAMES:
            raise ValueError(f"{task!r} is no task; there are {', '.join(NAMES)}")
        found += [Case(task, name, limit=limit) for name in importlib.import_module(f"benchmarks.{task}").MODELS]
    return found


class Recorder:
    """A session that remembers the first output of every run, one row a sample."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._rows: list[NDArray[Any]] = []

    def get_inputs(self) -> Any:
        """Those of the session."""
        return self._session.get_inputs()

    def run(self, names: Any, feed: Feed) -> list[NDArray[Any]]:
        """Runs the session."""
        results = self._session.run(names, feed)
        self._rows.append(np.asarray(results[0]).reshape(len(results[0]), -1))
        return results

    @property
    def outputs(self) -> NDArray[Any]:
        """Every output so far, float [samples, features]."""
        return np.concatenate(self._rows)
