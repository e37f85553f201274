"""CIFAR-10 as JPEG files, one folder a class: calibration source and top-1 score for `lutc`.

    lutc compile resnet20.onnx --calib benchmarks.cifar10:calibration -o resnet20.lut
    lutc eval resnet20.lut --ref resnet20.onnx --data benchmarks.cifar10:test --score benchmarks.cifar10:top1

The layout is `$LUTC_DATA/cifar10-jpg/{train,test}/<class>/<number>.jpg`. 3,000 of the 10,000 test images are for
selection, the others for the test: the networks have seen the training images.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks import recognition
from benchmarks.data import data_folder

METRIC = "top-1"
MODELS = ("resnet20", "resnet56")

#: Per-channel mean and standard deviation of the pixels (in 0 .. 1) that the ResNets are fed with.
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)

WIDE = {"resnet20": r"^Conv_(5[1-9]|6\d)$", "resnet56": r"^Conv_(13[5-9]|1[4-9]\d)$"}
"""Names of the convolutions that read 64 channels: seven tenths of all weights."""

WIDER = {"resnet56": r"^Conv_(11[1-9]|12[1-8]|13[5-9]|1[4-9]\d)$"}
"""Of these and the last six that read 32."""

CALIBRATION_IMAGES = 2000
SELECTION_IMAGES = 3000


def load_images(split: str, limit: int | None = None, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Loads normalised images and their class numbers.

    Args:
        split: "train" or "test".
        limit: Number of images, drawn at random without replacement; None means all, in folder order.
        seed: Of the draw.

    Returns:
        Images float32 [n, 3, 32, 32] and labels int64 [n], 0 .. 9 in alphabetical order of the class names.

    Raises:
        FileNotFoundError: The data is not there.
    """
    folder = data_folder("cifar10-jpg", split)
    classes = sorted(p.name for p in folder.iterdir() if p.is_dir())
    files = [(path, label) for label, name in enumerate(classes) for path in sorted((folder / name).glob("*.jpg"))]
    if limit is not None and limit < len(files):
        chosen = np.random.default_rng(seed).choice(len(files), limit, replace=False)
        files = [files[i] for i in chosen]
    images = np.empty((len(files), 3, 32, 32), np.float32)
    for row, (path, _) in enumerate(files):
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"), np.float32) / 255
        images[row] = ((pixels - MEAN) / STD).transpose(2, 0, 1)
    return images, np.array([label for _, label in files], np.int64)


batches = partial(recognition.batches, "input")


def calibration() -> Iterator[dict[str, NDArray[Any]]]:
    """2,000 training images, without their labels."""
    yield from batches(load_images("train", CALIBRATION_IMAGES, seed=0)[0])


def learning() -> Iterator[dict[str, NDArray[Any]]]:
    """All 50,000 of them: for `--learn`, which profits from more."""
    yield from batches(load_images("train", 1 << 20, seed=0)[0])


def model(name: str = MODELS[0]) -> Path:
    """The ONNX model "resnet20" or "resnet56".

    Raises:
        FileNotFoundError: It is not there.
    """
    return data_folder("onnx", "resnet-cifar10", f"{name}_cifar10.onnx")


@lru_cache(maxsize=2)
def labelled(split: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Images float32 [n, 3, 32, 32] and classes int64 [n] of "selection" (n = 3,000) or "test" (7,000)."""
    images, labels = load_images("test")
    order = np.random.default_rng(0).permutation(len(images))
    rows = np.sort(order[:SELECTION_IMAGES] if split == "selection" else order[SELECTION_IMAGES:])
    return images[rows], labels[rows]


def selection() -> Iterator[dict[str, NDArray[Any]]]:
    """3,000 test images, without their labels."""
    yield from batches(labelled("selection")[0])


def test() -> Iterator[dict[str, NDArray[Any]]]:
    """The other 7,000 test images, without their labels."""
    yield from batches(labelled("test")[0])


def timing() -> dict[str, NDArray[Any]]:
    """One image."""
    return {"input": labelled("test")[0][:1]}


answers = recognition.answers(labelled)

metric = recognition.metric

top1 = recognition.score(answers, "test")
"""Share of the 7,000 test images that a session recognises."""

selection_score = recognition.score(answers, "selection")
"""The same over the 3,000 images for selection."""
