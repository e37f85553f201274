"""`lutc run`: one inference, arrays in and out through .npz files keyed by the model's names."""

from __future__ import annotations

import os
import tempfile
import zipfile
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from lutc.cli.common import Json, emit, human
from lutc.errors import UsageError
from lutc.session import InferenceSession


def command(
    model: Annotated[Path, typer.Argument(metavar="OUT.lut", help="The compiled model.")],
    inputs: Annotated[Path, typer.Option("--inputs", "-i", metavar="IN.npz", help="Arrays by input name.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT.npz", help="Arrays by output name.")],
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="All CPUs granted by default.")] = None,
    json: Json = False,
) -> None:
    """Run a compiled model on the arrays of an .npz file."""
    session = InferenceSession(model, threads=threads) if threads else InferenceSession(model)
    names = [item.name for item in session.get_outputs()]
    feeds = load_npz(inputs)
    results = session.run(None, feeds)
    _save(output, dict(zip(names, results, strict=True)))
    shapes = {name: {"shape": list(r.shape), "dtype": str(r.dtype)} for name, r in zip(names, results, strict=True)}
    for name, entry in shapes.items():
        human(json).print(f"{name}: {entry['dtype']} {entry['shape']}", markup=False)
    human(json).print(f"written to {output}", markup=False)
    if json:
        emit({"model": str(model), "output": str(output), "outputs": shapes})


def load_npz(path: Path) -> dict[str, np.ndarray]:
    """Reads an .npz without ever unpickling.

    Raises:
        UsageError: missing, not an .npz, or holding Python objects.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            if not hasattr(file, "files"):
                raise ValueError("it holds one unnamed array; save it as np.savez(path, input_name=array)")
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise UsageError(f"cannot read '{path}' as .npz: {error}") from error


def _save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp", delete=False) as file:
            temporary = file.name
            np.savez(file, **arrays)  # type: ignore[arg-type]
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise UsageError(f"cannot write '{path}': {error.strerror or error}") from error
