"""Comparisons with other runtimes: candidates take turns (lutc.timing) on one pinned core, rows of JSON come out.

The ratio of CPU times is formed within each round and only then summarised.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lutc.timing import Call, Samples, interleave

__all__ = ["Call", "Samples", "interleave", "machine", "pin", "ratio", "row"]


def pin(cores: int = 1) -> list[int]:
    """Keeps this process, and threads it starts from now on, on the last `cores` CPUs it may use.

    Returns:
        The CPU numbers.
    """
    allowed = sorted(os.sched_getaffinity(0))[-cores:]
    os.sched_setaffinity(0, allowed)
    return allowed


def ratio(peer: Samples, ours: Samples) -> float:
    """How many times the peer's CPU time is ours: the median over rounds."""
    return round(float(np.median(peer.cpu / ours.cpu)), 3)


def row(
    bench: str, shape: str, form: str, isa: str, ours: Samples, peers: Mapping[str, Samples], **more: Any
) -> dict[str, Any]:
    """One row of a benchmark's JSON.

    Args:
        bench: The benchmark's name.
        shape: E.g. "1x128".
        form: Form of the layers: fp32, gain-v3, plain-v8, ...
        isa: The kernels that ran.
        ours: Our samples.
        peers: The peers' samples by name.
        **more: Further fields, e.g. `model="minilm"`.
    """
    return {
        "bench": bench,
        **more,
        "shape": shape,
        "form": form,
        "isa": isa,
        "threads": 1,
        "ours_us": ours.cpu_us(),
        "ours_spread_us": ours.cpu_spread_us(),
        "peers": {name: samples.cpu_us() for name, samples in peers.items()},
        "peers_spread_us": {name: samples.cpu_spread_us() for name, samples in peers.items()},
        "ratio": {name: ratio(samples, ours) for name, samples in peers.items()},
    }


def machine() -> dict[str, Any]:
    """What the figures were measured on: CPU, its vector extensions, Python and the peers' versions."""
    import importlib.metadata

    fields: dict[str, str] = {}
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            key, _, value = line.partition(":")
            fields.setdefault(key.strip(), value.strip())
    known = (
        "avx2",
        "fma",
        "avx512f",
        "avx512bw",
        "avx512vbmi",
        "avx512_vnni",
        "avx_vnni",
        "avx512_bf16",
        "amx_int8",
    )
    versions = {}
    for package in ("numpy", "onnx", "onnxruntime", "openvino", "torch"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "cpu": f"{fields.get('vendor_id', '')} {fields.get('model name', platform.processor())}".strip(),
        "family_model": f"{fields.get('cpu family', '?')}/{fields.get('model', '?')}",
        "features": [name for name in known if name in fields.get("flags", "").split()],
        "cpus": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": versions,
    }
