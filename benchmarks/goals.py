"""What the results say about the project's goals for speed: `python -m benchmarks.goals`.

Reads benchmarks/results/{kernels,ops,models}.json and prints one line a goal: what was measured and its target. A goal
whose rows are not there says so. Exit status 1 if a goal is missed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import result_files
from benchmarks.peers import INT8, limited

Row = Mapping[str, Any]
Goal = tuple[str, float | None, float]
"""What, the figure measured, and what it should reach at least."""

FP32 = "onnxruntime_fp32"


class Rows:
    """The rows of the result files."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows

    def all(self, **fields: Any) -> list[Row]:
        """Rows with these fields."""
        return [row for row in self._rows if all(row.get(name) == value for name, value in fields.items())]

    def find(self, **fields: Any) -> Row | None:
        """The first row with these fields; one thread and tables in cache unless the fields say otherwise."""
        wanted = {"threads": 1, **fields}
        if fields.get("bench") == "ops":
            wanted.setdefault("tables_in", "cache")
        return next(iter(self.all(**wanted)), None)

    def ratio(self, peers: str | Sequence[str], **fields: Any) -> float | None:
        """Ours against a peer, or against the best of several."""
        row = self.find(**fields)
        names = [peers] if isinstance(peers, str) else peers
        found = [row["ratio"][name] for name in names if name in row["ratio"]] if row else []
        return min(found) if found else None


def kernel_goals(rows: Rows, isa: str) -> Iterator[Goal]:
    """Must show 1: lookups with their outputs written, at the best of the shapes; encodes from int8 on."""
    for form, targets in (("plain k16 <= 0", (150, 90)), ("gain k16 <= 15", (140, 70)), ("gain k16 <= 63", (140, 58))):
        rates = [row["glookups_per_s"] for row in rows.all(bench="lut_linear", form=form, isa=isa)]
        yield f"lookups {form}, G/s", max(rates, default=None), targets[isa == "avx2"]
    if isa != "avx512":
        return
    for form, cycles in (("plain v8", 0.5), ("gain v2", 0.8), ("gain v3", 1.2), ("gain v4", 1.0)):
        taken = [row["cycles_from_integers"] for row in rows.all(bench="lut_encode", form=form, isa=isa)]
        yield f"encode {form}: {cycles:g} cycles an element / taken", cycles / taken[0] if taken else None, 1.0


def op_goals(rows: Rows, isa: str) -> Iterator[Goal]:
    """Must show 2 and 3."""

    def against(peers: str | Sequence[str], shape: str, form: str, **more: Any) -> float | None:
        return rows.ratio(peers, bench="ops", shape=shape, form=form, isa=isa, **more)

    int8 = limited(isa)
    for shape, form, int8_target, fp32_target in (
        ("128x768x768", "gain-v3", 1.6, 6),
        ("128x768x768", "gain-v4", 2.1, 7.5),
        ("128x384x1536", "gain-v3", 1.8, None),
        ("128x384x1536", "gain-v4", 2.3, None),
        ("128x768x768", "plain-v8", 3.8, 13),
        ("128x768x768", "plain-v16", 5.6, 20),
        ("128x768x3072", "plain-v16", 6.5, 25),
        ("1x4096x4096", "plain-v16", 7, None),
        ("1x4096x4096", "gain-v4", 2, None),
        ("64x56x56->64", "plain-v8", 4, 10),
        ("64x56x56->64", "gain-v4", 2.5, None),
    ):
        yield f"{shape} {form} x best int8", against(int8, shape, form), int8_target
        if fp32_target is not None:
            yield f"{shape} {form} x ORT fp32", against(FP32, shape, form), fp32_target


def model_goals(rows: Rows, isa: str) -> Iterator[Goal]:
    """Must show 4, 5, 6 and 8."""

    def against(peers: str | Sequence[str], model: str, form: str, **more: Any) -> float | None:
        return rows.ratio(peers, bench="models", model=model, form=form, isa=isa, **more)

    bert = {"model": "bert-base", "shape": "1x128"}
    for model in ("bert-base", "minilm", "resnet20", "ultraface"):
        yield f"{model} fp32 x ORT fp32", against(FP32, model, "fp32"), 1.0
        yield f"{model} int8 x best int8", against(limited(isa), model, "int8"), 1 / 1.05
    for form, fp32_target, ort_target, openvino_target in (("plain-v16", 9, 3, 2.5), ("plain-v8", 7, 2.4, 2)):
        yield f"bert-base {form} x ORT fp32", against(FP32, **bert, form=form), fp32_target
        yield f"bert-base {form} x ORT int8", against([n for n in INT8 if "onnx" in n], **bert, form=form), ort_target
        yield f"bert-base {form} x OpenVINO int8", against("openvino_int8", **bert, form=form), openvino_target
    yield "bert-base gain-v4 x ORT int8", against([n for n in INT8 if "onnx" in n], **bert, form="gain-v4"), 1.8
    for form in ("gain-v3", "gain-v4"):
        yield f"minilm {form} x best int8", against(limited(isa), "minilm", form), 2.0
    yield "six layers plain-v32 x ORT fp32", against(FP32, "bert-six-layers", "plain-v32"), 15
    costs = rows.find(bench="headline", isa=isa)
    for name, target in (("operations_ratio", 16), ("bytes_ratio", 7), ("running_ratio", 6.5)):
        yield f"six layers plain-v32 {name}", costs[name] if costs else None, target
    for form in ("fp32", "gain-v4", "plain-v16"):
        row = rows.find(bench="models", **bert, form=form, isa=isa, threads=2)
        yield f"bert-base {form} two threads x one", row["speedup"] if row else None, 1.7
    load = rows.find(bench="load", isa=isa)
    yield "90 MB loaded: 50 ms / time", round(50 / load["load_ms"], 2) if load else None, 1.0
    yield "90 MB loaded: 5 MB / private", round(5 / load["loaded_private_mb"], 2) if load else None, 1.0


def avx2_goals(rows: Rows) -> Iterator[Goal]:
    """Must show 7."""
    layer = {"bench": "ops", "shape": "128x768x768", "isa": "avx2"}
    yield "128x768x768 plain-v8 x ORT fp32", rows.ratio(FP32, **layer, form="plain-v8"), 8
    for form in ("gain-v4t7", "gain-v4-g15"):  # 7 bits: what the compiler makes for this target (decision 15)
        yield f"128x768x768 {form} x best int8 without VNNI", rows.ratio(limited("avx2"), **layer, form=form), 2.5


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.goals", description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, default=result_files.FOLDER)
    options = parser.parse_args(arguments)
    files = [result_files.load(options.folder / f"{name}.json") for name in ("kernels", "ops", "models")]
    found = [row for file in files for row in file.get("rows", [])]
    rows, missed = Rows(found), 0
    best = "avx512" if any(row.get("isa") == "avx512" for row in found) else "avx2"
    best_goals = [*kernel_goals(rows, best), *op_goals(rows, best), *model_goals(rows, best)]
    for isa, goals in ((best, best_goals), ("avx2", [*kernel_goals(rows, "avx2"), *avx2_goals(rows)])):
        for name, value, target in goals:
            missed += value is not None and value < target
            mark = "not measured" if value is None else "ok" if value >= target else "MISSED"
            print(f"{isa:7} {name:52} {'' if value is None else f'{value:.2f}':>7} / {target:<6.3g} {mark}")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
