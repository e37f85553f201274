"""`lutc targets`: what can be compiled for, and where each target's cost model comes from."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from lutc import _runtime
from lutc.cli.common import Json, Quiet, emit, human, progress, table
from lutc.cost.store import ISAS, isa_of, load, save
from lutc.errors import LutcError, UsageError
from lutc.pack import resolve_target


def command(
    measure: Annotated[
        bool,
        typer.Option("--measure", help="Measure this machine's kernels (some minutes) and keep the cost model."),
    ] = False,
    isa: Annotated[
        str | None,
        typer.Option("--isa", metavar="NAME[,NAME]", help="Measure these ISAs or targets; all of this CPU by default."),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """List the targets and their cost models; measure those of this machine."""
    if isa is not None and not measure:
        raise UsageError("--isa says what to measure: add --measure")
    out = human(json)
    notes: list[str] = []
    kept: dict[str, str | None] = {}
    here = _runtime.available_isas()
    if measure:
        from lutc.cost.measure import measure as measure_isa  # compiles models: not needed for a list

        wanted = [isa_of(name.strip()) for name in isa.split(",")] if isa else list(reversed(here))
        for name in dict.fromkeys(wanted):
            if name not in here:
                raise UsageError(f"this CPU has no {name}; it can measure {', '.join(here)}")
            model = measure_isa(name, progress(quiet))
            path = save(model)
            kept[name] = None if path is None else str(path)
            where = f"kept in {path}" if path else "not kept: the cache folder cannot be written"
            out.print(f"{name}: median error {model.error:.1%} over what was measured, {where}", markup=False)
    native = resolve_target("native")
    rows = [_row(name, name == native, ISAS[name] in here, notes) for name in ISAS]
    columns = ["target", "kernels", "here", "cost model", "machine", ">median error"]
    cells = [
        [
            row["target"] + (" (native)" if row["native"] else ""),
            row["isa"],
            "runs" if row["runs_here"] else "",
            row["source"] or "none",
            row["machine"] or "",
            "" if row["error"] is None else f"{row['error']:.1%}",
        ]
        for row in rows
    ]
    out.print(table("", columns, cells))
    for note in dict.fromkeys(notes):
        out.print(f"note: {note}", markup=False)
    if json:
        emit({"targets": rows, "notes": list(dict.fromkeys(notes)), "measured": kept})


def _row(target: str, native: bool, runs: bool, notes: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {"target": target, "isa": ISAS[target], "native": native, "runs_here": runs}
    try:
        model = load(target, notes.append)
    except LutcError as error:
        notes.append(str(error))
        return {**found, "source": None, "machine": None, "error": None}
    return {**found, "source": model.source, "machine": model.machine, "error": model.error}
