"""Finished layers on disk, so that an interrupted compilation repeats none of them."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lutc import __version__
from lutc.fit.linear import Factors, FittedLayer
from lutc.ir.expand import TableFactors
from lutc.ir.parameters import ConvParameters, LookupParameters, ProjectParameters


def checkpoint_key(model: bytes, batches: Iterable[Mapping[str, npt.NDArray]], seed: int) -> str:
    """A hash of everything that all fits of a compilation depend on: 24 hex digits."""
    digest = hashlib.sha256(model)
    digest.update(__version__.encode())
    digest.update(str(seed).encode())
    for batch in batches:
        for name in sorted(batch):
            array = np.ascontiguousarray(batch[name])
            digest.update(f"{name} {array.dtype} {array.shape}".encode())
            digest.update(array.tobytes())
    return digest.hexdigest()[:24]


class Checkpoints:
    """Fitted layers of one compilation in a folder.

    A layer is fitted to what the layers before it answer: it is found again where these are the same, whatever has
    become of the layers behind it.

    Args:
        folder: Made if missing; None keeps nothing.
        key: `checkpoint_key` of the compilation; layers of another key are not found.
        layers: What each layer is and becomes, in the order of fitting.
    """

    def __init__(self, folder: str | os.PathLike[str] | None, key: str, layers: Sequence[str]) -> None:
        self._folder = None if folder is None else Path(folder)
        self._names = []
        digest = hashlib.sha256(key.encode())
        for index, layer in enumerate(layers):
            digest.update(f"{layer}\n".encode())
            self._names.append(f"{digest.hexdigest()[:24]}-{index:04d}.npz")
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)

    def _path(self, index: int) -> Path:
        assert self._folder is not None
        return self._folder / self._names[index]

    def has(self, index: int) -> bool:
        """Whether a layer has been fitted."""
        return self._folder is not None and self._path(index).is_file()

    def save(self, index: int, layer: FittedLayer) -> None:
        """Keep a finished layer; the file appears whole or not at all."""
        if self._folder is None:
            return
        arrays: dict[str, npt.NDArray] = {"error": np.array(layer.error)}
        parts = (
            (layer.lookup, "lookup"),
            (layer.projection, "projection"),
            (layer.factors, "factors"),
            (layer.expand, "expand"),
        )
        for part, name in parts:
            if part is not None:
                for field in dataclasses.fields(part):
                    arrays[f"{name}.{field.name}"] = np.asarray(getattr(part, field.name))
        path = self._path(index)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        try:
            with open(temporary, "wb") as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    def load(self, index: int) -> FittedLayer | None:
        """The finished layer, or None if it is not there or damaged."""
        if self._folder is None or not self._path(index).is_file():
            return None
        try:
            with np.load(self._path(index), allow_pickle=False) as file:
                arrays = dict(file)
            convolution = "lookup.kernel_shape" in arrays
            lookup = _restore(ConvParameters if convolution else LookupParameters, arrays, "lookup")
            projection = _restore(ProjectParameters, arrays, "projection") if "projection.mul" in arrays else None
            lookup.check()
            exact, limit = bool(arrays["factors.exact"]), int(arrays["factors.limit"])
            factors = Factors(arrays["factors.atoms"], arrays["factors.weight"], exact, limit)
            expand = _restore(TableFactors, arrays, "expand") if "expand.atoms" in arrays else None
            return FittedLayer(lookup, projection, float(arrays["error"]), factors, expand)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None


def _restore(kind: type, arrays: Mapping[str, npt.NDArray], name: str) -> Any:
    plain = {"gain_limit", "group", "kernel_shape", "strides", "pads", "dilations", "blocks"}
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        value = arrays[f"{name}.{field.name}"]
        if field.name in plain:
            fields[field.name] = int(value) if value.ndim == 0 else tuple(int(i) for i in value)
        else:
            fields[field.name] = value
    return kind(**fields)
