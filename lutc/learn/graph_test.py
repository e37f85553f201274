"""The interpreter computes what ONNX Runtime does, and on compressed models what the lookup session does."""

# ruff: noqa: E402

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

torch = pytest.importorskip("torch")

from lutc.errors import UnsupportedModelError
from lutc.fit import fit_model
from lutc.fit.session import LookupSession
from lutc.forms import choose_layers
from lutc.ir.expand import with_tables
from lutc.ir.lookup import lookup_parameters
from lutc.learn.driver import _usage
from lutc.learn.export import export
from lutc.learn.graph import GraphModule, check_learnable
from lutc.learn.layers import LookupLayer
from lutc.learn.testing import conv_network, images, sentences, token_network
from lutc.observe import open_source
from lutc.passes.quantise_dense import QuantiseDense

NETWORKS = {"conv": (conv_network, images), "tokens": (token_network, sentences)}
FORMS = [
    ("gain-v4", False),
    ("gain-v5k4", True),
    ("gain-v3-g15", False),
    ("plain-v4", False),
    ("plain-v8k8", True),
]


def compressed(kind, form, samples=96, size="fast"):
    build, make = NETWORKS[kind]
    data = make(samples)
    dense = build()
    rules = [(f"^{choice.name}$", form) for choice in choose_layers(dense, "gain-v4") if not choice.form.dense]
    choices = choose_layers(dense, "gain-v4", form=rules)
    return build(), fit_model(dense, choices, open_source(data), threads=1, size=size), data


def run(module, batch):
    with torch.no_grad():
        return module({name: torch.from_numpy(array) for name, array in batch.items()})["y"].numpy()


def distance(a, b):
    return float(((a - b) ** 2).mean() / a.var())


@pytest.mark.parametrize("kind", NETWORKS)
def test_dense_models_equal_onnx_runtime(kind):
    build, make = NETWORKS[kind]
    model = build()
    for batch in make(48):
        expected = LookupSession(model).run(None, batch)[0]
        np.testing.assert_allclose(run(GraphModule(model), batch), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", NETWORKS)
def test_int8_layers_are_simulated(kind):
    build, make = NETWORKS[kind]
    model, batch = build(), make(16)[0]
    integer = [str(node.outputs[0].name) for node in model.graph if node.op_type in ("Linear", "Conv")]
    simulated = run(GraphModule(model, integer=integer), batch)
    expected = LookupSession(QuantiseDense(integer)(build()).model).run(None, batch)[0]
    dense = run(GraphModule(model), batch)
    assert distance(expected, simulated) < 0.05 * distance(expected, dense)


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize(("form", "free"), FORMS)
def test_export_is_what_the_module_computes(kind, form, free):
    dense, fitted, data = compressed(kind, form)
    module = GraphModule(fitted.model, fitted.factors, layer=lambda p, f: LookupLayer(p, f, free=free))
    if free:
        before = LookupSession(fitted.model).run(None, data[0])[0]
        assert distance(run(module, data[0]), before) < 1e-3
    with torch.no_grad():
        for parameter in module.parameters():  # as if it had learned something
            parameter.mul_(1 + 0.02 * torch.rand(parameter.shape, generator=torch.Generator().manual_seed(1)))
    exported = export(module, _usage(module, data, 32, torch.device("cpu")))
    model = exported.model
    assert free or all(factor.exact for factor in exported.factors.values())
    reference = LookupSession(dense).run(None, data[0])[0]
    ours, exported = run(module, data[0]), LookupSession(model).run(None, data[0])[0]
    assert distance(ours, exported) < 0.01
    assert distance(ours, exported) < 0.5 * distance(reference, ours)


@pytest.mark.parametrize("kind", NETWORKS)
def test_tables_made_from_factors_stay_so(kind):
    _, fitted, data = compressed(kind, "gain-v4", size="small")
    module = GraphModule(fitted.model, fitted.factors)
    model = export(module, _usage(module, data, 32, torch.device("cpu"))).model
    assert [node.op_type for node in model.graph] == [node.op_type for node in fitted.model.graph]
    assert distance(run(module, data[0]), LookupSession(model).run(None, data[0])[0]) < 0.01


@pytest.mark.parametrize("kind", NETWORKS)
def test_tied_tables_become_factors_where_asked(kind):
    _, fitted, data = compressed(kind, "gain-v4")
    module = GraphModule(fitted.model, fitted.factors)
    exported = export(module, _usage(module, data, 32, torch.device("cpu")), "auto")
    makers = [node for node in exported.model.graph if node.op_type.startswith("Expand")]
    assert makers and not any(node.op_type.startswith("Expand") for node in fitted.model.graph)
    assert sum(stored < whole for stored, whole in exported.nbytes.values()) == len(makers)
    assert distance(run(module, data[0]), LookupSession(exported.model).run(None, data[0])[0]) < 0.01


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("size", ["fast", "small"])
def test_tables_of_seven_bits_stay_so(kind, size):
    _, fitted, data = compressed(kind, "gain-v4t7", size=size)
    module = GraphModule(fitted.model, fitted.factors)
    exported = export(module, _usage(module, data, 32, torch.device("cpu")), size)
    lookups = [node for node in with_tables(exported.model).graph if node.op_type in ("LutLinear", "LutConv")]
    assert lookups and {np.abs(lookup_parameters(node).table.astype(int)).max() for node in lookups} == {63}
    assert {factors.limit for factors in exported.factors.values()} == {63}


def test_unknown_operators_are_named_before_any_work():
    model = conv_network()
    node = next(node for node in model.graph if node.op_type == "MaxPool")
    node.op_type = "LpPool"
    with pytest.raises(UnsupportedModelError, match="LpPool"):
        check_learnable(model)


@pytest.mark.parametrize(
    ("attribute", "value", "said"), [("auto_pad", "SAME_UPPER", "auto_pad SAME_UPPER"), ("ceil_mode", 1, "ceil_mode")]
)
def test_attributes_that_are_not_followed_are_named_before_any_work(attribute, value, said):
    model = conv_network()
    node = next(node for node in model.graph if node.op_type == "MaxPool")
    node.op_type = "AveragePool"
    check_learnable(model)
    node.attributes[attribute] = ir.Attr(
        attribute, ir.AttributeType.STRING if isinstance(value, str) else ir.AttributeType.INT, value
    )
    with pytest.raises(UnsupportedModelError, match=f"AveragePool with {said}"):
        check_learnable(model)


@pytest.mark.parametrize(
    ("mode", "how"), [("nearest", "asymmetric"), ("linear", "half_pixel"), ("linear", "align_corners")]
)
@pytest.mark.parametrize("by_sizes", [False, True])
def test_resize_equals_onnx_runtime(mode, how, by_sizes):
    target = np.array([1, 2, 10, 7], np.int64) if by_sizes else np.array([1, 1, 2, 1.5], np.float32)
    attributes = {"mode": mode, "coordinate_transformation_mode": how, "nearest_mode": "floor"}
    names = ["x", "", "", "t"] if by_sizes else ["x", "", "t"]
    node = onnx.helper.make_node("Resize", names, ["y"], **attributes)
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [node],
        "resize",
        [value("x", onnx.TensorProto.FLOAT, [1, 2, 5, 6])],
        [value("y", onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(target, "t")],
    )
    model = ir.from_proto(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)
    )
    x = np.random.default_rng(0).normal(size=(1, 2, 5, 6)).astype(np.float32)
    expected = LookupSession(model).run(None, {"x": x})[0]
    np.testing.assert_allclose(run(GraphModule(model), {"x": x}), expected, rtol=1e-4, atol=1e-5)
