"""Trains the keyword spotters of benchmarks/speech.py: a small residual network (res8) on log-mel frames for each fold.

    python -m benchmarks.train_speech [--speakers george,lucas] [--epochs 12] [--folder build/benchmarks]

PyTorch on one CPU thread, about two minutes a network; seeds are fixed. A fold's selection and test speakers are not
heard.
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
from benchmarks.speech import Fold

CHANNELS = 48
BATCH = 16
RATE = 3e-3
EPOCHS = 12


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
    """A recording as another voice and microphone might give it: other pitch and speed, moved, coloured, noisier."""
    speed = rng.uniform(0.8, 1.25)
    places = np.arange(0, len(sound) - 1, speed)
    resampled = np.interp(places, np.arange(len(sound)), sound).astype(np.float32)
    colour = rng.standard_normal(9) * np.exp(-np.arange(9) / 2) * rng.uniform(0, 0.5)
    colour[:2] = 1, rng.uniform(-0.8, 0.8)  # highs or lows louder
    heard = np.convolve(resampled, colour).astype(np.float32)
    if rng.random() < 0.5:  # the padding is silent, as in the recordings, or as noisy as the rest
        return np.roll(speech.one_second(_noisy(heard, rng)), rng.integers(-1200, 1201))
    return _noisy(np.roll(speech.one_second(heard), rng.integers(-1200, 1201)), rng)


def _noisy(sound: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """A sound with white noise 26 to 80 decibels below its peak."""
    noise = rng.standard_normal(len(sound), dtype=np.float32)
    return sound + noise * np.float32(np.abs(sound).max() * 10 ** rng.uniform(-4, -1.3))


def masked(features: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Spectrograms [n, 1, 98, 40] bent in frequency and time, with some bands and some frames of each blanked."""
    out = np.empty_like(features)
    for row, wanted in zip(features, out, strict=True):
        bands = np.arange(speech.BANDS) * rng.uniform(0.85, 1.15) + rng.uniform(-1.5, 1.5)
        middle = speech.FRAMES / 2
        frames = (np.arange(speech.FRAMES) - middle) * rng.uniform(0.75, 1.35) + middle
        wanted[0] = _at(_at(row[0], frames).T, bands).T
        width, length = rng.integers(0, 7), rng.integers(0, 16)
        band, frame = rng.integers(0, speech.BANDS - width), rng.integers(0, speech.FRAMES - length)
        wanted[0, :, band : band + width] = 0
        wanted[0, frame : frame + length] = 0
    return out


def _at(rows: NDArray[np.float32], places: NDArray[np.float64]) -> NDArray[np.float32]:
    """Rows at fractional places, by linear interpolation; beyond the ends those at the ends."""
    places = np.clip(places, 0, len(rows) - 1)
    low = places.astype(int)
    part = (places - low).astype(np.float32)[:, None]
    return rows[low] * (1 - part) + rows[np.minimum(low + 1, len(rows) - 1)] * part


def train(fold: Fold, epochs: int) -> Res8:
    """Trains from a fixed seed, in bfloat16 where the CPU has it; prints the loss of every fourth epoch."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    sounds, digits, _ = fold.training_split()
    network = Res8().to(memory_format=torch.channels_last)
    steps = epochs * (len(sounds) // BATCH)
    optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    for epoch in range(epochs):
        order, total = rng.permutation(len(sounds)), 0.0
        for start in range(0, len(order) - BATCH + 1, BATCH):
            rows = order[start : start + BATCH]
            features = masked(speech.log_mel(np.stack([varied(sounds[i], rng) for i in rows])), rng)
            batch = torch.from_numpy(features).to(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16, enabled=_fast_bfloat16()):
                logits = network(batch).float()
            loss = functional.cross_entropy(logits, torch.from_numpy(digits[rows]), label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
        if epoch % 4 == 3:
            mean = total / (len(order) // BATCH)
            print(f"{fold.speaker}: epoch {epoch + 1}: loss {mean:.3f}", file=sys.stderr, flush=True)
    return network.eval()


def _fast_bfloat16() -> bool:
    """Whether bfloat16 is faster than float32 here."""
    return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())


def export(network: Any, path: Path) -> None:
    """Writes ONNX, opset 17: `features` float32 [batch, 1, 98, 40] in, `logits` float32 [batch, 10] out."""
    example = torch.zeros(2, 1, speech.FRAMES, speech.BANDS)
    axes = {"features": {0: "batch"}, "logits": {0: "batch"}}
    names = {"input_names": ["features"], "output_names": ["logits"], "dynamic_axes": axes}
    made(path, partial(write_onnx, network, (example,), **names))


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.train_speech", description=__doc__.split("\n")[0])
    parser.add_argument("--speakers", default=",".join(speech.SPEAKERS), help="of the folds; default: all")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--folder", type=Path, default=WORK)
    options = parser.parse_args(arguments)
    for speaker in options.speakers.split(","):
        fold = Fold(speaker)
        network = train(fold, options.epochs)
        export(network, options.folder / f"speech-{speaker}.onnx")
        with torch.no_grad():
            for split in ("selection", "test"):
                features, digits = fold.labelled(split)
                right = (network(torch.from_numpy(features)).argmax(1).numpy() == digits).mean()
                print(f"{speaker}: {split}: top-1 {right:.4f} of {len(digits)}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
