"""SemEval semantic textual similarity (STS): calibration sentences of 2012-2014, two sets of scored pairs of 2015-2016.

    lutc compile minilm.onnx --calib benchmarks.sts:calibration -o minilm.lut
    lutc eval minilm.lut --ref minilm.onnx --data benchmarks.sts:test --score benchmarks.sts:spearman

The layout is `$LUTC_DATA/dataset-sts/data/sts/semeval-sts/<year>/<name>.tsv`: score, sentence,
sentence, separated by tabs; an empty score means the pair is not scored.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from benchmarks import minilm
from benchmarks.data import data_folder
from benchmarks.networks import minilm as network

METRIC = "Spearman"
MODELS = ("minilm",)

CALIBRATION_SENTENCES = 1500
SELECTION_PAIRS = 1000
TEST_PAIRS = 1200
CALIBRATION_YEARS = (2012, 2013, 2014)
TEST_YEARS = (2015, 2016)


class Pair(NamedTuple):
    """Two sentences and how alike people found them (0 .. 5)."""

    score: float
    first: str
    second: str


def load_pairs(years: Iterable[int]) -> list[Pair]:
    """Every scored pair of these years, in file order.

    Raises:
        FileNotFoundError: The data is not there.
    """
    pairs = []
    for year in years:
        for path in sorted(data_folder("dataset-sts", "data", "sts", "semeval-sts", str(year)).glob("*.tsv")):
            for line in path.read_text(encoding="utf-8").splitlines():
                fields = line.split("\t")
                if len(fields) >= 3 and fields[0].strip():
                    pairs.append(Pair(float(fields[0]), fields[1].strip(), fields[2].strip()))
    return pairs


@lru_cache(maxsize=1)
def test_pairs() -> list[Pair]:
    """1,200 scored pairs of 2015 and 2016, drawn at random with a fixed seed."""
    pairs = load_pairs(TEST_YEARS)
    return [pairs[i] for i in np.random.default_rng(0).permutation(len(pairs))[:TEST_PAIRS]]


@lru_cache(maxsize=1)
def selection_pairs() -> list[Pair]:
    """1,000 scored pairs of the same years, none of whose sentences occurs in a test pair."""
    held_out = {sentence for pair in test_pairs() for sentence in pair[1:]}
    pairs = [pair for pair in load_pairs(TEST_YEARS) if not held_out.intersection(pair[1:])]
    return [pairs[i] for i in np.random.default_rng(1).permutation(len(pairs))[:SELECTION_PAIRS]]


def calibration_sentences(limit: int = CALIBRATION_SENTENCES, seed: int = 0) -> list[str]:
    """Distinct sentences of 2012-2014, drawn at random, none of which occurs in a test pair."""
    held_out = {sentence for pair in load_pairs(TEST_YEARS) for sentence in pair[1:]}
    pool = dict.fromkeys(sentence for pair in load_pairs(CALIBRATION_YEARS) for sentence in pair[1:])
    pool_list = [sentence for sentence in pool if sentence not in held_out]
    return [pool_list[i] for i in np.random.default_rng(seed).permutation(len(pool_list))[:limit]]


def calibration() -> Iterator[minilm.Feed]:
    """1,500 sentences of 2012-2014 as padded batches."""
    yield from minilm.calibration_feeds(calibration_sentences())


def learning() -> Iterator[minilm.Feed]:
    """Every such sentence (14,471): for `--learn`, which profits from more of them."""
    yield from minilm.calibration_feeds(calibration_sentences(limit=1 << 20))


def model(name: str = MODELS[0]) -> Path:
    """The ONNX model; exported if that has not been done (needs torch and transformers)."""
    del name
    return network().find()


def selection() -> Iterator[minilm.Feed]:
    """The sentences of the pairs for selection as padded batches."""
    yield from minilm.calibration_feeds([sentence for pair in selection_pairs() for sentence in pair[1:]])


def test() -> Iterator[minilm.Feed]:
    """The sentences of the test pairs as padded batches."""
    yield from minilm.calibration_feeds([sentence for pair in test_pairs() for sentence in pair[1:]])


def timing() -> minilm.Feed:
    """A text of 128 tokens."""
    return minilm.passage()


def answers(session: Any, split: str) -> NDArray[np.float64]:
    """For each pair of a split the cosine of its embeddings and people's score: float64 [pairs, 2].

    Args:
        session: Anything with ONNX Runtime's `run(output_names, feeds)` and `get_inputs()`.
        split: "selection" or "test".
    """
    pairs = selection_pairs() if split == "selection" else test_pairs()
    first = minilm.embed(session, [pair.first for pair in pairs])
    second = minilm.embed(session, [pair.second for pair in pairs])
    return np.stack([minilm.cosine(first, second), [pair.score for pair in pairs]], 1).astype(np.float64)


def metric(outcomes: NDArray[np.float64]) -> float:
    """Spearman correlation of the two columns."""
    return float(spearmanr(outcomes[:, 0], outcomes[:, 1]).statistic)


def spearman(session: Any) -> float:
    """Spearman correlation of embedding cosine with people's scores over the 1,200 test pairs."""
    return metric(answers(session, "test"))


def selection_score(session: Any) -> float:
    """The same over the 1,000 pairs for selection."""
    return metric(answers(session, "selection"))
