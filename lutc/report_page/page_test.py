import dataclasses
import html.parser
import re

from lutc.report_page import Facts, Times, render
from lutc.report_page.chart import front, near
from lutc.report_page.markup import duration, number, size, text
from lutc.report_page.view import Point, view

HOSTILE = '</span><script>alert(1)</script><img src=x onerror="alert(2)">\u202e\x1b[31m\' onmouseover="x'


def layer(name: str, form: str = "gain-v3", error: float | None = 0.05) -> dict:
    return {
        "name": name, "op": "linear", "form": form, "why": f"because of {name}", "group_sizes": [3, 3], "codebooks": 2,
        "rank": 0, "bytes": 1200, "bytes_dense": 3000, "error": error,
    }  # fmt: skip


def report(*layers: dict, **more) -> dict:
    return {"preset": "accurate", "seed": 0, "layers": list(layers), "bytes": 5000, "dense_bytes": 9000, **more}


def selection(names: list[str]) -> dict:
    forms = [("fp32", 30.0, 0.0), ("int8", 10.0, 0.001), ("gain-v3", 7.0, 0.02), ("gain-v4", 5.0, 0.08)]
    candidates = [{"form": f, "us": us, "bytes": 10, "error": e, "divergence": e / 10} for f, us, e in forms]
    points = [
        {"name": "fp32", "us": 60.0, "divergence": 0.0, "measured": True},
        {"name": "all int8", "us": 20.0, "divergence": 0.002, "measured": True},
        {"name": "round 1", "us": 14.0, "divergence": 0.04, "measured": True, "chosen": True},
        {"name": "", "us": 12.0, "divergence": 0.09, "measured": False},
    ]
    layers = [{"name": name, "candidates": candidates, "chosen": "gain-v3"} for name in names]
    return {
        "points": points,
        "layers": layers,
        "budget": {"metric": "divergence", "limit": 0.05},
        "time_shape": {"x": [1, 24]},
    }


class Elements(html.parser.HTMLParser):
    """Counts elements and attributes, and checks that every element is closed in order."""

    VOID = ("meta", "input", "wbr")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.names: set[str] = set()
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.names |= {name for name, _ in attrs}
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.names |= {name for name, _ in attrs}

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_a_hostile_name_stays_text():
    names = [HOSTILE, "plain"]
    given = report(*map(layer, names), selection=selection(names), target=HOSTILE)
    given["layers"][0]["op"] = given["layers"][0]["why"] = HOSTILE
    given["selection"]["points"][0]["name"] = given["selection"]["points"][1]["forms"] = HOSTILE
    given["selection"]["layers"][0]["candidates"][2]["form"] = HOSTILE
    facts = Facts(
        HOSTILE, HOSTILE, [HOSTILE], {HOSTILE: HOSTILE}, {"lutc": HOSTILE}, {HOSTILE: HOSTILE},
        Times(HOSTILE, 5.0, {HOSTILE: 6.0}), HOSTILE, HOSTILE,
    )  # fmt: skip
    page = render(given, facts)
    found = Elements(page)
    assert not {"script", "img"} & set(found.tags)
    assert not [name for name in found.names if name.startswith("on")]
    assert "\u202e" not in page and "\x1b" not in page
    assert page.count("&lt;script&gt;") >= 9
    inert = {**given, "layers": [layer("a.b"), layer("plain")], "selection": selection(["a.b", "plain"])}
    assert sorted(set(Elements(render(inert, facts)).tags)) == sorted(set(found.tags))


def test_the_page_is_a_function_of_its_arguments_and_carries_no_time():
    given, facts = report(layer("a"), selection=selection(["a"])), Facts("m.onnx", "m.lut", ["lutc compile m.onnx"])
    assert render(given, facts) == render(given, facts)
    assert "2026" not in render(given, facts)
    assert "2026-11-21" in render(given, dataclasses.replace(facts, made="2026-11-21"))


def test_nothing_is_fetched_and_nothing_runs():
    page = render(report(layer("a"), selection=selection(["a"])), Facts("m.onnx"))
    assert "default-src 'none'" in page
    assert not re.search(r"https?:|url\(|@import|<link|<script|src=", page)


def test_headline_of_a_measured_artifact_without_a_selection():
    times = Times("x 1 x 24", 5.0, {"int8": 10.0, "fp32": 4.0}, {"a": 3.0}, {"a": 6.0})
    score = {"reference": 0.8, "compiled": 0.79, "drop": 0.01}
    page = render(report(layer("a"), score=score), Facts("m.onnx", times=times))
    assert "faster than int8" in page and "2.00\u00d7" in page
    assert "slower than fp32" in page and "1.25\u00d7" in page
    assert "from 0.8 to 0.79" in page and "1.2\u202f%" in page
    assert "<svg" not in page  # nothing was weighed: no curve
    assert "--keep &#x27;^a$=fp32&#x27;" in page


