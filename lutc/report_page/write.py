"""Writes the page for one run of `lutc compile`."""

from __future__ import annotations

import contextlib
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lutc.compile import compile
from lutc.errors import LutcError, UsageError
from lutc.forms import Form
from lutc.report_page.facts import Facts, Times, machine, versions
from lutc.report_page.measure import measure
from lutc.report_page.page import render

Shapes = Mapping[str, Sequence[int | None]]


def check_destination(path: Path) -> None:
    """Fails before any long work if the page cannot be written.

    Raises:
        UsageError: `path` is a folder or in none.
    """
    if path.is_dir() or not path.parent.is_dir():
        raise UsageError(f"--report '{path}': name a file in a folder that exists, such as --report report.html")


def write_page(
    path: Path,
    report: Mapping[str, Any],
    *,
    model: Path,
    artifact: Path,
    command: str,
    calib: str | None,
    shapes: Shapes,
    missed: str = "",
) -> None:
    """Measures the artifact beside its int8 and fp32 forms and writes the page.

    Args:
        path: The page.
        report: Of the compilation.
        model: The original.
        artifact: The compiled model.
        command: That made it.
        calib: Where the samples came from.
        shapes: Of the inputs, as given to the compiler.
        missed: Why the budget was missed, if it was.

    Raises:
        UsageError: The page cannot be written.
    """
    times = _times(artifact, model, report, shapes, str(report.get("target", "native")))
    facts = Facts(
        model=model.name,
        artifact=artifact.name,
        commands=[
            command,
            shlex.join(["lutc", "inspect", str(artifact), "--verify", "--layers"]),
            shlex.join(["lutc", "bench", str(artifact), str(model), "--per-op"]),
        ],
        calibration=_calibration(report, calib),
        versions=versions(),
        machine=machine(),
        times=times,
        missed=missed,
    )
    try:
        path.write_text(render(report, facts), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write '{path}': {error.strerror or error}") from error


def _times(artifact: Path, model: Path, report: Mapping[str, Any], shapes: Shapes, target: str) -> Times | None:
    """None where this machine cannot run the artifact: it may be for another."""
    forms = {str(row["name"]): Form.parse(row["form"]) for row in report.get("layers", ())}
    kinds = [*(["int8"] if any(not form.dense for form in forms.values()) else []), "fp32"] if forms else []
    with tempfile.TemporaryDirectory() as folder:
        others = {}
        for kind in kinds:
            path = Path(folder) / f"{kind}.lut"
            keep = [".*=fp32"] if kind == "fp32" else []
            with contextlib.suppress(LutcError):
                compile(model, output=path, preset="int8", keep=keep, shape=shapes, target=target)
                others[kind] = path
        try:
            return measure(artifact, model, list(forms), others, {**shapes, **_time_shape(report)})
        except LutcError:
            return None


def _time_shape(report: Mapping[str, Any]) -> Shapes:
    found = (report.get("selection") or {}).get("time_shape")
    return found if isinstance(found, Mapping) else {}


def _calibration(report: Mapping[str, Any], calib: str | None) -> dict[str, str]:
    facts = {"samples": calib or "none"}
    found = report.get("calibration")
    if isinstance(found, Mapping):
        facts.update({str(name): str(value) for name, value in found.items()})
    return facts
