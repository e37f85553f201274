"""The ladder: what each ingredient adds at equal lookups, from the paper's method to learning."""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.accuracy import judge, methods
from benchmarks.accuracy.methods import Method, Skipped
from benchmarks.accuracy.tasks import Case


@dataclasses.dataclass(frozen=True)
class Rung:
    """A step of the ladder; `equal` tells whether it takes as many lookups as the others."""

    name: str
    method: Method
    equal: bool = True


def rungs(case: Case, width: int, minutes: Sequence[float]) -> Iterator[Rung]:
    """The rungs at V = `width`, with each of these minutes of learning."""
    plain, gain = f"plain-v{width}", f"gain-v{width}"
    paper = Method(plain, "k-means", ("--preset", plain, "--method", "lutnn"))
    yield Rung("k-means", paper)
    for each in minutes:
        learned = Method(plain, "lutnn", ("--preset", plain, "--method", "lutnn", "--learn", f"{each:g}"), each)
        yield Rung(f"lutnn, {each:g} minutes", learned)
    yield Rung("+ ridge", methods.uniform(plain))
    yield Rung("+ gains", methods.uniform(gain))
    if case.transformer:  # a convolution takes no projection
        yield Rung("+ projection and allocation", methods.uniform(f"{gain}-proj"))
    yield Rung("+ selection", methods.preset("balanced"), equal=False)
    for each in minutes:
        yield Rung(f"+ learning, {each:g} minutes", methods.uniform(gain).learned(each))
    for each in minutes:
        yield Rung(f"+ selection and learning, {each:g} minutes", methods.preset("balanced").learned(each), equal=False)


def climb(
    case: Case, isa: str, width: int, minutes: Sequence[float], only: str = ""
) -> Iterator[tuple[dict[str, Any] | None, str, str]]:
    """Compiles and judges rung after rung, those whose names match `only`.

    Yields:
        The row or None, the rung's name, and why it was skipped.
    """
    for rung in rungs(case, width, minutes):
        if not re.search(only, rung.name):
            continue
        try:
            row = judge.row(case, rung.method, isa, methods.compile_all(case, rung.method, isa, judge.dense_score))
        except Skipped as reason:
            print(f"{case} {rung.name}: skipped, {reason}", file=sys.stderr, flush=True)
            yield None, rung.name, str(reason)
            continue
        row |= {"bench": "accuracy ladder", "at": f"V={width}: {rung.name}", "equal_lookups": rung.equal}
        print(line(row), file=sys.stderr, flush=True)
        yield row, rung.name, ""


def line(row: dict[str, Any]) -> str:
    """A row for people."""
    low, high = row["interval"]["drop"]
    same = f"  same {row['agreement']:.3f}" if "agreement" in row else ""
    mark = "" if row["equal_lookups"] else "  (other lookups)"
    return (
        f"{row['task']:8}{row['model']:9} {row['at']:42} {row['after']:.4f} ({row['before']:.4f})  "
        f"drop {row['drop']:+.4f} [{low:+.4f}, {high:+.4f}]  cos {row['cosine']:.3f}{same}{mark}"
    )


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The ladders of all models side by side, as a table in Markdown: a rung a line, the original above.

    Args:
        rows: Of the results; others than a ladder's at V = 4 do not count.
    """
    ladders: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows:
        width, _, rung = str(row.get("at", "")).partition(": ")
        if row["bench"] == "accuracy ladder" and width == "V=4":
            ladders.setdefault(f"{row['task']}: {row['model']}, {row['metric']}", {})[rung] = row
    names = sorted({rung for ladder in ladders.values() for rung in ladder}, key=_place)
    originals = [f"{next(iter(ladder.values()))['before']:.4f}" for ladder in ladders.values()]
    lines = [["rung", *ladders], ["---"] * (1 + len(ladders)), ["the original", *originals]]
    lines += [[name, *(_cell(ladder.get(name)) for ladder in ladders.values())] for name in names]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


_ORDER = [rung.name.partition(", ")[0] for rung in rungs(Case("sts", "minilm"), 4, [0])]
"""Ingredients, from below."""


def _place(rung: str) -> tuple[int, float]:
    """Where a rung stands: by ingredient, then by minutes."""
    name, _, minutes = rung.partition(", ")
    return _ORDER.index(name), float(minutes.split()[0]) if minutes else 0.0


def _cell(row: dict[str, Any] | None) -> str:
    """What a rung reaches, and the interval of what it loses."""
    if row is None:
        return ""
    low, high = row["interval"]["drop"]
    return f"{row['after']:.4f} ({low:+.3f} .. {high:+.3f})"
