"""Allocation against brute force on small random instances, and its corners."""

import itertools

import numpy as np
import pytest

from lutc.select.slope import Option, allocate, hull


def brute_force(layers, budget):
    best = np.inf
    for picks in itertools.product(*layers):
        if sum(p.divergence for p in picks) <= budget:
            best = min(best, sum(p.seconds for p in picks))
    return best


def totals(layers, chosen):
    picks = [options[i] for options, i in zip(layers, chosen, strict=True)]
    return sum(p.seconds for p in picks), sum(p.divergence for p in picks)


def random_layers(rng, layers, options):
    """Curves as layers have them: what is faster diverges more, more or less."""
    made = []
    for _ in range(layers):
        size = rng.uniform(1, 20)
        times = np.sort(rng.uniform(0.2, 1, options))[::-1] * size
        divergence = np.sort(10 ** rng.uniform(-4, -1, options)) * rng.uniform(0.3, 3)
        divergence[0] = 0
        swap = rng.permutation(options) if rng.random() < 0.2 else np.arange(options)
        made.append([Option(float(t), float(d)) for t, d in zip(times[swap], divergence, strict=True)])
    return made


@pytest.mark.parametrize("seed", range(60))
def test_close_to_brute_force(seed):
    rng = np.random.default_rng(seed)
    layers = random_layers(rng, int(rng.integers(1, 6)), int(rng.integers(2, 6)))
    budget = float(10 ** rng.uniform(-4, -0.5))
    seconds, divergence = totals(layers, allocate(layers, budget))
    assert divergence <= budget * (1 + 1e-9)
    assert seconds <= brute_force(layers, budget) * 1.03


def test_mostly_optimal():
    hits = 0
    for seed in range(100):
        rng = np.random.default_rng(1000 + seed)
        layers = random_layers(rng, 5, 5)
        budget = float(10 ** rng.uniform(-3, -0.5))
        hits += totals(layers, allocate(layers, budget))[0] <= brute_force(layers, budget) + 1e-9
    assert hits >= 90


def test_a_budget_that_nothing_meets_gives_the_least_divergence():
    layers = [[Option(1, 0.2), Option(2, 0.1)], [Option(1, 0.3), Option(5, 0.2)]]
    assert allocate(layers, 0.01) == [1, 1]


def test_an_unlimited_budget_gives_the_least_time():
    rng = np.random.default_rng(5)
    layers = random_layers(rng, 40, 8)
    seconds, _ = totals(layers, allocate(layers, 1e9))
    assert seconds == pytest.approx(sum(min(o.seconds for o in options) for options in layers))


def test_more_budget_is_never_slower():
    layers = random_layers(np.random.default_rng(7), 30, 8)
    times = [totals(layers, allocate(layers, budget))[0] for budget in np.geomspace(1e-4, 10, 30)]
    assert all(b <= a * 1.02 for a, b in itertools.pairwise(times)) and times[-1] < times[0]


def test_the_hull_leaves_out_what_is_dominated():
    options = [Option(10, 0), Option(11, 0.1), Option(6, 0.2), Option(5.9, 0.3), Option(2, 0.4)]
    assert hull(options) == [0, 2, 4]
