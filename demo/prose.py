"""English prose that every Python installation carries: its language reference and the docstrings of its library."""

from __future__ import annotations

import ast
import re
import sysconfig
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np

_SKIP = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "__pycache__"}
_MARKUP = re.compile(r":[a-z:]+:`|[`*|]{1,2}(?=\S)|(?<=\S)[`*|]{1,2}|\[\d+\]")
_SENTENCE_END = re.compile(r"(?<=[.!?])(?<!e\.g\.)(?<!i\.e\.)\s+(?=[A-Z])")


@lru_cache(maxsize=1)
def sentences() -> tuple[str, ...]:
    """Distinct sentences of plain prose, sorted: the same list on every run of one Python version."""
    found: set[str] = set()
    for text in _texts():
        for paragraph in re.split(r"\n\s*\n", text):
            found.update(filter(_is_prose, _SENTENCE_END.split(_clean(paragraph))))
    # Without case and punctuation, so that the same sentence cannot stand on both sides of a split.
    return tuple(sorted({re.sub(r"[^a-z]+", " ", s.lower()): s for s in sorted(found)}.values()))


def split(calibration: int, test: int, seed: int = 0) -> tuple[list[str], list[str]]:
    """Two disjoint random samples of `sentences()`.

    Args:
        calibration: Sentences of the first sample.
        test: Sentences of the second.
        seed: Of the draw.
    """
    pool = sentences()
    order = np.random.default_rng(seed).permutation(len(pool))
    chosen = [pool[i] for i in order[: calibration + test]]
    return chosen[test:], chosen[:test]


def _texts() -> Iterator[str]:
    from pydoc_data.topics import topics

    yield from topics.values()
    library = Path(sysconfig.get_path("stdlib"))
    for path in sorted(library.rglob("*.py")):
        if not _SKIP.isdisjoint(path.relative_to(library).parts):
            continue
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                yield ast.get_docstring(node) or ""


def _clean(paragraph: str) -> str:
    lines = [line.strip() for line in paragraph.splitlines()]
    if any(line.startswith((">>>", "...", "|", "+-", "==", "--", "#")) for line in lines):
        return ""
    return re.sub(r"\s+", " ", _MARKUP.sub("", " ".join(lines))).strip(" -*o")


def _is_prose(sentence: str) -> bool:
    words = sentence.split()
    letters = sum(c.isalpha() or c.isspace() for c in sentence)
    return (
        8 <= len(words) <= 60
        and sentence[0].isupper()
        and sentence[-1] in ".!?"
        and letters >= 0.9 * len(sentence)
        and max(map(len, words)) <= 24
    )
