"""SemEval semantic textual similarity (STS): calibration sentences of 2012-2014, scored pairs of 2015-2016.

    lutc compile minilm.onnx --calib benchmarks.sts:calibration -o minilm.lut
    lutc eval minilm.lut --ref minilm.onnx --data benchmarks.sts:test --score benchmarks.sts:spearman

The layout is `$LUTC_DATA/dataset-sts/data/sts/semeval-sts/<year>/<name>.tsv`: score, sentence,
sentence, separated by tabs; an empty score means the pair is not scored.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import spearmanr

from benchmarks import minilm
from benchmarks.data import data_folder

CALIBRATION_SENTENCES = 1500
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


def calibration_sentences(limit: int = CALIBRATION_SENTENCES, seed: int = 0) -> list[str]:
    """Distinct sentences of 2012-2014, drawn at random, none of which occurs in a test pair."""
    held_out = {sentence for pair in load_pairs(TEST_YEARS) for sentence in pair[1:]}
    pool = dict.fromkeys(sentence for pair in load_pairs(CALIBRATION_YEARS) for sentence in pair[1:])
    pool_list = [sentence for sentence in pool if sentence not in held_out]
    return [pool_list[i] for i in np.random.default_rng(seed).permutation(len(pool_list))[:limit]]


def calibration() -> Iterator[minilm.Feed]:
    """1,500 sentences of 2012-2014 as padded batches."""
    yield from minilm.calibration_feeds(calibration_sentences())


def test() -> Iterator[minilm.Feed]:
    """The sentences of the test pairs as padded batches."""
    yield from minilm.calibration_feeds([sentence for pair in test_pairs() for sentence in pair[1:]])


def spearman(session: Any) -> float:
    """Spearman correlation of embedding cosine with people's scores over the 1,200 test pairs.

    Args:
        session: Anything with ONNX Runtime's `run(output_names, feeds)` and `get_inputs()`.
    """
    pairs = test_pairs()
    first = minilm.embed(session, [pair.first for pair in pairs])
    second = minilm.embed(session, [pair.second for pair in pairs])
    return float(spearmanr(minilm.cosine(first, second), [pair.score for pair in pairs]).statistic)
