"""What the commands share: options, the split of stdout (JSON) and stderr (people), and parsing of name=value flags."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from lutc.errors import UsageError
from lutc.progress import Progress, default_progress

Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout; text for people goes to stderr.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
Shapes = Annotated[
    list[str] | None,
    typer.Option("--shape", metavar="NAME=1x3x224x224", help="Size of an input; may be given once for each input."),
]

ScoreFunction = Annotated[
    str | None,
    typer.Option(
        "--score",
        metavar="pkg.mod:fn",
        help="Takes a session, returns a number or one number a sample; higher is better.",
    ),
]

_LOG_WIDTH = 160  # of tables where there is no terminal to ask


def human(json_output: bool) -> Console:
    """Where text for people goes: stdout, or stderr when stdout carries JSON."""
    stream = sys.stderr if json_output else sys.stdout
    width = None if stream.isatty() else _LOG_WIDTH
    return Console(stderr=json_output, highlight=False, soft_wrap=True, width=width)


def emit(value: dict[str, Any]) -> None:
    """Prints one JSON object on stdout; numbers that JSON lacks (NaN, infinities) become null."""
    print(json.dumps(_plain(value), ensure_ascii=False))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def progress(quiet: bool) -> Progress:
    """Progress on stderr, or none."""
    return Progress() if quiet else default_progress(sys.stderr)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """A plain table; columns whose name starts with '>' are aligned to the right."""
    made = Table(title=title or None, title_justify="left", box=None, pad_edge=False)
    for column in columns:
        made.add_column(column.lstrip(">"), justify="right" if column.startswith(">") else "left", overflow="fold")
    for row in rows:
        made.add_row(*(str(cell) for cell in row))
    return made


def parse_shapes(flags: Sequence[str] | None, option: str = "--shape") -> dict[str, tuple[int | None, ...]]:
    """`["x=1x3x?x?"]` to `{"x": (1, 3, None, None)}`; `?` leaves a dim free.

    Raises:
        UsageError: not NAME=DIMSxDIMS.
    """
    shapes: dict[str, tuple[int | None, ...]] = {}
    for flag in flags or ():
        name, equals, dims = flag.rpartition("=")
        try:
            if not equals or not name:
                raise ValueError
            shape = tuple(None if d == "?" else int(d) for d in dims.split("x")) if dims else ()
        except ValueError:
            raise UsageError(f"{option} '{flag}' is not NAME=1x3x224x224") from None
        if any(d is not None and d < 0 for d in shape):
            raise UsageError(f"{option} '{flag}': sizes cannot be negative")
        shapes[name] = shape
    return shapes


def megabytes(count: float) -> str:
    """Bytes for people."""
    return f"{count / 1e6:.2f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"
