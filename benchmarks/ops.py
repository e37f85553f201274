"""Single layers on one core: our forms against other runtimes, in one interleaved run.

    python -m benchmarks.ops [--json] [--isa native,avx2] [--threads 1] [--only REGEX] [--forms ...] [--minutes N]

Rows go to benchmarks/results/ops.json as they are measured. Ours includes the encode and, where there is one, the
projection. Tables and codebooks are random: the rows speak of time only. Inputs change from call to call. Rows with
`tables_in` "memory" are cold: calls take turns over so many copies of the layer that none stays in a cache, ours and
the peers' alike.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks import command, harness, variants
from benchmarks.artifacts import RANDOM_TABLES, Artifacts, bound_call, open_artifact
from benchmarks.peers import PEERS, limited, open_peers
from benchmarks.single_layers import LAYERS, Layer, Linear, inputs, model_of
from benchmarks.workload import Workload, in_turn
from lutc.errors import LutcError

COLD = (
    Linear(128, 768, 768),
    Linear(128, 384, 1536),
    Linear(128, 768, 3072),
    Linear(1, 768, 3072),
    Linear(1, 4096, 4096),
)
"""Layers that are measured a second time with their weights in memory."""

FORMS = (
    "fp32", "int8", "gain-v2", "gain-v3", "gain-v4", "gain-v6", "gain-v4-proj",
    "plain-v4", "plain-v8", "plain-v16", "plain-v32",
)  # fmt: skip

AVX2_FORMS = ("gain-v3t7", "gain-v4t7", "gain-v4t6", "gain-v4-g15")
"""Forms that only pay there: tables of fewer bits, as the compiler makes them for this target where they are free;
small gains."""

COLD_BYTES = 128 << 20
"""Weights that take turns in a cold row: several times a last-level cache."""

SLICE_S = 0.005


def forms_of(layer: Layer, forms: Sequence[str]) -> list[str]:
    """The forms that a layer can take: a convolution takes no projection."""
    return [form for form in forms if not (layer.op == "conv" and "-proj" in form)]


def measure(
    layer: Layer,
    forms: Sequence[str],
    peer_names: Sequence[str],
    *,
    isa: str,
    threads: int,
    cold: bool = False,
    seconds: float = 10,
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Times one layer in all forms and on all peers.

    Args:
        layer: What to time.
        forms: Ours.
        peer_names: Of `benchmarks.peers.PEERS`.
        isa: Of our kernels.
        threads: Of everybody.
        cold: Whether weights come from memory.
        seconds: About how long the interleaved measurement may take.

    Returns:
        One row per form, and why others and peers were skipped, by "NAME on SHAPE".
    """
    model = model_of(layer)
    # Few rows: their codes decide which table entries are read. With many rows every entry is.
    feeds = inputs(layer, 64 if layer.input_shape[0] <= 8 and layer.op == "linear" else 2)
    work = Workload(
        layer.shape, model, model.parent, feeds, threads, isa, layer.module,
        weights=layer.weights, cold_bytes=COLD_BYTES if cold else 0,
    )  # fmt: skip
    artifacts = Artifacts(model, layer.shape.replace("->", "-"), isa, every=True)
    peers = open_peers(work, peer_names)
    ours = {}
    for form in forms_of(layer, forms):
        try:
            path = artifacts.build(form)
            copies = work.copies(path.stat().st_size / layer.weights)
            # Sessions of one file share its pages, so copies are read into memory of their own.
            sessions = [open_artifact(path, threads, isa, mapped=copies == 1) for _ in range(copies)]
            ours[form] = in_turn([_turns(session, feeds, first) for first, session in enumerate(sessions)])
            ours[form]()
        except LutcError as error:
            ours.pop(form, None)
            peers.skipped[f"our {form}"] = str(error)[:200]
    candidates = ours | {f"peer {name}": call for name, call in peers.calls.items()}
    rounds = harness.rounds_for(candidates, seconds, SLICE_S)
    samples = harness.interleave(candidates, rounds, SLICE_S, harness.settle_s(threads))
    times = {name: samples[f"peer {name}"] for name in peers.calls}
    rows = [
        harness.row(
            "ops", layer.shape, form, isa, samples[form], times, threads,
            op=layer.op, tables=None if form in ("fp32", "int8") else RANDOM_TABLES,
            tables_in="memory" if cold else "cache", variants=peers.variants,
        )
        for form in ours
    ]  # fmt: skip
    return rows, {f"{name} on {layer.shape}": reason for name, reason in peers.skipped.items()}


def _turns(session: Any, feeds: Sequence[dict], first: int) -> harness.Call:
    """A session on one feed after the other, beginning anywhere."""
    order = [feeds[(first + number) % len(feeds)] for number in range(len(feeds))]
    return in_turn([bound_call(session, feed) for feed in order])


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows of one layer as lines of text."""
    first = rows[0]
    head = f"{first['op']} {first['shape']} {first['isa']}, {first['threads']} thread(s), from {first['tables_in']}"
    peers = "  ".join(f"{name} {us:.0f}" for name, us in first["peers"].items())
    lines = [head, f"  peers, us: {peers}"]
    for row in rows:
        fp32 = row["ratio"].get("onnxruntime_fp32", float("nan"))
        best = min((x for name, x in row["ratio"].items() if name in limited(row["isa"])), default=float("nan"))
        lines.append(
            f"  {row['form']:14}{row['ours_us']:9.1f} us ± {row['ours_spread_us'] / 2:.1f}"
            f"   x ORT fp32 {fp32:6.2f}   x best int8 {best:5.2f}"
        )
    return "\n".join(lines)


def cells(only: str) -> Iterator[tuple[Layer, bool]]:
    """Layer and whether cold, as far as "linear 128x768x768 cold" matches the expression."""
    for cold, layers in ((False, LAYERS), (True, COLD)):
        for layer in layers:
            if re.search(only, f"{layer.op} {layer.shape} {'cold' if cold else 'warm'}"):
                yield layer, cold


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = command.parser("ops", __doc__, only="lines such as 'linear 128x768x768 cold'")
    parser.add_argument("--forms", default="", help="separated by commas")
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--minutes", type=float, default=10, help="stop starting new layers after this long")
    options = parser.parse_args(arguments)
    variant = variants.child()
    if variant is None:
        return variants.run_children("benchmarks.ops", options.isa, options.threads, arguments)
    isa, threads = variant
    harness.pin(threads)
    forms = FORMS + AVX2_FORMS if isa == "avx2" else FORMS
    if options.forms:
        forms = tuple(options.forms.split(","))
    todo = list(cells(options.only))
    for layer, cold in command.in_time(todo, options.minutes, lambda cell: f"{cell[0].op} {cell[0].shape}"):
        rows, skipped = measure(
            layer, forms, options.peers.split(","), isa=isa, threads=threads, cold=cold,
            seconds=min(10, 20 * options.minutes / len(todo)),
        )  # fmt: skip
        command.say(options, table(rows))
        command.store(options, rows, skipped)
    return 0


if __name__ == "__main__":
    sys.exit(main())