def test_headline_of_a_selection():
    names = ["a", "b"]
    page = render(report(*map(layer, names), selection=selection(names)), Facts("m.onnx"))
    assert "1.43\u00d7" in page and "4.29\u00d7" in page  # 20 / 14 and 60 / 14
    assert page.count("<svg") == 2 and ">budget<" in page
    assert page.count("4 forms weighed") == 2
    assert "every" not in page.split("<h2>")[0] and "x 1 \u00d7 24" in page


def test_layers_to_keep_are_those_that_move_the_output():
    given = report(layer("loud", error=0.9), layer("deep", error=0.1))
    given["selection"] = selection(["loud", "deep"])
    for row, effect in zip(given["selection"]["layers"], (0.001, 0.5), strict=True):
        row["candidates"] = [{**row["candidates"][2], "divergence": effect}]
    page = render(given, Facts("m.onnx"))
    assert page.index("^deep$") < page.index("^loud$")
    assert "move the output most" in page


def test_missing_and_odd_values_are_left_out():
    odd = layer("a", error=float("nan"))
    odd["bytes"] = None
    page = render({"layers": [odd], "selection": {"points": [{"us": float("inf")}], "layers": []}}, Facts("m.onnx"))
    assert "nan" not in page and "inf" not in page.replace("inference", "")
    assert "No layer was replaced" in render({"layers": []}, Facts("m.onnx"))
    Elements(page)


def test_missed_budget_is_said():
    page = render(report(layer("a")), Facts("m.onnx", missed="the score fell"))
    assert "Budget missed." in page and "the score fell" in page


def test_scores_decide_the_curve_where_points_have_them():
    given = report(layer("a"), selection=selection(["a"]))
    for i, point in enumerate(given["selection"]["points"]):
        point["drop"] = i / 100
    assert view(given, Facts("m.onnx")).limit == 0.05
    given["selection"]["budget"] = {"metric": "score", "limit": 0.02}
    shown = view(given, Facts("m.onnx"))
    assert shown.loss_name == "drop of the score" and shown.limit == 0.02
    assert [point.loss for point in shown.points] == [0.03, 0.02, 0.01, 0.0]


def test_learning_is_told():
    learned = {"minutes": 5, "steps": 1234, "before": 0.0512, "after": 0.0301, "kept": True}
    assert "5 minutes, 1234 steps" in render(report(layer("a"), learn=learned), Facts("m.onnx"))
    assert "0.0512 \u2192 0.0301" in render(report(layer("a"), learn=learned), Facts("m.onnx"))
    both = {**learned, "classes": [0.21, 0.14]}
    assert "0.0301 (of classes 0.21 \u2192 0.14)" in render(report(layer("a"), learn=both), Facts("m.onnx"))
    assert "; not kept" in render(report(layer("a"), learn={**learned, "kept": False}), Facts("m.onnx"))
    assert "learning" not in render(report(layer("a"), learn={"minutes": HOSTILE}), Facts("m.onnx"))


def test_front():
    points = [
        Point(str(i), "", us, loss, True, False)
        for i, (us, loss) in enumerate([(1, 9), (2, 5), (2, 6), (3, 7), (4, 0)])
    ]
    assert [point.name for point in front(points)] == ["0", "1", "4"]


def test_predictions_far_beyond_the_budget_are_not_drawn():
    given = report(layer("a"), selection=selection(["a"]))
    given["selection"]["points"] += [{"name": "", "us": 3.0, "divergence": 9.0, "measured": False}]
    shown = view(given, Facts("m.onnx"))
    assert len(shown.points) == 5 and len(near(shown)) == 4
    given["selection"]["points"][-1]["measured"] = True
    assert len(near(view(given, Facts("m.onnx")))) == 5


def test_numbers_for_people():
    assert [number(v) for v in (0, 0.00123, 12345, 1e-9, -0.5)] == [
        "0", "0.00123", "12300", "1.00e\u221209", "\u22120.5",
    ]  # fmt: skip
    assert duration(12.3) == "12.3\u202f\u00b5s" and duration(1234) == "1.23\u202fms" and duration(2e6) == "2\u202fs"
    assert size(999) == "999\u202fB" and size(1.2e6) == "1.2\u202fMB"
    assert text("<a&\"'>\u2028") == "&lt;a&amp;&quot;&#x27;&gt;\\u2028"
