"""The prose is plain English, the same on every run, and its two samples share no sentence."""

from __future__ import annotations

from demo import prose


def test_the_samples_are_disjoint_and_repeatable() -> None:
    calibration, test = prose.split(300, 200)
    assert len(calibration) == 300
    assert len(test) == 200
    assert not {s.lower() for s in calibration} & {s.lower() for s in test}
    assert prose.split(300, 200) == (calibration, test)
    assert prose.split(300, 200, seed=1)[1] != test


def test_sentences_are_prose() -> None:
    sentences = prose.sentences()
    assert len(sentences) > 3000
    assert all(s[0].isupper() and s[-1] in ".!?" for s in sentences)
    assert not any(mark in s for s in sentences for mark in (">>>", "`", "**"))
