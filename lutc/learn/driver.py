"""Learning a fitted model: the stage between fit and quantise."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from lutc.divergence import session_outputs
from lutc.fit import FitResult
from lutc.fit.factored import TOLERANCE
from lutc.fit.linear import Factors
from lutc.fit.session import LookupSession
from lutc.ir.graph import LUTC_DOMAIN, is_op
from lutc.ir.parameters import ConvParameters, LookupParameters
from lutc.learn.export import Exported, Usage, export
from lutc.learn.graph import GraphModule, LayerMaker, check_learnable
from lutc.learn.judge import Judge, Verdict
from lutc.learn.layers import LookupLayer
from lutc.learn.loss import Distillation, Moments, counted, tells_classes
from lutc.learn.lutnn import LutnnLayer
from lutc.learn.processes import Processes
from lutc.learn.samples import Batch, Minibatches, chunks, hold_out, tensors, token_mask
from lutc.learn.trainer import Point, Settings, Trainer, restore
from lutc.observe import CalibrationSource, input_specs, keep_samples
from lutc.observe.inputs import batch_bytes, count_samples

SAMPLE_BYTES = 1_000_000_000
"""Bytes of samples kept."""

_VARIANCE_BATCHES = 8

_FREE_WIDTH = 6
"""Gain codebooks of linear layers keep free tables, where the fit chose them, from so many features on: they take K / V
times the product. In plain forms tied tables are hopeless; convolutions with gains make up for them by more steps."""


@dataclasses.dataclass(frozen=True)
class LearnResult:
    """A learned model.

    Attributes:
        model: With the learned constants, or as it was where learning did not help.
        factors: Of its layers' tables, by the name of the layer's output.
        nbytes: Of its layers' constants as they are stored and with tables made, likewise; empty where it was not kept.
        before: Divergence of the fitted model from the original on held-out samples (`lutc.divergence`).
        after: Of the learned one.
        classes: Kullback-Leibler divergence of outputs that tell classes, before and after; 0 where none does.
        kept: Whether the learned one is better and `model` is it.
        curve: Divergence over minutes, as the training saw it.
        steps: Steps made.
        samples: Samples learned from.
        held_out: Samples that judged.
    """

    model: ir.Model
    factors: Mapping[str, Any]
    nbytes: Mapping[str, tuple[int, int]]
    before: float
    after: float
    classes: tuple[float, float]
    kept: bool
    curve: list[Point]
    steps: int
    samples: int
    held_out: int


def learn(
    original: ir.Model,
    fitted: FitResult,
    source: CalibrationSource,
    settings: Settings,
    *,
    integer: Collection[str] = (),
    threads: int | None = None,
    progress: Callable[[str, int, int, str], Any] | None = None,
    checkpoint_dir: str | os.PathLike[str] | None = None,
) -> LearnResult:
    """`lutc.learn.learn_model`, with PyTorch there."""
    check_learnable(fitted.model)
    check_learnable(original)
    processes = Processes()
    if threads is not None:
        torch.set_num_threads(threads)
    note = (getattr(progress, "note", None) if processes.main else None) or (lambda text: None)
    specs = input_specs(original)
    kept = keep_samples(source, specs, cost=batch_bytes, budget=SAMPLE_BYTES, seed=settings.seed)
    training, held_out = hold_out(kept.batches, settings.seed)
    minibatches = Minibatches(training, specs, settings.batch, settings.seed, blend=settings.blends)
    teacher = GraphModule(original).fast(processes.device).requires_grad_(False)
    student = GraphModule(fitted.model, fitted.factors, integer, _maker(settings)).fast(processes.device)
    taps = _taps(fitted.model)
    outputs = [str(v.name) for v in original.graph.outputs if v.dtype is None or v.dtype.is_floating_point()]
    variance, told = _variance(teacher, training, [*taps, *outputs], settings.batch, processes.device)
    outputs = [name for name in outputs if name in variance]
    classes = [name for name in outputs if name in told]
    held = sum(map(count_samples, held_out))
    note(f"learning from {minibatches.samples} samples on {processes.device}, judged on {held} others")
    checkpoint = None
    if checkpoint_dir is not None:
        Path(checkpoint_dir).mkdir(parents=True, exist_ok=True)
        checkpoint = Path(checkpoint_dir) / f"{_key(fitted.model, kept.batches, settings)}.learn"
    loss = Distillation(variance, taps if settings.method == "lutc" else [], outputs, classes)
    trainer = Trainer(student, teacher, minibatches, held_out, loss, taps, settings, processes, checkpoint, progress)
    try:
        best = trainer.run()
    except KeyboardInterrupt:
        if checkpoint is not None:
            note(f"interrupted: the best so far is in {checkpoint}; the same command continues from there")
        raise
    restore(student, best)
    usage = _usage(student, training, settings.batch, processes.device)
    judge = Judge(held_out, session_outputs(LookupSession(original), held_out), classes)

    def judged(model: ir.Model) -> Verdict:
        return judge(session_outputs(LookupSession(model), held_out))

    before = judged(fitted.model)
    exported, after = _exported(student, usage, settings.size, judged)
    better = after < before
    note(f"held-out divergence {before} -> {after}" + ("" if better else ": not better, the fit is kept"))
    processes.close()
    return LearnResult(
        model=exported.model if better else fitted.model,
        factors=exported.factors if better else fitted.factors,
        nbytes=exported.nbytes if better else {},
        before=before.divergence,
        after=after.divergence,
        classes=(before.classes, after.classes),
        kept=better,
        curve=trainer.curve,
        steps=trainer.curve[-1].step,
        samples=minibatches.samples,
        held_out=held,
    )


def _exported(
    student: GraphModule, usage: Mapping[str, Usage], size: str, judged: Callable[[ir.Model], Verdict]
) -> tuple[Exported, Verdict]:
    """What was learned and the verdict on it, tables as factors ("auto") where that loses nothing."""
    exported = export(student, usage, "fast" if size == "auto" else size)
    verdict = judged(exported.model)
    if size == "auto":
        factored = export(student, usage, "small")
        if factored.nbytes != exported.nbytes and (found := judged(factored.model)).total <= TOLERANCE * verdict.total:
            return factored, found
    return exported, verdict


def _maker(settings: Settings) -> LayerMaker:
    """Makes the module of each lookup layer."""
    if settings.method == "lutnn":
        return LutnnLayer

    def make(parameters: LookupParameters, factors: Factors) -> LookupLayer:
        refitted = parameters.table.size > 0 and not factors.exact
        wide = not isinstance(parameters, ConvParameters) and parameters.groups.shape[1] >= _FREE_WIDTH
        pays = wide or parameters.gain_limit == 0
        free = refitted and (settings.tables == "free" or (settings.tables == "auto" and pays))
        return LookupLayer(parameters, factors, free=free)

    return make


def _taps(model: ir.Model) -> list[str]:
    """What the lookup layers read: the hidden values that are compared."""
    found: dict[str, None] = {}
    for node in model.graph:
        if not is_op(node, "LutLinear", "LutConv", domain=LUTC_DOMAIN):
            continue
        value = node.inputs[0]
        assert value is not None
        before = value.producer()
        if is_op(before, "Project", domain=LUTC_DOMAIN):
            value = before.inputs[0]
            assert value is not None
        found[str(value.name)] = None
    return list(found)


def _variance(
    teacher: GraphModule, batches: Sequence[Batch], names: Sequence[str], size: int, device: torch.device
) -> tuple[dict[str, float], set[str]]:
    """Variance of floating-point values of the original over a few minibatches, and which outputs tell classes."""
    found: dict[str, Moments] = {}
    rows: dict[str, list[torch.Tensor]] = {}
    with torch.no_grad():
        for number, batch in enumerate(chunks(batches, size)):
            if number == _VARIANCE_BATCHES:
                break
            feeds = tensors(batch, device)
            mask = token_mask(feeds)
            for name, whole in teacher(feeds, names).items():
                if name in names and whole.is_floating_point():
                    y = counted(whole, mask)
                    found.setdefault(name, Moments()).add(y)
                    if name in teacher.outputs and y.dim() in (2, 3):
                        rows.setdefault(name, []).append(y.reshape(-1, y.shape[-1]))
    widths = {name: {part.shape[1] for part in parts} for name, parts in rows.items()}
    classes = {name for name, parts in rows.items() if len(widths[name]) == 1 and tells_classes(torch.cat(parts))}
    return {name: moments.variance for name, moments in found.items()}, classes


def _usage(student: GraphModule, batches: Sequence[Batch], size: int, device: torch.device) -> dict[str, Usage]:
    """Mean gain and mean squared gain of every entry of every layer, over some samples."""
    observed = {name: layer for name, layer in student.lookups.items() if isinstance(layer, LookupLayer)}
    for layer in observed.values():
        layer.count = torch.zeros(3, *layer.directions.shape[:2], device=device)
    with torch.no_grad():
        for number, batch in enumerate(chunks(batches, size)):
            if number == 2 * _VARIANCE_BATCHES:
                break
            student(tensors(batch, device))
    found = {}
    for name, layer in observed.items():
        assert layer.count is not None
        total = layer.count.double().cpu().numpy()
        rows = max(float(total[2, 0].sum()), 1.0)
        found[name] = (total[0] / rows, total[1] / rows)
        layer.count = None
    return found


def _key(model: ir.Model, batches: Sequence[Batch], settings: Settings) -> str:
    """A hash of what a checkpoint depends on."""
    digest = hashlib.sha256(ir.to_proto(model).SerializeToString(deterministic=True))
    minutes = settings.minutes if settings.steps is None else 0
    how = (settings.steps, minutes, settings.batch, settings.rate, settings.method, settings.tables, settings.seed)
    digest.update(repr((*how, settings.blends)).encode())
    for batch in batches:
        for name in sorted(batch):
            digest.update(np.ascontiguousarray(batch[name]).tobytes())
    return digest.hexdigest()[:24]
