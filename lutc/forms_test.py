"""Forms are read and printed; the choice of layers follows its rules and says why."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from lutc.errors import UsageError
from lutc.forms import Form, choose_layers


def constant(graph_inits, name, array):
    value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
    graph_inits.append(value)
    return value


def small_network(channels=3):
    """Convolutions 3 -> 16 (first), 16 -> 16 depthwise, 16 -> 32, then a linear 32 -> 10."""
    inits = []
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["n", channels, 8, 8]))
    w = np.zeros
    conv1 = ir.node("Conv", [x, constant(inits, "w1", w((16, channels, 3, 3), np.float32))], name="stem")
    conv2 = ir.node(
        "Conv", [conv1.outputs[0], constant(inits, "w2", w((16, 1, 3, 3), np.float32))],
        attributes={"group": 16}, name="depthwise",
    )  # fmt: skip
    conv3 = ir.node("Conv", [conv2.outputs[0], constant(inits, "w3", w((32, 16, 1, 1), np.float32))], name="wide")
    pool = ir.node("ReduceMean", [conv3.outputs[0], constant(inits, "axes", np.array([2, 3]))], name="pool")
    weight = constant(inits, "w4", w((32, 10), np.float32))
    bias = constant(inits, "b4", w(10, np.float32))
    last = ir.node("Linear", [pool.outputs[0], weight, bias], domain="ai.lutc", name="classifier")
    nodes = [conv1, conv2, conv3, pool, last]
    graph = ir.Graph([x], last.outputs, nodes=nodes, initializers=inits, opset_imports={"": 23, "ai.lutc": 1}, name="g")
    return ir.Model(graph, ir_version=10)


@pytest.mark.parametrize(
    "text",
    [
        *("fp32", "gain-v3", "gain-v4k8", "plain-v8", "gain-v4-proj", "gain-v4-block64", "gain-v3k4-g15", "gain-v12"),
        *("gain-v4t7", "gain-v4t8", "gain-v3k8t6-g15-block32"),
    ],
)
def test_forms_print_as_they_are_read(text):
    assert str(Form.parse(text)) == text


def test_defaults_of_a_form():
    form = Form.parse("gain-v3")
    assert (form.entries, form.gain_limit, form.projection) == (16, 63, "none")
    assert Form.parse("plain-v8").gain_limit == 0
    assert (form.table_bits, Form.parse("gain-v3t7").table_bits) == (0, 7)


@pytest.mark.parametrize(
    "text",
    [
        *("", "gain", "gain-v1", "gain-v17", "plain-v33", "gain-v4k5", "plain-v8-g15", "gain-v4-block1", "int4"),
        *("gain-v4t5", "gain-v4t9", "gain-v4t", "plain-v8t7", "gain-v4t7k8"),
    ],
)
def test_bad_forms_are_usage_errors(text):
    with pytest.raises(UsageError):
        Form.parse(text)


def test_what_does_not_pay_stays_dense_and_says_why():
    choices = {choice.name: choice for choice in choose_layers(small_network(), "gain-v3")}
    assert choices["stem"].why == "first convolution"
    assert choices["depthwise"].why == "depthwise"
    assert str(choices["wide"].form) == "gain-v3"
    assert choices["classifier"].form.dense
    assert (choices["wide"].D, choices["wide"].N, choices["wide"].kind) == (16, 32, "conv")


def test_rules_override_the_preset():
    model = small_network()
    forms = {c.name: str(c.form) for c in choose_layers(model, "plain-v8", [("wide", "fp32")], [("cl.*r", "gain-v2")])}
    assert forms == {"stem": "fp32", "depthwise": "fp32", "wide": "fp32", "classifier": "gain-v2"}


@pytest.mark.parametrize(
    ("keep", "form", "match"),
    [
        ([("nothing", "fp32")], [], "wide"),
        ([], [("nothing", "gain-v3")], "classifier"),
        ([("(", "fp32")], [], "regular expression"),
        ([("wide", "gain-v3")], [], "--form"),
        ([], [("wide", "gain-v4-proj")], "projection"),
        ([], [("depthwise", "gain-v4")], "depthwise"),
    ],
)
def test_bad_rules_name_the_layers(keep, form, match):
    with pytest.raises(UsageError, match=match):
        choose_layers(small_network(), "gain-v3", keep, form)


def test_the_int8_preset_leaves_few_layers_alone():
    forms = {c.name: (str(c.form), c.why) for c in choose_layers(small_network(), "int8")}
    assert forms["stem"] == forms["wide"] == ("int8", "preset int8")
    assert forms["depthwise"][0] == "fp32" and "accuracy" in forms["depthwise"][1]
    assert forms["classifier"][0] == "fp32" and "tiny" in forms["classifier"][1]
    assert str(choose_layers(small_network(), "int8", keep=[("depth", "int8")])[1].form) == "int8"


def test_a_stem_of_one_channel_is_not_depthwise():
    model = small_network(channels=1)
    assert str(choose_layers(model, "int8")[0].form) == "int8"
    assert choose_layers(model, "gain-v3")[0].why == "first convolution"
    with pytest.raises(UsageError, match="one channel"):
        choose_layers(model, "gain-v3", form=[("stem", "gain-v4")])


def with_attention():
    """A linear 32 -> 96, split into q, k and v, attention over 4 heads."""
    inits = []
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["n", "l", 32]))
    weight = constant(inits, "w", np.zeros((32, 96), np.float32))
    linear = ir.node(
        "Linear", [x, weight, constant(inits, "b", np.zeros(96, np.float32))], domain="ai.lutc", name="qkv"
    )
    split = ir.node("Split", linear.outputs, attributes={"axis": -1, "num_outputs": 3}, num_outputs=3, name="split")
    for part in split.outputs:
        part.shape = ir.Shape(["n", "l", 32])
    attributes = {"num_heads": 4, "kv_num_heads": 4, "scale": 0.5}
    mask = constant(inits, "m", np.float32(0))
    mix = ir.node("Attention", [*split.outputs, mask], attributes, domain="ai.lutc", name="qkv/mix")
    nodes = [linear, split, mix]
    graph = ir.Graph([x], mix.outputs, nodes=nodes, initializers=inits, opset_imports={"": 23, "ai.lutc": 1}, name="g")
    return ir.Model(graph, ir_version=10)


def forms_of(*arguments, **rules):
    return {c.name: str(c.form) for c in choose_layers(with_attention(), *arguments, **rules)}


@pytest.mark.parametrize("preset", ["int8", "gain-v3"])
def test_attention_is_integer_when_another_layer_is_replaced(preset, monkeypatch):
    monkeypatch.setattr("lutc.forms.INTEGER_ATTENTION", True)
    assert forms_of(preset)["qkv/mix"] == "int8"
    assert forms_of(preset, keep=[("qkv$", "fp32")])["qkv/mix"] == "fp32"
    assert forms_of(preset, keep=[("mix", "fp32")])["qkv/mix"] == "fp32"


def test_a_rule_sees_the_layers_that_can_take_its_form():
    assert forms_of("gain-v3", form=[("qkv", "int8")])["qkv"] == "int8"
    assert forms_of("gain-v3", keep=[("qkv/mix", "int8")])["qkv/mix"] == "int8"
    assert forms_of("gain-v3", keep=[("qkv", "fp32")]) == {"qkv": "fp32", "qkv/mix": "fp32"}
    with pytest.raises(UsageError, match="qkv/mix"):
        forms_of("gain-v3", keep=[("split", "int8")])


def test_unknown_preset():
    with pytest.raises(UsageError, match="balanced"):
        choose_layers(small_network(), "quick")
