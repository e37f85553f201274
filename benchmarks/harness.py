"""Fair timing: candidates take turns on one pinned core, and CPU time is compared round by round.

Turns make a slow moment of the machine hit every candidate alike; CPU time leaves out the moments in which another
process had the core; the ratio is formed within each round and only then summarised.
"""

from __future__ import annotations

import dataclasses
import os
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Call = Callable[[], object]


@dataclasses.dataclass(frozen=True)
class Samples:
    """Times of one candidate, one entry a round.

    Attributes:
        cpu: CPU seconds a call, of all threads of the process; float64 [rounds].
        wall: Wall seconds a call; float64 [rounds].
    """

    cpu: NDArray[np.float64]
    wall: NDArray[np.float64]

    def cpu_us(self) -> float:
        """Median CPU time of a call in microseconds."""
        return round(float(np.median(self.cpu)) * 1e6, 1)

    def cpu_spread_us(self) -> float:
        """Interquartile range of the CPU time in microseconds."""
        low, high = np.percentile(self.cpu, [25, 75])
        return round(float(high - low) * 1e6, 1)

    def wall_us(self) -> float:
        """Median wall time of a call in microseconds: the p50 latency."""
        return round(float(np.median(self.wall)) * 1e6, 1)


def pin(cores: int = 1) -> list[int]:
    """Keeps this process, and threads it starts from now on, on the last `cores` CPUs it may use.

    Returns:
        The CPU numbers.
    """
    allowed = sorted(os.sched_getaffinity(0))[-cores:]
    os.sched_setaffinity(0, allowed)
    return allowed


def interleave(candidates: Mapping[str, Call], rounds: int = 40, slice_s: float = 0.02) -> dict[str, Samples]:
    """Times the candidates in turn, in an order that rotates from round to round.

    Args:
        candidates: What to call, by name. Each is called a few times first.
        rounds: Measurements of each.
        slice_s: Each measurement repeats its call until about this many seconds have passed.

    Returns:
        Samples by name.
    """
    repeats = {}
    for name, call in candidates.items():
        call()
        start = time.perf_counter()
        call()
        repeats[name] = max(1, round(slice_s / max(time.perf_counter() - start, 1e-7)))
    cpu: dict[str, list[float]] = {name: [] for name in candidates}
    wall: dict[str, list[float]] = {name: [] for name in candidates}
    order = list(candidates)
    for _ in range(rounds):
        for name in order:
            call, count = candidates[name], repeats[name]
            call()  # brings this candidate's weights back into the caches
            wall_start, cpu_start = time.perf_counter(), time.process_time()
            for _ in range(count):
                call()
            cpu[name].append((time.process_time() - cpu_start) / count)
            wall[name].append((time.perf_counter() - wall_start) / count)
        order.append(order.pop(0))
    return {name: Samples(np.array(cpu[name]), np.array(wall[name])) for name in candidates}


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
