"""How long a selection will take, and how much memory, said before it begins."""

from __future__ import annotations

import dataclasses
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from lutc.fit.codebooks import learning_rows
from lutc.fit.linear import fit_linear, refits_entries
from lutc.fit.model import MAX_ROWS
from lutc.fit.parallel import use_threads
from lutc.forms import FP32, Form, LayerChoice
from lutc.observe.inputs import Batch, batch_bytes
from lutc.select.budget import Budget
from lutc.select.candidates import EXPECTED, Priced, constant_bytes, lookups_columns
from lutc.select.curves import COARSER, ROWS, Curves, Point
from lutc.select.meter import MEASURING_S
from lutc.select.network import Network
from lutc.select.samples import Samples

DRAFTS = {"divergence": 2.0, "score": 5.0}
"""Models with lookups that a search builds on average, by what the budget limits: drafts and, under a score, levels."""

AGAIN = 0.7
"""Share of its layers that a later draft fits again: those behind the first change."""

_MOVES = 2.0
"""A layer's share of the whole model's distortion times this is about what it moves the outputs."""

_INT8 = 0.003
"""Distortion of int8, likewise."""

_BUILD = 9e-8
"""Seconds to quantise, pack, write and read back a parameter, in units."""

_WINDOW = 1.8e-6
"""Seconds to cut a position of a convolution out of its image, in units."""

_POSITION = 0.65
"""Work at a position of a convolution, as part of that of a row: its taps share pixels."""

_SESSIONS = 2e8
"""Bytes that ONNX Runtime and BLAS keep for themselves while they work."""

LONGEST = 600.0
"""Work of trying candidates at most, in seconds of one core of the machine that `_units` knows."""

Layers = Mapping[str, tuple[LayerChoice, Sequence[Priced]]]

_PROBE, _PROBES = (ROWS, 384, 384), 2
"""Rows, features and outputs of the layer that is fitted to learn this machine's speed, and how often.

As large as a candidate: caches of their own hide from a small fit that another core keeps the memory busy.
"""

_COPIES = 3
"""Copies of the weights: of ONNX Runtime's pieces, of the fit's, of the artifact in the making."""

_LEARNING_ROWS, _POSITIONS = 8192, 40000


