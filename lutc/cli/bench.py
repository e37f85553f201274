"""`lutc bench`: compiled models and ONNX models, timed in turn."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from lutc.bench import bench
from lutc.cli.common import Json, Quiet, Shapes, emit, human, parse_shapes, progress, table
from lutc.errors import UsageError
from lutc.profile import profile

_PER_OP = (
    "Time by operator, too (with --json, by step): its share of the inference, and its share of the roofline, which is "
    "the least time this core could take over the time it took. The least time is the larger of the arithmetic "
    "(multiply-adds, int8 products, lookups) at the peak rates of short loops and of the bytes at the speed of reading "
    "memory, measured at the start."
)


def command(
    models: Annotated[list[Path], typer.Argument(metavar="A.lut|B.onnx ...", help="ONNX models run in ONNX Runtime.")],
    threads: Annotated[str, typer.Option("--threads", metavar="1,2", help="Numbers of threads.")] = "1",
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Measurements of each model.")] = 20,
    shape: Shapes = None,
    per_op: Annotated[bool, typer.Option("--per-op", help=_PER_OP)] = False,
    seed: Annotated[int, typer.Option("--seed")] = 0,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Time models side by side on made-up inputs, in interleaved rounds."""
    counts = _numbers(threads)
    shapes = parse_shapes(shape)
    timings = bench(models, threads=counts, rounds=rounds, shapes=shapes, seed=seed, progress=progress(quiet))
    base = {t.threads: t for t in reversed(timings) if t.model == str(models[0])}
    rows = [
        [
            t.model,
            t.threads,
            f"{t.wall_ms:.3f} ± {t.wall_spread_ms:.3f}",
            f"{t.cpu_ms:.3f} ± {t.cpu_spread_ms:.3f}",
            f"{t.cpu_ms / base[t.threads].cpu_ms:.2f}" if base[t.threads].cpu_ms else "",
        ]
        for t in timings
    ]
    out = human(json)
    out.print(table("", ["model", ">threads", ">wall ms", ">CPU ms", ">CPU, first = 1"], rows))
    result: dict[str, Any] = {"rounds": rounds, "timings": [dataclasses.asdict(t) for t in timings]}
    if per_op:
        result["per_op"], result["per_step"], result["peaks"] = {}, {}, {}
        for path in models:
            found = profile(path, counts[0], shapes, seed)
            result["per_op"][str(path)], result["per_step"][str(path)] = found.operators, found.steps
            result["peaks"][str(path)] = found.peaks
            rows = [
                [e["op"], e["calls"], f"{e['ms']:.3f}", f"{e['share']:.1%}", *_roofline(e)] for e in found.operators
            ]
            out.print(table(str(path), ["operator", ">calls", ">ms", ">share", ">roofline", "bound by"], rows))
    if json:
        emit(result)


def _roofline(entry: dict[str, Any]) -> list[str]:
    return ["", ""] if entry["roofline"] is None else [f"{entry['roofline']:.0%}", entry["bound"].replace("_", " ")]


def _numbers(text: str) -> list[int]:
    try:
        counts = [int(part) for part in text.split(",")]
    except ValueError:
        counts = []
    if not counts or min(counts) < 1:
        raise UsageError(f"--threads '{text}' is not a list of positive numbers such as 1,2")
    return counts
