"""The gain-shape encode of two features by angle: equal bits with the scores of every direction, ties included."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.lookup_layers import ISAS, make_layer, reference_linear, run_linear

GRID = np.stack(np.meshgrid(*[np.arange(-127, 128)] * 2), -1).reshape(-1, 2).astype(np.float32)
"""Every quantised input of two features."""


def circle(rng, k):
    angles = rng.uniform(0, 2 * np.pi) + np.arange(k) * np.pi / k
    return np.stack([np.cos(angles), np.sin(angles)], -1)[rng.permutation(k)] * 127


DIRECTIONS = {
    "circle": circle,
    "random": lambda rng, k: rng.integers(-127, 128, (k, 2)),
    "few": lambda rng, k: rng.integers(-2, 3, (k, 2)),  # zeros, duplicates, opposites, points between two others
    "square": lambda rng, k: rng.permuted(np.stack([rng.choice([-127, 127], k), rng.integers(-127, 128, k)]), axis=0).T,
    "line": lambda rng, k: np.outer(rng.integers(-42, 43, k), rng.integers(-3, 4, 2)),
    "zero": lambda rng, k: np.zeros((k, 2)),
    "corners": lambda rng, k: rng.choice([-127, 127], (k, 2)),
}


def angle_layer(rng, kind, codebooks, k, gain_limit, sizes=None):
    """A layer whose codebooks of two features have directions of a kind."""
    sizes = sizes or [2] * codebooks
    layer = make_layer(rng, sum(sizes), sizes, k, 5, gain_limit)
    layer.inv_scale[:] = 1
    layer.gain_mul[:] = gain_limit / (127 * 127)
    for c, size in enumerate(sizes):
        if size == 2:
            layer.directions[c, :, :2] = np.rint(DIRECTIONS[kind](rng, k))
    # Sums that tell which code was taken.
    layer.table = rng.integers(-127, 128, layer.table.shape).astype(np.int8)
    return layer


@pytest.mark.parametrize("kind", DIRECTIONS)
@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), k=st.sampled_from([4, 8, 16]))
def test_every_input(kind, seed, k):
    layer = angle_layer(np.random.default_rng(seed), kind, 1, k, 127)
    expected = reference_linear(layer, GRID).astype(np.float32)
    assert np.array_equal(run_linear(ISAS[-1], layer, GRID), expected)


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(sorted(DIRECTIONS)),
    m=st.integers(1, 70),
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=12) | st.integers(1, 21).map(lambda c: [2] * c),
    k=st.sampled_from([4, 8, 16]),
    gain_limit=st.sampled_from([1, 15, 63, 127]),
    spread=st.booleans(),
    small=st.booleans(),
)
def test_beside_other_codebooks(isa, seed, kind, m, sizes, k, gain_limit, spread, small):
    """Runs of pairs, pairs between wider codebooks, features out of order; inputs near zero tie often."""
    rng = np.random.default_rng(seed)
    layer = angle_layer(rng, kind, len(sizes), k, gain_limit, sizes)
    if spread:
        order = rng.permutation(sum(sizes)).astype(np.int32)
        layer.groups = np.where(layer.groups >= 0, order[layer.groups], -1).astype(np.int32)
    limit = 2 if small else 127
    x = rng.integers(-limit, limit + 1, (m, sum(sizes))).astype(np.float32)
    assert np.array_equal(run_linear(isa, layer, x), reference_linear(layer, x).astype(np.float32))
