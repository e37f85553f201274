"""How much work, and how many bytes, the fits of a selection take, and how fast this machine does that work."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from lutc.fit.codebooks import learning_rows
from lutc.fit.linear import fit_linear, refits_entries
from lutc.forms import Form, LayerChoice
from lutc.observe.inputs import Batch, batch_bytes
from lutc.select.candidates import lookups_columns
from lutc.select.curves import ROWS
from lutc.select.network import Network

_WINDOW = 1.8e-6
"""Seconds to cut a position of a convolution out of its image, in units."""

_POSITION = 0.65
"""Work at a position of a convolution, as part of that of a row: its taps share pixels."""

_PROBE, _PROBES = (ROWS, 384, 384), 3
"""Rows, features and outputs of the layer that is fitted to learn this machine's speed, and how often.

As large as a candidate: caches of their own hide from a small fit that another core keeps the memory busy. The median
counts: the first fit is slower than those that follow, and another program may be busy for a moment.
"""

_LEARNING_ROWS = 8192

POSITIONS = 40000
"""Positions of images that a convolution is fitted to, at most."""


def candidate_units(choice: LayerChoice, form: Form, rows: float) -> float:
    """Work of trying a candidate on so many rows, in the seconds of `fit_units`."""
    cap = ROWS if choice.kind == "linear" else POSITIONS
    return fit_units(choice, form, min(rows, cap), form.kind != "gain", draft=True)


def fit_units(choice: LayerChoice, form: Form, rows: float, free: bool, *, draft: bool = False) -> float:
    """Work of a fit, in seconds of the machine on which the constants below were measured."""
    columns = lookups_columns(form, choice)
    taps = _taps(choice)
    codebooks = columns // form.entries // taps
    entries = columns if free and form.width > 3 and columns <= 3200 else 0
    cutting = 0.0
    if choice.kind == "conv":
        cutting = _WINDOW * rows
        rows *= _POSITION
    units = cutting + _work(rows, choice.D * taps, choice.N, codebooks, form.width, form.entries, entries, draft=draft)
    if form.projection != "none":
        units += 6e-10 * choice.D**3 + 4e-11 * rows * choice.D * (choice.D + choice.N) + 0.3
    return units


def _taps(choice: LayerChoice) -> int:
    weight = choice.node.inputs[1]
    if choice.kind != "conv" or weight is None or weight.const_value is None:
        return 1
    return int(np.prod(weight.const_value.numpy().shape[2:]))


def _work(
    rows: float, features: int, outputs: int, codebooks: int, width: int, entries: int, free: int, *, draft: bool
) -> float:
    seen = learning_rows(min(rows, _LEARNING_ROWS), entries, restarts=1 if draft else 2)
    learning = seen * codebooks * (0.01 + 0.006 * width) * 1e-6 * entries / 16
    encoding = rows * codebooks * 8e-8
    rounding = codebooks * entries * outputs * 5e-8
    solving = _solve_entries(rows, free, outputs) if free else _solve(rows, features, outputs)
    return learning + encoding + rounding + solving + 0.05


def _solve(rows: float, regressors: int, outputs: int) -> float:
    gram = rows * regressors * (regressors + outputs) * 2e-11
    return gram + regressors**2 * (regressors / 3 + 4 * outputs) * 1.25e-10


def _solve_entries(rows: float, entries: int, outputs: int) -> float:
    """Free tables: a row is one entry of each codebook, and most of the work is summing them up."""
    gram = rows * entries * (1.4e-11 * entries + 3.5e-11 * outputs)
    return gram + entries**2 * (entries / 3 + 4 * outputs) * 1e-11


def fit_bytes(choice: LayerChoice, form: Form, rows: float) -> float:
    """Bytes that fitting a layer takes: the normal equations with copies, and its rows."""
    columns, features = lookups_columns(form, choice), choice.D * _taps(choice)
    regressors = columns if refits_entries(form, columns) else features
    return 8.0 * 4 * regressors**2 + rows * 4 * (3 * features + 2 * choice.N)


def unit_seconds() -> float:
    """CPU seconds that a unit of `fit_units` takes at this moment."""
    rows, features, outputs = _PROBE
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, features)).astype(np.float32)
    weight = rng.normal(size=(features, outputs)).astype(np.float32)
    form = Form.parse("gain-v4")
    taken = []
    for _ in range(_PROBES):
        begin = time.process_time()
        fit_linear(x, x @ weight, weight, form, seed=0, size="small", draft=True)
        taken.append(time.process_time() - begin)
    return float(np.median(taken)) / _work(rows, features, outputs, features // 4, 4, 16, 0, draft=True)


def batches_bytes(batches: Sequence[Batch]) -> float:
    """Bytes of the inputs: what the work of running batches is in proportion to."""
    return float(max(sum(map(batch_bytes, batches)), 1))


def layer_rows(network: Network, batches: Sequence[Batch]) -> list[float]:
    """Rows of every layer's outputs over all batches: of the first batch, scaled by the bytes of inputs."""
    scale = batches_bytes(batches) / batches_bytes(batches[:1])
    return [rows * scale for rows in network.rows(batches[0])]
