import numpy as np
import pytest

from benchmarks import cifar10, minilm, recognition, speech, sst2, sts
from benchmarks.accuracy import budgets, judge, ladder, methods, statistics, tasks, verdict
from benchmarks.accuracy.tasks import Case
from lutc.evaluate import load_callable


def accuracy(rows: np.ndarray) -> float:
    return float(rows.mean())


def test_interval_of_a_share_is_the_binomial_one():
    rng = np.random.default_rng(0)
    before = (rng.random(2000) < 0.8).astype(float)[:, None]
    found = statistics.intervals(accuracy, before, before)
    spread = 1.96 * np.sqrt(before.mean() * (1 - before.mean()) / len(before))
    low, high = found["before"]
    assert low == pytest.approx(before.mean() - spread, abs=0.004)
    assert high == pytest.approx(before.mean() + spread, abs=0.004)
    assert found["drop"] == [0, 0]  # paired: the same answers never differ


def test_drop_is_paired():
    rng = np.random.default_rng(0)
    before = (rng.random(2000) < 0.8).astype(float)[:, None]
    after = before.copy()
    after[:40] = 0  # some were wrong before
    drop = before.mean() - after.mean()
    low, high = statistics.intervals(accuracy, before, after)["drop"]
    assert low < drop < high and low > 0.005  # unpaired, it would reach below zero
    with pytest.raises(ValueError, match="shapes"):
        statistics.intervals(accuracy, before, after[1:])


def test_same_seed_same_interval():
    rows = np.random.default_rng(0).random((50, 1))
    found = [statistics.intervals(accuracy, rows, rows**2, seed=seed) for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]


def test_recorder_keeps_outputs_in_order():
    class Doubling:
        def get_inputs(self):
            return []

        def run(self, names, feed):
            return [feed["x"] * 2]

    recorder = tasks.Recorder(Doubling())
    for start in (0, 3):
        recorder.run(None, {"x": np.arange(start, start + 3)})
    assert np.array_equal(recorder.outputs, 2 * np.arange(6)[:, None])


def test_embeddings_come_back_in_the_order_of_the_sentences(monkeypatch):
    lengths = [5, 2, 9, 2]
    feeds = [
        (np.array([1, 3]), {"input_ids": np.array([[2], [2]])}),
        (np.array([0, 2]), {"input_ids": np.array([[5], [9]])}),
    ]
    monkeypatch.setattr(minilm, "batches", lambda sentences, batch: feeds)

    class Lengths:
        def get_inputs(self):
            return [type("Input", (), {"name": "input_ids"})]

        def run(self, names, feed):
            return [feed["input_ids"].astype(np.float32)]

    assert minilm.embed(Lengths(), ["a"] * 4)[:, 0].tolist() == lengths


def row(form: str, us: float, drop: float, isa: str = "avx512", **peers: float) -> dict:
    return {
        "bench": "accuracy", "task": "sts", "model": "minilm", "isa": isa, "form": form, "method": "closed form",
        "minutes": 0, "before": 0.8, "after": 0.8 - drop, "drop": drop,
        "interval": {"drop": [drop - 0.01, drop + 0.01]}, "cosine": 0.9,
        "ours_us": us, "ratio_vs": {name: time / us for name, time in peers.items()},
    }  # fmt: skip


def test_verdict_takes_the_fastest_that_loses_no_more():
    peers = {"openvino_int8": 30.0, "onnxruntime_int8_qdq": 60.0, "onnxruntime_fp32": 5.0}
    rows = [row("a", 20, 0.001, **peers), row("b", 10, 0.02, **peers), row("c", 1, 0.5, **peers)]
    found = {each["at"]: each for each in verdict.verdicts(rows)}
    assert found["1 %"]["ratio"] == pytest.approx(1.5) and found["1 %"]["form_chosen"].startswith("a")
    assert found["3 %"]["ratio"] == pytest.approx(3.0) and found["3 %"]["met"]
    assert not found["1 %"]["sure"]  # the interval reaches beyond the budget
    assert "interval unknown" in verdict.line({**rows[0], "interval": None})
    assert "same 0.976" in verdict.line({**rows[0], "agreement": 0.976}) and "same" not in verdict.line(rows[0])
    assert all(verdict.line(each) for each in rows) and all(verdict.goal_line(each) for each in found.values())


