"""The training loop: AdamW at rates relative to each tensor's spread, best so far by held-out divergence, resumable."""

from __future__ import annotations

import dataclasses
import math
import os
import pickle
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lutc.learn.graph import GraphModule
from lutc.learn.judge import Judge, Outputs, Verdict
from lutc.learn.loss import Distillation
from lutc.learn.lutnn import LINEAR_RATE
from lutc.learn.processes import Processes
from lutc.learn.samples import Batch, Minibatches, chunks, tensors, token_mask

State = dict[str, Tensor]

RATE = 4e-3
"""The peak rate is this times the root of the divergence: near the original, larger steps than that do harm."""

_WARM_UP = 0.03
_LOOKS = 12
"""Times that the held-out samples are looked at, at most."""

_LOOK_SHARE = 0.08
"""Of the minutes, that looks may take."""

_PATIENCE = 5
"""Looks after which learning stops, if each shows twice the divergence of the start: this does not come back."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """How to learn.

    Attributes:
        minutes: Length of the schedule; ignored where `steps` is given.
        steps: Length of the schedule in steps: the same result wherever it runs or is resumed.
        batch: Samples per step and process.
        rate: Peak rate, relative to each tensor's spread; None: `RATE` times the root of the divergence at the start.
        method: "lutc", or "lutnn" for the baseline of `lutc.learn.lutnn`.
        tables: "free" learns the entries of refitted tables one by one, "tied" atoms and weights, "auto" as it pays.
        size: How tables are stored, see `lutc.learn.export`.
        seed: Of the minibatches.
        blend: Whether samples are blended where they can be; the baseline never does.
        clock: Seconds; process time makes them CPU minutes.
        save_every: Seconds between checkpoints.
    """

    minutes: float = 0.0
    steps: int | None = None
    batch: int = 32
    rate: float | None = None
    method: str = "lutc"
    tables: str = "auto"
    size: str = "fast"
    seed: int = 0
    blend: bool = True
    clock: Callable[[], float] = time.monotonic
    save_every: float = 60.0

    @property
    def blends(self) -> bool:
        """Whether minibatches are blended."""
        return self.blend and self.method == "lutc"


@dataclasses.dataclass(frozen=True)
class Point:
    """One look at the held-out samples: minutes and steps so far, what is to be small there, and what it consists of.

    The last three are those of `lutc.learn.judge.Verdict`.
    """

    minutes: float
    step: int
    total: float
    divergence: float
    classes: float


def spread(tensor: Tensor) -> float:
    """Standard deviation, or magnitude where there is none."""
    flat = tensor.detach().reshape(-1).float()
    value = float(flat.std(correction=0)) if flat.numel() > 1 else 0.0
    return value if value > 1e-8 else max(float(flat.abs().mean()), 1e-4)


def parameter_groups(student: GraphModule, rate: float | None = None) -> list[dict[str, Any]]:
    """One group per tensor: `scale` is what its rate is relative to, `absolute` its rate where that is fixed.

    Args:
        student: The module.
        rate: Absolute rate of normalisations; None: relative as all others.
    """
    groups = []
    for layer in student.lookups.values():
        for name, parameter in layer.named_parameters():
            if parameter.requires_grad:
                share = layer.relative_rates.get(name, 1.0)
                absolute = layer.absolute_rates.get(name)
                groups.append({"params": [parameter], "scale": share * spread(parameter), "absolute": absolute})
    for parameter in student.normalisations.values():
        groups.append({"params": [parameter], "scale": spread(parameter), "absolute": rate})
    return groups


class Trainer:
    """Learns a student from its teacher.

    Args:
        student: Compressed.
        teacher: The original; fixed.
        minibatches: To learn from.
        held_out: Samples that judge.
        loss: Of a minibatch.
        taps: Values that the loss compares.
        settings: How.
        processes: Who shares the work.
        checkpoint: File that the state is kept in every minute and resumed from; None keeps nothing.
        progress: Called as progress(stage, done, total, note) with seconds (or steps).
    """

    def __init__(
        self,
        student: GraphModule,
        teacher: GraphModule,
        minibatches: Minibatches,
        held_out: Sequence[Batch],
        loss: Distillation,
        taps: Sequence[str],
        settings: Settings,
        processes: Processes,
        checkpoint: Path | None = None,
        progress: Callable[[str, int, int, str], Any] | None = None,
    ) -> None:
        self._student, self._teacher, self._minibatches = student, teacher, minibatches
        self._loss, self._taps, self._settings = loss, list(taps), settings
        self._processes, self._checkpoint, self._progress = processes, checkpoint, progress
        self._parameters = [p for p in student.parameters() if p.requires_grad]
        processes.same(self._parameters)
        lutnn = settings.method == "lutnn"
        groups = parameter_groups(student, LINEAR_RATE if lutnn else None)
        betas = (0.9, 0.999 if lutnn else 0.99)
        self._optimiser = torch.optim.AdamW(groups, lr=0.0, betas=betas, weight_decay=0.0, fused=True)
        self._held_out = list(chunks(held_out, settings.batch))
        self._judge = Judge(self._held_out, self._outputs(teacher), loss.classes)
        self._step, self._elapsed, self._begin = 0, 0.0, 0.0
        self._best: State = {}
        self._best_total = math.inf
        self.curve: list[Point] = []

    def _outputs(self, module: GraphModule) -> list[Outputs]:
        with torch.no_grad():
            found = [module(tensors(batch, self._processes.device)) for batch in self._held_out]
        return [
            {name: y.float().cpu().numpy() if y.is_floating_point() else y.cpu().numpy() for name, y in outputs.items()}
            for outputs in found
        ]

    def verdict(self) -> Verdict:
        """On the student as it is."""
        return self._judge(self._outputs(self._student))

    def _fraction(self) -> float:
        """How much of the schedule is over, 0 .. 1, the same for all processes."""
        s = self._settings
        if s.steps is not None:
            return min(self._step / max(s.steps, 1), 1.0)
        self._elapsed = s.clock() - self._begin
        return self._processes.agree(min(self._elapsed / max(s.minutes * 60, 1e-9), 1.0))

    def run(self) -> State:
        """Learn until the schedule ends.

        Returns:
            The parameters that did best on the held-out samples.

        Raises:
            KeyboardInterrupt: Ctrl-C; the state is in the checkpoint, if there is one.
        """
        self._resume()
        clock = self._settings.clock
        self._begin = clock() - self._elapsed
        saved = clock()
        looks = _LOOKS
        if not self.curve:
            self._look()
            if self._settings.steps is None:
                cost = self._processes.agree(max(clock() - self._begin, 1e-3))
                looks = max(2, min(looks, int(_LOOK_SHARE * self._settings.minutes * 60 / cost)))
        try:
            while (fraction := self._fraction()) < 1.0 and not self._hopeless():
                if fraction * looks >= len(self.curve):
                    self._look()
                self._learn(fraction)
                self._report(fraction)
                if clock() - saved > self._settings.save_every:
                    self._save()
                    saved = clock()
        except KeyboardInterrupt:
            self._save()
            raise
        self._look()
        self._save()
        return self._best

    def _learn(self, fraction: float) -> None:
        p = self._processes
        feeds = tensors(self._minibatches.at(self._step * p.count + p.rank), p.device)
        with torch.no_grad():
            theirs = self._teacher(feeds, self._taps)
        ours = self._student(feeds, self._taps)
        loss = self._loss(ours, theirs, token_mask(feeds))
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        p.average_gradients(self._parameters)
        self._step += 1
        if not math.isfinite(loss.item()):
            return
        rate = self._settings.rate
        if rate is None:
            rate = RATE * math.sqrt(min(self.curve[0].divergence, 1.0))
        strength = min(fraction / _WARM_UP, 1.0) * (1 + math.cos(math.pi * fraction)) / 2
        for group in self._optimiser.param_groups:
            absolute = group["absolute"]
            group["lr"] = strength * (rate * group["scale"] if absolute is None else absolute)
        self._optimiser.step()

    def _look(self) -> None:
        verdict = self.verdict()
        total, divergence, classes = map(self._processes.agree, dataclasses.astuple(verdict))
        self.curve.append(Point(self._elapsed / 60, self._step, total, divergence, classes))
        if total < self._best_total:
            self._best_total = total
            self._best = {name: p.detach().clone() for name, p in self._student.named_parameters()}

    def _hopeless(self) -> bool:
        recent = self.curve[-_PATIENCE:]
        return len(self.curve) > _PATIENCE and all(point.total > 2 * self.curve[0].total for point in recent)

    def _report(self, fraction: float) -> None:
        if self._progress is not None and self._processes.main:
            s = self._settings
            total = s.steps if s.steps is not None else round(s.minutes * 60)
            note = f"step {self._step}, divergence {self.curve[0].total:.4f} -> {self._best_total:.4f}"
            self._progress("learn", min(int(fraction * total), max(total - 1, 0)), total, note)

    def _save(self) -> None:
        if self._checkpoint is None or not self._processes.main:
            return
        if self._settings.steps is None:
            self._elapsed = self._settings.clock() - self._begin
        state = {
            "parameters": dict(self._student.named_parameters()),
            "optimiser": self._optimiser.state_dict(),
            "best": self._best,
            "curve": [dataclasses.astuple(point) for point in self.curve],
            "step": self._step,
            "elapsed": self._elapsed,
        }
        temporary = self._checkpoint.with_suffix(f".{os.getpid()}.tmp")
        try:
            torch.save(state, temporary)
            os.replace(temporary, self._checkpoint)
        finally:
            temporary.unlink(missing_ok=True)

    def _resume(self) -> None:
        if self._checkpoint is None or not self._checkpoint.is_file():
            return
        try:
            state = torch.load(self._checkpoint, map_location=self._processes.device, weights_only=True)
            restore(self._student, state["parameters"])
            self._optimiser.load_state_dict(state["optimiser"])
            self._best, self._step, self._elapsed = state["best"], state["step"], state["elapsed"]
            self.curve = [Point(*point) for point in state["curve"]]
            self._best_total = min(point.total for point in self.curve)
            note = getattr(self._progress, "note", None)
            if note is not None:
                note(f"learning continues at step {self._step} of {self._checkpoint}")
        except (OSError, KeyError, TypeError, ValueError, RuntimeError, EOFError, pickle.UnpicklingError):
            self.curve = []


def restore(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Set a module's parameters."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(state[name])
