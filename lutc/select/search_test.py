"""The search against a made-up machine whose measurements differ from what was predicted."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest

from lutc.build import Built
from lutc.cost import LayerShape
from lutc.drop import Drop
from lutc.forms import FP32, INT8, Form, LayerChoice
from lutc.progress import Progress
from lutc.select.budget import Budget
from lutc.select.curves import Point
from lutc.select.draft import Table
from lutc.select.search import Search

V3, V4, V8 = map(Form.parse, ("gain-v3", "gain-v4", "gain-v8"))
MICROSECONDS = {FP32: 400, INT8: 100, V3: 70, V4: 50, V8: 30}
DIVERGENCE = {FP32: 0.0, INT8: 1e-4, V3: 0.004, V4: 0.012, V8: 0.04}
LAYERS = [f"layer{i}" for i in range(6)]


class Prices:
    """A cost model of layers that are all alike."""

    def seconds(self, shape, form, *, constant_bytes):
        return MICROSECONDS[form] * 1e-6


class Rehearsal(dict):
    """The forms of an artifact that was not fitted."""


@dataclasses.dataclass
class Machine:
    """Measures artifacts, which are nothing but their forms.

    Attributes:
        ratio: Measured over summed divergence.
        slow: Measured over predicted time, by form.
        surprise: Likewise, of fitted artifacts over rehearsals.
        score_of: What a layer costs of the score, by form, where that has nothing to do with its divergence.
        unsure: How far above a drop its upper end is, in roots of it.
    """

    ratio: float = 1.0
    slow: dict = dataclasses.field(default_factory=dict)
    surprise: dict = dataclasses.field(default_factory=dict)
    isa: str | None = "avx512"
    score_per_divergence: float | None = None
    score_of: dict | None = None
    unsure: float = 0.0
    built: dict = dataclasses.field(default_factory=dict)

    def build(self, choices, path, rows):
        self.built[path] = {choice.name: choice.form for choice in choices}
        return Built(path, 1, [])

    def rehearse(self, choices, path):
        self.built[path] = Rehearsal((choice.name, choice.form) for choice in choices)
        return path

    def open(self, path):
        return self.built[path]

    def divergence(self, forms):
        return self.ratio * sum(DIVERGENCE[form] for form in forms.values())

    def drop(self, forms):
        if self.score_of is not None:
            lost = sum(self.score_of[form] for form in forms.values())
        elif self.score_per_divergence is not None:
            lost = self.score_per_divergence * self.divergence(forms)
        else:
            return None
        return Drop(lost, lost + self.unsure * lost**0.5)

    def seconds(self, sessions):
        return {name: sum(layers.values()) for name, layers in self.layer_seconds(sessions, []).items()}

    def layer_seconds(self, sessions, choices):
        return {name: self._layers(forms) for name, forms in sessions.items()}

    def _layers(self, forms):
        surprise = {} if isinstance(forms, Rehearsal) else self.surprise
        return {
            name: MICROSECONDS[form] * 1e-6 * self.slow.get(form, 1.0) * surprise.get(form, 1.0)
            for name, form in forms.items()
        }


def searched(machine, limit, metric="divergence", fixed=None, touchy=()):
    """Searches; layers that are `touchy` move the outputs 20 times as far by themselves."""
    layers = [
        LayerChoice(name, SimpleNamespace(), "linear", 64, 64, INT8, "", name in (fixed or {})) for name in LAYERS
    ]
    points = {
        name: [
            Point(form, MICROSECONDS[form] * 1e-6, 1000, 0.0, DIVERGENCE[form] * (20 if name in touchy else 1))
            for form in ([fixed[name]] if fixed and name in fixed else MICROSECONDS)
        ]
        for name in LAYERS
    }
    table = Table(layers, points, dict.fromkeys(LAYERS, LayerShape.linear(8, 64, 64)), Prices(), 0.0)
    budget = Budget(metric, limit, "test")
    search = Search(table, budget, machine, machine.build, machine.rehearse, Path("."), Progress())
    return search, search.run()


@pytest.mark.parametrize("ratio", [0.3, 0.7, 1.0, 1.8, 4.0])
def test_a_divergence_is_kept_and_mostly_spent(ratio):
    search, best = searched(Machine(ratio), 0.1)
    assert 0.5 * 0.1 <= best.divergence <= 0.1
    assert best.predicted < 0.75 * search.trials[0].predicted and len(search.trials) <= 5


def test_what_a_slow_draft_lost_is_not_lost_again():
    search, best = searched(Machine(1.8, surprise={V3: 2.0}), 0.05)
    assert V3 in search.trials[2].forms.values() and V3 not in best.forms.values()
    assert [trial.divergence > 0.05 for trial in search.trials] == [False, False, True, False]


@pytest.mark.parametrize("slope", [0.05, 0.4, 3.0])
def test_a_drop_is_kept_and_used(slope):
    search, best = searched(Machine(1.3, score_per_divergence=slope), 0.02, "score")
    assert best.drop.most <= 0.02 and best.predicted < search.trials[0].predicted
    assert len(search.trials) <= 8


@pytest.mark.parametrize("slope", [0.07, 0.2, 0.5])
def test_most_of_a_drop_is_spent(slope):
    _, best = searched(Machine(1.3, score_per_divergence=slope), 0.02, "score")
    assert 0.75 * 0.02 < best.drop.mean <= 0.02


def test_the_upper_end_of_a_drop_has_to_be_inside():
    _, best = searched(Machine(1.3, score_per_divergence=0.2, unsure=0.06), 0.02, "score")
    assert 0.75 * 0.02 < best.drop.most <= 0.02 and best.drop.mean < 0.85 * best.drop.most


def test_all_layers_alike_are_tried_where_divergences_mislead_about_the_score():
    """V3 costs little of the score in any layer, V4 and V8 much, and half of the layers look as if it were not so."""
    costs = {FP32: 0.0, INT8: 0.0, V3: 1e-4, V4: 0.02, V8: 0.05}
    search, best = searched(Machine(score_of=costs), 0.01, "score", touchy=LAYERS[:3])
    assert set(best.forms.values()) == {V3} and best.drop.mean <= 0.01
    assert len(search.trials) <= 10


def test_a_level_takes_the_fastest_form_that_is_no_coarser():
    search, _ = searched(Machine(), 0.1)
    assert set(search.table.level(V4, {}).forms.values()) == {V4}
    level = search.table.level(V4, {"layer1": {V4: 0.0}, "layer2": {V3: 0.0, V4: 0.0}})
    assert (level.forms["layer1"], level.forms["layer2"], level.forms["layer3"]) == (V3, INT8, V4)


def test_learning_begins_beyond_the_budget_but_not_far():
    search, best = searched(Machine(1.3, score_per_divergence=0.3), 0.02, "score")
    bolder = search.bolder(best, 1.3)
    assert bolder is not None and bolder.predicted < best.predicted
    assert 0.02 < bolder.drop.mean <= 1.5 * 1.3 * 0.02
    assert search.bolder(best, 1.0001) is None  # nothing faster is that near


@pytest.mark.parametrize("machine", [Machine(slow={V8: 5.0}), Machine(surprise={V8: 5.0})], ids=["slow", "surprise"])
def test_a_form_that_loses_time_is_reverted_and_its_budget_spent_elsewhere(machine):
    search, best = searched(machine, 0.15)
    assert V8 not in best.forms.values() and V4 in best.forms.values()
    assert all(V8 in forms for forms in search.reverted.values()) and search.reverted
    assert best.seconds < search.trials[0].seconds
    fitted = {form for trial in search.trials for form in trial.forms.values()}
    assert (V8 in fitted) == bool(machine.surprise)  # a rehearsal shows what it can before anything is fitted


def test_a_layer_that_seems_slow_once_is_measured_again():
    busy = iter([False, True, False])  # all-int8 alone, then a rehearsal

    class Busy(Machine):
        def layer_seconds(self, sessions, choices):
            found = super().layer_seconds(sessions, choices)
            if "own" in found and next(busy, False):
                found["own"] = {name: 9 * seconds for name, seconds in found["own"].items()}
            return found

    search, _ = searched(Busy(), 0.1)
    assert next(busy, None) is None and not search.reverted


def test_a_layer_that_loses_little_time_is_not_worth_another_fit():
    search, best = searched(Machine(), 0.1)
    name = next(name for name, form in best.forms.items() if form == V4)
    layers = {**best.layers, name: 1.2 * search.trials[0].layers[name]}
    assert not search._revert(best, layers, least=25e-6) and not search.reverted
    assert search._revert(best, layers, least=15e-6) and V4 in search.reverted[name]


def test_all_int8_is_kept_where_everything_else_measures_slower():
    search, best = searched(Machine(slow={V3: 1.6, V4: 2.3, V8: 4.0}), 0.1)
    assert set(best.forms.values()) == {INT8} and best is search.trials[0]


def test_what_was_fast_once_is_looked_at_again():
    times = iter([4.0, 0.5])  # of fp32 and, by chance, of the first draft

    class Moody(Machine):
        def seconds(self, sessions):
            found = super().seconds(sessions)
            return {**found, "own": found["int8"] * next(times, 1.3)} if "int8" in found else found

    search, best = searched(Moody(), 0.1)
    assert next(times, None) is None and best is search.trials[0]


@pytest.mark.parametrize(("ratio", "kept"), [(0.97, True), (0.995, False)])
def test_what_gains_next_to_nothing_is_not_worth_its_loss(ratio, kept):
    class Near(Machine):
        def seconds(self, sessions):
            found = super().seconds(sessions)
            near = "int8" in found and FP32 not in sessions["own"].values()
            return {**found, "own": found["int8"] * ratio} if near else found

    search, best = searched(Near(), 0.1)
    assert (best is not search.trials[0]) == kept


def test_fp32_is_kept_where_int8_loses_too_much():
    _, best = searched(Machine(), 5e-5)
    assert set(best.forms.values()) == {FP32}


def test_a_part_stays_fp32_where_not_all_can_be_int8():
    _, best = searched(Machine(), 3.5e-4)
    assert sorted(map(str, best.forms.values())) == ["fp32"] * 3 + ["int8"] * 3


def test_what_cannot_be_kept_is_the_most_accurate():
    search, best = searched(Machine(), 0.03, fixed={"layer2": V8})
    assert best.divergence > 0.03 and best.divergence == min(trial.divergence for trial in search.trials)
    assert best.forms["layer2"] == V8 and not search.budget.holds(best.loss(search.budget))


def test_without_a_machine_predictions_decide():
    search, best = searched(Machine(isa=None, slow={V8: 50.0}), 0.3)
    assert best.seconds is None and not search.reverted and best.predicted == min(t.predicted for t in search.trials)


def test_what_is_measured_faster_and_loses_less_is_kept_whatever_was_predicted():
    search, best = searched(Machine(), 0.1)
    worse = dataclasses.replace(
        best, predicted=0.9 * best.predicted, seconds=1.01 * best.seconds, divergence=best.divergence + 1e-6
    )
    assert worse.divergence <= 0.1
    search.trials.append(worse)
    assert search._best() is best
    worse.divergence = best.divergence - 1e-6
    assert search._best() is worse
