r"""Spoken digits (the Free Spoken Digit Dataset): ten words, six speakers, six small residual networks.

    python -m benchmarks.train_speech
    lutc compile build/benchmarks/speech-george.onnx --calib benchmarks.speech:GEORGE.calibration -o speech.lut
    lutc eval speech.lut --ref build/benchmarks/speech-george.onnx --data benchmarks.speech:GEORGE.test \
        --score benchmarks.speech:GEORGE.top1

Six folds: each speaker is once the one to test on, with a network that has heard neither that speaker nor the one to
select by. All folds together test 3,000 recordings.

The layout is `$LUTC_DATA/fsdd/recordings/<digit>_<speaker>_<number>.wav`: mono, 16 bits, 8 kHz.
"""

from __future__ import annotations

import dataclasses
import wave
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from benchmarks import recognition
from benchmarks.data import data_folder
from benchmarks.networks import WORK

METRIC = recognition.METRIC
MODELS = ("res8",)
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")

CALIBRATION_RECORDINGS = 400  # of a fold's training speakers, none of which its network was trained on

RATE = 8000
SAMPLES = RATE  # a recording is cut or padded to one second around its middle
WINDOW, HOP, SPECTRUM = 200, 80, 256
BANDS = 40
FRAMES = 1 + (SAMPLES - WINDOW) // HOP
FLOOR = 3e-5  # of the power of the loudest band and frame: microphones differ in what is below

Feed = dict[str, NDArray[np.float32]]

batches = partial(recognition.batches, "features")

metric = recognition.metric


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
    power = np.abs(scipy.fft.rfft(frames * np.hanning(WINDOW).astype(np.float32), SPECTRUM)) ** 2
    bands = power @ mel_filters()
    bands /= np.maximum(bands.max((1, 2), keepdims=True), 1e-12)
    bands = np.log(bands + np.float32(FLOOR))
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


@lru_cache(maxsize=len(SPEAKERS))
def spectrograms(speaker: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Spectrograms float32 [500, 1, 98, 40] and digits int64 [500] of one speaker."""
    sounds, digits = recordings([speaker])
    return log_mel(np.stack([one_second(sound) for sound in sounds])), digits


@dataclasses.dataclass(frozen=True)
class Fold:
    """One speaker to test on, the next one to select by, the other four to train on and to calibrate with.

    Attributes:
        speaker: To test on.
    """

    speaker: str
    METRIC: ClassVar[str] = METRIC
    MODELS: ClassVar[tuple[str, ...]] = MODELS

    @property
    def selection_speaker(self) -> str:
        """Whom the compiler may judge by."""
        return SPEAKERS[(SPEAKERS.index(self.speaker) + 1) % len(SPEAKERS)]

    @property
    def training_speakers(self) -> tuple[str, ...]:
        """All others."""
        return tuple(name for name in SPEAKERS if name not in (self.speaker, self.selection_speaker))

    def training_split(self) -> tuple[list[NDArray[np.float32]], NDArray[np.int64], list[NDArray[np.float32]]]:
        """Recordings to train on with their digits, and those to calibrate on; the same four speakers."""
        sounds, digits = recordings(self.training_speakers)
        order = np.random.default_rng(0).permutation(len(sounds))
        held_out, used = order[:CALIBRATION_RECORDINGS], np.sort(order[CALIBRATION_RECORDINGS:])
        return [sounds[i] for i in used], digits[used], [sounds[i] for i in held_out]

    def labelled(self, split: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Spectrograms float32 [500, 1, 98, 40] and digits int64 [500] of "selection" or "test"."""
        return spectrograms(self.selection_speaker if split == "selection" else self.speaker)

    def model(self, name: str = MODELS[0]) -> Path:
        """The ONNX model; trained if that has not been done (a few minutes, needs torch)."""
        del name
        path = WORK / f"speech-{self.speaker}.onnx"
        if not path.exists():
            from benchmarks import train_speech

            train_speech.main(["--speakers", self.speaker])
        return path

    def calibration(self) -> Iterator[Feed]:
        """400 recordings of the speakers trained on."""
        yield from batches(log_mel(np.stack([one_second(sound) for sound in self.training_split()[2]])))

    def learning(self) -> Iterator[Feed]:
        """Those and the recordings trained on, without labels: for `--learn`, which profits from more."""
        used, _, held_out = self.training_split()
        yield from batches(log_mel(np.stack([one_second(sound) for sound in held_out + used])))

    def selection(self) -> Iterator[Feed]:
        """500 recordings of one speaker."""
        yield from batches(self.labelled("selection")[0])

    def test(self) -> Iterator[Feed]:
        """500 recordings of another speaker."""
        yield from batches(self.labelled("test")[0])

    def timing(self) -> Feed:
        """One spectrogram."""
        return {"features": self.labelled("test")[0][:1]}

    def answers(self, session: Any, split: str) -> NDArray[np.float64]:
        """Whether each recording of a split is recognised: float64 [500, 1], 0 or 1."""
        return recognition.answers(self.labelled)(session, split)

    def metric(self, outcomes: NDArray[np.float64]) -> float:
        """Share of the recordings that were recognised."""
        return metric(outcomes)

    def top1(self, session: Any) -> NDArray[np.float64]:
        """Which of the 500 test recordings a session recognises, 0 or 1."""
        return self.answers(session, "test")[:, 0]

    def selection_score(self, session: Any) -> NDArray[np.float64]:
        """The same over the 500 recordings for selection."""
        return self.answers(session, "selection")[:, 0]


GEORGE, JACKSON, LUCAS, NICOLAS, THEO, YWEWELER = map(Fold, SPEAKERS)

FOLDS = ("GEORGE", "JACKSON", "LUCAS", "NICOLAS", "THEO", "YWEWELER")
"""Names of the folds in this module."""
