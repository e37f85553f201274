"""`lutc compile`: an ONNX model becomes an artifact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from lutc.cli.common import Json, Quiet, ScoreFunction, Shapes, emit, human, megabytes, parse_shapes, progress, table
from lutc.cli.inspect import layer_table
from lutc.cli.reproduce import command_line
from lutc.compile import compile
from lutc.drop import score_line
from lutc.errors import BudgetMissedError
from lutc.pack import TARGETS
from lutc.report import worst_first
from lutc.report_page import check_destination, write_page

_SRC = ".npz, directory of .npy/.npz, pkg.mod:callable yielding dicts, or random"


def command(
    context: typer.Context,
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="The model.")],
    calib: Annotated[str | None, typer.Option("--calib", metavar="SRC", help=f"Unlabelled samples: {_SRC}.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="OUT.lut", help="MODEL.lut beside the model by default.")
    ] = None,
    preset: Annotated[
        str,
        typer.Option("--preset", metavar="accurate|balanced|fast|FORM", help="A budget, or a form for all layers."),
    ] = "accurate",
    score: ScoreFunction = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            "--max-drop",
            metavar="X",
            help="Largest allowed drop of the score (with 95 % confidence where it tells samples); exit 4 beyond.",
        ),
    ] = None,
    time_shape: Annotated[
        list[str] | None,
        typer.Option("--time-shape", metavar="NAME=1x128", help="Input size for which time counts; one an input."),
    ] = None,
    learn: Annotated[
        float | None,
        typer.Option("--learn", metavar="MINUTES", help="Then learn end to end, without labels; needs lutc[learn]."),
    ] = None,
    method: Annotated[
        str, typer.Option("--method", metavar="lutc|lutnn", help="lutnn: the paper's own method, as a baseline.")
    ] = "lutc",
    keep: Annotated[
        list[str] | None,
        typer.Option("--keep", metavar="REGEX=fp32|int8", help="Layers that stay dense, by part of the name."),
    ] = None,
    form: Annotated[
        list[str] | None, typer.Option("--form", metavar="REGEX=gain-v3", help="Form of some layers.")
    ] = None,
    shape: Shapes = None,
    target: Annotated[str, typer.Option("--target", metavar="|".join(TARGETS))] = "native",
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="All CPUs granted by default.")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
    resume: Annotated[
        Path | None, typer.Option("--resume", metavar="DIR", help="Keep finished layers here; continue from them.")
    ] = None,
    size: Annotated[
        str,
        typer.Option("--size", metavar="small|fast|auto", help="Store tables as factors: always, never, or if free."),
    ] = "auto",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be replaced, and why.")] = False,
    save_onnx: Annotated[
        Path | None, typer.Option("--save-onnx", metavar="PATH", help="Also write the compressed model as ONNX.")
    ] = None,
    page: Annotated[
        Path | None, typer.Option("--report", metavar="PAGE.html", help="Write what was done, and why, as one page.")
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compile MODEL.onnx to a .lut artifact."""
    out = human(json)
    if page is not None:
        check_destination(page)
    shapes = parse_shapes(shape)

    def write_report(report: dict[str, Any], artifact: Path, missed: str = "") -> None:
        if page is not None:
            line = command_line(context)
            write_page(
                page, report, model=model, artifact=artifact, command=line, calib=calib, shapes=shapes, missed=missed
            )
            out.print(f"{page}: the report", markup=False)

    try:
        result = compile(
            model,
            calib=calib,
            output=output,
            preset=preset,
            keep=keep or (),
            form=form or (),
            shape=shapes,
            target=target,
            threads=threads,
            seed=seed,
            resume=resume,
            size=size,
            score=score,
            max_drop=max_drop,
            time_shape=parse_shapes(time_shape, "--time-shape"),
            learn=learn,
            method=method,
            dry_run=dry_run,
            save_onnx=save_onnx,
            progress=progress(quiet),
        )
    except BudgetMissedError as error:
        report = getattr(error, "report", None)
        if report is not None:
            worst = worst_first(report["layers"])
            out.print(selection_table(worst) if "selection" in report else layer_table(worst))
            write_report(report, output or model.with_suffix(".lut"), str(error))
        raise
    report = result.report
    if dry_run:
        rows = [[x["name"], x["op"], x["form"], x["why"], megabytes(x["bytes_dense"])] for x in report["layers"]]
        out.print(
            table("Nothing was fitted or written (--dry-run).", ["layer", "op", "form", "why", ">fp32 size"], rows)
        )
    else:
        out.print(selection_table(report["layers"]) if "selection" in report else layer_table(report["layers"]))
        if "learn" in report:
            r = report["learn"]
            kept = "" if r["kept"] else " (not better: the fit is kept)"
            told, tells = r["classes"]
            classes = f", of classes {told:.5f} -> {tells:.5f}" if told else ""
            moved = f"{r['before']:.5f} -> {r['after']:.5f}{classes}"
            out.print(f"learned: held-out divergence {moved} in {r['steps']} steps{kept}")
        if "score" in report:
            s = report["score"]
            out.print(score_line(s))
        out.print(f"{result.path}: {megabytes(report['bytes'])}", markup=False)
        if result.path is not None:
            write_report(report, result.path)
    if json:
        emit({"output": None if result.path is None else str(result.path), **report})


def selection_table(layers: Sequence[Mapping[str, Any]]) -> Any:
    """The layers of a selection: what each takes, what it costs, and why it has its form."""

    def number(value: float | None, digits: str) -> str:
        return "" if value is None else format(value, digits)

    rows = [
        [
            layer["name"],
            layer["form"],
            number(layer.get("us_predicted"), ".1f"),
            number(layer.get("us"), ".1f"),
            number(layer.get("us_int8"), ".1f"),
            megabytes(layer.get("bytes") or 0),
            number(layer.get("error"), ".4f"),
            number(layer.get("divergence"), ".5f"),
            layer["why"],
        ]
        for layer in layers
    ]
    columns = ["layer", "form", ">us predicted", ">measured", ">as int8", ">size", ">error", ">divergence", "why"]
    return table("", columns, rows)
