"""Whole models on one thread: MiniLM at batch 1 and 128 tokens, every form against other runtimes.

    python -m benchmarks.models [--json] [--forms fp32,gain-v3,...] [--output FILE] [--rounds N]

Every artifact is really compiled, on a hundred sentences of prose that Python itself carries: enough for true
codes and gains, too few for the accuracy that the README quotes. A form such as `gain-v3` replaces all 36 linear
layers; `fp32` keeps them all. Artifacts are kept in build/benchmarks.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks import harness, minilm
from benchmarks.peers import onnxruntime_calls, openvino_calls, quantize_int8, session_call
from demo import prose
from tests.models import export_minilm

FORMS = ("fp32", "gain-v3", "gain-v4", "plain-v8", "plain-v16")
WORK = Path("build/benchmarks")
SENTENCES = 100
TOKENS = 128


def artifact(model: Path, form: str) -> Path:
    """Compiles MiniLM with every linear layer in this form, unless that is done already."""
    import lutc

    path = WORK / f"minilm-{form}.lut"
    if not path.exists():
        print(f"compiling {path}", file=sys.stderr)
        if form == "fp32":
            lutc.compile(model, output=path, keep=[".*=fp32"])
        else:
            lutc.compile(model, output=path, form=[f".*={form}"], calib=_calibration)
    return path


def _calibration() -> list[minilm.Feed]:
    return minilm.calibration_feeds(prose.split(SENTENCES, 0)[0])


def passage(tokens: int = TOKENS) -> minilm.Feed:
    """One text of exactly `tokens` tokens, batch 1: prose sentences one after another."""
    text = " ".join(prose.split(0, 40)[1])
    ids = minilm.tokenizer().encode(text).ids
    if len(ids) < tokens:
        raise ValueError(f"the passage has {len(ids)} tokens, fewer than {tokens}")
    return minilm.feed([[*ids[: tokens - 1], ids[-1]]])


def run(forms: list[str], rounds: int) -> dict[str, Any]:
    """Measures the forms against every peer that is installed.

    Args:
        forms: As `lutc compile --form` takes them.
        rounds: Interleaved rounds.

    Returns:
        `machine`, `rows` (see `benchmarks.harness.row`) and `skipped`: a reason by peer.
    """
    import lutc

    WORK.mkdir(parents=True, exist_ok=True)
    model, int8 = WORK / "minilm.onnx", WORK / "minilm-int8.onnx"
    if not model.exists():
        export_minilm(model)
    if not int8.exists():
        quantize_int8(model, int8)
    artifacts = {form: artifact(model, form) for form in forms}

    harness.pin(1)
    feed = passage()
    sessions = {form: lutc.InferenceSession(path, threads=1) for form, path in artifacts.items()}
    peers = onnxruntime_calls(model, int8, feed)
    openvino, skipped = openvino_calls(model, feed)
    peers |= openvino
    ours = {form: session_call(session, feed) for form, session in sessions.items()}
    samples = harness.interleave(ours | peers, rounds)
    rows = [
        harness.row(
            "models", f"1x{TOKENS}", form, sessions[form].isa, samples[form],
            {name: samples[name] for name in peers},
            model="minilm", bytes=artifacts[form].stat().st_size,
        )
        for form in forms
    ]  # fmt: skip
    return {"machine": harness.machine(), "rows": rows, "skipped": skipped}


def table(result: dict[str, Any]) -> str:
    """The rows as a Markdown table."""
    rows = result["rows"]
    peers = list(rows[0]["peers"])
    head = ["form", "size MB", "CPU ms", *(f"x {name}" for name in peers)]
    lines = [" | ".join(head), " | ".join(["---"] * len(head))]
    for row in rows:
        spread = f"{row['ours_us'] / 1e3:.2f} ± {row['ours_spread_us'] / 2e3:.2f}"
        cells = [
            row["form"],
            f"{row['bytes'] / 1e6:.0f}",
            spread,
            *(f"{row['ratio'][name]:.2f}" for name in peers),
        ]
        lines.append(" | ".join(cells))
    for name in peers:
        lines.append(" | ".join([name, "", f"{rows[0]['peers'][name] / 1e3:.2f}", *("" for _ in peers)]))
    return "\n".join(f"| {line} |" for line in lines)


def update_readme(readme: Path, result: dict[str, Any]) -> None:
    """Replaces what stands between the two `models` comments of the README by the table."""
    text = readme.read_text(encoding="utf-8")
    before, found, rest = text.partition("<!-- models -->\n")
    _, closed, after = rest.partition("<!-- /models -->")
    if not found or not closed:
        raise ValueError(f"{readme}: no lines '<!-- models -->' and '<!-- /models -->'")
    readme.write_text(f"{before}{found}{table(result)}\n{closed}{after}", encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.models", description=__doc__.split("\n")[0])
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout, the table on stderr")
    parser.add_argument("--forms", default=",".join(FORMS), help="forms of all linear layers, separated by commas")
    parser.add_argument("--rounds", type=int, default=40, help="interleaved rounds")
    parser.add_argument("--output", type=Path, help="also write the JSON here")
    parser.add_argument("--readme", type=Path, help="put the table between the `models` comments of this file")
    options = parser.parse_args(arguments)
    result = run(options.forms.split(","), options.rounds)
    for name, reason in result["skipped"].items():
        print(f"{name}: skipped, {reason}", file=sys.stderr)
    print(table(result), file=sys.stderr if options.json else sys.stdout)
    if options.json:
        print(json.dumps(result))
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if options.readme:
        update_readme(options.readme, result)


if __name__ == "__main__":
    main()
