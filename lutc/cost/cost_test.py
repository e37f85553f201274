"""Prices are plausible, complete, and survive storage; what cannot be read is said and left."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from lutc import _runtime
from lutc.canonicalise import canonicalise
from lutc.cli.app import main
from lutc.cost import CostModel, LayerShape, layer_shapes
from lutc.cost.fit import Sample, fit_price
from lutc.cost.grid import Chain, tiny_grid
from lutc.cost.machine import cache_path
from lutc.cost.measure import measure, run_grid
from lutc.cost.store import ISAS, load, save, shipped
from lutc.cost.terms import KERNELS, works
from lutc.errors import UsageError
from lutc.forms import Form, choose_layers
from lutc.load import load_model

FORMS = [
    "fp32", "int8", "gain-v2", "gain-v3", "gain-v4", "gain-v5", "gain-v6", "gain-v8", "gain-v12", "gain-v16",
    "gain-v3k8", "gain-v4k8", "gain-v2k4", "gain-v3-g15", "gain-v4k8-g15", "gain-v3-g127", "plain-v2", "plain-v3",
    "plain-v4", "plain-v8", "plain-v16", "plain-v32", "plain-v8k8", "plain-v4k4", "gain-v3-proj", "gain-v4-block64",
    "plain-v8-proj",
]  # fmt: skip
CONV = LayerShape("conv", 32, 48, image=(20, 24), kernel=(3, 3), pads=(1, 1, 1, 1), activation="relu", residual=True)


@pytest.fixture(params=list(KERNELS))
def model(request) -> CostModel:
    return shipped(request.param)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rows", [1, 3, 9, 16, 130, 3000])
def test_every_form_of_a_linear_layer_has_a_price(model, form, rows):
    shape = LayerShape.linear(rows, 384, 1536, activation="gelu", residual=True)
    seconds = model.seconds(shape, Form.parse(form), constant_bytes=40e6)
    assert 1e-7 < seconds < 60
    assert 0 <= model.encode_seconds(shape, Form.parse(form), constant_bytes=40e6) < seconds


@pytest.mark.parametrize("form", [form for form in FORMS if "proj" not in form and "block" not in form])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"kernel": (1, 1), "pads": (0, 0, 0, 0)},
        {"strides": (2, 2)},
        {"dilations": (2, 2)},
        {"group": 2},
        {"group": 32, "N": 32},
        {"group": 32, "N": 32, "strides": (2, 2)},
        {"batch": 3},
        {"kernel": (5, 1), "pads": (0, 0, 0, 0)},
    ],
)
def test_every_form_of_a_convolution_has_a_price(model, form, changes):
    shape = dataclasses.replace(CONV, **changes)
    assert 1e-7 < model.seconds(shape, Form.parse(form), constant_bytes=1e6) < 60


def test_attention_has_a_price(model):
    shape = LayerShape("attention", 384, 384, image=(128, 128), heads=12)
    for form in ("fp32", "int8"):
        assert 1e-6 < model.seconds(shape, Form.parse(form), constant_bytes=1e6) < 10


def test_a_form_that_does_not_fit_is_refused(model):
    with pytest.raises(UsageError, match="attention"):
        model.seconds(LayerShape("attention", 64, 64, image=(8, 8)), Form.parse("gain-v3"), constant_bytes=0)


@settings(max_examples=60, deadline=None)
@given(
    isa=st.sampled_from(list(KERNELS)),
    form=st.sampled_from(FORMS),
    rows=st.integers(16, 2000),
    features=st.integers(16, 2000),
    outputs=st.integers(32, 2000),
    constants=st.floats(1e5, 1e9),
)
def test_twice_the_layer_never_takes_less(isa, form, rows, features, outputs, constants):
    price, parsed = shipped(isa), Form.parse(form)

    def seconds(*sizes: int) -> float:
        return price.seconds(LayerShape.linear(*sizes), parsed, constant_bytes=constants)

    once = seconds(rows, features, outputs)
    for twice in ((2 * rows, features, outputs), (rows, 2 * features, outputs), (rows, features, 2 * outputs)):
        assert seconds(*twice) >= once


@settings(max_examples=40, deadline=None)
@given(
    isa=st.sampled_from(list(KERNELS)),
    form=st.sampled_from(["fp32", "int8", "gain-v2", "gain-v4", "plain-v8"]),
    channels=st.integers(8, 200),
    outputs=st.integers(8, 200),
    size=st.integers(8, 60),
)
def test_twice_the_convolution_never_takes_less(isa, form, channels, outputs, size):
    price, parsed = shipped(isa), Form.parse(form)

    def seconds(**changes: object) -> float:
        shape = LayerShape("conv", channels, outputs, image=(size, size), kernel=(3, 3), pads=(1, 1, 1, 1))
        return price.seconds(dataclasses.replace(shape, **changes), parsed, constant_bytes=1e6)

    for changes in ({"D": 2 * channels}, {"N": 2 * outputs}, {"image": (2 * size, 2 * size)}, {"batch": 2}):
        assert seconds(**changes) >= seconds()


def test_constants_that_stream_from_memory_cost_more(model):
    shape, form = LayerShape.linear(16, 1024, 1024), Form.parse("plain-v4")
    near, far = (model.seconds(shape, form, constant_bytes=size) for size in (1e6, 1e9))
    assert far >= near
    if model.isa != "scalar":
        assert far > 1.2 * near


def test_a_shared_encode_is_not_paid_twice(model):
    shape, form = LayerShape.linear(128, 384, 384), Form.parse("gain-v3")
    whole = model.seconds(shape, form, constant_bytes=1e6)
    part = model.seconds(shape, form, constant_bytes=1e6, shared_encode=True)
    encode = model.encode_seconds(shape, form, constant_bytes=1e6)
    assert encode > 0
    assert math.isclose(whole, part + encode)


def test_a_model_survives_storage(model):
    text = model.to_json()
    again = CostModel.from_json(text, "measured")
    assert again.to_json() == text
    assert again.source == "measured"
    for work in works(CONV, Form.parse("gain-v4"), model.isa):
        a, b = (m.step_seconds(work, constant_bytes=1e6) for m in (model, again))
        assert math.isclose(a, b, rel_tol=1e-3)


def test_the_fit_finds_known_prices():
    rng = np.random.default_rng(0)
    samples = []
    for _ in range(60):
        amounts = {"call": 1.0, "products": float(10 ** rng.uniform(3, 7)), "outputs": float(10 ** rng.uniform(2, 5))}
        arrival = 10 ** rng.uniform(-8, -3)
        work = 1e-7 + 2e-11 * amounts["products"] + 3e-10 * amounts["outputs"]
        seconds = (work**3 + (1.5 * arrival) ** 3) ** (1 / 3)
        samples.append(Sample(amounts, arrival, seconds * float(rng.uniform(0.98, 1.02))))
    price = fit_price(samples)
    assert price.terms["products"] == pytest.approx(2e-11, rel=0.05)
    assert price.terms["outputs"] == pytest.approx(3e-10, rel=0.05)
    assert price.streaming == pytest.approx(1.5, rel=0.05)
    assert price.overlap == pytest.approx(3, rel=0.2)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}', '{"format": 99}', "\0\xff"])
def test_a_corrupt_cache_is_ignored_with_a_note(tmp_path, monkeypatch, text):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = cache_path("avx2")
    path.parent.mkdir(parents=True)
    path.write_bytes(text.encode("latin-1"))
    notes: list[str] = []
    assert load("avx2", notes.append).source == "shipped"
    assert len(notes) == 1
    assert str(path) in notes[0]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rates", []),
        ("rates", [[1, -1]]),
        ("rates", [[2, 1], [1, 1]]),
        ("isa", "sse"),
        ("error", None),
        ("prices", {"dense.linear": {"terms": {"call": float("nan")}, "streaming": 1, "overlap": 1}}),
        ("prices", {"dense.linear": {"terms": {"call": 1}, "streaming": 1, "overlap": 0}}),
        ("prices", {"dense.linear": 3}),
    ],
)
def test_a_damaged_model_is_refused(model, key, value):
    found = json.loads(model.to_json())
    found[key] = value
    with pytest.raises(ValueError, match=r".+"):
        CostModel.from_json(json.dumps(found), "measured")


def test_unknown_names_are_a_usage_error():
    for name in ("sse2", "native", ""):
        with pytest.raises(UsageError, match="x86-64-v4"):
            load(name)


def test_terms_that_no_sample_has_get_no_price():
    samples = [Sample({"rows": float(n), "stores": 0.0}, 0.0, 2e-6 * n) for n in (1, 2, 5, 9)]
    price = fit_price(samples)
    assert price.terms == {"rows": pytest.approx(2e-6, rel=1e-3)}


def test_a_target_without_kernels_is_priced_with_a_note(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    notes: list[str] = []
    assert load("aarch64", notes.append).isa == "scalar"
    assert "no kernels" in notes[0]


def test_measuring_a_few_layers_gives_a_model(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    isa = _runtime.available_isas()[-1]
    model = measure(isa, grid=tiny_grid(isa), rates=[(1e5, 1e11), (1e8, 2e10)])
    assert model.source == "measured"
    assert model.error < 0.5
    for form in ("fp32", "int8", "gain-v4"):
        for rows in (1, 40):
            assert 0 < model.seconds(LayerShape.linear(rows, 32, 64), Form.parse(form), constant_bytes=1e4) < 1e-2
    with pytest.raises(UsageError, match="--measure"):
        model.seconds(CONV, Form.parse("fp32"), constant_bytes=1e4)
    path = save(model)
    assert path is not None
    assert load(isa).source == "measured"
    assert load(isa).to_json() == model.to_json()


def test_every_step_of_a_chain_is_found():
    isa = _runtime.available_isas()[-1]
    conv = dataclasses.replace(CONV, D=16, N=16, image=(6, 6), residual=True)
    grid = [
        Chain(((conv, Form.parse("gain-v4")), (conv, Form.parse("int8")), (conv, Form.parse("fp32")))),
        Chain(((LayerShape("attention", 32, 32, image=(8, 8), heads=2), Form.parse("int8")),)),
        Chain(((LayerShape.linear(5, 32, 32, activation="gelu", residual=True), Form.parse("plain-v4")),), (5, 40)),
        Chain(((LayerShape.linear(5, 32, 32, activation="gelu", residual=True), Form.parse("plain-v4")),), (5,)),
    ]
    families = [timing.work.family.split(".")[0] for timing in run_grid(isa, grid)]
    fixed = ["encode", "conv", "int8", "dense", "attention"]
    many = "gather" if isa == "scalar" else "lookup"
    assert families == [*fixed, "encode", many, "encode", many, "encode", "gather"]


def test_shapes_of_a_model(tmp_path):
    rng = np.random.default_rng(0)

    def constant(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(rng.standard_normal(shape, dtype=np.float32), name)

    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "first", pads=[1, 1, 1, 1], strides=[2, 1], kernel_shape=[3, 3]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Transpose", ["r"], ["t"], perm=[0, 2, 3, 1]),
        helper.make_node("MatMul", ["t", "m"], ["p"], "second"),
        helper.make_node("Add", ["p", "b"], ["q"]),
        helper.make_node("Tanh", ["q"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4, 6, 5])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "h", "w", 12])],
        [constant("w", 8, 4, 3, 3), constant("m", 8, 12), constant("b", 12)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), tmp_path / "m.onnx")
    model = canonicalise(load_model(tmp_path / "m.onnx"))
    choices = choose_layers(model)
    found = layer_shapes(model, choices, {"x": (3, None, None, None)})
    first, second = (found.layers[choice.name] for choice in choices)
    assert first == LayerShape(
        "conv", 4, 8, batch=3, image=(6, 5), kernel=(3, 3), strides=(2, 1), pads=(1, 1, 1, 1), activation="relu"
    )
    assert (first.rows, first.in_rows) == (3 * 3 * 5, 3 * 6 * 5)
    assert second == dataclasses.replace(LayerShape.linear(45, 8, 12, activation="tanh"), open_rows=True)
    assert found.rest_seconds > 0
    assert [choice.node.name for choice in choices] == [choice.node.name for choice in choose_layers(model)]


@pytest.mark.parametrize(
    ("between", "nonnegative"),
    [
        (["Relu"], True),
        (["Neg"], False),
        (["Relu", "AveragePool"], True),
        (["Neg", "Sigmoid"], True),
        (["Relu", "Neg"], False),
        (["Relu", "Add"], False),
        (["Add", "Relu"], True),
    ],
)
def test_images_without_negative_numbers_are_known(tmp_path, between, nonnegative):
    rng = np.random.default_rng(0)
    weights = [numpy_helper.from_array(rng.standard_normal((4, 4, 3, 3), dtype=np.float32), f"w{i}") for i in (0, 1)]
    pads = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes = [helper.make_node("Conv", ["x", "w0"], ["v0"], "first", **pads)]
    for number, op in enumerate(between):
        inputs = [f"v{number}", "x"] if op == "Add" else [f"v{number}"]
        nodes.append(helper.make_node(op, inputs, [f"v{number + 1}"], **(pads if op == "AveragePool" else {})))
    nodes.append(helper.make_node("Conv", [f"v{len(between)}", "w1"], ["y"], "second", **pads))
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4, 6, 5]) for name in "xy")
    graph = helper.make_graph(nodes, "g", [x], [y], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), tmp_path / "m.onnx")
    model = canonicalise(load_model(tmp_path / "m.onnx"))
    choices = choose_layers(model)
    layers = layer_shapes(model, choices).layers
    assert [layers[choice.name].nonnegative for choice in choices] == [False, nonnegative]


def test_a_kernel_for_unsigned_images_has_prices_of_its_own():
    conv = LayerShape("conv", 32, 48, image=(20, 24), kernel=(3, 3), pads=(1, 1, 1, 1))
    behind = dataclasses.replace(conv, nonnegative=True)
    for isa, kernels in KERNELS.items():
        plain, unsigned = (works(shape, Form.parse("int8"), isa)[0].family for shape in (conv, behind))
        assert (plain != unsigned) == (kernels.unsigned_unit > 0)


def test_targets_are_listed(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert main(["targets", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["target"] for row in found["targets"]] == list(ISAS)
    assert {row["source"] for row in found["targets"]} == {"shipped"}
    assert main(["targets", "--isa", "avx2"]) == 2
    assert main(["targets", "--measure", "--isa", "sse"]) == 2
