"""Where benchmark data lies (the folder named by LUTC_DATA, by default `.data`), and files that are made once."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def data_folder(*parts: str) -> Path:
    """A file or folder below the data folder.

    Args:
        *parts: Path below the data folder, e.g. `"cifar10-jpg", "test"`.

    Raises:
        FileNotFoundError: It is not there; the message says how to provide it.
    """
    path = Path(os.environ.get("LUTC_DATA", ".data")).joinpath(*parts)
    if not path.exists():
        raise FileNotFoundError(f"{path}: not found; README.md says where to get it (LUTC_DATA names the folder)")
    return path


def made(path: Path, make: Callable[[Path], object]) -> Path:
    """`path`, which `make` writes under another name: it is whole or it is not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{os.getpid()}-{path.name}")
    try:
        make(temporary)
        os.replace(temporary, path)
    finally:
        for left in path.parent.glob(f"{os.getpid()}-*"):
            left.unlink()
    return path


def made_once(path: Path, make: Callable[[Path], object]) -> Path:
    """`path`, made unless it is there."""
    return path if path.exists() else made(path, make)
