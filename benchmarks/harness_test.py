"""The harness tells a slow call from a fast one, and its rows add up."""

from __future__ import annotations

import numpy as np

from benchmarks import harness


def test_a_call_that_does_more_work_takes_longer() -> None:
    rng = np.random.default_rng(0)
    small, large = rng.standard_normal((64, 64)), rng.standard_normal((512, 512))
    samples = harness.interleave({"small": lambda: small @ small, "large": lambda: large @ large}, 5, slice_s=0.002)
    assert harness.ratio(samples["large"], samples["small"]) > 5
    assert len(samples["small"].cpu) == 5
    assert samples["small"].wall_us() > 0


def test_the_ratio_is_formed_within_rounds() -> None:
    # The machine is three times slower in the second round: the ratio stays 2.
    ours = harness.Samples(np.array([1.0, 3.0, 1.0]), np.ones(3))
    peer = harness.Samples(np.array([2.0, 6.0, 2.0]), np.ones(3))
    assert harness.ratio(peer, ours) == 2
    row = harness.row("models", "1x128", "gain-v3", "scalar", ours, {"peer": peer}, model="minilm")
    assert row["ours_us"] == 1e6
    assert row["peers"] == {"peer": 2e6}
    assert row["ratio"] == {"peer": 2}
    assert row["model"] == "minilm"
