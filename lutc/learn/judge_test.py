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


def test_padded_positions_do_not_count():
    rng = np.random.default_rng(0)
    theirs = np.stack([answers(40), answers(40)[::-1]])  # [2, 40, 8]
    mask = np.ones((2, 40), np.int64)
    mask[1, 25:] = 0
    ours = theirs.copy()
    ours[mask == 0] = rng.normal(size=ours[mask == 0].shape)
    masked, unmasked = (
        Judge([{"ids": mask, "attention_mask": each}], [{"y": theirs}], ("y",)) for each in (mask, np.ones_like(mask))
    )
    assert masked([{"y": ours}]).total == 0
    assert unmasked([{"y": ours}]).classes > 0.1
    ours[0, :4] = np.roll(ours[0, :4], 1, axis=1)  # a mean over the 65 that count
    few = masked([{"y": ours}]).classes
    flat = Judge([{"x": mask[mask == 1]}], [{"y": theirs[mask == 1]}], ("y",))
    assert few == pytest.approx(flat([{"y": ours[mask == 1]}]).classes) and few > 0.1
