"""Which rounds of a measurement were quiet."""

from __future__ import annotations

import numpy as np

from lutc.timing import Samples, quiet_rounds


def _samples(cpu: np.ndarray) -> Samples:
    return Samples(cpu, cpu)


def test_quiet_rounds_are_quiet_for_all_candidates() -> None:
    # The first is least in round 0, the second in round 1: the machine left neither of those rounds alone.
    first, second = np.full(8, 3.0), np.full(8, 5.0)
    first[:4], second[:4] = [1.9, 4.0, 2.0, 2.1], [9.0, 3.9, 4.0, 4.1]
    quiet = quiet_rounds({"first": _samples(first), "second": _samples(second)})
    assert sorted(quiet) == [2, 3]


def test_what_makes_one_candidate_lose_more_than_the_other_leaves_their_ratio_alone() -> None:
    # A neighbour that takes the memory's bandwidth in two of three rounds: a median of all rounds prefers the second.
    loud = np.arange(24) % 3 > 0
    lookups, dense = np.where(loud, 9.5, 7.0), np.where(loud, 9.0, 7.7)
    assert np.median(dense / lookups) < 1
    quiet = quiet_rounds({"lookups": _samples(lookups), "dense": _samples(dense)})
    np.testing.assert_allclose(dense[quiet] / lookups[quiet], 1.1)


def test_one_round_is_the_quietest() -> None:
    assert list(quiet_rounds({"one": _samples(np.array([1.0]))})) == [0]
