"""Whole models on one and two threads: every form against other runtimes, in one interleaved run.

    python -m benchmarks.models [--json] [--isa native,avx2] [--threads 1,2] [--only REGEX] [--minutes N]

A form such as `gain-v3` replaces every layer that the compiler would replace by default, with random codebooks and
tables: such rows speak of time only. Rows go to benchmarks/results/models.json as they are measured; exports, quantised
models and artifacts are kept in build/benchmarks.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import command, costs, harness, memory, peer_models, result_files, variants
from benchmarks.artifacts import RANDOM_TABLES, Artifacts, bound_call, open_artifact
from benchmarks.networks import WORK, Network, every_network
from benchmarks.peers import PEERS, open_peers
from benchmarks.workload import Workload
from lutc.errors import LutcError

FORMS = ("fp32", "int8", "gain-v3", "gain-v4", "plain-v8", "plain-v16")
HEADLINE = "bert-six-layers"
HEADLINE_FORMS = ("fp32", "plain-v32")
LOADED_MODEL = "minilm"

SLICE_S = 0.02


def open_forms(
    network: Network, model: Path, forms: Sequence[str], isa: str, threads: int, skipped: dict[str, str]
) -> tuple[dict[str, Any], dict[str, Path]]:
    """Our sessions and artifacts by form; forms that this runtime cannot run land in `skipped`."""
    shapes = {name: list(array.shape) for name, array in network.feed.items()}
    artifacts = Artifacts(model, f"{network.name}-{network.shape}", isa, shapes)
    sessions, paths = {}, {}
    for form in forms:
        try:
            path = artifacts.build(form)
            session = open_artifact(path, threads, isa)
            session.run(None, network.feed)
        except LutcError as error:
            skipped[f"our {form}"] = str(error)[:200]
            continue
        sessions[form], paths[form] = session, path
    return sessions, paths


def measure(
    network: Network, forms: Sequence[str], peer_names: Sequence[str], *, isa: str, threads: int, seconds: float
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Times one model in all forms and on all peers.

    Args:
        network: What to time.
        forms: Ours.
        peer_names: Of `benchmarks.peers.PEERS`.
        isa: Of our kernels.
        threads: Of everybody.
        seconds: About how long the interleaved measurement may take.

    Returns:
        One row per form, and why others and peers were skipped, by "NAME on MODEL".

    Raises:
        FileNotFoundError: The model is not there.
    """
    network = dataclasses.replace(network, feed={n: harness.on_cache_line(a) for n, a in network.feed.items()})
    original = network.find()
    folder = WORK / "models" / f"{network.name}-{network.shape}"
    model = peer_models.static(original, folder, network.feed)
    work = Workload(network.name, model, folder, [network.feed], threads, isa, network.module, network.transformer)
    peers = open_peers(work, [name for name in peer_names if name != "tvm_fp32"])
    if "tvm_fp32" in peer_names:
        peers.skipped["tvm_fp32"] = "tuned for single layers only (benchmarks.ops): a whole model is beyond its budget"
    sessions, paths = open_forms(network, original, forms, isa, threads, peers.skipped)
    ours = {form: bound_call(s, network.feed) for form, s in sessions.items()}
    alone = {}
    if threads > 1:  # what one thread needs, in the same run
        for form, path in paths.items():
            alone[f"alone {form}"] = bound_call(open_artifact(path, 1, isa), network.feed)
    candidates = ours | alone | {f"peer {name}": call for name, call in peers.calls.items()}
    rounds = harness.rounds_for(candidates, seconds, SLICE_S)
    samples = harness.interleave(candidates, rounds, SLICE_S, harness.settle_s(threads))
    times = {name: samples[f"peer {name}"] for name in peers.calls}
    rows = []
    for form in ours:
        more: dict[str, Any] = {"bytes": paths[form].stat().st_size, "variants": peers.variants}
        if form not in ("fp32", "int8"):
            more["tables"] = RANDOM_TABLES
        if threads > 1:
            one = samples[f"alone {form}"]
            more["one_thread_us"] = one.wall_us()
            more["speedup"] = harness.ratio(one, samples[form], threads)
        rows.append(
            harness.row(
                "models", network.shape, form, sessions[form].isa, samples[form], times, threads,
                model=network.name, **more,
            )
        )  # fmt: skip
    return rows, {f"{name} on {network.name}": reason for name, reason in peers.skipped.items()}


