"""Result files: rows of every ISA and number of threads in one JSON file, each newer row in place of the older one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.harness import machine

FOLDER = Path("benchmarks/results")

_METHOD = (
    "interleaved rounds in one process pinned to as many cores as it has threads; medians, spreads are interquartile "
    "ranges; one thread: CPU time of the process, more: wall time; a ratio is the median of the rounds' ratios"
)

_KEY = (
    "bench", "task", "model", "op", "shape", "form", "method", "minutes", "isa", "threads", "tables_in", "axis", "at",
)  # fmt: skip


def merge(
    path: Path,
    rows: Iterable[Mapping[str, Any]],
    skipped: Mapping[str, str] | None = None,
    notes: Mapping[str, Any] | None = None,
    done: Iterable[str] = (),
) -> None:
    """Adds rows to a result file, in place of those of the same bench, model or op, shape, form, ISA and threads.

    Args:
        path: The file; made if it is not there, replaced atomically.
        rows: See `benchmarks.harness.row`.
        skipped: Reasons by "PEER on PLACE", the place being a row's model, or its shape where it has none. They stay
            until a row of that place has the peer.
        notes: Further facts by name.
        done: Names of reasons that no longer hold.
    """
    found, rows = load(path), list(rows)
    new = {_key(row): dict(row) for row in rows}
    kept = [new.pop(_key(row), row) for row in found.get("rows", [])]
    old = {name: reason for name, reason in found.get("skipped", {}).items() if name not in set(done)}
    reasons = {**old, **(skipped or {})}
    for row in rows:
        for name in (*row.get("peers", {}), f"our {row.get('form')}"):
            reasons.pop(f"{name} on {row.get('model') or row.get('shape')}", None)
    result = {
        "machine": machine(),
        "notes": {"method": _METHOD, **found.get("notes", {}), **(notes or {})},
        "skipped": reasons,
        "rows": kept + list(new.values()),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    temporary.write_text(_text(result), encoding="utf-8")
    os.replace(temporary, path)


def _text(result: Mapping[str, Any]) -> str:
    """JSON with one row a line, so that a new measurement changes as many lines as rows."""
    rows = ",\n  ".join(json.dumps(row) for row in result["rows"])
    head = json.dumps({name: value for name, value in result.items() if name != "rows"}, indent=1)
    return f'{head[:-2]},\n "rows": [\n  {rows}\n ]\n}}\n'


def load(path: Path) -> dict[str, Any]:
    """The file's content; empty where there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _key(row: Mapping[str, Any]) -> tuple:
    return tuple(row.get(name) for name in _KEY)
