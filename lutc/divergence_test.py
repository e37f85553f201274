"""Divergence: squared error over variance of features, the worst output counts."""

import numpy as np
import pytest

from lutc.divergence import Reference


def outputs(rng, rows=50):
    return {
        "a": rng.normal(size=(rows, 3)) + np.array([0, 100, -5]),
        "b": rng.normal(size=(rows, 2, 4, 4)),
        "n": np.arange(rows),
    }


def test_zero_for_the_original_and_one_for_the_means():
    rng = np.random.default_rng(0)
    wanted = [outputs(rng), outputs(rng)]
    reference = Reference([{}, {}], wanted)
    assert reference.divergence(wanted) == 0
    mean = np.concatenate([part["a"] for part in wanted]).mean(0)
    flat = [{**part, "a": np.broadcast_to(mean, part["a"].shape)} for part in wanted]
    assert reference.by_output(flat)["a"] == pytest.approx(1)
    assert reference.divergence(flat) == reference.by_output(flat)["a"]


def test_noise_counts_against_the_variance_of_features_not_their_offsets():
    rng = np.random.default_rng(1)
    wanted = outputs(rng, 4000)
    found = {**wanted, "a": wanted["a"] + rng.normal(size=wanted["a"].shape) * 0.1}
    assert Reference([{}], [wanted]).divergence([found]) == pytest.approx(0.01, rel=0.05)


def test_padding_does_not_count():
    mask = np.array([[1, 1, 0], [1, 0, 0]])
    wanted = {"y": np.random.default_rng(2).normal(size=(2, 3, 5))}
    found = {"y": wanted["y"] + 100 * (1 - mask)[..., None]}
    assert Reference([{"attention_mask": mask}], [wanted]).divergence([found]) == 0
    assert Reference([{"other": mask}], [wanted]).divergence([found]) > 1


def test_what_is_not_finite():
    wanted = {"y": np.array([[0.0, 1.0], [2.0, -np.inf]])}
    reference = Reference([{}], [wanted])
    assert reference.divergence([wanted]) == 0
    assert reference.divergence([{"y": np.array([[np.nan, 1.0], [2.0, 0.0]])}]) == np.inf


def test_integers_are_compared_where_nothing_else_is_there():
    reference = Reference([{}], [{"top": np.arange(10)}])
    assert reference.divergence([{"top": np.r_[np.arange(9), 0]}]) == pytest.approx(0.1)
