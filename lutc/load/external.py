"""The one function through which a model's external data is opened, and the checks of what the model asks of it.

A model is untrusted: the location it names must be a plain file inside the model's own folder, reached without any
symbolic link, and not a hard link to a file elsewhere. The path is resolved by the kernel relative to the opened folder
(openat2 where there is one), so nothing can be swapped between the check and the open.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
import stat
import sys
from pathlib import Path
from typing import NoReturn

import numpy as np

from lutc.errors import UnsupportedModelError

_KEYS = {"location", "offset", "length", "checksum"}
_OPENAT2 = 437  # the same on every Linux architecture
_RESOLVE_NO_MAGICLINKS, _RESOLVE_NO_SYMLINKS, _RESOLVE_BENEATH = 0x02, 0x04, 0x08


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


class ExternalFiles:
    """Maps the external files of one model, each once; the arrays keep the mapping alive."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._maps: dict[str, mmap.mmap | bytes] = {}

    def array(self, tensor: str, entries: dict[str, str], dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
        """A read-only array over the mapped file.

        Args:
            tensor: The tensor's name, for messages.
            entries: The external_data key/value pairs.
            dtype: Little-endian element type.
            shape: The tensor's dimensions, none negative.

        Raises:
            UnsupportedModelError: unknown keys, an unsafe or missing file, offset or length outside of it.
        """
        location, offset, length = _fields(tensor, entries)
        count = int(np.prod([int(d) for d in shape], dtype=object)) if shape else 1
        need = count * dtype.itemsize
        if length is not None and length != need:
            _refuse(tensor, location, f"its length is {length} bytes, its shape {list(shape)} needs {need}")
        data = self._map(tensor, location)
        if offset + need > len(data):
            _refuse(tensor, location, f"bytes {offset} to {offset + need} lie past the file's end at {len(data)}")
        return np.frombuffer(data, dtype=dtype, count=count, offset=offset).reshape(shape)

    def _map(self, tensor: str, location: str) -> mmap.mmap | bytes:
        if location not in self._maps:
            fd = open_beneath(self._folder, location, tensor)
            try:
                size = os.fstat(fd).st_size
                self._maps[location] = mmap.mmap(fd, size, access=mmap.ACCESS_READ) if size else b""
            finally:
                os.close(fd)
        return self._maps[location]


def _fields(tensor: str, entries: dict[str, str]) -> tuple[str, int, int | None]:
    location = entries.get("location", "")
    unknown = sorted(set(entries) - _KEYS)
    if unknown:
        _refuse(tensor, location, f"unknown external_data keys {unknown}")
    numbers: dict[str, int | None] = {}
    for key in ("offset", "length"):
        text = entries.get(key)
        if text is not None and not (text.isascii() and text.isdigit() and len(text) <= 19):
            _refuse(tensor, location, f"{key} {text[:40]!r} is not a non-negative integer")
        numbers[key] = int(text) if text is not None else None
    return location, numbers["offset"] or 0, numbers["length"]


def open_beneath(folder: Path, location: str, tensor: str) -> int:
    """Opens a file named by a model for reading: the only way to any external data.

    Args:
        folder: The model's folder.
        location: A relative path with "/" separators.
        tensor: The tensor that asks, for messages.

    Returns:
        A file descriptor of a regular file inside the folder; the caller closes it.

    Raises:
        UnsupportedModelError: absolute path, "..", a symbolic link on the way, hard link, missing, no plain file.
    """
    parts = location.split("/")
    bad = location.startswith("/") or "\\" in location or "\0" in location or ":" in parts[0]
    if not location or bad or any(part in ("", ".", "..") for part in parts):
        _refuse(tensor, location, "the location must be a plain relative path inside the model's folder")
    root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd = _openat2(root, location)
        if fd is None:
            fd = _walk(root, parts)
    except FileNotFoundError:
        _refuse(tensor, location, f"there is no such file in {str(folder)!r}; put it back beside the model")
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EXDEV, errno.ENOTDIR):
            _refuse(tensor, location, "a symbolic link is on the way to it; copy the file into the model's folder")
        _refuse(tensor, location, f"cannot open it: {error.strerror}")
    finally:
        os.close(root)
    info = os.fstat(fd)
    if not stat.S_ISREG(info.st_mode) or info.st_nlink > 1:
        os.close(fd)
        what = "it is no regular file" if not stat.S_ISREG(info.st_mode) else "it is a hard link to another file"
        _refuse(tensor, location, f"{what}; copy the data into the model's folder")
    return fd


def _openat2(root: int, location: str) -> int | None:
    """The kernel's own confined open; None where there is none (not Linux, too old, or filtered)."""
    if not sys.platform.startswith("linux") or platform.machine() == "" or os.environ.get("LUTC_NO_OPENAT2"):
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    how = _OpenHow(
        os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK, 0,
        _RESOLVE_BENEATH | _RESOLVE_NO_SYMLINKS | _RESOLVE_NO_MAGICLINKS,
    )  # fmt: skip
    path = os.fsencode(location)
    fd = libc.syscall(
        ctypes.c_long(_OPENAT2), ctypes.c_int(root), ctypes.c_char_p(path), ctypes.byref(how),
        ctypes.c_size_t(ctypes.sizeof(how)),
    )  # fmt: skip
    if fd >= 0:
        return int(fd)
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EPERM, errno.EINVAL, errno.E2BIG):
        return None
    raise OSError(code, os.strerror(code), location)


def _walk(root: int, parts: list[str]) -> int:
    """Opens one component after the other, following no link."""
    current = os.dup(root)
    try:
        for part in parts[:-1]:
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=current)
            os.close(current)
            current = inner
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        return os.open(parts[-1], flags, dir_fd=current)
    finally:
        os.close(current)


def _refuse(tensor: str, location: str, why: str) -> NoReturn:
    raise UnsupportedModelError(f"external data of tensor {tensor!r}, file {location[:300]!r}: {why}")
