"""Codebook learning finds what was planted, and is deterministic."""

from __future__ import annotations

import numpy as np
import pytest

from lutc.fit.codebooks import FIRST, learn_codebooks, learning_rows
from lutc.fit.parallel import use_threads


def planted_lines(rng, codebooks, width, rows, entries=16):
    lines = rng.normal(size=(codebooks, entries, width))
    lines /= np.linalg.norm(lines, axis=2, keepdims=True)
    codes = rng.integers(0, entries, (codebooks, rows))
    gains = rng.normal(size=(codebooks, rows))
    z = lines[np.arange(codebooks)[:, None], codes] * gains[..., None]
    return lines, z.transpose(0, 2, 1).astype(np.float32)


@pytest.mark.parametrize("width", [3, 6])
def test_planted_lines_are_found(width):
    rng = np.random.default_rng(0)
    lines, z = planted_lines(rng, 5, width, 3000)
    found = learn_codebooks(z, 16, lines=True, seed=0, iterations=20, restarts=6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=2), 1, rtol=1e-5)
    match = np.abs(np.einsum("ckv,cjv->ckj", lines, found)).max(axis=2)
    assert np.mean(match > 0.999) > 0.9
    explained = (np.abs(found @ z).max(axis=1) ** 2).sum() / (z**2).sum()
    assert explained > 0.99


def test_planted_centroids_are_found():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(4, 16, 3)) * 5
    codes = rng.integers(0, 16, (4, 2000))
    z = centres[np.arange(4)[:, None], codes].transpose(0, 2, 1) + rng.normal(size=(4, 3, 2000)) * 0.01
    found = learn_codebooks(z.astype(np.float32), 16, lines=False, seed=0, restarts=6)
    distance = np.linalg.norm(centres[:, :, None] - found[:, None], axis=3).min(axis=2)
    assert np.mean(distance < 0.05) > 0.9


@pytest.mark.parametrize("lines", [True, False])
def test_degenerate_samples_do_not_break_it(lines):
    for z in (np.zeros((2, 3, 50)), np.ones((2, 3, 1)), np.repeat(np.eye(3)[None], 2, axis=0)):
        assert np.isfinite(learn_codebooks(z.astype(np.float32), 16, lines=lines, seed=0)).all()


def test_seed_alone_decides():
    z = np.random.default_rng(0).normal(size=(40, 3, 800)).astype(np.float32)
    first = learn_codebooks(z, 16, lines=True, seed=3)
    with use_threads(2):
        np.testing.assert_array_equal(first, learn_codebooks(z, 16, lines=True, seed=3))
    assert not np.array_equal(first, learn_codebooks(z, 16, lines=True, seed=4))


@pytest.mark.parametrize("lines", [True, False])
def test_restarts_on_some_of_many_find_as_good_entries(lines):
    rng = np.random.default_rng(0)
    z = (rng.normal(size=(6, 4, 4)) @ rng.standard_t(5, size=(6, 4, 8192))).astype(np.float32)

    def left(first):
        book = learn_codebooks(z, 16, lines=lines, seed=0, first=first)
        score = book @ z
        won = (score**2).max(1) if lines else 2 * (score - (book**2).sum(2)[..., None] / 2).max(1)
        return float(((z * z).sum(1) - won).sum() / (z * z).sum())

    assert left(FIRST) < 1.01 * left(0)
    assert learning_rows(8192, 16, restarts=2) < 0.6 * learning_rows(8192, 16, restarts=2, first=0)
    assert learning_rows(100, 16, restarts=1) == 1200
