# ruff: noqa: E402
"""The judge weighs what it finds as the loss does."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from lutc.learn.judge import Judge
from lutc.learn.loss import TOLD_WEIGHT


def answers(rows=200, features=8, *, embedding=False):
    """Scores of classes, sure of one each; or an embedding, which tells none."""
    rng = np.random.default_rng(rows)
    y = rng.normal(size=(rows, features)).astype(np.float32)
    if not embedding:
        y[np.arange(rows), np.arange(rows) % features] += 8
    return y


def verdict(theirs, ours, classes=("y",)):
    """On two batches of unequal size."""
    rows = len(next(iter(theirs.values())))
    parts = [slice(0, rows // 3), slice(rows // 3, rows)]
    batches = [{"x": np.zeros((rows, 1), np.float32)[part]} for part in parts]
    theirs, ours = ([{name: y[part] for name, y in found.items()} for part in parts] for found in (theirs, ours))
    return Judge(batches, theirs, classes)(ours)


def test_classes_count_before_the_distance():
    y = answers()
    shifted = verdict({"y": y}, {"y": y + 3 * np.arange(len(y), dtype=np.float32)[:, None] / len(y)})
    assert shifted.divergence > 0.01 and shifted.classes < 1e-4  # no class changes
    assert shifted.total == pytest.approx(TOLD_WEIGHT * shifted.divergence + shifted.classes)
    confused = verdict({"y": y}, {"y": np.roll(y, 1, axis=1)})
    assert confused > shifted and confused.classes > 1


def test_an_embedding_is_judged_by_its_distance():
    y = answers(embedding=True)
    found = verdict({"y": y}, {"y": 0.9 * y}, classes=())
    assert found.classes == 0 and found.total == found.divergence > 0


def test_beside_an_embedding_the_distance_counts_whole():
    y, e = answers(), answers(embedding=True)
    found = verdict({"y": y, "e": e}, {"y": y, "e": 0.9 * e})
    assert found.total == pytest.approx(found.divergence + found.classes)
