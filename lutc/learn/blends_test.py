"""Blended samples."""

import numpy as np

from lutc.learn.blends import blended, can_blend


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
