"""How a model is compiled for the comparison: names, arguments of `lutc compile`, the artifacts."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lutc
from benchmarks.accuracy.tasks import Case
from benchmarks.artifacts import TARGETS
from benchmarks.networks import WORK

FOLDER = WORK / "accuracy"
_KEPT_S = 3600

_PARTS = ("wide", "wider")
"""Parts of a model: in braces, arguments may name their layers, which the task has under the name in capitals."""

MISSED = 4
"""Exit status of a compilation that could not keep its budget."""


class Skipped(Exception):
    """What this lutc, or this machine, cannot do; the message says why."""


@dataclasses.dataclass(frozen=True)
class Method:
    """One way to compile.

    Attributes:
        form: Of the layers, or "selected".
        method: What finds the parameters: "closed form", "learning", "lutnn", "k-means", "none".
        arguments: Of `lutc compile`.
        minutes: Of learning.
        max_drop: Largest allowed drop of the metric on the selection split, as a share of the original's; 0: none.
    """

    form: str
    method: str
    arguments: tuple[str, ...]
    minutes: float = 0
    max_drop: float = 0

    @property
    def name(self) -> str:
        """For people and files."""
        return f"{self.form}, {self.method}" + (f" {self.minutes:g} min" if self.minutes else "")

    def learned(self, minutes: float) -> Method:
        """The same with so many minutes of learning."""
        more = (*self.arguments, "--learn", f"{minutes:g}")
        return dataclasses.replace(self, method="learning", minutes=minutes, arguments=more)


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What `lutc compile` made: the artifact, its report, and whether the budget was kept."""

    path: Path
    report: dict[str, Any]
    kept: bool


def uniform(form: str) -> Method:
    """Every layer that can in one form."""
    return Method(form, "none" if form in ("int8", "fp32") else "closed form", ("--preset", form))


def part(name: str, form: str, rest: str) -> Method:
    """One form in the layers that the task calls so ("wide", "wider"), another in the rest."""
    return Method(f"{rest}, {name} {form}", "closed form", ("--preset", rest, "--form", f"{{{name}}}={form}"))


def budgeted(share: float) -> Method:
    """Selected forms under a budget: a share of the original's metric."""
    return Method(f"selected for {100 * share:g} %", "closed form", (), max_drop=share)


def preset(name: str) -> Method:
    """Forms selected by one of the presets that name a divergence."""
    return Method(f"selected, {name}", "closed form", ("--preset", name))


METHODS = (
    *map(uniform, ("int8", "gain-v3", "gain-v4", "gain-v6", "gain-v8", "plain-v8")),
    part("wide", "gain-v8", "gain-v4"), part("wider", "gain-v8", "gain-v4"),
    preset("accurate"), preset("balanced"), preset("fast"), budgeted(0.01), budgeted(0.03),
)  # fmt: skip
"""Those of a plain run."""


def artifact(case: Case, method: Method, isa: str) -> Path:
    """Where the artifact lies once it has been compiled."""
    slug = re.sub(r"[^a-z0-9]+", "-", method.name.lower()).strip("-")
    return FOLDER / case.folder / f"{slug}-{isa}.lut"


def compile(case: Case, method: Method, isa: str, dense: float | None = None) -> Compiled:
    """Runs the command line; its report lies beside the artifact.

    Args:
        case: What to compile; one fold of several.
        method: How.
        isa: Of the tables.
        dense: The original's metric on the selection split, where the method has a budget.

    Raises:
        Skipped: This lutc lacks an option, or cannot compile this model in this way.
    """
    path = artifact(case, method, isa)
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = "learning" if method.minutes else "calibration"
    words = ["compile", str(case.module.model(case.name)), "--calib", case.source(samples)]
    words += ["-o", str(path), "--target", TARGETS[isa], *_arguments(case, method), *timed_at(case)]
    if not method.minutes:  # other targets, presets and budgets reuse fits and measured candidates
        words += ["--resume", str(_fits(path.parent))]
    if method.max_drop:
        assert dense is not None
        words += ["--score", case.source("selection_score"), "--max-drop", f"{method.max_drop * dense:.6f}"]
    start = time.perf_counter()
    status, report = _lutc(words)
    seconds = time.perf_counter() - start
    if status not in (0, MISSED):
        raise Skipped(str(report.get("error", f"exit status {status}")).splitlines()[0][:300])
    if status == MISSED:  # the message holds no layers; the artifact does
        report = {**_inspect(path), "error": report.get("error")}
    report["compile_seconds"] = round(seconds, 1)
    path.with_suffix(".json").write_text(json.dumps(report), encoding="utf-8")
    return Compiled(path, report, status == 0)


def _arguments(case: Case, method: Method) -> list[str]:
    """Those of a method, for this model."""
    words = list(method.arguments)
    for part in _PARTS:
        place = f"{{{part}}}"
        if any(place in word for word in words):
            layers = getattr(case.module, part.upper(), {}).get(case.name)
            if layers is None:
                raise Skipped(f"the task names no {part} layers of it")
            words = [word.replace(place, layers) for word in words]
    return words


def compile_all(case: Case, method: Method, isa: str, dense: Callable[[Case], float]) -> list[Compiled]:
    """Each of a case's folds; `dense` gives an original's metric on its selection split. See `compile`."""
    return [compile(fold, method, isa, dense(fold) if method.max_drop else None) for fold in case.folds]


def _fits(parent: Path) -> Path:
    """A folder for checkpoints of this very version of the compiler; those unused for an hour are deleted."""
    folder = parent / f"fits-{_sources()}"
    folder.mkdir(exist_ok=True)
    folder.touch()
    for other in parent.glob("fits-*"):
        if other.stat().st_mtime < time.time() - _KEPT_S:
            shutil.rmtree(other, ignore_errors=True)
    return folder


@functools.lru_cache(maxsize=1)
def _sources() -> str:
    """Names the compiler's Python sources."""
    digest = hashlib.sha256()
    for path in sorted(Path(lutc.__file__).parent.rglob("*.py")):
        if not path.name.endswith("_test.py"):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def timed_at(case: Case) -> list[str]:
    """Flags that tell the compiler the inputs that are timed; empty where it has no such option."""
    shapes = {name: "x".join(map(str, array.shape)) for name, array in case.module.timing().items()}
    if "--time-shape" not in _options():
        return []
    return [word for name, shape in shapes.items() for word in ("--time-shape", f"{name}={shape}")]


def _lutc(words: Sequence[str]) -> tuple[int, dict[str, Any]]:
    command = [sys.executable, "-m", "lutc", *words, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False, text=True)
    try:
        return done.returncode, json.loads(done.stdout.splitlines()[-1])
    except (json.JSONDecodeError, IndexError):
        return done.returncode, {}


def _inspect(path: Path) -> dict[str, Any]:
    status, report = _lutc(["inspect", str(path), "--layers"])
    return report if status == 0 else {}


@functools.lru_cache(maxsize=1)
def _options() -> str:
    """The help of `lutc compile`, wide enough that no option is cut."""
    command = [sys.executable, "-m", "lutc", "compile", "--help"]
    environment = dict(os.environ, COLUMNS="200")
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment).stdout
