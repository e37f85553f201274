"""How long a selection will take, and how much memory, said before it begins."""

from __future__ import annotations

import dataclasses
import resource
import sys
import time
from collections.abc import Mapping, Sequence

import numpy as np

from lutc.fit.linear import fit_linear
from lutc.fit.model import MAX_ROWS
from lutc.fit.parallel import use_threads
from lutc.forms import FP32, Form, LayerChoice
from lutc.observe.inputs import Batch, count_samples
from lutc.select.candidates import Priced, constant_bytes, lookups_columns
from lutc.select.curves import ROWS, Curves
from lutc.select.network import Network
from lutc.select.samples import Samples

_DRAFTS = 1.4
"""Whole fits that a search makes on average: later drafts fit again only what stands behind a change."""

_POSITION = 0.65
"""Work at a position of a convolution, as part of that of a row: its taps share pixels."""

_SESSIONS = 2e8
"""Bytes that ONNX Runtime and BLAS keep for themselves while they work."""

LONGEST = 600.0
"""Work of trying candidates at most, in seconds of one core of the machine that `_units` knows."""

Layers = Mapping[str, tuple[LayerChoice, Sequence[Priced]]]

_PROBE = (1024, 192, 192)
"""Rows, features and outputs of the layer that is fitted to learn this machine's speed."""

_COPIES = 3
"""Copies of the weights: of ONNX Runtime's pieces, of the fit's, of the artifact in the making."""

_LEARNING_ROWS, _POSITIONS = 8192, 40000


@dataclasses.dataclass(frozen=True)
class Effort:
    """An estimate.

    Attributes:
        candidates: Seconds of each candidate by layer name and form.
        curves: Seconds of all of them.
        fits: Seconds of whole fits, building and measuring.
        peak: Bytes of memory at most.
    """

    candidates: Mapping[tuple[str, str], float]
    curves: float
    fits: float
    peak: float

    @classmethod
    def estimate(
        cls,
        network: Network,
        priced: Layers,
        train: Sequence[Batch],
        samples: Samples,
        curves: Curves,
        threads: int,
    ) -> Effort:
        """From the sizes of layers and samples, the time of a small fit and that of a run of the network.

        Args:
            network: Opened at the layers.
            priced: Choice and candidates of each layer, by the name of its first output.
            train: Samples that candidates are fitted to.
            samples: All samples.
            curves: Candidates that are known already.
            threads: CPU threads.
        """
        with use_threads(threads):
            speed = _probe()
            begin = time.perf_counter()
            network.outputs(samples.judge)
            run = time.perf_counter() - begin
        rows = network.rows(samples.final[0])
        per_sample = [size / count_samples(samples.final[0]) for size in rows]
        total, few = sum(map(count_samples, samples.final)), sum(map(count_samples, train))
        candidates: dict[tuple[str, str], float] = {}
        fits = 0.0
        largest = 0.0
        layers = len(network.sites)
        for index, site in enumerate(network.sites):
            choice, forms = priced[site.output[0]]
            tail = run * (layers - index) / max(layers, 1)
            lookups = [item.form for item in forms if not item.form.dense]
            for item in forms:
                cost = 0.0 if item.form == FP32 else tail
                if item.form in lookups:
                    cost += speed * _candidate_units(choice, item.form, few * per_sample[index])
                candidates[choice.name, str(item.form)] = 0.0 if curves.get(choice.name, item.form) else cost
            if lookups:
                form = lookups[len(lookups) // 2]
                cap = MAX_ROWS if choice.kind == "linear" else _POSITIONS
                fits += speed * _units(choice, form, min(total * per_sample[index], cap), True)
                largest = max(largest, _fit_bytes(choice, form, min(total * per_sample[index], cap)))
        activations = network.cost(samples.final[0]) / count_samples(samples.final[0]) * total
        run_all = run * total / max(sum(map(count_samples, samples.judge)), 1)
        weights = _COPIES * sum(constant_bytes(FP32, choice) for choice, _ in priced.values())
        return cls(
            candidates,
            sum(candidates.values()),
            _DRAFTS * (fits + 2 * run_all),
            resident() + activations + largest + weights + _SESSIONS,
        )

    def describe(self) -> str:
        """For people."""
        minutes = (self.curves + self.fits) / 60
        return (
            f"select: about {minutes:.1f} minutes ({self.curves / 60:.1f} to try candidates, {self.fits / 60:.1f} to "
            f"fit and measure whole models) and {self.peak / 1e9:.1f} GB of memory"
        )


def thinned(network: Network, priced: Layers, train: Sequence[Batch]) -> tuple[Layers, bool]:
    """Fewer candidates where trying all of them would take too long: ends and corners of each layer's curve stay.

    Decided by the work that they are, not by the speed of this machine, so that it is decided alike everywhere.

    Returns:
        What is left, and whether that is less.
    """
    few = sum(map(count_samples, train))
    rows = [few * size / count_samples(train[0]) for size in network.rows(train[0])]
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
    return _units(choice, form, min(rows, cap), form.kind != "gain")


def _probe() -> float:
    """Seconds a unit of `_units` takes."""
    rows, features, outputs = _PROBE
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, features)).astype(np.float32)
    weight = rng.normal(size=(features, outputs)).astype(np.float32)
    form = Form.parse("gain-v4")
    begin = time.perf_counter()
    fit_linear(x, x @ weight, weight, form, seed=0, size="small")
    return (time.perf_counter() - begin) / _work(rows, features, outputs, features // 4, 4, 16, 0)


def _units(choice: LayerChoice, form: Form, rows: float, free: bool) -> float:
    """Work of a fit, in seconds of the machine on which the constants below were measured."""
    columns = lookups_columns(form, choice)
    taps = _taps(choice)
    codebooks = columns // form.entries // taps
    entries = columns if free and form.width > 3 and columns <= 3200 else 0
    if choice.kind == "conv":
        rows *= _POSITION
    units = _work(rows, choice.D * taps, choice.N, codebooks, form.width, form.entries, entries)
    if form.projection != "none":
        units += 6e-10 * choice.D**3 + 4e-11 * rows * choice.D * (choice.D + choice.N) + 0.4
    return units


def _taps(choice: LayerChoice) -> int:
    weight = choice.node.inputs[1]
    if choice.kind != "conv" or weight is None or weight.const_value is None:
        return 1
    return int(np.prod(weight.const_value.numpy().shape[2:]))


def _work(rows: float, features: int, outputs: int, codebooks: int, width: int, entries: int, free: int) -> float:
    learning = min(rows, _LEARNING_ROWS) * codebooks * (0.6 + 0.22 * width) * 1e-6 * entries / 16
    encoding = rows * codebooks * 8e-8
    solving = _solve(rows, features, outputs, 7)
    if free:
        solving = _solve(rows, free, outputs, 4) + 1.0e-11 * free * features * (free + outputs)
    return learning + encoding + solving


def _solve(rows: float, regressors: int, outputs: int, solves: int) -> float:
    gram = rows * regressors * (regressors + outputs) * 3e-11
    return gram + solves * regressors**2 * (regressors / 3 + 4 * outputs) * 2.5e-11


def _fit_bytes(choice: LayerChoice, form: Form, rows: float) -> float:
    columns = min(lookups_columns(form, choice), 3200)
    return 8.0 * 4 * columns**2 + rows * 4 * (4 * choice.D * _taps(choice) + 2 * choice.N)


def resident() -> float:
    """Most bytes of memory that this process has had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak if sys.platform == "darwin" else peak * 1024)
