"""Measuring finished artifacts: how far their outputs have moved, what they score, how long they take."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from lutc.divergence import Reference, session_outputs
from lutc.drop import Drop, Scored
from lutc.forms import LayerChoice
from lutc.observe.inputs import Batch
from lutc.session import InferenceSession
from lutc.synthetic import synthesise
from lutc.timing import interleave, quiet_rounds

_ROUNDS, _FEW_ROUNDS, _SLICE_S = 24, 4, 0.02
_PROFILES, _FEW_PROFILES = 24, 4
_PATIENCE_S = 6.0  # for either kind of measurement; slow models are measured less often

MEASURING_S = 3.0
"""Seconds that measuring the times of an artifact takes on average."""


@dataclasses.dataclass
class Meter:
    """The conditions under which all artifacts of a selection are measured.

    Attributes:
        batches: Samples that verify.
        reference: The original's outputs on them.
        shapes: Of the inputs for which time counts, by name.
        isa: Whose kernels run; None where this machine cannot run the target's, and times are not measured.
        scored: The user's score of the original; None without a score.
    """

    batches: Sequence[Batch]
    reference: Reference
    shapes: Mapping[str, Sequence[int | None]]
    isa: str | None
    scored: Scored | None = None

    def open(self, path: Path) -> InferenceSession:
        """A session of one thread."""
        return InferenceSession(path, threads=1, isa=self.isa)

    def divergence(self, session: InferenceSession) -> float:
        """Of an artifact's outputs from the original's."""
        return self.reference.divergence(session_outputs(session, self.batches))

    def drop(self, session: InferenceSession) -> Drop | None:
        """How much less than the original an artifact scores; None without a score."""
        return None if self.scored is None else self.scored.drop(session)

    def _feeds(self, session: InferenceSession) -> dict[str, np.ndarray]:
        """Made-up inputs of the shapes for which time counts."""
        return synthesise(session.get_inputs(), self.shapes)

    def seconds(self, sessions: Mapping[str, InferenceSession]) -> dict[str, float]:
        """CPU time of a run, of artifacts that take turns, in the rounds in which the machine was left alone most.

        The first one's median, and of the others what the median of the rounds' ratios makes of it: a moment in which
        the machine is slow, or fast, lasts longer than a round.
        """
        calls = {name: _call(session, self._feeds(session)) for name, session in sessions.items()}
        begin = time.perf_counter()
        for call in calls.values():
            call()
        once = time.perf_counter() - begin
        rounds = min(max(int(_PATIENCE_S / (2 * once)), _FEW_ROUNDS), _ROUNDS)
        samples = interleave(calls, rounds, _SLICE_S)
        quiet = quiet_rounds(samples)
        first = samples[next(iter(calls))].cpu[quiet]
        return {name: float(np.median(first) * np.median(times.cpu[quiet] / first)) for name, times in samples.items()}

    def layer_seconds(
        self, sessions: Mapping[str, InferenceSession], choices: Sequence[LayerChoice]
    ) -> dict[str, dict[str, float]]:
        """Time of every layer (projection, encode and lookups together) of artifacts that take turns.

        Layers are found by the names of their nodes; those of one name are counted together.
        """
        best: dict[str, dict[int, float]] = {name: {} for name in sessions}
        names: dict[str, list[str]] = {}
        feeds = self._feeds(next(iter(sessions.values())))
        begin = time.perf_counter()
        for number in range(_PROFILES):
            if number >= _FEW_PROFILES and time.perf_counter() - begin > _PATIENCE_S:
                break
            for name, session in sessions.items():
                with session.profiling():
                    session.run(None, feeds)
                steps = session.profile()
                names[name] = [str(step["name"]) for step in steps]
                for index, step in enumerate(steps):
                    seconds = step["microseconds"] * 1e-6
                    best[name][index] = min(best[name].get(index, np.inf), seconds)
        owners = {choice.node.name or str(choice.node.outputs[0].name): choice.name for choice in choices}
        found: dict[str, dict[str, float]] = {}
        for name, steps_of in names.items():
            layers: dict[str, float] = {}
            for index, step_name in enumerate(steps_of):
                owner = owners.get(step_name) or owners.get(step_name.removesuffix("/encode"))
                if owner is not None:
                    layers[owner] = layers.get(owner, 0.0) + best[name][index]
            found[name] = layers
        return found


def _call(session: InferenceSession, feeds: dict[str, np.ndarray]) -> Callable[[], object]:
    return lambda: session.run(None, feeds)
