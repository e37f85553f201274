"""Blended samples."""

import numpy as np

from lutc.learn.blends import blended, can_blend
from lutc.learn.samples import Minibatches
from lutc.observe import InputSpec


def test_tokens_are_not_blended():
    pixels, tokens = np.zeros((2, 3), np.float32), np.zeros((2, 3), np.int64)
    assert can_blend({"x": pixels})
    assert not can_blend({"x": pixels, "ids": tokens})


def test_blends_lie_between_two_samples_and_agree_in_all_inputs():
    samples = np.arange(64, dtype=np.float32)
    batch = {"a": samples[:, None].repeat(5, axis=1), "b": (2 * samples)[:, None, None]}
    found = blended(batch, np.random.default_rng(0))
    a = found["a"]
    assert a.dtype == np.float32 and a.shape == (64, 5)
    assert (a == a[:, :1]).all()  # one weight a sample
    np.testing.assert_allclose(found["b"][:, 0, 0], 2 * a[:, 0], rtol=1e-6)
    assert a.min() >= 0 and a.max() <= 63
    changed = (a[:, 0] != samples).sum()
    assert 16 < changed < 48  # half of them, but for partners that are the sample itself
    np.testing.assert_array_equal(batch["a"][:, 0], samples)  # what came in stays as it was


def test_the_same_generator_gives_the_same_blends():
    batch = {"x": np.random.default_rng(1).normal(size=(8, 2, 2)).astype(np.float32)}
    first, again = (blended(batch, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first["x"], again["x"])


def minibatches(dtype, blend):
    samples = np.random.default_rng(0).integers(0, 100, (32, 3)).astype(dtype)
    return Minibatches([{"x": samples}], [InputSpec("x", np.dtype(dtype), ("N", 3))], 8, seed=0, blend=blend)


def test_any_step_gives_the_same_blends_however_it_is_reached():
    one, other = minibatches(np.float32, True), minibatches(np.float32, True)
    first = one.at(2)["x"]
    for step in range(6):
        other.at(step)
    np.testing.assert_array_equal(other.at(2)["x"], first)
    assert not np.array_equal(first, minibatches(np.float32, False).at(2)["x"])


def test_minibatches_of_tokens_stay_as_they_are():
    tokens, blind = minibatches(np.int64, True), minibatches(np.int64, False)
    np.testing.assert_array_equal(tokens.at(1)["x"], blind.at(1)["x"])
