"""Tables of small entries, of which kernels may add up more before they widen: equal bits on every ISA."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lutc.plan import Plan, Port, Step
from tests.lookup_layers import (
    ISAS,
    Conv,
    inputs_for,
    kernels,
    layer_with_gains,
    make_conv,
    make_layer,
    reference_conv,
    reference_linear,
    run_conv,
    run_linear,
)
from tests.plan_session import plan_session

ENTRIES = (31, 63, 127)
LONGER = {31: 10, 63: 5, 127: 3}
"""Units of the first windows that AVX2 takes only where the gains at hand allow it, by entry, for gains up to 63."""


def shares(total, count):
    """`count` numbers as equal as may be, whose sum is `total`."""
    return np.diff(np.arange(count + 1) * total // count)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("gain_limit", [1, 15, 63, 127])
@pytest.mark.parametrize("m", [2, 33])
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), c=st.integers(1, 150), level=st.integers(0, 127), spikes=st.integers(0, 3))
def test_all_entries_at_their_limit(isa, entry, gain_limit, m, seed, c, level, spikes):
    rng = np.random.default_rng(seed)
    gains = np.full((m, c), min(level, gain_limit))
    for _ in range(spikes):
        gains[rng.integers(m), rng.integers(c)] = gain_limit
    gains[rng.random(m) < 0.5] *= -1
    layer, x = layer_with_gains(gains, 5, gain_limit, entry=entry)
    expected = reference_linear(layer, x).astype(np.float32)
    assert np.array_equal(run_linear(isa, layer, x), expected)
    assert np.array_equal(run_linear(isa, layer, x, layout="ckn"), expected)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("beyond", (-2, -1, 0, 1, 2, 6))
@pytest.mark.parametrize("before", [129, 1, 128])
def test_windows_that_are_just_full(isa, entry, beyond, before):
    """Sums of a window about as large as 16 bits hold, beside what windows hand on: a low byte, half a step."""
    count, total = 2 * LONGER[entry], (32767 - 255 - 128) // entry + beyond
    gains = np.tile(shares(total - 2, count), (2, 5))  # of the second row: windows of LONGER units, not more
    for window, most in enumerate([before, total, before, total, before]):
        gains[0, count * window : count * (window + 1)] = shares(most, count)
    layer, x = layer_with_gains(gains, 35, 63, entry=entry)
    expected = reference_linear(layer, x).astype(np.float32)
    assert np.array_equal(run_linear(isa, layer, x), expected)
    layer, x = layer_with_gains(-gains, 35, 63, entry=entry)
    assert np.array_equal(run_linear(isa, layer, x), -expected)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("group", [1, 2])
def test_pixels_at_the_limit(isa, entry, group):
    """Windows of pixels cannot grow: they are as long as gains of 63 allow."""
    rng = np.random.default_rng(entry)
    conv = Conv(group=group)
    layer = make_conv(rng, conv, [1] * 41, 16, 6, 63)
    layer.directions[:], layer.gain_mul[:] = 127, 1
    layer.table[:] = np.where(np.arange(6 * group) % 2, entry, -entry)[:, None, None, None, None]
    x = np.full((2, 41 * group, 7, 9), 1e9, np.float32)
    x[1] *= -1
    expected = reference_conv(layer, x, conv)
    assert np.abs(expected).max() == 9 * 41 * 63 * entry
    assert np.array_equal(run_conv(isa, layer, x, conv), expected.astype(np.float32))


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    m=st.integers(1, 70),
    c=st.integers(1, 60),
    entry=st.sampled_from(ENTRIES),
    gain_limit=st.sampled_from([0, 7, 63, 127]),
)
def test_random_layers(isa, seed, m, c, entry, gain_limit):
    rng = np.random.default_rng(seed)
    layer = make_layer(rng, 4 * c, [4] * c, 16, 21, gain_limit, extreme=bool(seed % 2))
    layer.table = rng.integers(-entry, entry + 1, layer.table.shape).astype(np.int8)
    x = inputs_for(rng, m, 4 * c, layer)
    assert np.array_equal(run_linear(isa, layer, x), reference_linear(layer, x).astype(np.float32))
    conv = Conv()
    layer = make_conv(rng, conv, [4] * 5, 16, 5, gain_limit)
    layer.table = rng.integers(-entry, entry + 1, layer.table.shape).astype(np.int8)
    image = rng.normal(size=(1, 20, 1 + m % 9, 8)).astype(np.float32)
    assert np.array_equal(run_conv(isa, layer, image, conv), reference_conv(layer, image, conv).astype(np.float32))


def plan_of(layers, layout, claim=None):
    """A plan of lookup layers that read the same codes; `claim`: what the file says of their entries."""
    plan, first = Plan(), layers[0]
    x, codes = plan.add_value("f32"), plan.add_value("u8")
    plan.inputs.append(Port("x", x, "f32", ("m", len(first.offset))))
    said = {} if claim is None else {"entry_limit": claim}
    constants = [plan.add_constant(f"e{i}", a) for i, a in enumerate(first.encode_inputs)]
    attrs = {"gain_limit": first.gain_limit, "axis": -1}
    plan.steps.append(Step("lut_encode", "encode", [x, *constants], [codes], attrs | said))
    for i, layer in enumerate(layers):
        table = layer.table if layout == "ckn" else kernels.pack_table(layer.table, layout)
        tensors = [plan.add_constant(f"l{i}.{j}", a) for j, a in enumerate((table, layer.scale, layer.bias))]
        y = plan.add_value("f32")
        attrs = {name: v for name, v in layer.table_attrs(layout).items() if name != "entry_limit"}
        plan.steps.append(Step("lut_linear", f"linear {i}", [codes, *tensors], [y], attrs | said))
        plan.outputs.append(Port(f"y{i}", y, "f32", ("m", len(layer.scale))))
    return plan


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("layout", ["ckn", "pair16x4", "quad6"])
@pytest.mark.parametrize("claim", [None, 31, 63, 0, -7, 10**9])
@pytest.mark.parametrize("entries", [(31,), (63,), (63, 127), (127, 31)])
def test_what_a_file_claims_of_its_tables_counts_nothing(isa, layout, claim, entries):
    """Were an entry of 127 taken for one of 31 or 63, sums would leave 16 bits."""
    rng = np.random.default_rng(7)
    gains = rng.choice([-63, 63], (40, 50)) * np.ones((1, 50), int)
    gains[0] = 63
    layers = []
    for entry in entries:
        layer, x = layer_with_gains(gains, 4099, 63, entry=entry)
        layer.table[:, :, : 2 * 2000] //= 128 // 31  # only the last columns reach the limit
        layers.append(layer)
    session = plan_session(plan_of(layers, layout, claim), isa=isa)
    for m in (1, 2, 40):
        outputs = session.run(None, {"x": x[:m]})
        for layer, y in zip(layers, outputs, strict=True):
            assert np.array_equal(y, reference_linear(layer, x[:m]).astype(np.float32))
