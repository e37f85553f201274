"""Every model of the data folder's ONNX pack, at its default shapes, with samples of its inputs."""

from __future__ import annotations

import functools
import itertools
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.data import data_folder
from benchmarks.networks import Feed, Network

MOST_BYTES = 60 << 20
"""Of a model file."""


def every_model(only: str = "") -> Iterator[Network]:
    """Models whose names match and that ONNX Runtime runs, the smallest files first."""
    paths = data_folder("onnx").rglob("*.onnx")
    for size, path in sorted((path.stat().st_size, path) for path in paths):
        name = _name(path)
        if size > MOST_BYTES or not re.search(only, name):
            continue
        try:
            feed = synthetic(path)
        except Exception as error:  # ONNX Runtime's exceptions share no base
            print(f"{name}: skipped, {str(error).splitlines()[0][:100]}", file=sys.stderr)
            continue
        shape = "x".join(str(size) for size in next(iter(feed.values())).shape) if feed else ""
        yield Network(name, shape, functools.partial(Path, path), feed)


def _name(path: Path) -> str:
    """The file's name, or its folder's where all files are called alike."""
    return path.parent.name if path.stem in ("model", "lite") else path.stem


def synthetic(path: Path, seed: int = 0) -> Feed:
    """Made-up inputs of a model at its default shapes."""
    from lutc._ort import ort_session
    from lutc.synthetic import synthesise

    return synthesise(ort_session(path, threads=1).get_inputs(), seed=seed)


def samples(path: Path, count: int) -> tuple[str, list[Feed]]:
    """What a model is calibrated with: "natural" where its data is there, otherwise made-up inputs ("random")."""
    if "resnet-cifar10" in path.parts:
        from benchmarks import cifar10, recognition

        try:
            return "natural", list(itertools.islice(cifar10.calibration(), max(1, count // recognition.BATCH)))
        except FileNotFoundError:
            pass
    from lutc._ort import ort_session
    from lutc.synthetic import synthesise

    inputs = ort_session(path, threads=1).get_inputs()
    return "random", [synthesise(inputs, seed=seed) for seed in range(count)]
