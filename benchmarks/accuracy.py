"""What lookups keep of a model's quality, through the command line: compile, then `lutc eval` on held-out data.

    python -m benchmarks.accuracy --task cifar10|sts [--json] [--output FILE]

cifar10: top-1 of ResNet-20 on 10,000 test images, 2,000 training images without labels to calibrate.
sts:     MiniLM's embeddings: cosine with the original's, and Spearman correlation with people's scores.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.data import data_folder
from tests.models import export_minilm

WORK = Path("build/benchmarks")

_FFN2_DENSE = ["--keep", r".*layer\.\d+/output/dense.*=fp32"]


class Task(NamedTuple):
    """What to compile, how to judge it, and in which configurations (arguments of `lutc compile` by name)."""

    module: str
    score: str
    configurations: dict[str, list[str]]


TASKS = {
    "cifar10": Task(
        "benchmarks.cifar10",
        "top1",
        {
            "accurate (gain-v3)": ["--preset", "accurate"],
            "balanced (gain-v4)": ["--preset", "balanced"],
            "fast (plain-v8)": ["--preset", "fast"],
        },
    ),
    "sts": Task(
        "benchmarks.sts",
        "spearman",
        {
            "gain-v3, FFN-2 dense": ["--form", ".*=gain-v3", *_FFN2_DENSE],
            "plain-v3, FFN-2 dense": ["--form", ".*=plain-v3", *_FFN2_DENSE],
            "gain-v4-proj, FFN-2 dense": ["--form", ".*=gain-v4-proj", *_FFN2_DENSE],
            "plain-v4-proj, FFN-2 dense": ["--form", ".*=plain-v4-proj", *_FFN2_DENSE],
            "gain-v3, all 36": ["--form", ".*=gain-v3"],
            "plain-v3, all 36": ["--form", ".*=plain-v3"],
            "gain-v4, all 36": ["--form", ".*=gain-v4"],
        },
    ),
}


def model_of(task: str) -> Path:
    """The ONNX model of a task.

    Raises:
        FileNotFoundError: It is part of data that is not there.
    """
    if task == "cifar10":
        return data_folder("onnx", "resnet-cifar10", "resnet20_cifar10.onnx")
    model = WORK / "minilm.onnx"
    return model if model.exists() else export_minilm(model)


def lutc(*arguments: str) -> dict[str, Any]:
    """Runs the command line and returns its JSON."""
    done = subprocess.run([sys.executable, "-m", "lutc", *arguments, "--json"], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def run(task: str, only: str = "") -> dict[str, Any]:
    """Compiles and judges every configuration of a task whose name contains `only`.

    Returns:
        `task`, and `rows` of {form, cosine, score, reference, drop, bytes, layers: lookups / all}.
    """
    module, score, configurations = TASKS[task]
    WORK.mkdir(parents=True, exist_ok=True)
    model = str(model_of(task))
    rows = []
    for number, (name, arguments) in enumerate(configurations.items()):
        if only not in name:
            continue
        path = str(WORK / f"{task}-{number}.lut")
        report = lutc("compile", model, "--calib", f"{module}:calibration", "-o", path, *arguments)
        judged = lutc("eval", path, "--ref", model, "--data", f"{module}:test", "--score", f"{module}:{score}")
        layers = [layer for layer in report["layers"] if layer["op"] != "attention"]
        replaced = sum(layer["form"] != "fp32" for layer in layers)
        rows.append(
            {
                "bench": "accuracy",
                "task": task,
                "form": name,
                "layers": f"{replaced} of {len(layers)}",
                "bytes": Path(path).stat().st_size,
                "cosine": next(iter(judged["outputs"].values()))["cosine"],
                "score": judged["score"]["compiled"],
                "reference": judged["score"]["reference"],
                "drop": judged["score"]["drop"],
            }
        )
        print(line(rows[-1]), file=sys.stderr, flush=True)
    return {"task": task, "score": score, "rows": rows}


def line(row: dict[str, Any]) -> str:
    """A row for people."""
    return (
        f"{row['form']:<28} {row['layers']:>9} layers  {row['bytes'] / 1e6:6.1f} MB  cosine {row['cosine']:.4f}  "
        f"score {row['score']:.4f} (original {row['reference']:.4f})"
    )


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__.split("\n")[0])
    parser.add_argument("--task", choices=TASKS, required=True)
    parser.add_argument("--only", default="", help="only configurations whose name contains this")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--output", type=Path, help="also write the JSON here")
    options = parser.parse_args(arguments)
    result = run(options.task, options.only)
    if options.json:
        print(json.dumps(result))
    else:
        print("\n".join(line(row) for row in result["rows"]))
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
