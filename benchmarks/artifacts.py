"""Our side of a comparison: a model with its layers in one form, compiled without calibration."""

from __future__ import annotations

import functools
import hashlib
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

import lutc
from benchmarks.networks import WORK
from benchmarks.random_layers import choose, randomise
from lutc import _runtime
from lutc.canonicalise import canonicalise
from lutc.fuse import fuse
from lutc.inputs import requested_shapes
from lutc.load import load_model
from lutc.pack import pack
from lutc.write import write_artifact

TARGETS = {"avx512": "x86-64-v4", "avxvnni": "x86-64-v3-vnni", "avx2": "x86-64-v3", "scalar": "scalar"}

_KEPT_S = 3600

RANDOM_TABLES = "random: time only"
"""What a row says about where its tables come from."""


class Artifacts:
    """Compiles one ONNX model in many forms, canonicalising it once.

    Files lie in build/benchmarks/artifacts, in a folder that belongs to this very version of the compiler; those of
    other versions are deleted when they have not been used for an hour.
    """

    def __init__(
        self,
        model: Path,
        name: str,
        isa: str,
        shapes: Mapping[str, Sequence[int | None]] | None = None,
        *,
        every: bool = False,
    ) -> None:
        """Remembers the model.

        Args:
            model: The ONNX file.
            name: Prefix of the artifacts' file names.
            isa: The kernels that the tables are laid out for.
            shapes: Sizes by input name where the model leaves them open.
            every: Replace all layers, rather than those that the compiler would replace by default.
        """
        self._model, self._name, self._isa, self._shapes, self._every = model, name, isa, shapes or {}, every
        self._canonical: ir.Model | None = None

    def build(self, form: str) -> Path:
        """The artifact with every layer that the compiler would replace in this form; the rest is fp32."""
        path = _folder() / f"{self._name}-{form}-{self._isa}.lut"
        if not path.exists():
            model = self._fresh()
            if form != "fp32":
                model = randomise(model, choose(model, form, every=self._every))
            plan = fuse(model)
            target = TARGETS[self._isa]
            pack(plan, target)
            write_artifact(plan, path, target=target, report={"form": form, "tables": RANDOM_TABLES})
        return path

    def _fresh(self) -> ir.Model:
        """A copy of the canonical model that may be changed."""
        if self._canonical is None:
            loaded = load_model(self._model)
            self._canonical = canonicalise(loaded, shapes=requested_shapes(loaded, self._shapes))
        return self._canonical.clone()


def open_artifact(path: Path, threads: int, isa: str, *, mapped: bool = True) -> lutc.InferenceSession:
    """A session of ours with exactly these kernels; `mapped=False` reads the file into memory of its own."""
    return lutc.InferenceSession(path, threads=threads, isa=isa, map_file=mapped)


def bound_call(session: lutc.InferenceSession, feed: Mapping[str, np.ndarray]) -> Callable[[], Any]:
    """A session on the part of a feed that it takes, writing into bound arrays as the peers do."""
    known = {value.name: feed[value.name] for value in session.get_inputs()}
    names = [output.name for output in session.get_outputs()]
    outputs = dict(zip(names, session.run(None, known), strict=True))
    return functools.partial(session.run, None, known, outputs=outputs)


@functools.lru_cache(maxsize=1)
def _folder() -> Path:
    """This version's folder: named after the compiler's sources and the binding."""
    digest = hashlib.sha256()
    package = Path(lutc.__file__).parent
    sources = [*package.rglob("*.py"), *(package / "passes").resolve().rglob("*.py")]
    for path in sorted({*sources, Path(__file__).with_name("random_layers.py"), Path(_runtime.__file__)}):
        if not path.name.endswith("_test.py"):
            digest.update(path.read_bytes())
    parent = WORK / "artifacts"
    folder = parent / digest.hexdigest()[:12]
    folder.mkdir(parents=True, exist_ok=True)
    folder.touch()
    for other in parent.iterdir():
        if other.stat().st_mtime < time.time() - _KEPT_S:
            shutil.rmtree(other, ignore_errors=True)
    return folder
