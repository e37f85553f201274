"""`lutc eval`: how close a compiled model comes to the original."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lutc.bench import open_session
from lutc.cli.common import Json, Quiet, ScoreFunction, emit, human, progress, table
from lutc.drop import score_line
from lutc.errors import UsageError
from lutc.evaluate import evaluate, load_callable


def command(
    model: Annotated[Path, typer.Argument(metavar="OUT.lut", help="The compiled model.")],
    ref: Annotated[Path, typer.Option("--ref", metavar="MODEL.onnx", help="The original, run by ONNX Runtime.")],
    data: Annotated[
        str,
        typer.Option("--data", metavar="SRC", help=".npz, directory of .npy/.npz, or pkg.mod:callable yielding dicts."),
    ],
    score: ScoreFunction = None,
    threads: Annotated[int, typer.Option("--threads", min=1)] = 1,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare a compiled model with the original on samples."""
    if not ref.is_file():
        raise UsageError(f"--ref '{ref}' is not a file")
    function = load_callable(score, "--score") if score else None
    session = open_session(model, threads)
    result = evaluate(session, ref, data, score=function, threads=threads, progress=progress(quiet))
    out = human(json)
    rows = [
        [
            name,
            f"{m['cosine']:.6f}" if m["cosine"] is not None else "",
            f"{m['cosine_min']:.6f}" if m["cosine_min"] is not None else "",
            f"{m['max_abs_error']:.3g}",
            "" if m["top1_agreement"] is None else f"{m['top1_agreement']:.2%}",
        ]
        for name, m in result["outputs"].items()
    ]
    out.print(
        table(f"{result['samples']} samples", ["output", ">cosine", ">lowest", ">max error", ">top-1 agrees"], rows)
    )
    if "score" in result:
        s = result["score"]
        out.print(score_line(s))
    if json:
        emit({"model": str(model), "reference": str(ref), **result})
