"""Encodes that write the planes their convolutions read: the same numbers as from panels, and as the definition."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from lutc.plan import Plan, Port, Step
from tests.lookup_layers import ISAS, Conv, make_conv, reference_conv
from tests.plan_session import plan_session

WINDOWS = [
    Conv(kernel=(3, 3), pads=(1, 1, 1, 1)),
    Conv(kernel=(1, 1), pads=(0, 0, 0, 0)),
    Conv(kernel=(3, 1), pads=(0, 0, 2, 0)),
    Conv(kernel=(1, 5), pads=(0, 4, 0, 0)),
    Conv(kernel=(5, 3), dilations=(1, 2), pads=(3, 1, 0, 3)),
    Conv(kernel=(2, 4), dilations=(3, 5), pads=(2, 15, 1, 0)),
]


def conv_plan(layers, convs):
    """A plan of one encode and convolutions that read its codes."""
    plan = Plan()
    x, codes = plan.add_value("f32"), plan.add_value("u8")
    plan.inputs.append(Port("x", x, "f32", ("b", len(layers[0].offset), "h", "w")))
    constants = [plan.add_constant(f"e.{j}", array) for j, array in enumerate(layers[0].encode_inputs)]
    plan.steps.append(Step("lut_encode", "encode", [x, *constants], [codes], layers[0].encode_attrs(1)))
    for i, (layer, conv) in enumerate(zip(layers, convs, strict=True)):
        y = plan.add_value("f32")
        tables = [plan.add_constant(f"t{i}.{j}", a) for j, a in enumerate((layer.table, layer.scale, layer.bias))]
        attrs = layer.table_attrs("ckn") | {
            "kernel_shape": list(conv.kernel),
            "strides": list(conv.strides),
            "dilations": list(conv.dilations),
            "pads": list(conv.pads),
        }
        plan.steps.append(Step("lut_conv", f"conv {i}", [codes, *tables], [y], attrs))
        plan.outputs.append(Port(f"y{i}", y, "f32", ("b", len(layer.scale), f"h{i}", f"w{i}")))
    return plan


def reading(codes_of, layer):
    """`layer` as a reader of another layer's codes."""
    return dataclasses.replace(codes_of, table=layer.table, scale=layer.scale, bias=layer.bias)


def image(rng, batch, channels, height, width):
    """Values that reach past what is encoded, and zeros."""
    x = rng.normal(size=(batch, channels, height, width)) * rng.choice([0, 1, 40], size=(1, channels, 1, 1))
    return x.astype(np.float32)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("gain_limit", [0, 15, 127])
@pytest.mark.parametrize("window", range(len(WINDOWS)))
def test_planes_and_panels_give_the_definition(isa, gain_limit, window):
    conv = WINDOWS[window]
    rng = np.random.default_rng(100 * window + gain_limit)
    sizes = [[4] * 4, [3, 5, 2], [4] * 9][window % 3]
    other_window = Conv(kernel=(1, 1), strides=(2, 2), pads=(0, 0, 0, 0))
    convs = [conv, conv, other_window]
    layers = [make_conv(rng, c, sizes, 16, n, gain_limit) for c, n in zip(convs, (7, 16, 3), strict=True)]
    layers = [reading(layers[0], layer) for layer in layers]
    linked = plan_session(conv_plan(layers[:2], convs[:2]), isa=isa, threads=3)
    panels = plan_session(conv_plan(layers, convs), isa=isa)
    for batch, height, width in ((1, 1, 1), (1, 8, 8), (3, 16, 16), (1, 5, 33), (2, 7, 3), (1, 12, 48), (0, 4, 4)):
        if height + conv.pads[0] + conv.pads[2] < conv.dilations[0] * (conv.kernel[0] - 1) + 1:
            continue
        x = image(rng, batch, sum(sizes), height, width)
        got, by_panels = linked.run(None, {"x": x}), panels.run(None, {"x": x})
        for layer, y, other in zip(layers[:2], got, by_panels[:2], strict=True):
            np.testing.assert_array_equal(y, other)
            if batch:
                np.testing.assert_array_equal(y, reference_conv(layer, x, conv).astype(np.float32))


@pytest.mark.parametrize("isa", ISAS)
def test_convolutions_of_different_windows_share_codes(isa):
    rng = np.random.default_rng(7)
    convs = [Conv(), Conv(kernel=(1, 1), pads=(0, 0, 0, 0)), Conv(strides=(2, 2))]
    layers = [make_conv(rng, conv, [4] * 3, 16, 5, 31) for conv in convs]
    layers = [reading(layers[0], layer) for layer in layers]
    session = plan_session(conv_plan(layers, convs), isa=isa)
    x = image(rng, 2, 12, 9, 10)
    for layer, conv, y in zip(layers, convs, session.run(None, {"x": x}), strict=True):
        np.testing.assert_array_equal(y, reference_conv(layer, x, conv).astype(np.float32))


@pytest.mark.parametrize("isa", ISAS)
def test_what_an_artifact_says_of_planes_does_not_count(isa):
    rng = np.random.default_rng(8)
    conv = Conv()
    layer = make_conv(rng, conv, [4] * 3, 16, 5, 31)
    other = Conv(strides=(2, 1))
    plan = conv_plan([layer, reading(layer, make_conv(rng, other, [4] * 3, 16, 4, 31))], [conv, other])
    for step in plan.steps:
        step.attrs["planes"] = 1
    x = image(rng, 1, 12, 9, 10)
    y = plan_session(plan, isa=isa).run(None, {"x": x})[0]
    np.testing.assert_array_equal(y, reference_conv(layer, x, conv).astype(np.float32))
