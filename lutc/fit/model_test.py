"""Whole models: fitted, rewritten, resumed; the same in ONNX Runtime as in the fast session."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from lutc.errors import UsageError
from lutc.fit import fit_model
from lutc.fit import model as model_module
from lutc.fit.executor import CutModel
from lutc.fit.session import LookupSession
from lutc.forms import choose_layers
from lutc.ir.linear import linear_function
from lutc.observe import open_source

RNG = np.random.default_rng(0)


def model_of(nodes, inputs, outputs, inits):
    graph = ir.Graph(inputs, outputs, nodes=nodes, initializers=inits, opset_imports={"": 23, "ai.lutc": 1}, name="g")
    function = linear_function()
    for value in outputs:
        value.type = ir.TensorType(ir.DataType.FLOAT)
    return ir.Model(graph, ir_version=10, functions=[function])


def value(name, shape):
    return ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(shape))


def linear_network():
    """x -> relu(linear) -> linear + x, twice: a residual network on rows of 32 features."""
    rng = np.random.default_rng(1)
    inits, nodes = [], []

    def linear(name, x, features, outputs):
        constants = []
        for key, array in (
            ("w", rng.normal(size=(features, outputs)) * features**-0.5),
            ("b", rng.normal(size=outputs)),
        ):
            constant = ir.Value(
                name=f"{name}.{key}", const_value=ir.tensor(array.astype(np.float32), name=f"{name}.{key}")
            )
            inits.append(constant)
            constants.append(constant)
        nodes.append(ir.node("Linear", [x, *constants], domain="ai.lutc", name=name))
        nodes[-1].outputs[0].name = f"{name}.y"
        return nodes[-1].outputs[0]

    def op(kind, *inputs):
        nodes.append(ir.node(kind, inputs))
        nodes[-1].outputs[0].name = f"{kind}{len(nodes)}"
        return nodes[-1].outputs[0]

    x = start = value("x", ["rows", 32])
    for block in range(2):
        x = op("Add", linear(f"down{block}", op("Relu", linear(f"up{block}", x, 32, 48)), 48, 32), x)
    return model_of(nodes, [start], [x], inits)


def conv_network():
    """A stem, then a residual block whose second convolution strides and whose shortcut is a convolution."""
    rng = np.random.default_rng(2)
    inits, nodes = [], []

    def conv(name, x, shape, **attributes):
        w = ir.Value(
            name=f"{name}.w", const_value=ir.tensor((rng.normal(size=shape) / 6).astype(np.float32), name=f"{name}.w")
        )
        b = ir.Value(
            name=f"{name}.b", const_value=ir.tensor(rng.normal(size=shape[0]).astype(np.float32), name=f"{name}.b")
        )
        inits.extend([w, b])
        nodes.append(ir.node("Conv", [x, w, b], attributes={"kernel_shape": shape[2:], **attributes}, name=name))
        nodes[-1].outputs[0].name = f"{name}.y"
        return nodes[-1].outputs[0]

    def op(kind, *inputs):
        nodes.append(ir.node(kind, inputs))
        nodes[-1].outputs[0].name = f"{kind}{len(nodes)}"
        return nodes[-1].outputs[0]

    x = value("x", ["n", 3, 9, 9])
    stem = op("Relu", conv("stem", x, (16, 3, 3, 3), pads=[1, 1, 1, 1]))
    first = op("Relu", conv("first", stem, (16, 16, 3, 3), pads=[0, 1, 2, 1]))
    second = conv("second", first, (16, 8, 3, 3), pads=[1, 1, 1, 1], strides=[2, 2], group=2)
    short = conv("shortcut", stem, (16, 16, 1, 1), strides=[2, 2])
    total = op("Relu", op("Add", second, short))
    wide = conv("wide", total, (24, 16, 3, 3), dilations=[2, 2], pads=[2, 2, 2, 2])
    last = conv("last", wide, (10, 24, 1, 1))
    return model_of(nodes, [x], [last], inits)


def rows(seed, batches=6, size=300):
    rng = np.random.default_rng(seed)
    return [{"x": rng.normal(size=(size, 32)).astype(np.float32)} for _ in range(batches)]


def images(seed, batches=5):
    rng = np.random.default_rng(seed)
    return [{"x": rng.normal(size=(8, 3, 9, 9)).astype(np.float32)} for _ in range(batches)]


def ort_run(model, feed):
    return onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString()).run(None, feed)[0]


def serial(model):
    return ir.to_proto(model).SerializeToString(deterministic=True)


@pytest.mark.parametrize(("network", "feeds"), [(linear_network, rows), (conv_network, images)])
def test_fitted_model_runs_in_onnx_runtime_and_is_close(network, feeds):
    model = network()
    before = serial(model)
    choices = choose_layers(model, "gain-v3")
    result = fit_model(model, choices, open_source(feeds(0)), threads=1)
    assert serial(model) == before
    names = {choice.name for choice in choices if not choice.form.dense}
    assert {layer.name for layer in result.layers} == names
    assert len(names) == 4
    feed = feeds(9)[0]
    expected, got = ort_run(model, feed), ort_run(result.model, feed)
    assert ((expected - got) ** 2).sum() < 0.1 * ((expected - expected.mean()) ** 2).sum()
    fast = LookupSession(result.model).run(None, feed)[0]
    np.testing.assert_allclose(fast, got, atol=2e-4 * np.abs(got).max())
    assert all(0 <= layer.error < 0.2 for layer in result.layers)
    assert 0 < next(iter(result.output_error.values())) < 0.1


def test_same_seed_same_bytes():
    model = linear_network()
    choices = choose_layers(model, "gain-v4")
    first, second, other = (
        serial(fit_model(model, choices, open_source(rows(0)), seed=seed, threads=1).model) for seed in (5, 5, 6)
    )
    assert first == second
    assert first != other


def test_resume_repeats_no_finished_layer(tmp_path, monkeypatch):
    model = linear_network()
    choices = choose_layers(model, "gain-v4")
    expected = serial(fit_model(model, choices, open_source(rows(0)), threads=1).model)
    calls = []
    original = model_module.fit_linear

    def interrupted(*args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    monkeypatch.setattr(model_module, "fit_linear", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit_model(model, choices, open_source(rows(0)), threads=1, checkpoint_dir=tmp_path)
    assert len(list(tmp_path.glob("*.npz"))) == 2
    assert not list(tmp_path.glob("*.tmp"))
    resumed = fit_model(model, choices, open_source(rows(0)), threads=1, checkpoint_dir=tmp_path)
    assert len(calls) == 5
    assert serial(resumed.model) == expected
    # Other samples must not pick these layers up.
    fit_model(model, choices, open_source(rows(1)), threads=1, checkpoint_dir=tmp_path)
    assert len(calls) == 9


def test_a_damaged_checkpoint_is_fitted_again(tmp_path):
    model = linear_network()
    choices = choose_layers(model, "gain-v4")
    first = fit_model(model, choices, open_source(rows(0)), threads=1, checkpoint_dir=tmp_path)
    path = sorted(tmp_path.glob("*.npz"))[0]
    path.write_bytes(path.read_bytes()[:200])
    again = fit_model(model, choices, open_source(rows(0)), threads=1, checkpoint_dir=tmp_path)
    assert serial(again.model) == serial(first.model)


def test_padding_is_not_fitted():
    """Rows that the mask hides must not change the fit, whatever they hold."""
    model = linear_network()
    graph = model.graph
    mask = ir.Value(name="attention_mask", type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape(["n", "l"]))
    graph.inputs.append(mask)
    graph.inputs[0].shape = ir.Shape(["n", "l", 32])
    choices = choose_layers(model, "gain-v4")
    results = []
    for filler in (0.0, 1000.0):
        feeds = []
        for batch in rows(0):
            x = batch["x"].reshape(30, 10, 32).copy()
            m = np.ones((30, 10), np.int64)
            m[:, 7:] = 0
            x[:, 7:] = filler
            feeds.append({"x": x, "attention_mask": m})
        results.append(fit_model(model, choices, open_source(feeds), threads=1))
    assert [layer.error for layer in results[0].layers] == [layer.error for layer in results[1].layers]


def test_one_sample_works():
    model = linear_network()
    result = fit_model(model, choose_layers(model, "gain-v3"), open_source(rows(0, 1, 1)), threads=1)
    assert np.isfinite(ort_run(result.model, rows(3)[0])).all()


def test_progress_and_memory_are_reported():
    lines, steps = [], []

    class Progress:
        def note(self, text):
            lines.append(text)

        def __call__(self, stage, done, total, note=""):
            steps.append((done, total))

    model = linear_network()
    choices = choose_layers(model, "gain-v3")
    budget = 400_000
    result = fit_model(model, choices, open_source(rows(0)), threads=1, progress=Progress(), budget=budget)
    assert steps == [(n, 4) for n in range(5)]
    assert any("GB" in line for line in lines)
    assert result.samples < 1800


def test_nan_inside_the_network_is_a_usage_error():
    model = linear_network()
    feeds = [{"x": np.full((4, 32), 3e38, np.float32)}]
    with pytest.raises(UsageError, match="NaN or infinity"):
        fit_model(model, choose_layers(model, "gain-v3"), open_source(feeds), threads=1)


def test_shortcut_is_computed_before_the_convolution_that_corrects_it():
    proto = ir.to_proto(conv_network())
    cut = CutModel(proto, ["first.y", "second.y", "shortcut.y", "wide.y"])
    order = [node.output[0] for node in cut.sites]
    assert order.index("shortcut.y") < order.index("second.y")
