"""SST-2: is a film review good or bad? MiniLM with a classifier, fine-tuned here.

    python -m benchmarks.train_sst2
    lutc compile build/benchmarks/sst2.onnx --calib benchmarks.sst2:calibration -o sst2.lut
    lutc eval sst2.lut --ref build/benchmarks/sst2.onnx --data benchmarks.sst2:test --score benchmarks.sst2:top1

The layout is `$LUTC_DATA/glue-sst2-blitzer/glue_data/SST-2/{train_full,dev,test-labeled}.tsv`: sentence, tab, 0 or 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import minilm, recognition
from benchmarks.data import data_folder
from benchmarks.networks import WORK

METRIC = "top-1"
MODELS = ("minilm",)

CALIBRATION_SENTENCES = 1500
SHORTEST = 8  # words: most of the training set is fragments, which the other splits hold none of
FILES = {"training": "train_full.tsv", "selection": "dev.tsv", "test": "test-labeled.tsv"}


@lru_cache(maxsize=4)
def labelled(split: str) -> tuple[list[str], NDArray[np.int64]]:
    """Sentences and labels int64 [n] of "selection" (872), "test" (1,821) or "training" (all phrases).

    Raises:
        FileNotFoundError: The data is not there.
    """
    path = data_folder("glue-sst2-blitzer", "glue_data", "SST-2", FILES[split])
    lines = path.read_text(encoding="utf-8").splitlines()[1:]
    pairs = [line.rsplit("\t", 1) for line in lines if line.strip()]
    return [sentence.strip() for sentence, _ in pairs], np.array([int(label) for _, label in pairs], np.int64)


def training_split() -> tuple[list[str], NDArray[np.int64], list[str]]:
    """Phrases of at least 8 words to train on with their labels, and 1,500 others to calibrate on, without."""
    sentences, labels = labelled("training")
    judged = {sentence for split in ("selection", "test") for sentence in labelled(split)[0]}
    seen: dict[str, int] = {}
    for sentence, label in zip(sentences, labels, strict=True):
        if len(sentence.split()) >= SHORTEST and sentence not in judged:
            seen.setdefault(sentence, int(label))
    texts = list(seen)
    order = np.random.default_rng(0).permutation(len(texts))
    held_out, used = order[:CALIBRATION_SENTENCES], order[CALIBRATION_SENTENCES:]
    chosen = [texts[i] for i in used]
    return chosen, np.array([seen[text] for text in chosen], np.int64), [texts[i] for i in held_out]


def model(name: str = MODELS[0]) -> Path:
    """The ONNX model; fine-tuned if that has not been done (a few minutes, needs torch and transformers)."""
    del name
    path = WORK / "sst2.onnx"
    if not path.exists():
        from benchmarks import train_sst2

        train_sst2.main(["--output", str(path)])
    return path


def calibration() -> Iterator[minilm.Feed]:
    """1,500 phrases of the training set that were not trained on, as padded batches."""
    yield from minilm.calibration_feeds(training_split()[2])


def learning() -> Iterator[minilm.Feed]:
    """Those and the phrases trained on, without labels: for `--learn`, which profits from more."""
    used, _, held_out = training_split()
    yield from minilm.calibration_feeds(held_out + used)


def selection() -> Iterator[minilm.Feed]:
    """The 872 sentences of GLUE's development set as padded batches."""
    yield from minilm.calibration_feeds(labelled("selection")[0])


def test() -> Iterator[minilm.Feed]:
    """The 1,821 test sentences as padded batches."""
    yield from minilm.calibration_feeds(labelled("test")[0])


def timing() -> minilm.Feed:
    """A text of 128 tokens."""
    return minilm.passage()


answers = recognition.answers(labelled, minilm.embed)

metric = recognition.metric

top1 = recognition.score(answers, "test")
"""Share of the 1,821 test sentences that a session recognises."""

selection_score = recognition.score(answers, "selection")
"""The same over the 872 sentences for selection."""