def test_verdict_of_avx2_leaves_out_peers_that_cannot_be_held_to_it():
    rows = [row("a", 10, 0.0, "avx2", onnxruntime_int8_qdq=5.0, openvino_int8=40.0)]
    (found,) = verdict.verdicts(rows)
    assert found["ratio"] == pytest.approx(4.0)


def test_budgets_verdict():
    rows = [
        {"exit": 0, "kept": True, "drop": 0.0, "budget": 0.01, "task": "t", "model": "m"},
        {"exit": 4, "kept": None, "drop": 0.5, "budget": 0.01, "task": "t", "model": "m"},
        {"budget": 0.1, "skipped": "why"},
    ]
    assert budgets.verdict(rows)["holds"]
    assert not budgets.verdict([*rows, {**rows[0], "kept": False, "drop": 1.0}])["holds"]
    assert not budgets.verdict(rows[2:])["holds"]  # nothing was tested
    assert budgets.draws(20) == budgets.draws(20)
    assert all(budgets.SMALLEST <= share <= budgets.LARGEST for share in budgets.draws(100))


def test_ladder_has_equal_lookups():
    names = {rung.name: rung for rung in ladder.rungs(Case("sts", "minilm"), 4, [5, 15])}
    assert names["k-means"].method.arguments == ("--preset", "plain-v4", "--method", "lutnn")
    assert "+ projection and allocation" in names
    assert "+ projection and allocation" not in {r.name for r in ladder.rungs(Case("cifar10", "resnet20"), 4, [])}
    forms = {rung.method.form for rung in names.values() if rung.equal}
    assert forms == {"plain-v4", "gain-v4", "gain-v4-proj"}


def test_artifacts_of_different_methods_have_different_names():
    case = Case("sts", "minilm")
    made = [*methods.METHODS, *(method.learned(5) for method in methods.METHODS)]
    paths = {methods.artifact(case, method, isa) for method in made for isa in ("avx2", "avx512")}
    assert len(paths) == 2 * len(made)


def test_an_unknown_task_is_refused():
    with pytest.raises(ValueError, match="speech"):
        tasks.cases("sts,typo")


def data(function):
    """What it returns; skips where the data is not there."""
    try:
        return function()
    except FileNotFoundError as error:
        pytest.skip(str(error))


def test_sts_splits_share_no_sentence():
    test = {sentence for pair in data(sts.test_pairs) for sentence in pair[1:]}
    selection = {sentence for pair in sts.selection_pairs() for sentence in pair[1:]}
    calibration = set(sts.calibration_sentences())
    assert (len(sts.test_pairs()), len(sts.selection_pairs()), len(calibration)) == (1200, 1000, 1500)
    assert not test & selection and not test & calibration and not selection & calibration


def test_sst2_splits_share_no_sentence():
    trained, labels, calibration = data(sst2.training_split)
    selection, test = set(sst2.labelled("selection")[0]), set(sst2.labelled("test")[0])
    assert len(trained) == len(labels) and len(calibration) == 1500
    assert not set(trained) & set(calibration)
    assert not (set(trained) | set(calibration)) & (selection | test) and not selection & test


def test_cifar10_splits_share_no_image():
    images = {split: data(lambda split=split: cifar10.labelled(split)[0]) for split in ("selection", "test")}
    assert (len(images["selection"]), len(images["test"])) == (3000, 7000)
    seen = {image.tobytes() for image in images["selection"]}
    assert sum(image.tobytes() in seen for image in images["test"]) == 0


def test_speech_folds_test_every_speaker_and_share_none():
    cases = Case("speech", "res8").folds
    folds = [case.module for case in cases]
    assert [fold.speaker for fold in folds] == list(speech.SPEAKERS)
    for fold in folds:
        speakers = [fold.speaker, fold.selection_speaker, *fold.training_speakers]
        assert sorted(speakers) == list(speech.SPEAKERS)
    sounds, digits, calibration = data(folds[2].training_split)
    assert len(sounds) == len(digits) == 1600 and len(calibration) == 400
    assert not {sound.tobytes() for sound in sounds} & {sound.tobytes() for sound in calibration}
    assert folds[2].labelled("test")[0].shape == (500, 1, speech.FRAMES, speech.BANDS)


