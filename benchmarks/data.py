"""Where benchmark data lies: the folder named by the environment variable LUTC_DATA, by default `.data`."""

from __future__ import annotations

import os
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