@dataclasses.dataclass(frozen=True)
class Effort:
    """An estimate, in seconds of CPU time on all threads together: another program's work does not count.

    Attributes:
        candidates: Seconds of each candidate by layer name and form; 0 where it is known already.
        curves: Seconds of those that are likely to be tried.
        fits: Of fitting whole models.
        trials: Of building and measuring models.
        peak: Bytes of memory at most.
        pace: Wall seconds that a second of CPU time took when this was estimated.
        models: Models with lookups that are assumed.
        known: Candidates that are known, of so many.
        kept: Share of the first draft's layers that an earlier run has fitted.
        layer_fits: Seconds of fitting each layer in each of its lookups, by layer name and form.
        runs: Of running the network while a model is fitted.
    """

    candidates: Mapping[tuple[str, str], float]
    curves: float
    fits: float
    trials: float
    peak: float
    pace: float
    models: float
    known: tuple[int, int]
    kept: float
    layer_fits: Mapping[tuple[str, str], float] = dataclasses.field(default_factory=dict)
    runs: float = 0.0

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.curves + self.fits + self.trials

    @classmethod
    def estimate(
        cls,
        network: Network,
        priced: Layers,
        train: Sequence[Batch],
        samples: Samples,
        curves: Curves,
        threads: int,
        *,
        budget: Budget,
        kept: float = 0.0,
        score_seconds: float = 0.0,
        forms: Mapping[str, Form],
    ) -> Effort:
        """From the sizes of layers and samples, the time of a small fit and that of a run of the network.

        Args:
            network: Opened at the layers.
            priced: Choice and candidates of each layer, by the name of its first output.
            train: Samples that candidates are fitted to.
            samples: All samples.
            curves: Candidates that are known already.
            threads: CPU threads.
            budget: What may be lost: it decides how many models are built, and which forms are hopeless.
            kept: Share of the first draft's layers that are fitted already.
            score_seconds: CPU time of the score of one model.
            forms: Of the first model's layers, by name, as far as one can tell.
        """
        with use_threads(threads):
            begin, wall = time.process_time(), time.perf_counter()
            speed = _probe()
            network.outputs(samples.judge[:1])  # makes the sessions
            before = time.process_time()
            network.outputs(samples.judge)
            run = time.process_time() - before
            pace = (time.perf_counter() - wall) / max(time.process_time() - begin, 1e-9)
        train_rows, final_rows = _layer_rows(network, train), _layer_rows(network, samples.final)
        candidates: dict[tuple[str, str], float] = {}
        layer_fits: dict[tuple[str, str], float] = {}
        tried = largest = 0.0
        layers = len(network.sites)
        for index, site in enumerate(network.sites):
            choice, items = priced[site.output[0]]
            tail = run * (layers - index) / max(layers, 1)
            lookups = [item.form for item in items if not item.form.dense]
            for item in items:
                cost = 0.0 if item.form == FP32 else tail
                if item.form in lookups:
                    cost += speed * _candidate_units(choice, item.form, train_rows[index])
                if curves.get(choice.name, item.form):
                    cost = 0.0
                candidates[choice.name, str(item.form)] = cost
                if not _likely_hopeless(item.form, lookups, budget.widest(), layers):
                    tried += cost
            if lookups:
                rows = min(final_rows[index], MAX_ROWS if choice.kind == "linear" else _POSITIONS)
                layer_fits |= {(choice.name, str(form)): speed * _units(choice, form, rows, True) for form in lookups}
                largest = max(largest, *(_fit_bytes(choice, form, rows) for form in lookups))
        models = DRAFTS[budget.metric] * (1 - kept) + kept if layer_fits else 0.0
        run_final = run * _size(samples.final) / _size(samples.judge)
        run_verify = run * _size(samples.verify) / _size(samples.judge)
        weights = sum(constant_bytes(FP32, choice) for choice, _ in priced.values())
        trial = run_verify + MEASURING_S + score_seconds + speed * _BUILD * weights / 4
        known = [curves.get(choice.name, item.form) is not None for choice, items in priced.values() for item in items]
        activations = network.cost(samples.final[0]) / batch_bytes(samples.final[0]) * _size(samples.final)
        effort = cls(
            candidates,
            tried,
            0.0,
            (models + 2) * trial,
            max(resident(), _resident_now() + activations + largest + _COPIES * weights + _SESSIONS),
            pace,
            models,
            (sum(known), len(known)),
            kept,
            layer_fits,
            2 * run_final,
        )
        return dataclasses.replace(effort, fits=effort.fits_of(forms))

    def fits_of(self, forms: Mapping[str, Form]) -> float:
        """`fits`, where these are the forms of the first model, by layer name."""
        each = [self.layer_fits.get((name, str(form)), 0.0) for name, form in forms.items() if not form.dense]
        return _wholes(self.models) * ((1 - self.kept) * sum(each) + self.runs) if each else 0.0

    def describe(self) -> str:
        """For people: the figures, and what they assume."""
        minutes, wall = self.seconds / 60, self.seconds * self.pace / 60
        known, candidates = self.known
        assumed = [f"{self.models:.1f} models with lookups beside int8 and fp32"]
        if known:
            assumed.append(f"{known} of {candidates} candidates known")
        if self.kept:
            assumed.append(f"{100 * self.kept:.0f} % of the first model fitted already")
        return (
            f"select: about {minutes:.1f} minutes of CPU time ({self.curves / 60:.1f} to try candidates, "
            f"{self.fits / 60:.1f} to fit models, {self.trials / 60:.1f} to build and measure them), {wall:.1f} "
            f"minutes at this moment's pace, and {self.peak / 1e9:.1f} GB of memory; assumed: {', '.join(assumed)}"
        )

    def taken(self, cpu: float, wall: float) -> str:
        """What it has really taken, for people."""
        return (
            f"select: took {cpu / 60:.1f} minutes of CPU time (said: {self.seconds / 60:.1f}), {wall / 60:.1f} in all, "
            f"and {resident() / 1e9:.1f} GB of memory (said: {self.peak / 1e9:.1f})"
        )


