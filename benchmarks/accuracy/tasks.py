"""The tasks: each a module that knows its models, its three disjoint splits and its metric."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

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
    """One model of one task."""

    task: str
    name: str

    @property
    def module(self) -> Task:
        """The task's module."""
        return importlib.import_module(f"benchmarks.{self.task}")  # type: ignore[return-value]

    @property
    def transformer(self) -> bool:
        """Whether the model is one."""
        return self.task in ("sts", "sst2")

    def __str__(self) -> str:
        return f"{self.task} {self.name}"


def cases(tasks: str) -> list[Case]:
    """Every model of these tasks, separated by commas.

    Raises:
        ValueError: No such task.
    """
    found = []
    for task in tasks.split(","):
        if task not in NAMES:
            raise ValueError(f"{task!r} is no task; there are {', '.join(NAMES)}")
        found += [Case(task, name) for name in importlib.import_module(f"benchmarks.{task}").MODELS]
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
