"""Times of the artifacts and of other runtimes' int8 and fp32, in turn on one pinned core."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import harness, peer_models, peers
from benchmarks.accuracy.methods import FOLDER
from benchmarks.accuracy.tasks import Case
from benchmarks.artifacts import bound_call, open_artifact
from benchmarks.workload import Workload

PEERS = ("onnxruntime_int8_dynamic", "onnxruntime_int8_qdq", "openvino_int8", "onnxruntime_fp32", "openvino_fp32")
SLICE_S = 0.02


def measure(
    case: Case, artifacts: Mapping[str, Path], isa: str, seconds: float, names: Sequence[str] = PEERS
) -> tuple[dict[str, dict[str, Any]], peers.Peers]:
    """Times one inference of every artifact and peer, interleaved, one thread, CPU time.

    Args:
        case: The model; one fold of several.
        artifacts: By name.
        isa: Of our kernels; for "avx2" the environment must hold the peers (benchmarks.variants).
        seconds: About how long it may take.
        names: Of the peers.

    Returns:
        By artifact {ours_us, ours_spread_us, peers_us, ratio_vs, shape, load}, and the peers.
    """
    feed = {name: harness.on_cache_line(array) for name, array in case.module.timing().items()}
    folder = FOLDER / case.folder / "timing"
    model = peer_models.static(case.module.model(case.name), folder, feed)
    work = Workload(f"{case.task} {case.name}", model, folder, [feed], 1, isa, transformer=case.transformer)
    opened = peers.open_peers(work, names)
    calls = {name: bound_call(open_artifact(path, 1, isa), feed) for name, path in artifacts.items()}
    everyone = {f"our {name}": call for name, call in calls.items()}
    everyone |= {f"peer {name}": call for name, call in opened.calls.items()}
    rounds = harness.rounds_for(everyone, seconds, SLICE_S)
    samples = harness.interleave(everyone, rounds, SLICE_S)
    theirs = {name: samples[f"peer {name}"] for name in opened.calls}
    found = {}
    for name in artifacts:
        ours = samples[f"our {name}"]
        found[name] = {
            "ours_us": harness.microseconds(ours),
            "ours_spread_us": harness.spread_us(ours),
            "peers_us": {peer: harness.microseconds(each) for peer, each in theirs.items()},
            "ratio_vs": {peer: harness.ratio(each, ours) for peer, each in theirs.items()},
            "variants": opened.variants,
            "timing_shape": ", ".join(f"{key} {'x'.join(map(str, array.shape))}" for key, array in feed.items()),
            "timed": f"interleaved, {rounds} rounds, CPU time of one thread",
            "load": round(os.getloadavg()[0], 1),
        }
    return found, opened
