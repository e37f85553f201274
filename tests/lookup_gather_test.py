"""Small batches on the canonical table: whole table rows, at widths around the kernels' blocks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.lookup_layers import ISAS, layer_with_gains, make_layer, reference_linear, run_linear


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("gain_limit", [0, 63, 127])
@pytest.mark.parametrize("n", [1, 63, 64, 65, 300, 4096, 4101, 8300])
def test_widths(isa, gain_limit, n):
    rng = np.random.default_rng(n)
    for c in (1, 7, 8, 9, 33):
        layer = make_layer(rng, 4 * c, [4] * c, 16, n, gain_limit)
        x = rng.normal(size=(3, 4 * c)).astype(np.float32)
        expected = reference_linear(layer, x).astype(np.float32)
        for threads in (1, 2):
            assert np.array_equal(run_linear(isa, layer, x, "ckn", threads=threads), expected)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("limit", [1, 15, 31, 32, 33, 63, 127])
def test_wide_sums_at_the_extremes(isa, limit):
    """Gains and entries at their limits with one sign, and one gain above what the others leave room for."""
    gains = np.full((3, 43), limit)
    gains[1] = np.random.default_rng(limit).choice([-limit, limit], 43)
    gains[2] = 32 if limit > 32 else limit
    gains[2, [15, 23, 31]] = np.minimum(limit, [34, 35, 36])
    layer, x = layer_with_gains(gains, 420, limit)
    expected = reference_linear(layer, x).astype(np.float32)
    assert np.array_equal(run_linear(isa, layer, x, "ckn"), expected)


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    m=st.integers(1, 9) | st.integers(30, 40),
    sizes=st.lists(st.integers(1, 32), min_size=1, max_size=40),
    gain_limit=st.sampled_from([0, 15, 127]),
    kind=st.sampled_from(["plain", "extreme", "ties", "shuffle", "offset"]),
    layout=st.sampled_from(["ckn", None]),
)
def test_few_rows(isa, seed, m, sizes, gain_limit, kind, layout):
    """Rows that are encoded one by one, and those at the end of a panel."""
    rng = np.random.default_rng(seed)
    layer = make_layer(rng, sum(sizes), sizes, 16, 11, gain_limit, **({} if kind == "plain" else {kind: True}))
    x = rng.normal(size=(m, sum(sizes))).astype(np.float32)
    x[rng.random(x.shape) < 0.1] *= 100
    if m > 1:
        x[0] = 0
    assert np.array_equal(run_linear(isa, layer, x, layout), reference_linear(layer, x).astype(np.float32))
