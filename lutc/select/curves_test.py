"""Candidates judged by what they do to the outputs, against the real operators in their place."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from lutc.canonicalise import canonicalise
from lutc.divergence import Reference
from lutc.fit import fit_model
from lutc.forms import FP32, INT8, Form, choose_layers
from lutc.load import load_model
from lutc.observe import open_source
from lutc.passes.quantise_dense import QuantiseDense
from lutc.select.candidates import Priced
from lutc.select.curves import Curves, measure_curves
from lutc.select.network import Network
from tests.small_models import deep_mlp

FORMS = [FP32, INT8, *map(Form.parse, ("gain-v2", "gain-v4", "gain-v8"))]


def batches(count, seed):
    basis = np.random.default_rng(3).normal(size=(12, 48))
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(count, 12)) @ basis + 0.2 * rng.normal(size=(count, 48))
    return [{"x": part.astype(np.float32)} for part in np.split(rows, 4)]


@pytest.fixture(scope="module")
def graph():
    return canonicalise(load_model(deep_mlp(3, 48)))


def points_of(graph, curves, limit=1e9, forms=FORMS):
    choices = choose_layers(graph, "int8")
    network = Network(ir.to_proto(graph), [str(c.node.outputs[0].name) for c in choices], 1)
    layers = {str(c.node.outputs[0].name): (c, [Priced(form, 1.0, 1) for form in forms]) for c in choices}
    return measure_curves(
        network, layers, batches(800, 1), batches(80, 2), curves=curves, limit=limit, seed=0, threads=1
    )


@pytest.fixture(scope="module")
def points(graph):
    return points_of(graph, Curves(None, ""))


def test_coarser_forms_err_more(points):
    for found in points.values():
        assert [point.form for point in found] == FORMS
        errors = [point.error for point in found]
        assert errors[0] == 0 and errors == sorted(errors) and errors[-1] < 1
        divergences = [point.divergence for point in found]
        assert divergences[0] < 1e-9 and divergences == sorted(divergences)


def test_int8_is_what_the_operator_answers(graph, points):
    choice = choose_layers(graph, "int8")[1]
    quantised = QuantiseDense([str(choice.node.outputs[0].name)])(graph.clone()).model
    session = onnxruntime.InferenceSession(ir.to_proto(quantised).SerializeToString())
    original = onnxruntime.InferenceSession(deep_mlp(3, 48).SerializeToString())
    judge = batches(80, 2)
    reference = Reference(judge, [{"y": original.run(["y"], batch)[0]} for batch in judge])
    measured = reference.divergence([{"y": session.run(["y"], batch)[0]} for batch in judge])
    assert points[choice.name][1].divergence == pytest.approx(measured, rel=0.02)


def test_lookups_are_about_what_a_whole_fit_answers(graph, points):
    choices = choose_layers(graph, "fp32", form=[("layer1", "gain-v4")])
    fitted = fit_model(graph, choices, open_source(batches(800, 1)), threads=1, size="small")
    session = onnxruntime.InferenceSession(ir.to_proto(fitted.model).SerializeToString())
    original = onnxruntime.InferenceSession(deep_mlp(3, 48).SerializeToString())
    judge = batches(80, 2)
    reference = Reference(judge, [{"y": original.run(["y"], batch)[0]} for batch in judge])
    measured = reference.divergence([{"y": session.run(["y"], batch)[0]} for batch in judge])
    assert points["layer1"][3].divergence == pytest.approx(measured, rel=0.1)


def test_what_is_known_is_not_fitted_again(graph, points, tmp_path, monkeypatch):
    first = points_of(graph, Curves(tmp_path, "key"), forms=FORMS[:4])
    monkeypatch.setattr("lutc.select.curves.fit_linear", None)
    assert points_of(graph, Curves(tmp_path, "key"), forms=FORMS[:4]) == first
    assert Curves(tmp_path, "other key").get("layer0", INT8) is None
    next(tmp_path.glob("*.json")).write_text("{")
    assert Curves(tmp_path, "key").get("layer0", INT8) is None


def test_coarser_forms_are_skipped_once_the_budget_is_left(graph):
    found = points_of(graph, Curves(None, ""), limit=1e-9)
    assert all([p.form for p in each] == FORMS[:3] for each in found.values())


def images(count, seed):
    return [{"x": np.random.default_rng(seed).normal(size=(count, 8, 9, 7)).astype(np.float32).cumsum(axis=3)}]


@pytest.fixture(scope="module")
def convolutions():
    """x [n, 8, 9, 7] -> Conv 16, strided and padded -> Relu -> Conv 8 without bias -> y."""
    rng = np.random.default_rng(4)
    weights = {
        "a": rng.normal(size=(16, 8, 3, 3)) / 8,
        "b": rng.normal(size=16),
        "c": rng.normal(size=(8, 16, 1, 1)) / 4,
    }
    nodes = [
        onnx.helper.make_node("Conv", ["x", "a", "b"], ["h"], name="first", strides=[2, 1], pads=[1, 0, 1, 2]),
        onnx.helper.make_node("Relu", ["h"], ["r"]),
        onnx.helper.make_node("Conv", ["r", "c"], ["y"], name="second"),
    ]
    ports = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["n", 8, None, None]) for n in "xy"]
    ports[0] = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 8, 9, 7])
    constants = [onnx.numpy_helper.from_array(w.astype(np.float32), name) for name, w in weights.items()]
    graph = onnx.helper.make_graph(nodes, "convolutions", ports[:1], ports[1:], constants)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)


def test_threads_try_the_same(convolutions):
    graph = canonicalise(load_model(convolutions))
    choices = choose_layers(graph, "fp32", form=[(".", "int8")])
    forms = [FP32, *map(Form.parse, ("gain-v2", "gain-v4", "plain-v4", "plain-v8"))]
    layers = {str(c.node.outputs[0].name): (c, [Priced(form, 1.0, 1) for form in forms]) for c in choices}
    for limit in (1e9, 0.05):  # the second leaves some out, also of those that were fitted ahead
        found = []
        for threads in (1, 3):
            network = Network(ir.to_proto(graph), layers, threads)
            measured = measure_curves(
                network, layers, images(40, 1), images(6, 2), curves=Curves(None, ""), limit=limit, seed=0,
                threads=threads,
            )  # fmt: skip
            found.append(measured)
        one, three = ([(name, p.form, p.bytes) for name, points in each.items() for p in points] for each in found)
        assert one == three
        assert all(
            a.divergence == pytest.approx(b.divergence, rel=1e-3)
            for name, points in found[0].items()
            for a, b in zip(points, found[1][name], strict=True)
        )
        assert (len(one) < len(layers) * len(forms)) == (limit < 1)


def test_convolutions_in_int8_and_lookups(convolutions):
    graph = canonicalise(load_model(convolutions))
    choices = choose_layers(graph, "fp32", form=[(".", "int8")])
    forms = [FP32, INT8, Form.parse("gain-v2"), Form.parse("gain-v4")]
    layers = {str(c.node.outputs[0].name): (c, [Priced(form, 1.0, 1) for form in forms]) for c in choices}
    network = Network(ir.to_proto(graph), layers, 1)
    points = measure_curves(
        network, layers, images(40, 1), images(6, 2), curves=Curves(None, ""), limit=1e9, seed=0, threads=1
    )
    original = onnxruntime.InferenceSession(convolutions.SerializeToString())
    judge = images(6, 2)
    reference = Reference(judge, [{"y": original.run(["y"], batch)[0]} for batch in judge])
    for choice in choices:
        quantised = QuantiseDense([str(choice.node.outputs[0].name)])(graph.clone()).model
        session = onnxruntime.InferenceSession(ir.to_proto(quantised).SerializeToString())
        measured = reference.divergence([{"y": session.run(["y"], batch)[0]} for batch in judge])
        found = points[choice.name]
        assert found[1].divergence == pytest.approx(measured, rel=0.02)
        assert found[0].error < found[1].error < found[2].error < found[3].error < 1
