"""Drops of scores: of numbers, and of one number a sample."""

from __future__ import annotations

import numpy as np
import pytest

from lutc.drop import CONFIDENCE, Drop, Scored
from lutc.errors import UsageError


def scored(values) -> Scored:
    return Scored.of(lambda session: session, values)


def test_a_number_promises_what_was_measured():
    drop = scored(0.8).drop(0.75)
    assert drop == Drop(pytest.approx(0.05), drop.mean) and str(drop) == "+0.0500"
    assert scored(0.8).compare(0.75) == pytest.approx({"reference": 0.8, "compiled": 0.75, "drop": 0.05})


def test_a_promise_on_samples_holds_on_others_as_often_as_it_says():
    rng = np.random.default_rng(0)
    before = (rng.random((600, 1500)) < 0.8).astype(float)
    after = np.where(rng.random(before.shape) < 0.06, rng.random(before.shape) < 0.5, before)
    true = 0.06 * 0.3
    kept = np.mean([scored(b).drop(a).most >= true for b, a in zip(before, after, strict=True)])
    assert abs(kept - CONFIDENCE) < 0.03


def test_samples_are_paired():
    right = np.arange(1000) % 3 > 0
    same = scored(right).drop(right)
    assert same == Drop(0.0, 0.0)
    assert set(scored(right).compare(right)) == {"reference", "compiled", "drop", "drop_most"}


def test_what_is_not_a_number_keeps_no_budget():
    drop = scored([1.0, 1.0]).drop([1.0, np.nan])
    assert not drop.most <= 1e9


@pytest.mark.parametrize("told", [None, "good", [], [[1.0], [2.0]], {"a": 1}])
def test_other_things_are_no_score(told):
    with pytest.raises(UsageError, match="a number or a vector"):
        scored(told)


def test_every_model_tells_the_same_samples():
    with pytest.raises(UsageError, match="3 samples of the original and 2"):
        scored([1.0, 0.0, 1.0]).drop([1.0, 0.0])
