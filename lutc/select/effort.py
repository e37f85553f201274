"""How long a selection will take, and how much memory, said before it begins."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence

from lutc.fit.model import MAX_ROWS
from lutc.fit.parallel import use_threads
from lutc.forms import FP32, Form
from lutc.observe.inputs import Batch, batch_bytes
from lutc.select.budget import Budget
from lutc.select.candidates import EXPECTED, MOVES, Layers, constant_bytes
from lutc.select.curves import COARSER, Curves
from lutc.select.memory import resident, resident_now
from lutc.select.meter import MEASURING_S
from lutc.select.network import Network
from lutc.select.samples import Samples
from lutc.select.work import POSITIONS, batches_bytes, candidate_units, fit_bytes, fit_units, layer_rows, unit_seconds

DRAFTS = {"divergence": 1.2, "score": 5.0}
"""Models with lookups that a search builds on average, by what the budget limits: drafts and, under a score, levels."""

AGAIN = 0.7
"""Share of its layers that a later draft fits again: those behind the first change."""

_BUILD = 9e-8
"""Seconds to quantise, pack, write and read back a parameter, in units."""

_SESSIONS = 2e8
"""Bytes that ONNX Runtime and BLAS keep for themselves while they work."""

_COPIES = 3
"""Copies of the weights: of ONNX Runtime's pieces, of the fit's, of the artifact in the making."""


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
    layer_fits: Mapping[tuple[str, str], float]
    runs: float

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
            speed = unit_seconds()
            network.outputs(samples.judge[:1])  # makes the sessions
            before = time.process_time()
            network.outputs(samples.judge)
            run = time.process_time() - before
            pace = (time.perf_counter() - wall) / max(time.process_time() - begin, 1e-9)
        train_rows, final_rows = layer_rows(network, train), layer_rows(network, samples.final)
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
                    cost += speed * candidate_units(choice, item.form, train_rows[index])
                if curves.get(choice.name, item.form):
                    cost = 0.0
                candidates[choice.name, str(item.form)] = cost
                if not _likely_hopeless(item.form, lookups, budget.widest(), layers):
                    tried += cost
            if lookups:
                rows = min(final_rows[index], MAX_ROWS if choice.kind == "linear" else POSITIONS)
                layer_fits |= {
                    (choice.name, str(form)): speed * fit_units(choice, form, rows, True) for form in lookups
                }
                largest = max(largest, *(fit_bytes(choice, form, rows) for form in lookups))
        models = DRAFTS[budget.metric] * (1 - kept) + kept if layer_fits else 0.0
        run_final = run * batches_bytes(samples.final) / batches_bytes(samples.judge)
        run_verify = run * batches_bytes(samples.verify) / batches_bytes(samples.judge)
        weights = sum(constant_bytes(FP32, choice) for choice, _ in priced.values())
        rehearsal = MEASURING_S + speed * _BUILD * weights / 4
        trial = run_verify + rehearsal + score_seconds
        known = [curves.get(choice.name, item.form) is not None for choice, items in priced.values() for item in items]
        activations = network.cost(samples.final[0]) / batch_bytes(samples.final[0]) * batches_bytes(samples.final)
        runs = 2 * run_final
        return cls(
            candidates,
            tried,
            _fits(models, kept, layer_fits, runs, forms),
            (models + 2) * trial + models * rehearsal,
            max(resident(), resident_now() + activations + largest + _COPIES * weights + _SESSIONS),
            pace,
            models,
            (sum(known), len(known)),
            kept,
            layer_fits,
            runs,
        )

    def fits_of(self, forms: Mapping[str, Form]) -> float:
        """`fits`, where these are the forms of the first model, by layer name."""
        return _fits(self.models, self.kept, self.layer_fits, self.runs, forms)

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


def _fits(
    models: float, kept: float, layer_fits: Mapping[tuple[str, str], float], runs: float, forms: Mapping[str, Form]
) -> float:
    """Seconds of fitting all models, of which the first has these forms and the others are parts."""
    each = [layer_fits.get((name, str(form)), 0.0) for name, form in forms.items() if not form.dense]
    return (1 + AGAIN * max(models - 1, 0)) * ((1 - kept) * sum(each) + runs) if each else 0.0


def _likely_hopeless(form: Form, forms: Sequence[Form], limit: float, layers: int) -> bool:
    """Whether a finer form of a layer will probably have left the budget, so that this one is not tried."""
    if form.dense or str(form) not in EXPECTED:
        return False
    finer = [EXPECTED.get(str(each), 0.0) for each in forms]
    beyond = [expected for expected in finer if expected * MOVES / max(layers, 1) > limit]
    return bool(beyond) and EXPECTED[str(form)] > COARSER * min(beyond)
