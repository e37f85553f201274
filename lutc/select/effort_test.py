"""The estimate of a selection: what is kept is not counted, what is counted is about what is taken."""

import mmap
import re

import numpy as np
import pytest

import lutc
from lutc.canonicalise import canonicalise
from lutc.forms import Form, choose_layers
from lutc.load import load_model
from lutc.progress import Progress
from lutc.select import course
from lutc.select.candidates import Priced
from lutc.select.curves import Curves
from lutc.select.draft import expected_points
from lutc.select.effort import AGAIN, Effort, _likely_hopeless
from lutc.select.memory import resident, resident_now
from lutc.select.work import fit_bytes
from tests.small_models import deep_mlp


class Notes(Progress):
    """Keeps what is said."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def note(self, text):
        self.lines.append(text)

    def find(self, pattern):
        return next(found for found in (re.search(pattern, line) for line in self.lines) if found)


def rows(count=1200, width=256):
    rng = np.random.default_rng(0)
    basis = rng.normal(size=(24, width)).astype(np.float32)
    return [{"x": (rng.normal(size=(100, 24)) @ basis).astype(np.float32)} for _ in range(count // 100)]


def compile(tmp_path, budget):
    notes = Notes()
    lutc.compile(
        deep_mlp(4, 256), calib=rows(), output=tmp_path / "x.lut", resume=tmp_path / "kept", threads=1, preset=budget,
        time_shape={"x": (128, 256)}, target="x86-64-v4", progress=notes,
    )  # fmt: skip
    return notes


def test_what_an_earlier_run_has_kept_is_not_counted(tmp_path):
    first, again = compile(tmp_path, "fast"), compile(tmp_path, "fast")
    pattern = r"\(([\d.]+) to try candidates, ([\d.]+) to fit models.*assumed: (.*)"
    assert "known" not in first.find(pattern)[3]
    tried, fitted, assumed = again.find(pattern).groups()
    assert float(tried) == float(fitted) == 0.0
    known, candidates = map(int, re.search(r"(\d+) of (\d+) candidates known", assumed).groups())
    assert 0 < known <= candidates
    taken = first.find(r"took ([\d.]+) minutes of CPU time \(said: ([\d.]+)\).* and ([\d.]+) GB of memory \(said")
    assert float(taken[1]) > 0.0


def test_forms_behind_a_hopeless_one_are_not_expected_to_be_tried():
    forms = [Form.parse(text) for text in ("gain-v3", "gain-v4", "gain-v6", "gain-v8", "plain-v16")]
    accurate = [str(form) for form in forms if not _likely_hopeless(form, forms, 0.02, 24)]
    assert accurate == ["gain-v3", "gain-v4", "gain-v6"]
    assert not any(_likely_hopeless(form, forms, 1.0, 24) for form in forms)
    assert not _likely_hopeless(Form.parse("gain-v5"), [Form.parse("gain-v5")], 0.02, 24)  # that the user named


@pytest.mark.parametrize(("form", "least", "most"), [("gain-v3", 1.0, 1.6), ("gain-v4", 1.0, 1.9)])
def test_memory_of_a_fit_is_near_its_rows_and_normal_equations(form, least, most):
    """Tied tables are fitted by features, free ones by entries."""
    choice = choose_layers(canonicalise(load_model(deep_mlp(1, 256))), form)[0]
    rows = 4 * 30000 * (2 * 256 + 2 * 256)
    entries = 256 if form == "gain-v3" else 256 // 4 * 16
    assert least < fit_bytes(choice, choice.form, 30000) / (rows + 32 * entries**2) < most


def test_what_is_left_goes_at_the_pace_that_was_measured(tmp_path):
    notes = compile(tmp_path, "fast")
    found = notes.find(r"candidates took ([\d.]+) minutes of CPU time \(said: ([\d.]+)\), about ([\d.]+) \(")
    assert float(found[3]) >= 0
    built = notes.find(r"model 1 took ([\d.]+) minutes .* are left if (\d) more are built")
    assert int(built[2]) <= 2


def test_a_course_takes_models_at_the_pace_of_the_last_one(monkeypatch):
    clock = iter([0.0, 200.0, 200.0, 300.0, 400.0])
    monkeypatch.setattr(course.time, "process_time", lambda: next(clock))
    monkeypatch.setattr(course.time, "perf_counter", lambda: 0.0)
    fits = {("a", "gain-v4"): 40.0, ("b", "gain-v4"): 60.0, ("b", "gain-v3"): 50.0}
    effort = Effort({}, 100.0, 99.0, 60.0, 1e9, 1.0, 3.0, (0, 4), 0.0, fits, runs=10.0)
    going = course.Course(effort)
    forms = {"a": Form.parse("gain-v4"), "b": Form.parse("gain-v3"), "c": Form.parse("int8")}
    left = 2 * (1 + 2 * AGAIN) * (40 + 50 + 10) + 60  # candidates took twice as long as was said
    assert f"took 3.3 minutes of CPU time (said: 1.7), about {left / 60:.1f} (" in going.candidates_done(forms)
    assert f"about {2 * AGAIN * 100 / 60:.1f} (" in going.model_built(100.0)
    assert f"about {90 / 60:.1f} (" in going.model_built(90.0)


def test_memory_that_an_earlier_run_has_given_back_is_not_counted():
    size = 200_000_000
    with mmap.mmap(-1, size) as block:  # not from the heap, which may serve it of pages that it has and keeps
        np.frombuffer(block, np.uint8)[:] = 1
        with_it = resident_now()
        assert with_it <= resident() * 1.01
    assert resident_now() < with_it - 150e6


def test_a_first_draft_is_guessed_from_what_forms_lose_on_average(tmp_path):
    choice = choose_layers(canonicalise(load_model(deep_mlp(1, 256))), "gain-v3")[0]
    items = [Priced(Form.parse(text), seconds, 1) for text, seconds in (("fp32", 3.0), ("int8", 2.0), ("gain-v3", 1.0))]
    curves = Curves(tmp_path, "empty")
    fp32, int8, lookups = expected_points({"y": (choice, items)}, curves)[choice.name]
    assert 0.0 == fp32.divergence < int8.divergence < lookups.divergence
    halved = expected_points({"y": (choice, items), "z": (choice, items)}, curves)[choice.name][2]
    assert halved.divergence == pytest.approx(lookups.divergence / 2)
    assert [point.seconds for point in (fp32, int8, lookups)] == [3.0, 2.0, 1.0]


def test_a_first_draft_is_guessed_from_what_is_known_of_a_layer(tmp_path):
    choice = choose_layers(canonicalise(load_model(deep_mlp(1, 256))), "gain-v3")[0]
    items = [Priced(Form.parse(text), 1.0, 1) for text in ("int8", "gain-v3", "gain-v4")]
    curves = Curves(tmp_path, "one")
    _, expected, coarser = expected_points({"y": (choice, items)}, curves)[choice.name]
    curves.put(choice.name, Form.parse("gain-v3"), {"error": 0.5, "divergence": 3 * expected.divergence, "bytes": 7})
    _, known, guessed = expected_points({"y": (choice, items)}, curves)[choice.name]
    assert (known.error, known.bytes, known.divergence) == (0.5, 7, 3 * expected.divergence)
    assert guessed.divergence == pytest.approx(3 * coarser.divergence)  # in proportion to what was tried
