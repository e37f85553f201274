"""Comparisons with other runtimes: candidates take turns (lutc.timing) on one pinned core, rows of JSON come out.

Ratios are formed within each round and only then summarised: of CPU times on one thread, of wall times on more (there
waiting threads may spin).
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lutc.timing import Call, Samples, interleave, settle_s

__all__ = [
    "Call",
    "Samples",
    "interleave",
    "machine",
    "microseconds",
    "on_cache_line",
    "pin",
    "ratio",
    "rounds_for",
    "row",
    "settle_s",
    "spread_us",
]


def pin(cores: int = 1) -> list[int]:
    """Keeps this process, and threads it starts from now on, on the last `cores` CPUs it may use.

    Returns:
        The CPU numbers.
    """
    allowed = sorted(os.sched_getaffinity(0))[-cores:]
    os.sched_setaffinity(0, allowed)
    return allowed


def on_cache_line(array: np.ndarray) -> np.ndarray:
    """A copy that starts at a multiple of 64 bytes, which is everybody's best case; numpy's own arrays do not."""
    memory = np.empty(array.nbytes + 64, np.uint8)
    start = -memory.ctypes.data % 64
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def ratio(peer: Samples, ours: Samples, threads: int = 1) -> float:
    """How many times the peer's time is ours: the median over rounds."""
    return round(float(np.median(peer.cpu / ours.cpu if threads == 1 else peer.wall / ours.wall)), 3)


def microseconds(samples: Samples, threads: int = 1) -> float:
    """Median time of a call: CPU time on one thread, wall time on more."""
    return samples.cpu_us() if threads == 1 else samples.wall_us()


def spread_us(samples: Samples, threads: int = 1) -> float:
    """Interquartile range of the same time."""
    low, high = np.percentile(samples.cpu if threads == 1 else samples.wall, [25, 75])
    return round(float(high - low) * 1e6, 1)


def row(
    bench: str,
    shape: str,
    form: str,
    isa: str,
    ours: Samples,
    peers: Mapping[str, Samples],
    threads: int = 1,
    **more: Any,
) -> dict[str, Any]:
    """One row of a benchmark's JSON.

    Args:
        bench: The benchmark's name.
        shape: E.g. "1x128".
        form: Form of the layers: fp32, int8, gain-v3, plain-v8, ...
        isa: The kernels that ran.
        ours: Our samples.
        peers: The peers' samples by name.
        threads: Of ours and of every peer; decides between CPU and wall time.
        **more: Further fields, e.g. `model="minilm"`.
    """
    return {
        "bench": bench,
        **more,
        "shape": shape,
        "form": form,
        "isa": isa,
        "threads": threads,
        "clock": "cpu" if threads == 1 else "wall",
        "ours_us": microseconds(ours, threads),
        "ours_spread_us": spread_us(ours, threads),
        "ours_wall_us": ours.wall_us(),
        "peers": {name: microseconds(samples, threads) for name, samples in peers.items()},
        "peers_spread_us": {name: spread_us(samples, threads) for name, samples in peers.items()},
        "peers_wall_us": {name: samples.wall_us() for name, samples in peers.items()},
        "ratio": {name: ratio(samples, ours, threads) for name, samples in peers.items()},
    }


def rounds_for(calls: Mapping[str, Call], seconds: float, slice_s: float, most: int = 40) -> int:
    """How many interleaved rounds fit into about so many seconds: at least 5, at most `most`."""
    start = time.perf_counter()
    for call in calls.values():
        call()
        call()
    once = (time.perf_counter() - start) / 2
    return int(np.clip(seconds / (2 * once + slice_s * len(calls)), 5, most))


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
    for package in ("numpy", "onnx", "onnxruntime", "openvino", "torch", "apache-tvm"):
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
