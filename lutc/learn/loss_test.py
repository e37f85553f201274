"""The loss sees which outputs tell classes."""

# ruff: noqa: E402

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from lutc.learn.loss import Distillation, class_divergence, tells_classes


def logits(rows=64, classes=10, scale=6.0):
    return scale * torch.randn(rows, classes, generator=torch.Generator().manual_seed(rows))


@pytest.mark.parametrize("shape", [(64, 10), (8, 8, 10)])
def test_logits_and_probabilities_tell_classes(shape):
    y = logits().reshape(shape)
    assert tells_classes(y)
    assert tells_classes(torch.softmax(y, dim=-1))
    assert not tells_classes(0.1 * y)  # unsure of everything: an embedding
    assert not tells_classes(y.reshape(4, 4, 4, 10))
    outlier = y.clone()
    outlier[..., 3] += 100
    assert not tells_classes(outlier)


def test_divergence_of_classes_is_zero_for_equal_ones_whatever_their_offset():
    y = logits()
    assert float(class_divergence(y + 3, y)) == pytest.approx(0, abs=1e-5)
    moved = class_divergence(y.flip(1), y)
    assert math.isfinite(moved) and moved > 1
    p = torch.softmax(y, dim=1)
    assert float(class_divergence(torch.softmax(y.flip(1), dim=1), p)) == pytest.approx(float(moved), rel=0.1)


def test_the_loss_counts_classes_beside_the_distance():
    y, other = {"y": logits()}, {"y": logits().flip(1)}
    loss, blind = Distillation({"y": 36.0}, [], ["y"], ["y"]), Distillation({"y": 36.0}, [], ["y"])
    assert float(loss(y, y, None)) == pytest.approx(0, abs=1e-5)
    assert float(loss(other, y, None)) > float(blind(other, y, None)) > 1
