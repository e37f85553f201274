"""Micro-benchmarks of the lookup kernels: `python -m benchmarks.kernels [--json]`.

Measures, per ISA, form and shape: lookups per second of `lut_linear` (output written, as in a model) and clock
cycles per input element of `lut_encode`, of float rows and, where it has two stages, from their integers on; on one
thread with everything in cache; CPU time, minimum of many runs.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import command, result_files
from lutc._runtime import kernels

METHOD = "one thread, everything in cache, CPU time, minimum of many runs; cycles of the clock as measured beside"

LOOKUP_SHAPES = [(128, 96, 384), (128, 96, 1536), (128, 192, 768), (128, 384, 1536)]
"""Rows, codebooks, outputs."""
ENCODE_SIZES = {0: (4, 8, 12), 63: (2, 3, 4, 6, 8)}
"""Sub-vector sizes by gain limit (0: plain)."""
ENCODE_FEATURES = 768
STAGED = {"avx512": 32}
"""ISAs whose encode quantises and packs rows before it scores them: rows of a call."""
WHOLE = [
    ((128, 768, 768), 3, 63),
    ((128, 768, 768), 4, 63),
    ((128, 384, 1536), 3, 63),
    ((128, 384, 1536), 4, 63),
    ((128, 768, 768), 8, 0),
    ((128, 768, 768), 16, 0),
    ((128, 768, 3072), 16, 0),
]
"""Rows, features and outputs; sub-vector size; gain limit."""
CONVS = [(64, 56, 64), (16, 32, 16), (64, 8, 64)]
"""Channels, height and width, outputs of 3x3 convolutions."""


def minimum(run: Callable[[int], Any], seconds: float) -> float:
    """Least CPU seconds of one run; `run(times)` runs that often."""
    run(1)
    start = time.process_time_ns()
    run(3)
    times = max(1, int(3e6 / max((time.process_time_ns() - start) / 3, 1)))
    best, stop = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < stop:
        start = time.process_time_ns()
        run(times)
        best = min(best, (time.process_time_ns() - start) / times)
    return best * 1e-9


def encode_inputs(rng: np.random.Generator, features: int, size: int, entries: int, gain: int) -> list[np.ndarray]:
    """Constants of an encode over consecutive features, `size` a codebook."""
    count = features // size
    groups = np.arange(count * size, dtype=np.int32).reshape(count, size)
    directions = rng.normal(size=(count, entries, size))
    directions *= 127 / np.linalg.norm(directions, axis=-1, keepdims=True)
    directions = np.rint(directions).astype(np.int8)
    norms = (directions.astype(np.int64) ** 2).sum(-1)
    bias = np.zeros((count, entries), np.int32) if gain else (-np.rint(norms / 2)).astype(np.int32)
    mul = np.full(count, gain / (127 * 127 * size), np.float32)
    scale = np.full(features, 40, np.float32)
    return [np.zeros(features, np.float32), scale, groups, directions, bias, mul]


def lookup_seconds(
    isa: str, codes: Any, table: np.ndarray, gain: int, seconds: float, layout: str | None = None, **geometry: Any
) -> float:
    """Least seconds of lookups in a table [C, K, N] or, of a convolution, [N, C, K, kh, kw]; best layout by default."""
    layout = layout or kernels.layouts_for(isa)[0]
    op, (n, c, k) = ("lut_conv", table.shape[:3]) if geometry else ("lut_linear", (table.shape[2], *table.shape[:2]))
    packed = table if layout == "ckn" else kernels.pack_table(table, layout)
    attrs = {"gain_limit": gain, "codebooks": c, "entries": k, "outputs": n, "layout": layout, **geometry}
    ones = np.ones(n, np.float32)
    return minimum(kernels.Step(isa, op, [codes, packed, ones, ones], attrs).repeat, seconds)


def lookup_rows(isa: str, seconds: float) -> Iterator[dict[str, Any]]:
    """One row per form and shape of lut_linear."""
    rng = np.random.default_rng(0)
    for m, c, n in LOOKUP_SHAPES:
        for entries, gain in [(16, 0), (16, 15), (16, 63), (16, 127), (8, 0), (8, 15)]:
            x = rng.normal(size=(m, 4 * c)).astype(np.float32)
            inputs = [x, *encode_inputs(rng, 4 * c, 4, entries, gain)]
            codes = kernels.Step(isa, "lut_encode", inputs, {"gain_limit": gain, "axis": -1}).run()
            table = rng.integers(-127, 128, (c, entries, n)).astype(np.int8)
            best = lookup_seconds(isa, codes, table, gain, seconds)
            yield {
                "bench": "lut_linear",
                "isa": isa,
                "form": f"{'gain' if gain else 'plain'} k{entries} <= {gain}",
                "shape": f"{m}x{c}x{n}",
                "us": best * 1e6,
                "glookups_per_s": m * c * n / best * 1e-9,
            }


def encode_rows(isa: str, seconds: float) -> Iterator[dict[str, Any]]:
    """One row per form and sub-vector size of lut_encode."""
    rng = np.random.default_rng(0)
    for gain, sizes in ENCODE_SIZES.items():
        for size in sizes:
            m, features = 128, ENCODE_FEATURES // size * size
            x = rng.normal(size=(m, features)).astype(np.float32)
            inputs = [x, *encode_inputs(rng, features, size, 16, gain)]
            step = kernels.Step(isa, "lut_encode", inputs, {"gain_limit": gain, "axis": -1})
            best, hz = minimum(step.repeat, seconds), kernels.clock_hz()
            row = {
                "bench": "lut_encode",
                "isa": isa,
                "form": f"{'gain' if gain else 'plain'} v{size}",
                "shape": f"{m}x{features}",
                "us": best * 1e6,
                "cycles_per_element": best * hz / (m * features),
            }
            if isa in STAGED:
                rows = STAGED[isa]
                scores = kernels.EncodeScores(isa, x[:rows], *inputs[1:], gain)
                row["cycles_from_integers"] = minimum(scores.repeat, seconds) * hz / (rows * features)
            yield row


def whole_rows(isa: str, seconds: float) -> Iterator[dict[str, Any]]:
    """Linear layers, encode and lookup apart and together."""
    rng = np.random.default_rng(0)
    for (m, d, n), v, gain in WHOLE:
        x = rng.normal(size=(m, d)).astype(np.float32)
        encode = kernels.Step(
            isa, "lut_encode", [x, *encode_inputs(rng, d, v, 16, gain)], {"gain_limit": gain, "axis": -1}
        )
        codes, c = encode.run(), d // v
        linear = lookup_seconds(isa, codes, rng.integers(-127, 128, (c, 16, n)).astype(np.int8), gain, seconds)
        encoded = minimum(encode.repeat, seconds)
        yield {
            "bench": "linear",
            "isa": isa,
            "form": f"{'gain' if gain else 'plain'} v{v}",
            "shape": f"{m}x{d}x{n}",
            "us": (linear + encoded) * 1e6,
            "encode_us": encoded * 1e6,
            "glookups_per_s": m * c * n / linear * 1e-9,
        }


def conv_rows(isa: str, seconds: float) -> Iterator[dict[str, Any]]:
    """3x3 convolutions, encode and lookup apart."""
    rng = np.random.default_rng(0)
    for channels, size, n in CONVS:
        for v, gain in [(8, 0), (4, 15), (4, 63)]:
            x = rng.normal(size=(1, channels, size, size)).astype(np.float32)
            inputs = [x, *encode_inputs(rng, channels, v, 16, gain)]
            encode = kernels.Step(isa, "lut_encode", inputs, {"gain_limit": gain, "axis": 1})
            codes, c = encode.run(), channels // v
            table = rng.integers(-127, 128, (n, c, 16, 3, 3)).astype(np.int8)
            conv = lookup_seconds(isa, codes, table, gain, seconds, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
            encoded = minimum(encode.repeat, seconds)
            yield {
                "bench": "lut_conv",
                "isa": isa,
                "form": f"{'gain' if gain else 'plain'} v{v} <= {gain}",
                "shape": f"{channels}x{size}x{size} -> {n}",
                "us": conv * 1e6,
                "encode_us": encoded * 1e6,
                "glookups_per_s": size * size * c * n * 9 / conv * 1e-9,
            }


def gather_rows(isa: str, seconds: float) -> Iterator[dict[str, Any]]:
    """Small batches: shuffled tables against whole rows of the canonical table."""
    rng = np.random.default_rng(0)
    c, n = 192, 3072
    table = rng.integers(-127, 128, (c, 16, n)).astype(np.int8)
    for m in (1, 2, 4, 8, 16):
        x = rng.normal(size=(m, 4 * c)).astype(np.float32)
        codes = kernels.Step(isa, "lut_encode", [x, *encode_inputs(rng, 4 * c, 4, 16, 15)], {"gain_limit": 15}).run()
        for layout in dict.fromkeys(["ckn", kernels.layouts_for(isa)[0]]):
            best = lookup_seconds(isa, codes, table, 15, seconds, layout)
            yield {
                "bench": "small batch",
                "isa": isa,
                "form": f"gain k16 <= 15, {layout}",
                "shape": f"{m}x{c}x{n}",
                "us": best * 1e6,
            }


PARTS = {"lookup": lookup_rows, "encode": encode_rows, "linear": whole_rows, "conv": conv_rows, "small": gather_rows}


def main() -> None:
    """Runs the chosen parts on the chosen ISAs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON row a line on stdout, text on stderr")
    parser.add_argument("--isa", action="append", choices=kernels.isas(), help="default: all but scalar")
    parser.add_argument("--part", action="append", choices=PARTS, help="default: all")
    parser.add_argument("--seconds", type=float, default=0.3, help="per row")
    parser.add_argument("--output", type=Path, default=result_files.FOLDER / "kernels.json")
    options = parser.parse_args()
    rows = []
    for isa in options.isa or [name for name in kernels.isas() if name != "scalar"]:
        for part in options.part or PARTS:
            for row in PARTS[part](isa, options.seconds):
                figures = {name: round(value, 3) for name, value in row.items() if isinstance(value, float)}
                rows.append(row | figures)
                values = "  ".join(f"{name} {value:.2f}" for name, value in figures.items())
                command.say(options, f"{isa:7} {row['bench']:12} {row['form']:22} {row['shape']:18} {values}")
    command.store(options, rows, notes={"method": METHOD})


if __name__ == "__main__":
    main()
