"""How cost grows: ours and ONNX Runtime's against M, D, N, C, sequence length and threads, as rows and as plots.

    python -m benchmarks.scaling [--json] [--isa native,avx2] [--only REGEX] [--minutes N] [--plots]

Each row has the axis (`axis`) and the point on it (`at`). Rows go to benchmarks/results/scaling.json as they are
measured, plots to benchmarks/results/scaling-AXIS-ISA.png; `--plots` only draws them again. C, the number of
codebooks, is D / V: the axis varies V at a fixed layer.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import command, harness, models, networks, ops, result_files, variants
from benchmarks.single_layers import Linear

OURS = ("fp32", "int8", "gain-v4", "plain-v8", "plain-v16")
PEERS_SHOWN = ("onnxruntime_fp32", "onnxruntime_int8_dynamic", "onnxruntime_int8_qdq")
MODEL_FORMS = ("fp32", "int8", "gain-v4", "plain-v16")

ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
FEATURES = (64, 128, 256, 384, 768, 1536, 3072)
OUTPUTS = (32, 64, 128, 256, 512, 768, 1536, 3072)
WIDTHS = (2, 3, 4, 6, 8, 12, 16, 24, 32)
LENGTHS = (8, 16, 32, 64, 128, 256)

AXES = {
    "M": "rows M of a 768 x 768 layer",
    "D": "inputs D of a layer with 768 outputs, 128 rows",
    "N": "outputs N of a layer with 768 inputs, 128 rows",
    "C": "codebooks C of a 768 x 768 layer, 128 rows",
    "length": "tokens of MiniLM, batch 1",
    "threads": "threads, MiniLM at 1 x 128",
}


@dataclasses.dataclass(frozen=True)
class Point:
    """A place on an axis: what is measured there, in which forms."""

    axis: str
    at: int
    layer: Linear | None = None
    network: networks.Network | None = None
    forms: Sequence[str] = OURS


def points(threads: int) -> Iterator[Point]:
    """Every point of a process with this many threads: all axes but "threads" belong to one thread."""
    minilm = networks.minilm()
    yield Point("threads", threads, network=minilm, forms=MODEL_FORMS)
    if threads > 1:
        return
    for rows in ROWS:
        yield Point("M", rows, Linear(rows, 768, 768))
    for features in FEATURES:
        yield Point("D", features, Linear(128, features, 768))
    for outputs in OUTPUTS:
        yield Point("N", outputs, Linear(128, 768, outputs))
    for width in WIDTHS:
        forms = [f"plain-v{width}"] + ([f"gain-v{width}"] if width <= 8 else [])
        yield Point("C", 768 // width, Linear(128, 768, 768), forms=forms)
    for length in LENGTHS:
        yield Point("length", length, network=networks.minilm(length), forms=MODEL_FORMS)


def measure(point: Point, isa: str, threads: int, seconds: float) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Rows of one point, and what was skipped."""
    if point.layer is not None:
        rows, skipped = ops.measure(
            point.layer, point.forms, PEERS_SHOWN, isa=isa, threads=threads, seconds=seconds
        )  # fmt: skip
    else:
        assert point.network is not None
        rows, skipped = models.measure(
            point.network, point.forms, PEERS_SHOWN[:2], isa=isa, threads=threads, seconds=seconds
        )
    for row in rows:
        row.update(bench="scaling", axis=point.axis, at=point.at)
    return rows, skipped


def plot(rows: Sequence[dict[str, Any]], axis: str, isa: str, path: Path) -> None:
    """Draws time against one axis, both logarithmic: ours solid, the others dashed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    # Families rather than forms where the form varies along the axis.
    def family(form: str) -> str:
        return form.split("-", maxsplit=1)[0] + " lookups" if axis == "C" else form

    lines: dict[str, dict[int, float]] = {}
    for row in rows:
        if row["axis"] == axis and row["isa"] == isa:
            lines.setdefault(f"lutc {family(row['form'])}", {})[row["at"]] = row["ours_us"]
            for name, us in row["peers"].items():
                lines.setdefault(name, {})[row["at"]] = us
    if not lines:
        return
    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    for name, line in sorted(lines.items()):
        at = sorted(line)
        axes.plot(at, [line[x] for x in at], "o-" if name.startswith("lutc") else "s--", label=name, markersize=4)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel(AXES[axis])
    axes.set_ylabel("microseconds" + (" (wall)" if axis == "threads" else " (CPU time, one thread)"))
    axes.grid(True, which="both", alpha=0.3)
    axes.legend(fontsize=8)
    axes.set_title(f"{isa}", fontsize=10)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def draw(output: Path) -> None:
    """Draws every axis and ISA that the result file has."""
    rows = result_files.load(output).get("rows", [])
    for axis in AXES:
        for isa in sorted({row["isa"] for row in rows}):
            plot(rows, axis, isa, output.parent / f"scaling-{axis}-{isa}.png")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = command.parser("scaling", __doc__, threads="1,2", only="points such as 'M 128'")
    parser.add_argument("--minutes", type=float, default=5, help="for each process: start no more points")
    parser.add_argument("--plots", action="store_true", help="measure nothing, draw the plots again")
    options = parser.parse_args(arguments)
    variant = variants.child()
    if options.plots:
        draw(options.output)
        return 0
    if variant is None:
        status = variants.run_children("benchmarks.scaling", options.isa, options.threads, arguments)
        draw(options.output)
        return status
    isa, threads = variant
    harness.pin(threads)
    todo = [point for point in points(threads) if re.search(options.only, f"{point.axis} {point.at}")]
    for point in command.in_time(todo, options.minutes, lambda point: f"{point.axis} {point.at}"):
        rows, skipped = measure(point, isa, threads, seconds=min(3, 20 * options.minutes / len(todo)))
        shown = {row["form"]: row["ours_us"] for row in rows} | (rows[0]["peers"] if rows else {})
        times = "  ".join(f"{name} {us:.0f}" for name, us in shown.items())
        command.say(options, f"{point.axis} {point.at}: {times}")
        command.store(options, rows, skipped)
    return 0


if __name__ == "__main__":
    sys.exit(main())
