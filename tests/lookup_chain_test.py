"""Lookup layers behind each other: how one hands its output to the next changes no bit of the result."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from lutc.plan import Plan, Port, Step
from tests.lookup_layers import ISAS, make_layer
from tests.plan_session import plan_session


def chain(layers, activation, *, seen):
    """A plan of lookup layers one after the other; `seen`: every layer's output is one of the model's, too."""
    plan = Plan()
    value = plan.add_value("f32")
    plan.inputs.append(Port("x", value, "f32", ("m", len(layers[0].offset))))
    for i, layer in enumerate(layers):
        codes, out = plan.add_value("u8"), plan.add_value("f32")
        constants = [plan.add_constant(f"e{i}.{j}", a) for j, a in enumerate(layer.encode_inputs)]
        plan.steps.append(Step("lut_encode", f"encode {i}", [value, *constants], [codes], layer.encode_attrs(-1)))
        tables = [plan.add_constant(f"l{i}.{j}", a) for j, a in enumerate((layer.table, layer.scale, layer.bias))]
        attrs = layer.table_attrs("ckn") | {"activation": activation}
        plan.steps.append(Step("lut_linear", f"linear {i}", [codes, *tables], [out], attrs))
        if seen or layer is layers[-1]:
            plan.outputs.append(Port(f"y{i}", out, "f32", ("m", len(layer.scale))))
        value = out
    return plan


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("activation", ["none", "relu", "gelu"])
@pytest.mark.parametrize("gain_limit", [0, 15])
@pytest.mark.parametrize("widths", [(40, 61, 50), (96, 384, 7)])
def test_results_do_not_depend_on_who_else_sees_them(isa, activation, gain_limit, widths):
    rng = np.random.default_rng(gain_limit + widths[1])
    layers = [
        make_layer(rng, d, [3] * (d // 3) + [d % 3] * (d % 3 > 0), 16, n, gain_limit, offset=True)
        for d, n in itertools.pairwise(widths)
    ]
    for layer in layers:
        layer.scale[:] = 1e-4
    plain, seen = (plan_session(chain(layers, activation, seen=seen), isa=isa) for seen in (False, True))
    for m in (0, 1, 5, 9, 15, 16, 17, 33, 64, 130, 300):
        x = rng.normal(size=(m, widths[0])).astype(np.float32)
        expected = seen.run(None, {"x": x})
        (y,) = plain.run(None, {"x": x})
        assert m == 0 or np.ptp(expected[0]) > 0
        np.testing.assert_array_equal(y, expected[-1])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("guarded", [0, 1])
def test_attention_between_lookup_layers_does_not_depend_on_who_else_sees_them(isa, guarded):
    """Queries, keys and values come as the layer's sums lie, the next encode takes what attention's lanes hold."""
    rng = np.random.default_rng(guarded)
    layers = [make_layer(rng, d, [4] * (d // 4), 16, n, 15) for d, n in ((40, 104), (24, 30))]
    for layer in layers:
        layer.scale[:] = 1e-3

    def attention_chain(seen):
        plan = chain(layers, "none", seen=seen)
        plan.inputs[0] = Port("x", plan.inputs[0].value, "f32", ("b", "l", 40))
        plan.outputs = [Port(port.name, port.value, "f32", ("b", "l", port.shape[-1])) for port in plan.outputs]
        packed, mixed, mask = plan.steps[1].outputs[0], plan.add_value("f32"), plan.add_value("f32")
        plan.inputs.append(Port("mask", mask, "f32", ("b", 1, 1, "l")))
        attrs = {"num_heads": 2, "scale": 0.3, "packed": [40, 40, 24], "quantised": 1, "guarded": guarded}
        plan.steps.insert(2, Step("attention", "attention", [packed, -1, -1, mask], [mixed], attrs))
        plan.steps[3].inputs[0] = mixed
        if seen:
            plan.outputs.append(Port("mixed", mixed, "f32", ("b", "l", 24)))
        return plan_session(plan, isa=isa)

    linked, seen = attention_chain(False), attention_chain(True)
    for batch, length in ((1, 1), (1, 7), (9, 4), (1, 15), (1, 16), (2, 33), (3, 64), (1, 70), (0, 5)):
        x = rng.normal(size=(batch, length, 40)).astype(np.float32)
        mask = np.where(rng.random((batch, 1, 1, length)) < 0.2, np.float32(-10000), np.float32(0))
        feeds = {"x": x, "mask": mask}
        _, expected, mixed = seen.run(None, feeds)
        (y,) = linked.run(None, feeds)
        assert batch == 0 or np.ptp(mixed) > 0
        np.testing.assert_array_equal(y, expected)


def test_tables_that_stream_from_memory():
    """Beyond the tables that stay in cache a layer is walked in another order; two tables, two groups of rows."""
    rng = np.random.default_rng(3)
    layers = [make_layer(rng, 384, [4] * 96, 16, 10999, 15), make_layer(rng, 10999, [32, 32], 4, 5, 15)]
    plan = chain(layers, "none", seen=True)
    x = rng.normal(size=(300, 384)).astype(np.float32)
    expected = plan_session(plan, isa="scalar").run(None, {"x": x})
    for isa in ISAS:
        for y, want in zip(plan_session(plan, isa=isa, threads=2).run(None, {"x": x}), expected, strict=True):
            np.testing.assert_array_equal(y, want)
        unseen = plan_session(chain(layers, "none", seen=False), isa=isa)  # the first layer's sums go on by features
        for m in (9, 70, 300):
            np.testing.assert_array_equal(unseen.run(None, {"x": x[:m]})[0], expected[-1][:m])
