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