def headline(network: Network, isa: str) -> dict[str, Any]:
    """Operations, bytes and memory of six BERT-base layers by plain-v32 against fp32 in ONNX Runtime."""
    from benchmarks.random_layers import choose
    from lutc.canonicalise import canonicalise
    from lutc.load import load_model

    model = network.find()
    tokens = network.feed["hidden"].shape[1]
    choices = choose(canonicalise(load_model(model)), HEADLINE_FORMS[-1])
    artifact = Artifacts(model, f"{network.name}-{network.shape}", isa).build(HEADLINE_FORMS[-1])
    ours, theirs = memory.measure(artifact, network.feed), memory.measure(model, network.feed)
    operations, dense = (costs.total(choices, tokens, dense=flag) for flag in (False, True))
    size, original = artifact.stat().st_size, model.stat().st_size
    return {
        "bench": "headline", "model": network.name, "shape": network.shape, "form": HEADLINE_FORMS[-1], "isa": isa,
        "threads": 1,
        "operations": operations, "operations_fp32": dense, "operations_ratio": round(dense / operations, 2),
        "bytes": size, "bytes_fp32": original, "bytes_ratio": round(original / size, 2),
        "memory": ours, "memory_onnxruntime_fp32": theirs,
        "running_ratio": round(theirs["running_mb"] / ours["running_mb"], 2),
        "peak_ratio": round(theirs["peak_mb"] / ours["peak_mb"], 2),
    }  # fmt: skip


def loading(network: Network, form: str, isa: str) -> dict[str, Any]:
    """Time and private memory of loading an artifact, beside ONNX Runtime loading the fp32 model."""
    model = network.find()
    shapes = {name: list(array.shape) for name, array in network.feed.items()}
    artifact = Artifacts(model, f"{network.name}-{network.shape}", isa, shapes).build(form)
    return {
        "bench": "load", "model": network.name, "shape": network.shape, "form": form, "isa": isa, "threads": 1,
        "bytes": artifact.stat().st_size, **memory.measure(artifact, network.feed),
        "onnxruntime_fp32": memory.measure(model, network.feed),
    }  # fmt: skip


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows of one model, ISA and number of threads as a Markdown table."""
    peers = list(rows[0]["peers"])
    clock = f"{rows[0]['clock'].upper() if rows[0]['clock'] == 'cpu' else 'wall'} ms"
    head = ["form", "size MB", clock, *(f"x {name}" for name in peers)]
    lines = [" | ".join(head), " | ".join(["---"] * len(head))]
    for row in rows:
        spread = f"{row['ours_us'] / 1e3:.2f} ± {row['ours_spread_us'] / 2e3:.2f}"
        cells = [row["form"], f"{row['bytes'] / 1e6:.0f}", spread, *(f"{row['ratio'][name]:.2f}" for name in peers)]
        lines.append(" | ".join(cells))
    lines.append(" | ".join(["*ms of the other*", "", "", *(f"{rows[0]['peers'][name] / 1e3:.2f}" for name in peers)]))
    return "\n".join(f"| {line} |" for line in lines)


_README_PEERS = {
    "ONNX Runtime fp32": ["onnxruntime_fp32"],
    "ONNX Runtime int8": ["onnxruntime_int8_dynamic", "onnxruntime_int8_qdq"],
    "OpenVINO fp32": ["openvino_fp32"],
    "OpenVINO bf16": ["openvino_bf16"],
    "OpenVINO int8": ["openvino_int8"],
    "PyTorch fp32": ["torch_fp32"],
}


def readme_table(rows: Sequence[dict[str, Any]]) -> str:
    """CPU milliseconds by model: our forms, then the other runtimes in their faster variants, as a Markdown table."""
    wanted = [r for r in rows if r["bench"] == "models" and r["threads"] == 1 and r["isa"] != "avx2"]
    forms = [form for form in (*FORMS, *HEADLINE_FORMS) if any(row["form"] == form for row in wanted)]
    forms = list(dict.fromkeys(forms))
    lines = ["model | input | " + " | ".join([*forms, *_README_PEERS])]
    lines.append(" | ".join(["---"] * (2 + len(forms) + len(_README_PEERS))))
    for model, shape in dict.fromkeys((row["model"], row["shape"]) for row in wanted):
        found = {row["form"]: row for row in wanted if row["model"] == model}
        cells = [_ms([found[form]["ours_us"]] if form in found else []) for form in forms]
        peers = next(iter(found.values()))["peers"]
        cells += [_ms([peers[name] for name in names if name in peers]) for names in _README_PEERS.values()]
        lines.append(" | ".join([model, shape.replace("x", " x "), *cells]))
    return "\n".join(f"| {line} |" for line in lines)


def _ms(microseconds: Sequence[float]) -> str:
    return f"{min(microseconds) / 1e3:.3g}" if microseconds else ""


def update_readme(readme: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Replaces what stands between the two `models` comments of the README by the table."""
    text = readme.read_text(encoding="utf-8")
    before, found, rest = text.partition("<!-- models -->\n")
    _, closed, after = rest.partition("<!-- /models -->")
    if not found or not closed:
        raise ValueError(f"{readme}: no lines '<!-- models -->' and '<!-- /models -->'")
    readme.write_text(f"{before}{found}{readme_table(rows)}\n{closed}{after}", encoding="utf-8")