def test_lutc_finds_what_a_fold_offers():
    case = Case("speech", "res8").folds[1]
    assert case.source("calibration") == "benchmarks.speech:JACKSON.calibration"
    assert load_callable(case.source("selection_score"), "--score") == speech.JACKSON.selection_score
    assert Case("sts", "minilm").source("calibration") == "benchmarks.sts:calibration"


def test_some_folds_are_another_model_than_all():
    case, some = tasks.cases("speech")[0], tasks.cases("speech", 2)[0]
    assert case.model == tasks.cases("speech", 6)[0].model == "res8" != some.model
    assert [fold.fold for fold in some.folds] == ["GEORGE", "JACKSON"]
    assert len({fold.folder for fold in case.folds}) == 6
    (only,) = tasks.cases("sts", 2)
    assert only.folds == (only,) and only.model == "minilm"


class Logits:
    """A session that answers every sample with the logits it was given for it."""

    def __init__(self, logits):
        self.logits, self.done = logits, 0

    def get_inputs(self):
        return [type("Input", (), {"name": "x"})]

    def run(self, names, feed):
        begin, self.done = self.done, self.done + len(feed["x"])
        return [self.logits[begin : self.done]]


def test_folds_are_judged_together(monkeypatch):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 240)
    theirs = np.eye(4, dtype=np.float32)[labels]
    theirs[:20] = np.roll(theirs[:20], 1, axis=1)  # the first original is wrong on twenty
    ours = theirs.copy()
    ours[:30] = np.roll(ours[:30], -1, axis=1)  # which the compiled one gets right, and ten more wrong
    parts = [slice(0, 120), slice(120, 240)]

    class Module:
        METRIC, metric = "top-1", staticmethod(recognition.metric)

        def __init__(self, part=None):
            self.part = part

        def answers(self, session, split):
            return recognition.answers(lambda split: (np.zeros((120, 1)), labels[self.part]))(session, split)

    folds = (Case("t", "m", "A"), Case("t", "m", "B"))
    modules = {"": Module(), "A": Module(parts[0]), "B": Module(parts[1])}
    monkeypatch.setattr(Case, "module", property(lambda case: modules[case.fold]))
    monkeypatch.setattr(Case, "folds", property(lambda case: folds))
    originals = {fold: tasks.Recorder(Logits(theirs[part])) for fold, part in zip(folds, parts, strict=True)}
    answers = {fold: modules[fold.fold].answers(session, "test") for fold, session in originals.items()}
    monkeypatch.setattr(judge, "original", lambda fold, split: (answers[fold], originals[fold].outputs))
    found = judge.judge(Case("t", "m"), [Logits(ours[part]) for part in parts])
    assert found["samples"] == 240
    assert (found["before"], found["after"]) == (pytest.approx(220 / 240), pytest.approx(230 / 240))
    assert found["agreement"] == pytest.approx(210 / 240)  # where the original errs, agreeing is to err
    low, high = found["interval"]["agreement"]
    assert low < found["agreement"] < high
    assert found["folds"] == {"a": [pytest.approx(100 / 120), pytest.approx(110 / 120)], "b": [1.0, 1.0]}


def test_log_mel_puts_a_tone_into_its_band():
    time = np.arange(speech.SAMPLES) / speech.RATE
    bands = []
    for hertz in (300, 1000, 3000):
        features = speech.log_mel(np.sin(2 * np.pi * hertz * time).astype(np.float32)[None])
        assert features.shape == (1, 1, speech.FRAMES, speech.BANDS)
        assert features.mean() == pytest.approx(0, abs=1e-4) and features.std() == pytest.approx(1, abs=1e-3)
        bands.append(int(features[0, 0].mean(0).argmax()))
        peak = np.fft.rfftfreq(speech.SPECTRUM, 1 / speech.RATE)[speech.mel_filters()[:, bands[-1]].argmax()]
        assert peak == pytest.approx(hertz, rel=0.1)
    assert bands == sorted(set(bands))


