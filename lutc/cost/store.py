"""Where cost models come from: measured on this machine and kept in the user's cache, or shipped with lutc."""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Callable
from importlib import resources
from pathlib import Path

from lutc.cost.machine import cache_path
from lutc.cost.model import CostModel
from lutc.errors import UsageError

ISAS = {
    "x86-64-v4": "avx512",
    "x86-64-v3-vnni": "avxvnni",
    "x86-64-v3": "avx2",
    "scalar": "scalar",
    "aarch64": "scalar",
    "aarch64-android": "scalar",
}
"""The ISA whose kernels run a target's artifacts on today's runtime."""

_X86 = ("x86_64", "AMD64", "i386", "i686")

Note = Callable[[str], object]


def isa_of(name: str) -> str:
    """The ISA that a target ("x86-64-v4") or an ISA ("avx512") names.

    Raises:
        UsageError: It names none.
    """
    if name in ISAS.values():
        return name
    if name in ISAS:
        return ISAS[name]
    known = ", ".join([*ISAS, *dict.fromkeys(ISAS.values())])
    raise UsageError(f"no cost model for '{name}': it is none of {known}")


def load(name: str, note: Note | None = None) -> CostModel:
    """The cost model of a target or an ISA: this machine's if it was measured, else the shipped one.

    Args:
        name: Of a target but "native", or of an ISA.
        note: Receives remarks: a cache that cannot be read, a target that is priced as another one.

    Raises:
        UsageError: No such target or ISA.
    """
    isa = isa_of(name)
    path = cache_path(isa)
    foreign = name.startswith("aarch64") and platform.machine() in _X86
    model = None if foreign else _cached(path, isa, note)
    if model is None:
        model = shipped(isa)
    if name.startswith("aarch64") and note is not None:
        note(f"lutc has no kernels for {name} yet: times are those of scalar code on {model.machine}")
    return model


def shipped(isa: str) -> CostModel:
    """The cost model that lutc comes with.

    Raises:
        UsageError: There is none for this ISA.
    """
    file = resources.files("lutc.cost").joinpath("defaults", f"{shipped_target(isa)}.json")
    if not file.is_file():
        raise UsageError(f"lutc comes with no cost model of {isa}; measure one: lutc targets --measure --isa {isa}")
    return CostModel.from_json(file.read_text(encoding="utf-8"), "shipped")


def shipped_target(isa: str) -> str:
    """The target under whose name the model of an ISA is shipped."""
    return next(target for target, of in ISAS.items() if of == isa)


def save(model: CostModel) -> Path | None:
    """Keeps a measured model in the user's cache: its file, or None where that cannot be written."""
    path = cache_path(model.isa)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(model.to_json())
        os.replace(temporary, path)
    except OSError:
        return None
    return path


def _cached(path: Path, isa: str, note: Note | None) -> CostModel | None:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        _say_ignored(path, error, note)
        return None
    try:
        model = CostModel.from_json(text, "measured")
        if model.isa != isa:
            raise ValueError(f"it is of {model.isa}")
    except (ValueError, RecursionError) as error:
        _say_ignored(path, error, note)
        return None
    return model


def _say_ignored(path: Path, why: object, note: Note | None) -> None:
    if note is not None:
        note(f"the cost model '{path}' is ignored ({why}); measure it again: lutc targets --measure")