def _one_network(network: Network, options: argparse.Namespace, isa: str, threads: int, seconds: float) -> None:
    """Measures, prints and stores one model."""
    forms = options.forms.split(",") if options.forms else HEADLINE_FORMS if network.name == HEADLINE else FORMS
    rows, skipped = measure(network, forms, options.peers.split(","), isa=isa, threads=threads, seconds=seconds)
    command.say(options, f"\n{network.name} {network.shape}, {isa}, {threads} thread(s)\n{table(rows)}")
    if threads > 1:
        command.say(options, "speedup: " + ", ".join(f"{row['form']} {row['speedup']:.2f}" for row in rows))
    if threads == 1 and network.name == HEADLINE:
        rows.append(headline(network, isa))
        command.say(options, json.dumps(rows[-1]))
    if threads == 1 and network.name == LOADED_MODEL:
        rows.append(loading(network, "gain-v4", isa))
        command.say(options, json.dumps(rows[-1]))
    command.store(options, rows, skipped)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = command.parser("models", __doc__, threads="1,2", only="the models' names")
    parser.add_argument("--forms", default="", help="forms of the layers, separated by commas")
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--minutes", type=float, default=5, help="for each ISA and number of threads: start no more")
    parser.add_argument("--readme", type=Path, help="put the table between the `models` comments of this file")
    options = parser.parse_args(arguments)
    variant = variants.child()
    if variant is None:
        status = variants.run_children("benchmarks.models", options.isa, options.threads, arguments)
        if options.readme:
            update_readme(options.readme, result_files.load(options.output).get("rows", []))
        return status
    isa, threads = variant
    harness.pin(threads)
    networks = [network for network in every_network() if re.search(options.only, network.name)]
    for network in command.in_time(networks, options.minutes, lambda network: network.name):
        try:
            _one_network(network, options, isa, threads, seconds=20 * options.minutes / len(networks))
        except FileNotFoundError as error:
            command.store(options, [], {network.name: str(error)})
    return 0


if __name__ == "__main__":
    sys.exit(main())
