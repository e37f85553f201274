"""The search: draft, rehearse, build, measure, spend what is left of the budget; the best is kept.

Forms that lose time are reverted, most of them before anything is fitted: a rehearsal is a draft with random tables.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from lutc.build import Built
from lutc.drop import Drop
from lutc.forms import FP32, INT8, Form, LayerChoice
from lutc.progress import Progress
from lutc.select.budget import Budget
from lutc.select.curves import Point
from lutc.select.draft import Draft, Table
from lutc.select.meter import Meter
from lutc.session import InferenceSession

DRAFTS = {"divergence": 3, "score": 6}
"""Drafts that are built at most, beside all-int8 and fp32."""

_INT8, _FP32 = "all int8", "fp32"
"""Names of the trials that everything is compared with."""

_SLOWER = 1.1
"""A layer has clearly lost time where it takes this many times its int8 form's."""

_GAIN = 1.01
"""A draft has to be measured so many times as fast as all-int8 and fp32, or it is not worth what it loses; of these two
one has to be so many times as fast as the other, if that was predicted to be the faster one."""

_DOUBTS = 3
"""How often layers are measured at most until none seems to lose time."""

_REHEARSALS = 4
"""Rehearsals of a draft at most: each takes forms off the table."""

_SECOND_TRIES = 2
"""Drafts that are built in place of such as lost time somewhere."""

_SPENT = {"divergence": 0.75, "score": 0.9}
"""A budget of which this share is spent is spent."""

_AIM = 0.95
"""The next draft aims at this part of a budget."""

_INSIDE = 0.15
"""Between a draft that keeps the budget and one that does not, the next one stays away from either by this share."""

LEVELS = ("gain-v3", "gain-v4", "gain-v6", "gain-v8", "plain-v8", "plain-v16")
"""Forms of which all layers are tried at once under a score, where that would be faster than what was found."""

_SINGLE = 2
"""Of these, so many are built at most."""

_ATTENTION = 0.25
"""Attention stays in float32 where its integers alone would take more than this share of a budget."""

_WORTH = 0.985
"""A draft is worth building if it is predicted to take less than this part of the best artifact's time."""

Build = Callable[[Sequence[LayerChoice], Path, Mapping[str, Mapping[str, object]]], Built]
Rehearse = Callable[[Sequence[LayerChoice], Path], Path]


@dataclasses.dataclass
class Trial:
    """An artifact that was built and measured.

    Attributes:
        name: For people: "all int8", "draft 1" ...
        forms: By layer name.
        choices: What it was built from.
        points: What is known of each layer's form.
        built: The file, and rows of the report.
        predicted: Seconds of all layers.
        expected: Sum of the layers' divergences.
        divergence: Measured, of the outputs.
        drop: Of the score; None without one.
        seconds: CPU time of a run; None where it cannot be measured here.
        layers: Measured seconds by layer.
    """

    name: str
    forms: dict[str, Form]
    choices: list[LayerChoice]
    points: dict[str, Point]
    built: Built
    predicted: float
    expected: float
    divergence: float
    drop: Drop | None
    seconds: float | None = None
    layers: dict[str, float] = dataclasses.field(default_factory=dict)

    def loss(self, budget: Budget) -> float:
        """What the budget limits."""
        if budget.metric == "divergence":
            return self.divergence
        return math.nan if self.drop is None else self.drop.most


