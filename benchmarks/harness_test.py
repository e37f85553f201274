"""The harness tells a slow call from a fast one, and its rows add up."""

from __future__ import annotations

import time

import numpy as np

from benchmarks import harness


def test_a_call_that_does_more_work_takes_longer() -> None:
    rng = np.random.default_rng(0)
    small, large = rng.standard_normal((64, 64)), rng.standard_normal((512, 512))
    samples = harness.interleave({"small": lambda: small @ small, "large": lambda: large @ large}, 5, slice_s=0.002)
    assert harness.ratio(samples["large"], samples["small"]) > 5
    assert len(samples["small"].cpu) == 5
    assert samples["small"].wall_us() > 0


def test_a_core_that_has_rested_is_warm_again_before_it_is_measured() -> None:
    last = cold_until = 0.0

    def call() -> None:
        nonlocal last, cold_until
        now = time.perf_counter()
        if now - last > 0.01:
            cold_until = now + 0.005
        time.sleep(0.003 if now < cold_until else 0)
        last = time.perf_counter()

    rested = harness.interleave({"call": call}, 5, slice_s=0.0001, settle_s=0.02)["call"]
    assert rested.wall_us() < 2500


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
