"""How many bits the entries of a lookup layer's table take: the one place that decides.

Integers mean the same whatever their size, so nothing else knows: a table of 7 bits is one whose entries reach no
further than 63. Kernels that sum 16-bit products add up twice as many of them at a time, four times as many of 6 bits.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from lutc.forms import Form

LARGEST = {8: 127, 7: 63, 6: 31}
"""Largest magnitude of an entry, by bits."""

FREE = 0.01
"""Fewer bits are free where they add at most this part to a layer's held-out error, as factors are for tables."""


def choose_limit(form: Form, error: float, noise: Callable[[int], float], *, narrow: bool) -> int:
    """The largest magnitude that a table's entries may have.

    Args:
        form: The layer's; one that names its bits decides.
        error: Squared error of the layer on held-out rows, before its table is rounded.
        noise: What rounding to entries of at most this magnitude adds to it.
        narrow: Whether fewer bits are wanted where they are free.
    """
    if form.table_bits:
        return LARGEST[form.table_bits]
    if narrow and form.kind == "gain":
        most = noise(LARGEST[8]) + FREE * error
        for bits in (6, 7):
            if noise(LARGEST[bits]) <= most:
                return LARGEST[bits]
    return LARGEST[8]


def as_fitted(form: Form, limit: int) -> Form:
    """The form with the bits that were chosen for it, for people; 8 go without saying."""
    bits = next(bits for bits, largest in LARGEST.items() if largest == limit)
    return form if bits == 8 else dataclasses.replace(form, table_bits=bits)
