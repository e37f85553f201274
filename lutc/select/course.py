"""How much of a selection is left, by the pace at which its parts have gone so far."""

from __future__ import annotations

import time
from collections.abc import Mapping

from lutc.forms import Form
from lutc.select.effort import AGAIN, Effort


class Course:
    """Follows a selection from its estimate on.

    Args:
        effort: The estimate.
    """

    def __init__(self, effort: Effort) -> None:
        self._effort, self._built = effort, 0
        self._cpu, self._wall = time.process_time(), time.perf_counter()

    def candidates_done(self, forms: Mapping[str, Form]) -> str:
        """For people: what candidates have taken, and what is left if fits of models go at their pace.

        Args:
            forms: Of the first model's layers, by name.
        """
        taken = time.process_time() - self._cpu
        fits = self._effort.fits_of(forms)
        if self._effort.curves > 1:
            fits *= taken / self._effort.curves
        return (
            f"select: candidates took {taken / 60:.1f} minutes of CPU time (said: {self._effort.curves / 60:.1f}), "
            f"{self._left(fits + self._effort.trials)}"
        )

    def model_built(self, seconds: float) -> str:
        """For people, after a model with lookups was fitted and built: what is left if others go at its pace.

        Args:
            seconds: CPU time that it took.
        """
        self._built += 1
        each = seconds * (AGAIN if self._built == 1 else 1)
        more = max(round(self._effort.models) - self._built, 0)
        return (
            f"select: model {self._built} took {seconds / 60:.1f} minutes of CPU time, "
            f"{self._left(more * each)} if {more} more are built"
        )

    def _left(self, cpu: float) -> str:
        pace = (time.perf_counter() - self._wall) / max(time.process_time() - self._cpu, 1e-9)
        return f"about {cpu / 60:.1f} ({cpu * pace / 60:.1f} at the pace so far) are left"
