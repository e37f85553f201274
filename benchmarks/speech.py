"""Spoken digits (the Free Spoken Digit Dataset): ten words, six speakers, a small residual network.

    python -m benchmarks.train_speech
    lutc compile build/benchmarks/speech.onnx --calib benchmarks.speech:calibration -o speech.lut
    lutc eval speech.lut --ref build/benchmarks/speech.onnx --data benchmarks.speech:test --score benchmarks.speech:top1

The layout is `$LUTC_DATA/fsdd/recordings/<digit>_<speaker>_<number>.wav`: mono, 16 bits, 8 kHz. No speaker is in two of
training (and calibration), selection and test.
"""

from __future__ import annotations

import wave
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import recognition
from benchmarks.data import data_folder
from benchmarks.networks import WORK

METRIC = "top-1"
MODELS = ("res8",)

TRAINING_SPEAKERS = ("jackson", "nicolas", "theo", "yweweler")
SPEAKERS = {"selection": ("lucas",), "test": ("george",)}
CALIBRATION_RECORDINGS = 400  # of the training speakers, none of which was trained on

RATE = 8000
SAMPLES = RATE  # a recording is cut or padded to one second, its loudest part in the middle
WINDOW, HOP, SPECTRUM = 200, 80, 256
BANDS = 40
FRAMES = 1 + (SAMPLES - WINDOW) // HOP

Feed = dict[str, NDArray[np.float32]]


@lru_cache(maxsize=1)
def mel_filters() -> NDArray[np.float32]:
    """Triangular filters float32 [129, 40], equally spaced in mel between 20 Hz and 4 kHz."""

    def mel(hertz: float) -> float:
        return 2595 * np.log10(1 + hertz / 700)

    edges = 700 * (10 ** (np.linspace(mel(20), mel(RATE / 2), BANDS + 2) / 2595) - 1)
    bins = np.fft.rfftfreq(SPECTRUM, 1 / RATE)[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return np.maximum(0, np.minimum(rising, falling)).astype(np.float32)


def log_mel(sound: NDArray[np.float32]) -> NDArray[np.float32]:
    """Log-mel spectrograms, each of zero mean and unit variance.

    Args:
        sound: float32 [n, 8000].

    Returns:
        float32 [n, 1, 98, 40]: frames of 25 ms every 10 ms, bands.
    """
    frames = np.lib.stride_tricks.sliding_window_view(sound, WINDOW, axis=1)[:, ::HOP]
    power = np.abs(np.fft.rfft(frames * np.hanning(WINDOW).astype(np.float32), SPECTRUM)) ** 2
    bands = np.log(power.astype(np.float32) @ mel_filters() + 1e-6)
    mean, deviation = bands.mean((1, 2), keepdims=True), bands.std((1, 2), keepdims=True)
    return ((bands - mean) / np.maximum(deviation, 1e-5))[:, None].astype(np.float32)


def one_second(sound: NDArray[np.float32]) -> NDArray[np.float32]:
    """A recording as float32 [8000]: cut or padded around its middle."""
    if len(sound) >= SAMPLES:
        start = (len(sound) - SAMPLES) // 2
        return sound[start : start + SAMPLES]
    before = (SAMPLES - len(sound)) // 2
    return np.pad(sound, (before, SAMPLES - len(sound) - before))


def read_wav(path: Path) -> NDArray[np.float32]:
    """A recording, float32 in -1 .. 1.

    Raises:
        ValueError: It is not mono, of 16 bits and 8 kHz.
    """
    with wave.open(str(path)) as file:
        if (file.getnchannels(), file.getsampwidth(), file.getframerate()) != (1, 2, RATE):
            raise ValueError(f"{path}: not mono, 16 bits, {RATE} Hz")
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768


def recordings(speakers: Sequence[str]) -> tuple[list[NDArray[np.float32]], NDArray[np.int64]]:
    """All recordings of some speakers, in order of their names, and the digits spoken, int64 [n].

    Raises:
        FileNotFoundError: The data is not there.
    """
    paths = [path for path in sorted(data_folder("fsdd", "recordings").glob("*.wav")) if _speaker(path) in speakers]
    return [read_wav(path) for path in paths], np.array([int(path.name.split("_")[0]) for path in paths], np.int64)


def _speaker(path: Path) -> str:
    return path.name.split("_")[1]


def training_split() -> tuple[list[NDArray[np.float32]], NDArray[np.int64], list[NDArray[np.float32]]]:
    """Recordings to train on with their digits, and those to calibrate on; the same four speakers."""
    sounds, digits = recordings(TRAINING_SPEAKERS)
    order = np.random.default_rng(0).permutation(len(sounds))
    held_out, used = order[:CALIBRATION_RECORDINGS], np.sort(order[CALIBRATION_RECORDINGS:])
    return [sounds[i] for i in used], digits[used], [sounds[i] for i in held_out]


@lru_cache(maxsize=2)
def labelled(split: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Spectrograms float32 [500, 1, 98, 40] and digits int64 [500] of "selection" or "test"."""
    sounds, digits = recordings(SPEAKERS[split])
    return log_mel(np.stack([one_second(sound) for sound in sounds])), digits


batches = partial(recognition.batches, "features")


def model(name: str = MODELS[0]) -> Path:
    """The ONNX model; trained if that has not been done (a few minutes, needs torch)."""
    del name
    from benchmarks import train_speech

    path = WORK / "speech.onnx"
    if not path.exists():
        train_speech.main(["--output", str(path)])
    return path


def calibration() -> Iterator[Feed]:
    """400 recordings of the speakers trained on."""
    yield from batches(log_mel(np.stack([one_second(sound) for sound in training_split()[2]])))


def learning() -> Iterator[Feed]:
    """Those and the recordings trained on, without labels: for `--learn`, which profits from more."""
    used, _, held_out = training_split()
    yield from batches(log_mel(np.stack([one_second(sound) for sound in held_out + used])))


def selection() -> Iterator[Feed]:
    """500 recordings of one speaker."""
    yield from batches(labelled("selection")[0])


def test() -> Iterator[Feed]:
    """500 recordings of another speaker."""
    yield from batches(labelled("test")[0])


def timing() -> Feed:
    """One spectrogram."""
    return {"features": labelled("test")[0][:1]}


answers = recognition.answers(labelled)

metric = recognition.metric

top1 = recognition.score(answers, "test")
"""Share of the 500 test recordings that a session recognises."""

selection_score = recognition.score(answers, "selection")
"""The same over the 500 recordings for selection."""
