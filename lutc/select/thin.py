"""Fewer candidates where trying all of them would take too long."""

from __future__ import annotations

from collections.abc import Sequence

from lutc.observe.inputs import Batch
from lutc.select.candidates import Layers
from lutc.select.network import Network
from lutc.select.work import candidate_units, layer_rows

LONGEST = 600.0
"""Work of trying candidates at most, in seconds of one core of the machine that `fit_units` knows."""


def thinned(network: Network, priced: Layers, train: Sequence[Batch]) -> tuple[Layers, bool]:
    """Fewer candidates where trying all of them would take too long: ends and corners of each layer's curve stay.

    Decided by the work that they are, not by the speed of this machine, so that it is decided alike everywhere.

    Returns:
        What is left, and whether that is less.
    """
    rows = layer_rows(network, train)
    place = {site.output[0]: index for index, site in enumerate(network.sites)}
    left = {output: (choice, list(forms)) for output, (choice, forms) in priced.items()}
    work = {
        (output, item.form): candidate_units(choice, item.form, rows[place[output]])
        for output, (choice, forms) in left.items()
        for item in forms
        if not item.form.dense
    }
    total, fewer = sum(work.values()), False
    while total > LONGEST:
        dropped = 0.0
        for output, (_, forms) in left.items():
            lookups = [item for item in forms if not item.form.dense]
            inner = range(1, len(lookups) - 1)
            if not inner:
                continue
            item = lookups[min(inner, key=lambda i: lookups[i - 1].seconds / max(lookups[i + 1].seconds, 1e-12))]
            forms.remove(item)
            dropped += work[output, item.form]
        if not dropped:
            break
        total, fewer = total - dropped, True
    return left, fewer