@dataclasses.dataclass
class Search:
    """One search.

    Attributes:
        table: The measured candidates.
        budget: To be kept.
        meter: Measures artifacts.
        build: Makes them.
        rehearse: Makes such as take the same time, and are worth nothing else.
        folder: For artifacts.
        progress: Receives a line for each.
        trials: Everything that was built.
        reverted: Forms that were measured to lose time, by layer name, and how many seconds more than predicted each
            takes.
    """

    table: Table
    budget: Budget
    meter: Meter
    build: Build
    rehearse: Rehearse
    folder: Path
    progress: Progress
    trials: list[Trial] = dataclasses.field(default_factory=list)
    reverted: dict[str, dict[Form, float]] = dataclasses.field(default_factory=dict)

    def run(self) -> Trial:
        """The fastest artifact that keeps the budget; where none does, the most accurate one."""
        int8 = self._trial(_INT8, self.table.uniform(INT8))
        if self.budget.metric == "divergence":
            # What layers do not explain, integer attention does.
            extra = int8.divergence - int8.expected
            self.table.integer_attention = extra <= _ATTENTION * self.budget.limit
        self._trial(_FP32, self.table.uniform(FP32))
        if self.table.has_choice():
            self._drafts()
            if self.budget.metric == "score":
                self._levels()
        best = self._confirmed()
        if best.drop is None:
            best.drop = self.meter.drop(self.meter.open(best.built.path))
        return best

    def _drafts(self) -> None:
        target = self.budget.first_target()
        built = lost = 0
        while built < DRAFTS[self.budget.metric] + min(lost, _SECOND_TRIES):
            draft = self._rehearsed(target)
            known = self._known(draft)
            trial = known or self._trial(f"draft {built + 1}", draft)
            built += 1
            loss = trial.loss(self.budget)
            if known is None and self._revert(trial, trial.layers, (1 - _WORTH) * (trial.seconds or 0.0)):
                lost += 1
                if not self.budget.holds(loss):  # other forms will take the place of those, but not lose less
                    target = self._next_target(trial, target)
                continue
            if self.budget.holds(loss) and loss >= _SPENT[self.budget.metric] * self.budget.limit:
                return
            target = self._next_target(trial, target)
            following = self.table.draft(target, self.reverted)
            if self._known(following):
                return
            if self.budget.holds(loss) and following.seconds > _WORTH * self._expected_seconds(self._best()):
                return

    def _rehearsed(self, target: float) -> Draft:
        """A draft of which no form loses time, as far as can be told without fitting it."""
        draft = self.table.draft(target, self.reverted)
        for _ in range(_REHEARSALS):
            if self.meter.isa is None or self._known(draft) or all(form.dense for form in draft.forms.values()):
                break
            choices = self.table.choices(draft)
            session = self.meter.open(self.rehearse(choices, self.folder / "rehearsal.lut"))
            if not self._revert(draft, self._layers(self._beside_int8(session), choices)):
                break
            draft = self.table.draft(target, self.reverted)
        return draft

    def _levels(self) -> None:
        """All layers in a form or a finer one: divergences of layers need not add up to a score in the same way."""
        built = 0
        for text in LEVELS:
            draft = self.table.level(Form.parse(text), self.reverted)
            if self._known(draft) or draft.seconds > _WORTH * self._expected_seconds(self._best()):
                continue
            trial = self._trial(f"all {text} or finer", draft)
            self._revert(trial, trial.layers)
            built += 1
            if built == _SINGLE or not self.budget.holds(trial.loss(self.budget)):
                return

    def bolder(self, best: Trial, factor: float) -> Trial | None:
        """A faster artifact that loses about `factor` times what the budget allows: what learning may bring back.

        Args:
            best: What was found.
            factor: Above 1.
        """
        limit = factor * self.budget.limit
        beyond = [
            trial
            for trial in self.trials
            if not self.budget.holds(trial.loss(self.budget)) and trial.loss(self.budget) <= limit
        ]
        if not beyond and best.expected > 0:
            loss = max(best.loss(self.budget), limit / 4)
            trial = self._trial("draft to learn from", self.table.draft(best.expected * limit / loss, self.reverted))
            beyond = [trial] if best.loss(self.budget) < trial.loss(self.budget) <= 1.5 * limit else []
        found = min(beyond, key=self._expected_seconds, default=None)
        return found if found and self._expected_seconds(found) < _WORTH * self._expected_seconds(best) else None

    def _known(self, draft: Draft) -> Trial | None:
        return next((trial for trial in self.trials if trial.forms == draft.forms), None)

    def _next_target(self, last: Trial, target: float) -> float:
        """The predicted divergence that should just keep the budget, judged by what was measured so far."""
        limit = self.budget.limit
        kept = [t for t in self.trials if self.budget.holds(t.loss(self.budget))]
        low = max(kept, key=lambda t: t.expected, default=None)
        least = low.expected if low else 0.0
        broken = [t for t in self.trials if t not in kept and t.expected > least]
        high = min(broken, key=lambda t: t.expected, default=None)
        if low and high and math.isfinite(high.loss(self.budget)):
            share = (_AIM * limit - low.loss(self.budget)) / max(high.loss(self.budget) - low.loss(self.budget), 1e-12)
            return least + (high.expected - least) * min(max(share, _INSIDE), 1 - _INSIDE)
        begin, loss = last.expected or target, last.loss(self.budget)
        if loss > 0 and limit > 0:
            target = begin * min(max(_AIM * limit / loss, 0.2), 4.0)
        else:
            target = begin * (4.0 if self.budget.holds(loss) else 0.25)
        if high and target >= high.expected:
            target = math.sqrt(least * high.expected) if least > 0 else high.expected / 2
        return max(target, 1.5 * least) if target <= least else target

    def _trial(self, name: str, draft: Draft) -> Trial:
        known = self._known(draft)
        if known is not None:
            return known
        choices = self.table.choices(draft)
        rows = self.table.rows(draft)
        built = self.build(choices, self.folder / f"{len(self.trials)}.lut", rows)
        session = self.meter.open(built.path)
        trial = Trial(
            name,
            draft.forms,
            choices,
            draft.points,
            built,
            draft.seconds,
            draft.divergence,
            self.meter.divergence(session),
            self.meter.drop(session) if self.budget.metric == "score" else None,
        )
        self.trials.append(trial)
        self._time(trial, session)
        self.progress.note(self._line(trial))
        return trial

    def _time(self, trial: Trial, session: InferenceSession) -> None:
        """Whole and by layer, in turns with all-int8."""
        if self.meter.isa is None:
            return
        first = self.trials[0]
        if trial is first:
            trial.seconds = self.meter.seconds({"own": session})["own"]
            trial.layers = self.meter.layer_seconds({"own": session}, trial.choices)["own"]
            return
        sessions = self._beside_int8(session)
        trial.seconds = self._seconds(sessions)
        trial.layers = self._layers(sessions, trial.choices)

    def _seconds(self, sessions: Mapping[str, InferenceSession]) -> float:
        """Of a run. The machine may be in another mood than when all-int8 was measured alone: a ratio counts."""
        alone, whole = self.trials[0].seconds, self.meter.seconds(sessions)
        assert alone is not None
        return alone * whole["own"] / whole["int8"]

    def _beside_int8(self, session: InferenceSession) -> dict[str, InferenceSession]:
        return {"int8": self.meter.open(self.trials[0].built.path), "own": session}

    def _layers(self, sessions: Mapping[str, InferenceSession], choices: Sequence[LayerChoice]) -> dict[str, float]:
        """Seconds of every layer, in turns with all-int8 and in terms of when that was measured alone.

        Where one seems to lose time all are measured again, and the least counts: other programs cost time, too.
        """
        first = self.trials[0]
        least: dict[str, dict[str, float]] = {"int8": {}, "own": {}}
        layers: dict[str, float] = {}
        for _ in range(_DOUBTS):
            for key, measured in self.meter.layer_seconds(sessions, choices).items():
                for name, seconds in measured.items():
                    least[key][name] = min(seconds, least[key].get(name, math.inf))
            layers = {
                name: seconds * first.layers.get(name, seconds) / max(least["int8"].get(name, seconds), 1e-12)
                for name, seconds in least["own"].items()
            }
            if not any(self._loses(choice.name, choice.form, layers) for choice in choices):
                break
        return layers

    def _loses(self, name: str, form: Form, layers: Mapping[str, float]) -> bool:
        """Whether a lookup, if a layer is one, takes clearly longer than int8."""
        slow = _SLOWER * self.trials[0].layers.get(name, math.inf)
        return not form.dense and not self.table.is_fixed(name) and layers.get(name, 0.0) > slow

    def _revert(self, built: Trial | Draft, layers: Mapping[str, float], least: float = 0.0) -> bool:
        """Takes forms that were clearly slower than int8 off the table, in all layers alike.

        Args:
            built: What was measured.
            layers: Measured seconds of its layers.
            least: Seconds that are to be saved, or it is not worth it.

        Returns:
            Whether there were any.
        """
        int8 = self.trials[0]
        losing = {name: form for name, form in built.forms.items() if self._loses(name, form, layers)}
        if sum(layers[name] - int8.layers[name] for name in losing) <= least:
            return False
        for name, form in losing.items():
            dense = int8.layers[name]
            self.progress.note(
                f"select: {name}: {form} took {layers[name] * 1e6:.0f} us, int8 {dense * 1e6:.0f} us: reverted"
            )
            more = layers[name] / dense * int8.points[name].seconds - built.points[name].seconds
            for twin in self.table.alike(name):
                self.reverted.setdefault(twin, {}).setdefault(form, max(more, 0.0))
        return True

    def baselines(self) -> list[Trial]:
        """All-int8, and fp32 where that is another model."""
        return [trial for trial in self.trials if trial.name in (_INT8, _FP32)]

    def _confirmed(self) -> Trial:
        """The best after a second and a third look at its time, which cost less than a selection that is slower."""
        looked: set[str] = set()
        while True:
            best = self._best()
            if best.seconds is None or best in self.baselines() or best.name in looked:
                return best
            looked.add(best.name)
            sessions = self._beside_int8(self.meter.open(best.built.path))
            best.seconds = statistics.median([best.seconds, self._seconds(sessions), self._seconds(sessions)])

    def _best(self) -> Trial:
        kept = [trial for trial in self.trials if self.budget.holds(trial.loss(self.budget))]
        if not kept:
            return min(self.trials, key=lambda trial: (_number(trial.loss(self.budget)), trial.predicted))
        kept = [trial for trial in kept if not any(self._beats(other, trial) for other in kept)]
        dense = [trial for trial in self.baselines() if trial in kept]
        kept.sort(key=self._expected_seconds)
        return next(
            (trial for trial in kept if not any(_no_faster(trial, other, trial in dense) for other in dense)), kept[0]
        )

    def _beats(self, other: Trial, trial: Trial) -> bool:
        """Whether another was measured to be faster and loses no more: no prediction stands against both."""
        if trial.seconds is None or other.seconds is None:
            return False
        return other.seconds < trial.seconds and other.loss(self.budget) <= trial.loss(self.budget)

    def _expected_seconds(self, trial: Trial) -> float:
        """Predicted time, corrected where a measurement has clearly contradicted it."""
        return trial.predicted + sum(self.reverted.get(name, {}).get(form, 0.0) for name, form in trial.forms.items())

    def _line(self, trial: Trial) -> str:
        parts = [f"select: {trial.name}: {self.table.summary(trial.forms)}; divergence {trial.divergence:.4g}"]
        if trial.expected:
            parts.append(f"(sum of layers {trial.expected:.4g})")
        if trial.drop is not None:
            parts.append(f"drop of the score {trial.drop}")
        if trial.seconds is not None:
            parts.append(f"{trial.seconds * 1e3:.3f} ms")
            first = self.trials[0]
            if trial is not first and first.seconds:
                parts.append(f"({first.seconds / trial.seconds:.2f}x int8)")
        return ", ".join(parts[:1]) + " " + " ".join(parts[1:])


def _no_faster(trial: Trial, other: Trial, dense: bool) -> bool:
    if trial is other or trial.seconds is None or other.seconds is None:
        return False
    return trial.seconds > other.seconds * (_GAIN if dense else 1 / _GAIN)


def _number(loss: float) -> float:
    return math.inf if math.isnan(loss) else loss