def test_random_budgets_are_judged_on_the_test_split(monkeypatch, tmp_path):
    drops = iter([0.0, 0.5, 0.5])
    kept = iter([True, True, False])
    compiled = []

    def compile_(case, method, isa, dense):
        compiled.append((str(case), method.max_drop, dense(case)))
        if len(compiled) == 4:
            raise methods.Skipped("not today")
        return [methods.Compiled(tmp_path, {}, next(kept))]

    def judged(case, method, isa, made):
        drop = next(drops)
        return row("x", 1.0, drop) | {"interval": {"drop": [drop - 0.01, drop + 0.01]}}

    monkeypatch.setattr(methods, "compile_all", compile_)
    monkeypatch.setattr(budgets.judge, "row", judged)
    monkeypatch.setattr(budgets.judge, "dense_score", lambda case: 0.8)
    cases = [Case("cifar10", "resnet20"), Case("speech", "res8")]
    rows = list(budgets.test(cases, "avx512", 4))
    assert [case for case, _, _ in compiled] == ["cifar10 resnet20", "speech res8"] * 2
    assert [each.get("exit") for each in rows] == [0, 0, methods.MISSED, None]
    assert [each.get("kept") for each in rows] == [True, False, None, None]
    assert rows[0]["budget"] == pytest.approx(0.8 * budgets.draws(4)[0])
    found = budgets.verdict(rows)
    assert not found["holds"] and len(found["broken"]) == 1 and found["skipped"] == 1


def test_a_compilation_that_misses_its_budget_is_told_from_one_that_fails(monkeypatch, tmp_path):
    answers = {"compile": (methods.MISSED, {"error": "missed"}), "inspect": (0, {"layers": []})}
    monkeypatch.setattr(methods, "FOLDER", tmp_path)
    monkeypatch.setattr(methods, "_lutc", lambda words: answers[words[0]])
    monkeypatch.setattr(methods, "timed_at", lambda case: [])
    monkeypatch.setattr(Case, "module", type("Task", (), {"model": staticmethod(lambda name: tmp_path / "m.onnx")}))
    case = Case("speech", "res8")
    made = methods.compile(case, methods.budgeted(0.01), "avx512", 0.8)
    assert not made.kept and made.report["layers"] == []
    answers["compile"] = (2, {"error": "No such option: --learn\nmore"})
    with pytest.raises(methods.Skipped, match=r"^No such option: --learn$"):
        methods.compile(case, methods.uniform("int8"), "avx512")


def test_a_mixed_form_names_the_wide_layers_of_its_model(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(methods, "FOLDER", tmp_path)
    monkeypatch.setattr(methods, "_lutc", lambda words: asked.append(words) or (0, {"layers": []}))
    monkeypatch.setattr(methods, "timed_at", lambda case: [])
    module = type(
        "Task", (), {"model": staticmethod(lambda name: tmp_path / "m.onnx"), "WIDE": {"resnet20": "^Conv_5"}}
    )
    monkeypatch.setattr(Case, "module", module)
    method = methods.part("wide", "gain-v8", "gain-v4")
    methods.compile(Case("cifar10", "resnet20"), method, "avx512")
    at = asked[0].index("--form")
    assert asked[0][at : at + 2] == ["--form", "^Conv_5=gain-v8"]
    with pytest.raises(methods.Skipped, match="no wide layers"):
        methods.compile(Case("speech", "res8"), method, "avx512")


def test_ladders_stand_side_by_side():
    def row(task, rung, after, width=4):
        return {
            "bench": "accuracy ladder", "task": task, "model": "m", "metric": "top-1", "at": f"V={width}: {rung}",
            "before": 0.9, "after": after, "interval": {"drop": [0.9 - after - 0.01, 0.9 - after + 0.01]},
        }  # fmt: skip

    rows = [
        row("a", "+ selection and learning, 15 minutes", 0.88),
        row("a", "+ learning, 60 minutes", 0.87),
        row("a", "+ learning, 5 minutes", 0.86),
        row("b", "+ gains", 0.8),
        row("b", "k-means", 0.3),
        row("b", "+ gains", 0.1, width=8),
        {"bench": "accuracy", "task": "a"},
    ]
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in ladder.table(rows).splitlines()]
    assert lines[0] == ["rung", "a: m, top-1", "b: m, top-1"]
    assert lines[2:] == [
        ["the original", "0.9000", "0.9000"],
        ["k-means", "", "0.3000 (+0.590 .. +0.610)"],
        ["+ gains", "", "0.8000 (+0.090 .. +0.110)"],
        ["+ learning, 5 minutes", "0.8600 (+0.030 .. +0.050)", ""],
        ["+ learning, 60 minutes", "0.8700 (+0.020 .. +0.040)", ""],
        ["+ selection and learning, 15 minutes", "0.8800 (+0.010 .. +0.030)", ""],
    ]
