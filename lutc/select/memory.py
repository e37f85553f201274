"""Bytes of memory that this process has."""

from __future__ import annotations

import resource
import sys
from pathlib import Path


def resident_now() -> float:
    """Bytes of memory that this process has at this moment, or the most it has had where that cannot be known."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return resident()
    return float(pages * resource.getpagesize())


def resident() -> float:
    """Most bytes of memory that this process has had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak if sys.platform == "darwin" else peak * 1024)
