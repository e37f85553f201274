"""Times for the page: the artifact, the same model in int8 and fp32, and ONNX Runtime, in turn on one thread."""

from __future__ import annotations

import functools
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lutc._ort import ort_session
from lutc.report_page.facts import Times
from lutc.report_page.view import shape_text
from lutc.session import InferenceSession
from lutc.synthetic import synthesise
from lutc.timing import interleave

_ROUNDS = 15
_SLICE_S = 0.02
_PROFILES = 9

Shapes = Mapping[str, Sequence[int | None]]


def measure(
    artifact: str | os.PathLike[str],
    model: str | os.PathLike[str],
    layers: Sequence[str],
    others: Mapping[str, str | os.PathLike[str]] | None = None,
    shapes: Shapes | None = None,
) -> Times:
    """Takes the times: a few seconds, more for models that are slower than 20 ms.

    Args:
        artifact: The compiled model.
        model: The original, an ONNX file.
        layers: Names of its layers.
        others: Artifacts of the same model to compare with, by name; layers of "int8" are measured, too.
        shapes: Sizes by input name; open dims else as `lutc.synthetic` has them.

    Returns:
        Medians.

    Raises:
        LutcError: This machine cannot run an artifact.
    """
    ours = InferenceSession(artifact, threads=1)
    known = {item.name for item in ours.get_inputs()}
    feed = synthesise(ours.get_inputs(), {name: shape for name, shape in (shapes or {}).items() if name in known})
    original = ort_session(model, threads=1)
    wanted = {item.name for item in original.get_inputs()}
    sessions = {name: InferenceSession(path, threads=1) for name, path in (others or {}).items()}
    calls: dict[str, Callable[[], Any]] = {"ours": functools.partial(ours.run, None, feed)}
    calls.update((name, functools.partial(session.run, None, feed)) for name, session in sessions.items())
    theirs = {name: array for name, array in feed.items() if name in wanted}
    calls["ONNX Runtime fp32"] = functools.partial(original.run, None, theirs)
    times = {name: each.cpu_us() for name, each in interleave(calls, _ROUNDS, _SLICE_S).items()}
    return Times(
        shape=shape_text({name: array.shape for name, array in feed.items()}),
        ours=times.pop("ours"),
        others=times,
        layers=layer_times(ours, feed, layers),
        layers_int8=layer_times(sessions["int8"], feed, layers) if "int8" in sessions else {},
    )


def layer_times(session: InferenceSession, feed: Mapping[str, Any], layers: Sequence[str]) -> dict[str, float]:
    """Microseconds of each layer's steps in one inference, medians of some runs.

    A step belongs to the layer whose name it has, or whose name and one more part ("NAME/encode").
    """
    totals: list[dict[str, float]] = []
    names = set(layers)
    session.run(None, feed)
    for _ in range(_PROFILES):
        with session.profiling():
            session.run(None, feed)
        found: dict[str, float] = {}
        for step in session.profile():
            name = step["name"]
            owner = name if name in names else name.rpartition("/")[0]
            if owner in names:
                found[owner] = found.get(owner, 0.0) + step["microseconds"]
        totals.append(found)
    return {name: round(statistics.median(t.get(name, 0.0) for t in totals), 2) for name in names if name in totals[0]}
