"""The machine that times hold for, and where they are kept on it."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

from lutc import __version__


def cpu_name() -> str:
    """The CPU as its maker calls it, with its family and model where the system tells."""
    fields: dict[str, str] = {}
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            fields.setdefault(key.strip(), value.strip())
    name = fields.get("model name") or platform.processor() or platform.machine()
    if "cpu family" in fields:
        name += f" (family {fields['cpu family']}, model {fields.get('model', '?')})"
    return name


def cache_folder() -> Path:
    """The user's folder for what can be made again: $XDG_CACHE_HOME/lutc or ~/.cache/lutc."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "lutc"


def cache_path(isa: str) -> Path:
    """Where this machine's cost model of an ISA lies: a file for every CPU, ISA and version of lutc."""
    cpu = re.sub(r"[^A-Za-z0-9]+", "-", cpu_name()).strip("-").lower()
    return cache_folder() / f"cost-{cpu}-{isa}-{__version__}.json"