def _wholes(models: float) -> float:
    """How many fits of the first model all models are."""
    return 1 + AGAIN * max(models - 1, 0)


def _size(batches: Sequence[Batch]) -> float:
    """Bytes of the inputs: what the work of running batches is in proportion to."""
    return float(max(sum(map(batch_bytes, batches)), 1))


def _layer_rows(network: Network, batches: Sequence[Batch]) -> list[float]:
    """Rows of every layer's outputs over all batches: of the first batch, scaled by the bytes of inputs."""
    scale = _size(batches) / _size(batches[:1])
    return [rows * scale for rows in network.rows(batches[0])]


def _likely_hopeless(form: Form, forms: Sequence[Form], limit: float, layers: int) -> bool:
    """Whether a finer form of a layer will probably have left the budget, so that this one is not tried."""
    if form.dense or str(form) not in EXPECTED:
        return False
    finer = [EXPECTED.get(str(each), 0.0) for each in forms]
    beyond = [expected for expected in finer if expected * _MOVES / max(layers, 1) > limit]
    return bool(beyond) and EXPECTED[str(form)] > COARSER * min(beyond)


def expected_points(priced: Layers) -> dict[str, list[Point]]:
    """What candidates are expected to lose before any has been tried, by layer name: enough to guess a first draft."""
    share = _MOVES / max(len(priced), 1)

    def point(item: Priced) -> Point:
        dense = 0.0 if item.form == FP32 else _INT8
        error = dense if item.form.dense else EXPECTED.get(str(item.form), 0.0)
        return Point(item.form, item.seconds, item.bytes, error, share * error)

    return {choice.name: [point(item) for item in items] for choice, items in priced.values()}


def thinned(network: Network, priced: Layers, train: Sequence[Batch]) -> tuple[Layers, bool]:
    """Fewer candidates where trying all of them would take too long: ends and corners of each layer's curve stay.

    Decided by the work that they are, not by the speed of this machine, so that it is decided alike everywhere.

    Returns:
        What is left, and whether that is less.
    """
    rows = _layer_rows(network, train)
    place = {site.output[0]: index for index, site in enumerate(network.sites)}
    left = {output: (choice, list(forms)) for output, (choice, forms) in priced.items()}
    work = {
        (output, item.form): _candidate_units(choice, item.form, rows[place[output]])
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


def _candidate_units(choice: LayerChoice, form: Form, rows: float) -> float:
    cap = ROWS if choice.kind == "linear" else _POSITIONS
    return _units(choice, form, min(rows, cap), form.kind != "gain", draft=True)


def _probe() -> float:
    """CPU seconds that a unit of `_units` takes at this moment."""
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
    return float(np.mean(taken)) / _work(rows, features, outputs, features // 4, 4, 16, 0, draft=True)


def _units(choice: LayerChoice, form: Form, rows: float, free: bool, *, draft: bool = False) -> float:
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
    solving = _solve(rows, free, outputs, 5) if free else _solve(rows, features, outputs, 5)
    return learning + encoding + rounding + solving + 0.05


def _solve(rows: float, regressors: int, outputs: int, solves: int) -> float:
    gram = rows * regressors * (regressors + outputs) * 2e-11
    return gram + solves * regressors**2 * (regressors / 3 + 4 * outputs) * 2.5e-11


def _fit_bytes(choice: LayerChoice, form: Form, rows: float) -> float:
    """Bytes that fitting a layer takes: the normal equations with copies, and its rows."""
    columns, features = lookups_columns(form, choice), choice.D * _taps(choice)
    regressors = columns if refits_entries(form, columns) else features
    return 8.0 * 4 * regressors**2 + rows * 4 * (3 * features + 2 * choice.N)


def _resident_now() -> float:
    """Bytes of memory that this process has at this moment, or the most it has had where that cannot be known."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return resident()
    return float(pages * resource.getpagesize())


def resident() -> float:
    """Most bytes of memory that this process has had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak if sys.platform == "darwin" else peak * 1024)
