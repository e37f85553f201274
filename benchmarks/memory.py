"""What loading and running a model costs in memory and time, each model in a process of its own.

python -m benchmarks.memory MODEL.lut|MODEL.onnx FEED.npz     prints one JSON object
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

_LOADS = 7
_RUNS = 3


def measure(model: Path, feed: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Loads and runs a model in a fresh process with one thread.

    Args:
        model: A `.lut` (our runtime) or an `.onnx` (ONNX Runtime).
        feed: Inputs by name.

    Returns:
        `load_ms`, the median time of several loads, all but the first with the file in the page cache;
        `loaded_private_mb`, what loading added to the anonymous and written pages of the process;
        `running_mb`, how far the resident memory was above that before loading while the model ran;
        `peak_mb`, the same from before loading on.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "feed.npz"
        np.savez(file, **feed)
        command = [sys.executable, "-m", "benchmarks.memory", str(model), str(file)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{model.name}: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout)


def _fields(path: str) -> dict[str, float]:
    """Sizes in MB (10^6 bytes) of a file of /proc/self that lists them in kB."""
    found = {}
    for line in Path(path).read_text().splitlines():
        name, _, value = line.partition(":")
        if value.strip().endswith("kB"):
            found[name] = int(value.split()[0]) * 1024 / 1e6
    return found


def _private() -> float:
    fields = _fields("/proc/self/smaps_rollup")
    return max(fields["Anonymous"], fields["Private_Dirty"])


def _reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _measure_here(model: Path, file: Path) -> dict[str, float]:
    feed = dict(np.load(file))
    if model.suffix == ".lut":
        import lutc

        def load() -> object:
            return lutc.InferenceSession(model, threads=1)
    else:
        from lutc._ort import ort_session

        def load() -> object:
            return ort_session(model)

    private, resident = _private(), _fields("/proc/self/status")["VmRSS"]
    _reset_peak()
    session = load()
    loaded = _private() - private
    names = {value.name for value in session.get_inputs()}  # type: ignore[attr-defined]
    bound = {name: array for name, array in feed.items() if name in names}
    peak = _fields("/proc/self/status")["VmHWM"]
    _reset_peak()
    for _ in range(_RUNS):
        session.run(None, bound)  # type: ignore[attr-defined]
    running = _fields("/proc/self/status")["VmHWM"]
    times = []
    for _ in range(_LOADS):
        session = None
        start = time.perf_counter()
        session = load()
        times.append(time.perf_counter() - start)
    del session
    return {
        "load_ms": round(float(np.median(times)) * 1e3, 2),
        "loaded_private_mb": round(loaded, 2),
        "running_mb": round(running - resident, 2),
        "peak_mb": round(max(peak, running) - resident, 2),
    }


if __name__ == "__main__":
    print(json.dumps(_measure_here(Path(sys.argv[1]), Path(sys.argv[2]))))
