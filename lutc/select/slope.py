"""The least time under a total divergence: equal slope over the lower convex hulls, then integer repair."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

_TINY = 1e-12  # seconds that are no gain, and shares of a budget that are no excess


class Option(NamedTuple):
    """One way to compute a layer: what it takes and how far it moves the model's outputs."""

    seconds: float
    divergence: float


def allocate(layers: Sequence[Sequence[Option]], budget: float) -> list[int]:
    """Chooses one option a layer.

    Args:
        layers: At least one option each.
        budget: Largest sum of the chosen divergences. Where even the least sum is larger, the least is chosen.

    Returns:
        Index of the chosen option of each layer. Deterministic: equal options are told apart by their order.
    """
    chosen = [min(range(len(options)), key=lambda i: (options[i].divergence, options[i].seconds)) for options in layers]
    left = budget - sum(options[i].divergence for options, i in zip(layers, chosen, strict=True))
    if left < 0:
        return chosen
    chosen, left = _equal_slope(layers, chosen, left)
    return _repair(layers, chosen, left)


def hull(options: Sequence[Option]) -> list[int]:
    """Indices of the options on the lower convex hull of time over divergence, divergence rising and time falling."""
    order = sorted(range(len(options)), key=lambda i: (options[i].divergence, options[i].seconds, i))
    kept: list[int] = []
    for index in order:
        point = options[index]
        if kept and point.seconds >= options[kept[-1]].seconds - _TINY:
            continue
        while len(kept) > 1 and _slope(options[kept[-2]], options[kept[-1]]) < _slope(options[kept[-2]], point):
            kept.pop()
        kept.append(index)
    return kept


def _slope(a: Option, b: Option) -> float:
    """Seconds saved by going from a to b, for each unit of divergence."""
    return (a.seconds - b.seconds) / max(b.divergence - a.divergence, 1e-300)


def _equal_slope(layers: Sequence[Sequence[Option]], chosen: list[int], left: float) -> tuple[list[int], float]:
    """Steps along the hulls from the steepest on, as long as they can be paid."""
    steps = []
    for layer, options in enumerate(layers):
        corners = hull(options)
        for a, b in itertools.pairwise(corners):
            steps.append((-_slope(options[a], options[b]), layer, a, b))
        chosen[layer] = corners[0]
    stopped: set[int] = set()
    for _, layer, a, b in sorted(steps):
        cost = layers[layer][b].divergence - layers[layer][a].divergence
        if layer in stopped or cost > left:
            stopped.add(layer)
            continue
        chosen[layer], left = b, left - cost
    return chosen, left


def _repair(layers: Sequence[Sequence[Option]], chosen: list[int], left: float) -> list[int]:
    """Exchanges in one layer or in two at once that save time and can be paid, the best first, until there is none."""
    owner = np.array([layer for layer, options in enumerate(layers) for _ in options])
    index = np.array([i for options in layers for i in range(len(options))])
    seconds = np.array([option.seconds for options in layers for option in options])
    divergence = np.array([option.divergence for options in layers for option in options])
    first = np.concatenate([[0], np.cumsum([len(options) for options in layers])])[:-1].astype(np.int64)
    while True:
        at = (first + np.array(chosen, np.int64))[owner]
        gain, cost = seconds[at] - seconds, divergence - divergence[at]
        moves = _best_exchange(owner, gain, cost, left + _TINY * max(left, 0.0))
        if not moves:
            return chosen
        for move in moves:
            chosen[owner[move]] = int(index[move])
            left -= float(cost[move])


def _best_exchange(
    owner: npt.NDArray[np.int64], gain: npt.NDArray[np.float64], cost: npt.NDArray[np.float64], left: float
) -> list[int]:
    """The one or two moves, in different layers, that save most; empty where none saves time."""
    single = np.where(cost <= left, gain, -np.inf)
    best = int(np.argmax(single))
    found, saved = [best], float(single[best])
    # Of two moves one has to save time; its partner pays for it.
    for move in np.flatnonzero(gain > _TINY):
        partner = np.where((owner != owner[move]) & (cost + cost[move] <= left), gain, -np.inf)
        other = int(np.argmax(partner))
        if gain[move] + partner[other] > saved + _TINY:
            found, saved = [int(move), other], float(gain[move] + partner[other])
    return found if saved > _TINY else []
