"""Stage `write`: a plan and its tensors become one `.lut` file (docs/format.md), atomically and reproducibly."""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lutc import __version__
from lutc._runtime import xxh64
from lutc.errors import UsageError
from lutc.plan import DTYPES, Plan, Port, Step, Value

FORMAT_VERSION = 2
"""Largest version read and written; a plan without init steps is written as version 1, which older readers know."""
ALIGNMENT = 64
PAGE = 4096
"""Where the data and large tensors begin: a table row as long as a page, read wherever codes say, is then one page and
not halves of two (a fifth of the time of 1x4096x4096 from memory)."""
LARGE = 64 * PAGE
HASH_OFFSET = 38  # bytes 38 .. 53 of the file hold the hash, see docs/format.md
HASH_DIGITS = 16

_SAFETENSORS_DTYPE = {dtype: name.upper() for name, dtype in DTYPES.items()}


def write_artifact(
    plan: Plan,
    path: str | os.PathLike[str],
    *,
    target: str,
    report: dict[str, Any],
    check: Callable[[str], object] | None = None,
) -> int:
    """Writes `plan` to `path` through a temporary file in the same folder, which is renamed when it is complete.

    Args:
        plan: the plan, tables already laid out for `target`.
        path: the artifact; an existing file is replaced only when the new one is complete and on disk.
        target: name of the tables' ISA, recorded in the file.
        report: the compiler's report, JSON-serialisable, without times or machine names.
        check: called with the complete temporary file before it takes its name; what it raises leaves `path` as it was.

    Returns:
        Bytes written.

    Raises:
        UsageError: the folder cannot be written or the disk is full; nothing is left behind.
    """
    destination = Path(path)
    header, names = _header(plan, target, report)
    try:
        descriptor, temporary = tempfile.mkstemp(dir=destination.parent, prefix=f".{destination.name}.", suffix=".tmp")
    except OSError as error:
        raise UsageError(
            f"cannot write '{destination}': {error.strerror or error}. "
            "Choose a folder that exists and that you may write with -o OUT.lut."
        ) from error
    try:
        with os.fdopen(descriptor, "w+b") as file:
            for chunk in _chunks(plan, header, names):
                file.write(chunk)
            file.flush()
            _stamp_hash(file.fileno())
            os.fsync(file.fileno())
            _forget_pages(file.fileno())
            size = os.fstat(file.fileno()).st_size
            os.fchmod(file.fileno(), 0o666 & ~_umask())
        if check is not None:
            check(temporary)
        os.replace(temporary, destination)
    except OSError as error:
        raise UsageError(
            f"writing '{destination}' failed: {error.strerror or error}. "
            f"Nothing was changed; free about {_total_bytes(plan) / 1e6:.0f} MB or choose another folder with -o."
        ) from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
    _sync_folder(destination.parent)
    return size


def plan_json(plan: Plan) -> dict[str, Any]:
    """The plan as the JSON object that docs/format.md describes (without the tensors)."""

    def ports(items: list[Port]) -> list[dict[str, Any]]:
        return [{"name": p.name, "value": p.value, "dtype": p.dtype, "shape": list(p.shape)} for p in items]

    def value(item: Value) -> dict[str, Any]:
        if item.tensor is None:
            return {"dtype": item.dtype}
        return {"dtype": item.dtype, "tensor": item.tensor, "shape": list(item.shape or ())}

    def steps(items: list[Step]) -> list[dict[str, Any]]:
        entries = []
        for step in items:
            entry: dict[str, Any] = {
                "op": step.op,
                "name": step.name[:4000],
                "inputs": step.inputs,
                "outputs": step.outputs,
            }
            if step.attrs:
                entry["attrs"] = dict(sorted(step.attrs.items()))
            entries.append(entry)
        return entries

    return {
        "inputs": ports(plan.inputs),
        "outputs": ports(plan.outputs),
        "values": [value(item) for item in plan.values],
        **({"init": steps(plan.init)} if plan.init else {}),
        "steps": steps(plan.steps),
    }


def _dumps(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _header(plan: Plan, target: str, report: dict[str, Any]) -> tuple[bytes, list[str]]:
    """The padded header (with a zero hash) and the tensors' names in file order."""
    metadata = {
        "lutc.hash": "0" * HASH_DIGITS,
        "lutc.format": str(FORMAT_VERSION if plan.init else 1),
        "lutc.producer": f"lutc {__version__}",
        "lutc.target": target,
        "lutc.plan": _dumps(plan_json(plan)),
        "lutc.report": _dumps(report),
    }
    entries: dict[str, Any] = {"__metadata__": metadata}
    names = list(plan.tensors)
    offset = pads = 0
    for name in names:
        if gap := _gap(offset, plan.tensors[name].nbytes):
            entries[f"_pad.{pads}"] = {"dtype": "U8", "shape": [gap], "data_offsets": [offset, offset + gap]}
            offset += gap
            pads += 1
        array = plan.tensors[name]
        entries[name] = {
            "dtype": _SAFETENSORS_DTYPE[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
    header = _dumps(entries).encode()
    header += b" " * (-(8 + len(header)) % PAGE)
    return len(header).to_bytes(8, "little") + header, names


def _chunks(plan: Plan, header: bytes, names: list[str]) -> Iterator[bytes | memoryview]:
    """The file's bytes, piece by piece."""
    yield header
    offset = 0
    for name in names:
        array = plan.tensors[name]
        gap = _gap(offset, array.nbytes)
        yield bytes(gap)
        yield np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        offset += gap + array.nbytes


def _gap(offset: int, nbytes: int) -> int:
    """Bytes to skip before a tensor that would begin at `offset` of the data."""
    if nbytes == 0:
        return 0
    return -offset % (PAGE if nbytes >= LARGE else ALIGNMENT)


def _total_bytes(plan: Plan) -> int:
    return sum(array.nbytes for array in plan.tensors.values())


def _stamp_hash(descriptor: int) -> None:
    """Hashes the file (whose hash field is still zeros) and fills the field in."""
    with mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) as view:
        digest = xxh64(view)
    os.pwrite(descriptor, f"{digest:016x}".encode(), HASH_OFFSET)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _forget_pages(descriptor: int) -> None:
    """Drops a written file from the page cache: the runtime's mapping then reads it into huge pages, where it can."""
    if hasattr(os, "posix_fadvise"):
        with contextlib.suppress(OSError):
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def _sync_folder(folder: Path) -> None:
    """Makes the rename itself durable where the system lets a folder be opened."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
