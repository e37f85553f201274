"""What the commands that measure share: options, time that runs out, where rows and reasons go."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from benchmarks import result_files, variants

T = TypeVar("T")


def parser(name: str, doc: str | None, *, threads: str = "1", only: str) -> argparse.ArgumentParser:
    """Of `python -m benchmarks.NAME`.

    Args:
        name: The module's.
        doc: The module's docstring; its first line is the description.
        threads: Numbers of threads, by default; empty where that is no option.
        only: What `--only` is matched with.
    """
    made = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=(doc or "").split("\n")[0])
    variants.add_options(made, threads)
    made.add_argument("--json", action="store_true", help="one JSON row a line on stdout, text on stderr")
    made.add_argument("--only", default="", help=f"regular expression over {only}")
    made.add_argument("--output", type=Path, default=result_files.FOLDER / f"{name}.json")
    return made


def in_time(todo: Sequence[T], minutes: float, name: Callable[[T], str]) -> Iterator[T]:
    """One after the other, none that would start after so many minutes: those are named as left out."""
    deadline = time.monotonic() + 60 * minutes
    for each in todo:
        if time.monotonic() > deadline:
            print(f"{name(each)}: left out, {minutes:g} minutes are over", file=sys.stderr)
        else:
            yield each


def say(options: argparse.Namespace, text: str) -> None:
    """Text, where it does not disturb rows."""
    print(text, file=sys.stderr if options.json else sys.stdout, flush=True)


def store(
    options: argparse.Namespace,
    rows: Sequence[Mapping[str, Any]],
    skipped: Mapping[str, str] | None = None,
    notes: Mapping[str, Any] | None = None,
) -> None:
    """Rows to the result file and, with --json, to stdout; reasons for what was skipped to the file and to stderr."""
    for name, reason in (skipped or {}).items():
        print(f"{name}: skipped, {reason}", file=sys.stderr)
    limits = {"avx2": variants.UNLIMITED} if any(r["isa"] == "avx2" and r.get("peers") for r in rows) else {}
    result_files.merge(options.output, rows, skipped, {**limits, **(notes or {})})
    if options.json:
        for row in rows:
            print(json.dumps(row), flush=True)
