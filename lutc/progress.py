"""What long stages report to: a bar with the time left on a terminal, plain lines elsewhere, nothing when quiet."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress


class Progress:
    """Receives progress and shows nothing; the base of the others and the default of the Python API."""

    def start(self, stage: str, total: int) -> None:
        """A stage of `total` units begins (0: unknown)."""

    def update(self, done: int, note: str = "") -> None:
        """`done` units of the current stage are finished; `note` names the one in hand."""

    def finish(self) -> None:
        """The current stage has ended."""

    def note(self, text: str) -> None:
        """A line worth keeping (an estimate, a choice, a warning)."""

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        """One call for everything: starts `stage` when it is new, and finishes it when done reaches total."""
        if stage != getattr(self, "_stage", None):
            self.finish()
            self._stage: str | None = stage
            self.start(stage, total)
        self.update(done, note)
        if total and done >= total:
            self.finish()
            self._stage = None


class TerminalProgress(Progress):
    """A rich progress bar on stderr, with elapsed and remaining time."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._console = Console(file=stream or sys.stderr)
        self._bar: RichProgress | None = None
        self._task = None

    def start(self, stage: str, total: int) -> None:
        """Opens a bar."""
        self._bar = RichProgress(
            TextColumn("{task.description:<14}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self._console,
        )
        self._task = self._bar.add_task(stage, total=total or None, note="")  # type: ignore[assignment]
        self._bar.start()

    def update(self, done: int, note: str = "") -> None:
        """Moves the bar."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, note=note)

    def finish(self) -> None:
        """Closes the bar."""
        if self._bar is not None:
            self._bar.stop()
        self._bar = self._task = None

    def note(self, text: str) -> None:
        """Prints above the bar."""
        self._console.print(text, highlight=False, markup=False)


class LineProgress(Progress):
    """One line at most every `interval` seconds, for logs."""

    def __init__(self, stream: TextIO | None = None, interval: float = 5.0) -> None:
        self._stream = stream or sys.stderr
        self._interval = interval
        self._name, self._total, self._begin, self._last = "", 0, 0.0, 0.0

    def start(self, stage: str, total: int) -> None:
        """Notes when the stage began."""
        self._name, self._total = stage, total
        self._begin = self._last = time.monotonic()

    def update(self, done: int, note: str = "") -> None:
        """Prints a line if the last one is old enough, or the stage is complete."""
        now = time.monotonic()
        if now - self._last < self._interval and not (self._total and done >= self._total):
            return
        self._last = now
        elapsed = now - self._begin
        left = f", {elapsed / done * (self._total - done):.0f} s left" if done and self._total > done else ""
        total = f"/{self._total}" if self._total else ""
        self.note(f"{self._name}: {done}{total} in {elapsed:.0f} s{left} {note}".rstrip())

    def note(self, text: str) -> None:
        """Prints the line."""
        print(text, file=self._stream, flush=True)


def default_progress(stream: TextIO | None = None) -> Progress:
    """A bar if the stream (stderr by default) is a terminal, else lines."""
    stream = stream or sys.stderr
    return TerminalProgress(stream) if stream.isatty() else LineProgress(stream)
