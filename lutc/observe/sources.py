"""Where calibration samples come from: files, folders, callables, iterables, or nowhere ("random")."""

from __future__ import annotations

import abc
import importlib
import os
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from lutc.errors import UsageError
from lutc.observe.inputs import Batch, InputSpec

_RANDOM_BATCHES = 32
_RANDOM_BATCH = 8
_RANDOM_SIZE = 32


class CalibrationSource(abc.ABC):
    """A stream of batches."""

    name = "calibration samples"

    @abc.abstractmethod
    def batches(self, specs: Sequence[InputSpec]) -> Iterator[Mapping[str, Any]]:
        """Dicts of arrays by input name, each one batch with shapes of its own; not validated.

        Args:
            specs: The model's inputs.
        """


class _Npz(CalibrationSource):
    """One .npz whose arrays hold all samples along their first axis."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path = path

    def batches(self, specs: Sequence[InputSpec]) -> Iterator[Mapping[str, Any]]:
        try:
            with np.load(self._path, allow_pickle=False) as file:
                arrays = dict(file)
        except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
            raise UsageError(f"{self.name}: not a readable .npz of plain arrays: {error}") from error
        counts = {name: array.shape[0] if array.ndim else 1 for name, array in arrays.items()}
        if len(set(counts.values())) > 1:
            listing = ", ".join(f"{name}: {count}" for name, count in counts.items())
            raise UsageError(f"{self.name}: the first axis counts samples, but differs: {listing}")
        if any(counts.values()):
            yield arrays


class _Folder(CalibrationSource):
    """A folder: every .npz is one batch; of .npy files each is one input, or one sample of the only input."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path = path

    def batches(self, specs: Sequence[InputSpec]) -> Iterator[Mapping[str, Any]]:
        for path in sorted(self._path.glob("*.npz")):
            yield from _Npz(path).batches(specs)
        files = sorted(self._path.glob("*.npy"))
        names = {spec.name for spec in specs}
        if files and {path.stem for path in files} == names:
            yield {path.stem: _load_npy(path) for path in files}
            return
        if files and len(specs) != 1:
            raise UsageError(
                f"{self.name}: the model has {len(specs)} inputs, so the .npy files must be called after them: "
                + ", ".join(f"{name}.npy" for name in sorted(names))
            )
        for path in files:
            array = _load_npy(path)
            rank = len(specs[0].shape) if specs[0].shape is not None else array.ndim
            yield {specs[0].name: array[None] if array.ndim == rank - 1 else array}


def _load_npy(path: Path) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UsageError(f"{path}: not a readable .npy of a plain array: {error}") from error


class _Iterable(CalibrationSource):
    """Dicts from an iterable, or from a callable that returns one."""

    def __init__(self, source: Iterable[Mapping[str, Any]] | Callable[[], Any], name: str) -> None:
        self.name = name
        self._source = source

    def batches(self, specs: Sequence[InputSpec]) -> Iterator[Mapping[str, Any]]:
        made = self._source() if callable(self._source) else self._source
        if isinstance(made, Mapping):
            made = [made]
        try:
            stream = iter(made)
        except TypeError as error:
            raise UsageError(f"{self.name} gives {type(made).__name__}, not dicts of arrays") from error
        for batch in stream:
            if not isinstance(batch, Mapping):
                raise UsageError(f"{self.name} gives {type(batch).__name__}, not dicts of arrays by input name")
            yield batch


class _Random(CalibrationSource):
    """Made-up samples: standard normal floats, integers below 100, masks of ones."""

    name = "random"

    def batches(self, specs: Sequence[InputSpec]) -> Iterator[Mapping[str, Any]]:
        rng = np.random.default_rng(0)
        for _ in range(_RANDOM_BATCHES):
            sizes: dict[str, int] = {}
            batch: Batch = {}
            for spec in specs:
                shape = []
                for axis, dim in enumerate(spec.shape or ()):
                    free = _RANDOM_BATCH if axis == 0 else _RANDOM_SIZE
                    shape.append(dim if isinstance(dim, int) else sizes.setdefault(str(dim), free) if dim else free)
                if spec.dtype.kind == "f":
                    batch[spec.name] = rng.standard_normal(shape).astype(spec.dtype)
                elif "mask" in spec.name or spec.dtype.kind == "b":
                    batch[spec.name] = np.ones(shape, spec.dtype)
                else:
                    high = 1 if "type" in spec.name else 100
                    batch[spec.name] = rng.integers(0, high, shape).astype(spec.dtype)
            yield batch


def _load_callable(spec: str) -> Callable[[], Any]:
    module_name, _, attribute = spec.partition(":")
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        made: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            made = getattr(made, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"calibration source {spec!r}: cannot be imported: {error}") from error
    if not callable(made):
        raise UsageError(f"calibration source {spec!r} is no function")
    return made


def open_source(
    spec: str | os.PathLike[str] | CalibrationSource | Callable[[], Any] | Iterable[Any],
) -> CalibrationSource:
    """Open a source of calibration samples.

    Args:
        spec: "random" (made-up inputs, by name only), a .npz (arrays keyed by input name, first axis = samples), a
            folder of .npz or .npy files, "pkg.mod:function" (returns an iterable of dicts, one batch each), or in
            Python a function or an iterable of such dicts.

    Raises:
        UsageError: There is nothing of that kind.
    """
    if isinstance(spec, CalibrationSource):
        return spec
    if not isinstance(spec, str | os.PathLike):
        if not callable(spec) and not isinstance(spec, Iterable):
            raise UsageError(f"{type(spec).__name__} is no source of calibration samples")
        return _Iterable(cast(Any, spec), getattr(spec, "__name__", "the given samples"))
    text = os.fspath(spec)
    if text == "random":
        return _Random()
    path = Path(text)
    if path.is_dir():
        if not any(path.glob("*.npz")) and not any(path.glob("*.npy")):
            raise UsageError(f"{text}: no .npz or .npy file in this folder")
        return _Folder(path)
    if path.is_file():
        if path.suffix != ".npz":
            raise UsageError(f"{text}: a calibration file is a .npz keyed by input name (first axis = samples)")
        return _Npz(path)
    if ":" in text:
        return _Iterable(_load_callable(text), text)
    raise UsageError(
        f"{text}: no such file or folder; a calibration source is a .npz, a folder, pkg.mod:function or random"
    )
