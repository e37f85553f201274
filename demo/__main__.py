"""all-MiniLM-L6-v2 from PyTorch to a running .lut, judged on prose it was not calibrated on.

python -m demo [--presets int8,accurate,balanced] [--sentences 1000] [--output demo-out]
"""

from __future__ import annotations

import argparse
import os
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
from rich.console import Console
from rich.table import Table

import lutc
from benchmarks import harness, minilm
from benchmarks.peers import quantize_int8, session_call
from demo import prose
from lutc._ort import ort_session
from lutc.forms import Form
from lutc.progress import default_progress
from tests.models import export_minilm

TEST_SENTENCES = 1000

console = Console(highlight=False, soft_wrap=True)
if not console.is_terminal:
    console.width = 120  # logs need no narrow table


class Candidate:
    """A model to compare: its file, and an open session on one thread."""

    def __init__(self, name: str, path: Path, session: Any) -> None:
        self.name, self.path, self.session = name, path, session
        self.embeddings: np.ndarray = np.empty(0)


def step(number: int, text: str) -> None:
    """Announces a step, with the time since the start."""
    console.print(f"[bold]{number}.[/bold] {text}  [dim]({time.monotonic() - START:.0f} s)[/dim]")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the demonstration."""
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__.split("\n")[0])
    parser.add_argument("--presets", default="int8,accurate,balanced", help="budgets or forms, separated by commas")
    parser.add_argument("--output", type=Path, default=Path("demo-out"), help="folder for models and artifacts")
    parser.add_argument("--sentences", type=int, default=1000, help="calibration sentences")
    options = parser.parse_args(arguments)
    folder: Path = options.output
    folder.mkdir(parents=True, exist_ok=True)

    step(1, "Exporting the real all-MiniLM-L6-v2 (6 layers, 36 linear layers) to ONNX, and its int8 version")
    model = export_minilm(folder / "minilm.onnx")
    int8 = quantize_int8(model, folder / "minilm-int8.onnx")

    calibration, test = prose.split(options.sentences, TEST_SENTENCES)
    step(
        2,
        f"Prose from Python's documentation: {len(calibration)} sentences to calibrate, {len(test)} others to judge",
    )

    candidates = [
        Candidate("ONNX Runtime fp32", model, ort_session(model)),
        Candidate("ONNX Runtime int8", int8, ort_session(int8)),
    ]
    for preset in options.presets.split(","):
        path = folder / f"minilm-{preset}.lut"
        step(3, f"lutc compile --preset {preset}")
        result = lutc.compile(
            model, calib=lambda: minilm.calibration_feeds(calibration), output=path, preset=preset,
            time_shape={"input_ids": (1, 128)}, resume=folder / "checkpoints", progress=default_progress(),
        )  # fmt: skip
        layers = [layer for layer in result.report["layers"] if layer["op"] != "attention"]
        replaced = sum(not Form.parse(layer["form"]).dense for layer in layers)
        forms = ", ".join(f"{count} {form}" for form, count in Counter(layer["form"] for layer in layers).most_common())
        console.print(f"   {replaced} of {len(layers)} layers are lookups now ({forms}): {path}")
        candidates.append(Candidate(f"lutc {preset}", path, lutc.InferenceSession(path, threads=1)))

    step(4, f"Embedding the {len(test)} held-out sentences with every model")
    for candidate in candidates:
        candidate.embeddings = minilm.embed(candidate.session, test)

    step(5, "Timing one text of 128 tokens, one thread, the models taking turns")
    harness.pin(1)
    feed = minilm.passage()
    samples = harness.interleave({c.name: session_call(c.session, feed) for c in candidates}, rounds=60)

    console.print()
    console.print(result_table(candidates, samples))
    console.print(next_steps(folder, candidates[-1]), markup=False)


def result_table(candidates: Sequence[Candidate], samples: dict[str, harness.Samples]) -> Table:
    """One row a model."""
    table = Table(title=f"all-MiniLM-L6-v2 on held-out prose, {harness.machine()['cpu']}, one thread")
    table.add_column("model")
    for column in (
        "size",
        "cosine with\noriginal",
        "same nearest\nneighbour",
        "same 10 nearest\nneighbours",
        "p50 latency\n128 tokens",
        "speed vs\nORT fp32",
        "speed vs\nORT int8",
    ):
        table.add_column(column, justify="right")
    fp32, int8 = candidates[0], candidates[1]
    for candidate in candidates:
        mine = samples[candidate.name]
        table.add_row(
            candidate.name,
            f"{candidate.path.stat().st_size / 1e6:.0f} MB",
            f"{minilm.cosine(fp32.embeddings, candidate.embeddings).mean():.4f}",
            f"{minilm.neighbour_agreement(fp32.embeddings, candidate.embeddings, 1):.1%}",
            f"{minilm.neighbour_agreement(fp32.embeddings, candidate.embeddings, 10):.1%}",
            f"{mine.wall_us() / 1e3:.1f} ms",
            f"{harness.ratio(samples[fp32.name], mine):.2f}x",
            f"{harness.ratio(samples[int8.name], mine):.2f}x",
        )
    return table


def next_steps(folder: Path, candidate: Candidate) -> str:
    """What to try now."""
    return f"""
The artifacts lie in {folder}/. Cosine and neighbours compare with the original on sentences no model was fitted to;
speed is the ratio of CPU time in interleaved runs.

Try next (in this folder, after: . .venv/bin/activate):
  lutc inspect {candidate.path} --layers          what became of each layer, and its error
  lutc bench {candidate.path} {folder}/minilm.onnx      time them yourself
  python -m demo --presets fast,gain-v4           a looser budget; every layer alike
  lutc compile YOUR.onnx --calib YOUR_SAMPLES.npz --preset accurate
"""


START = time.monotonic()

if __name__ == "__main__":
    main()
