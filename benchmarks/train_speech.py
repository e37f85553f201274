"""Trains the keyword spotter of benchmarks/speech.py: a small residual network (res8) on log-mel frames.

    python -m benchmarks.train_speech [--epochs 30] [--output build/benchmarks/speech.onnx]

PyTorch on one CPU thread, a few minutes; the seed is fixed. Speakers of the selection and test splits are not heard.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from benchmarks import speech
from benchmarks.data import made
from benchmarks.networks import WORK, write_onnx

CHANNELS = 48
BATCH = 64
RATE = 3e-3


class Block(nn.Module):
    """Two 3 x 3 convolutions and a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False)
        self.second = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(CHANNELS), nn.BatchNorm2d(CHANNELS)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [n, 48, h, w] to the same shape."""
        y = functional.relu(self.norms[0](self.first(x)))
        return functional.relu(x + self.norms[1](self.second(y)))


class Res8(nn.Module):
    """A convolution, pooling by 4 x 3, three residual blocks, mean, classifier (Tang and Lin 2018, norms moved)."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, CHANNELS, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(CHANNELS)
        self.blocks = nn.Sequential(Block(), Block(), Block())
        self.classifier = nn.Linear(CHANNELS, classes)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Spectrograms float32 [n, 1, 98, 40] to logits [n, classes]."""
        x = functional.avg_pool2d(functional.relu(self.norm(self.stem(features))), (4, 3))
        return self.classifier(self.blocks(x).mean((2, 3)))


def varied(sound: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """A recording as another voice might say it: other pitch and speed, moved in time, louder or softer, noisier."""
    speed = rng.uniform(0.8, 1.25)
    places = np.arange(0, len(sound) - 1, speed)
    resampled = np.interp(places, np.arange(len(sound)), sound).astype(np.float32)
    moved = np.roll(speech.one_second(resampled), rng.integers(-800, 801))
    noise = rng.standard_normal(speech.SAMPLES).astype(np.float32)
    return moved + noise * np.float32(np.abs(moved).max() * 10 ** rng.uniform(-4, -1.3))


def masked(features: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Spectrograms [n, 1, 98, 40] bent in frequency, with a band and some frames of each blanked."""
    out = features.copy()
    bands = np.arange(speech.BANDS)
    for row in out:
        bent = np.clip(bands * rng.uniform(0.85, 1.15) + rng.uniform(-1.5, 1.5), 0, speech.BANDS - 1)
        low = bent.astype(int)
        part = (bent - low).astype(np.float32)
        row[0] = row[0][:, low] * (1 - part) + row[0][:, np.minimum(low + 1, speech.BANDS - 1)] * part
        width, length = rng.integers(0, 7), rng.integers(0, 16)
        band, frame = rng.integers(0, speech.BANDS - width), rng.integers(0, speech.FRAMES - length)
        row[0, :, band : band + width] = 0
        row[0, frame : frame + length] = 0
    return out


def train(epochs: int) -> Res8:
    """Trains from a fixed seed; prints the loss of every tenth epoch."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    sounds, digits, _ = speech.training_split()
    network = Res8()
    steps = epochs * (len(sounds) // BATCH)
    optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    for epoch in range(epochs):
        order, total = rng.permutation(len(sounds)), 0.0
        for start in range(0, len(order) - BATCH + 1, BATCH):
            rows = order[start : start + BATCH]
            features = masked(speech.log_mel(np.stack([varied(sounds[i], rng) for i in rows])), rng)
            logits = network(torch.from_numpy(features))
            loss = functional.cross_entropy(logits, torch.from_numpy(digits[rows]), label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
        if epoch % 10 == 9:
            print(f"epoch {epoch + 1}: loss {total / (len(order) // BATCH):.3f}", file=sys.stderr, flush=True)
    return network.eval()


def export(network: Any, path: Path) -> None:
    """Writes ONNX, opset 17: `features` float32 [batch, 1, 98, 40] in, `logits` float32 [batch, 10] out."""
    example = torch.zeros(2, 1, speech.FRAMES, speech.BANDS)
    axes = {"features": {0: "batch"}, "logits": {0: "batch"}}
    names = {"input_names": ["features"], "output_names": ["logits"], "dynamic_axes": axes}
    made(path, partial(write_onnx, network, (example,), **names))


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.train_speech", description=__doc__.split("\n")[0])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--output", type=Path, default=WORK / "speech.onnx")
    options = parser.parse_args(arguments)
    network = train(options.epochs)
    export(network, options.output)
    with torch.no_grad():
        for split in ("selection", "test"):
            features, digits = speech.labelled(split)
            right = (network(torch.from_numpy(features)).argmax(1).numpy() == digits).mean()
            print(f"{split}: top-1 {right:.4f} of {len(digits)}", file=sys.stderr)


if __name__ == "__main__":
    main()
