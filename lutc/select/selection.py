"""Selecting the forms of a model's layers: samples -> candidates -> curves -> search."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from lutc._runtime import available_isas
from lutc.build import Builder, Built
from lutc.cost import CostModel, LayerShape, layer_shapes
from lutc.cost.store import isa_of, load
from lutc.divergence import Reference
from lutc.drop import Scored
from lutc.fit.checkpoint import Checkpoints, checkpoint_key
from lutc.fit.parallel import available_threads
from lutc.forms import FP32, Form, LayerChoice
from lutc.observe import CalibrationSource, open_source
from lutc.observe.inputs import Batch, count_samples
from lutc.progress import Progress
from lutc.select.budget import Budget
from lutc.select.candidates import Layers, Priced, allowed_forms, constant_bytes, priced_candidates, seconds_of
from lutc.select.course import Course
from lutc.select.curves import ROWS, Curves, Point, curves_key, kept_points, measure_curves
from lutc.select.draft import Table, expected_points
from lutc.select.effort import Effort
from lutc.select.explain import conclusion, measured_rows, selection_report
from lutc.select.meter import Meter
from lutc.select.network import Network
from lutc.select.samples import Samples, deal_samples, first_samples, time_shapes
from lutc.select.search import Search, Trial
from lutc.select.thin import thinned

_FITTED = 256
"""Samples that candidates are fitted to at most, where these give rows enough."""

_LEARNED = 2.0
"""Learning starts from a model that loses up to this many times what the budget allows, if a faster one does."""

_HOPELESS = 1.0
"""A form whose layer alone moves the outputs by this many budgets is of no use, nor are coarser ones."""


@dataclasses.dataclass(frozen=True)
class Selection:
    """What was selected.

    Attributes:
        trial: The artifact that was kept, in the folder of the search.
        met: Whether it keeps the budget.
        loss: What it loses, in the budget's terms.
        rows: Measured entries of the layers' rows, by layer name.
        report: `report["selection"]`.
        source: The samples that it was fitted to.
        int8: The artifact with all layers in int8.
        bolder: Where learning is to follow, a faster one that loses too much as yet.
    """

    trial: Trial
    met: bool
    loss: float
    rows: Mapping[str, Mapping[str, Any]]
    report: dict[str, Any]
    source: CalibrationSource
    int8: Trial
    bolder: Selection | None = None


def needs_selection(as_int8: Sequence[LayerChoice], as_lookups: Sequence[LayerChoice]) -> bool:
    """Whether any layer is left to choose; both as `allowed_forms` takes them."""
    return any(len(allowed_forms(a, b)) > 1 for a, b in zip(as_int8, as_lookups, strict=True) if a.kind != "attention")


def select(
    builder: Builder,
    as_int8: Sequence[LayerChoice],
    as_lookups: Sequence[LayerChoice],
    source: CalibrationSource,
    budget: Budget,
    *,
    folder: Path,
    report: Mapping[str, Any],
    time_shape: Mapping[str, Sequence[int | None]],
    scored: Scored | None = None,
    score_seconds: float = 0.0,
    resume: str | os.PathLike[str] | None = None,
    save_onnx: bool = False,
    learns: bool = False,
) -> Selection:
    """Finds the fastest artifact that keeps a budget.

    Args:
        builder: Of the model's artifacts.
        as_int8: What `choose_layers` makes of the model where all layers are to be int8.
        as_lookups: Likewise for lookups.
        source: Calibration samples.
        budget: What may be lost.
        folder: For artifacts.
        report: What every artifact says of itself beside its layers.
        time_shape: Input sizes by name for which time counts, see `time_shapes`.
        scored: The user's score of the original, if there is one.
        score_seconds: CPU time that it took.
        resume: Folder that measured candidates are kept in.
        save_onnx: Whether each artifact has its ONNX model beside it.
        learns: Whether learning will follow.

    Returns:
        The selection; `met` is false where nothing keeps the budget.
    """
    begin, begin_cpu = time.monotonic(), time.process_time()
    progress, threads = builder.progress, builder.threads or available_threads()
    isa = isa_of(builder.target)
    cost = load(builder.target, progress.note)
    allowed = {a.name: allowed_forms(a, b) for a, b in zip(as_int8, as_lookups, strict=True)}
    layers = {choice.name: choice for choice in as_int8 if choice.kind != "attention"}
    opened = {str(c.node.outputs[0].name): c for name, c in layers.items() if allowed[name] != [FP32]}

    proto = ir.to_proto(builder.graph)
    network = Network(proto, opened, threads)
    samples = deal_samples(source, builder.graph, cost=network.cost, seed=builder.seed)
    times = time_shapes(builder.graph, samples.final, time_shape)
    runnable = isa in available_isas() and not builder.target.startswith("aarch64")
    shapes = layer_shapes(builder.graph, as_int8, times, isa=isa if runnable else None)
    total = shapes.rest_bytes + sum(constant_bytes(choice.form, choice) for choice in layers.values())
    priced: Layers = {
        output: (c, priced_candidates(c, allowed[c.name], shapes.layers.get(c.name), cost, total))
        for output, c in opened.items()
    }
    train = _training_samples(network, samples.fit)
    _announce(progress, budget, times, samples, cost)
    curves = Curves(
        resume,
        curves_key(proto.SerializeToString(deterministic=True), [*train, *samples.judge], builder.seed),
    )
    priced, fewer = thinned(network, priced, train)
    if fewer:
        progress.note("select: the model is large: fewer forms are tried in each layer")
    limit = _HOPELESS * budget.widest()

    def table_of(points: Mapping[str, list[Point]]) -> Table:
        found = _all_points(layers, points, shapes.layers, cost, total)
        return Table(as_int8, found, shapes.layers, cost, shapes.rest_bytes)

    known = kept_points(priced, curves, limit)
    likely = table_of(known or expected_points(priced, curves))
    first = likely.draft(budget.first_target(), {})
    kept = _kept_share(builder, proto, likely.choices(first), samples) if known else 0.0
    effort = Effort.estimate(
        network, priced, train, samples, curves, threads, budget=budget, kept=kept, score_seconds=score_seconds,
        forms=first.forms,
    )  # fmt: skip
    progress.note(effort.describe())
    course = Course(effort)
    points = _curves(builder, network, priced, train, samples.judge, limit, effort, curves, threads)
    del network
    table = table_of(points)
    progress.note(course.candidates_done(table.draft(budget.first_target(), {}).forms))
    original_outputs = _original_outputs(proto, samples.verify, threads)
    meter = Meter(samples.verify, original_outputs, times, isa if runnable else None, scored)
    final = open_source(samples.final)

    def build(choices: Sequence[LayerChoice], path: Path, rows: Mapping[str, Mapping[str, object]]) -> Built:
        saved, before = path.with_suffix(".onnx") if save_onnx else None, time.process_time()
        built = builder.build(choices, final, path, report=report, rows=rows, save_onnx=saved)
        if any(not choice.form.dense for choice in choices):
            progress.note(course.model_built(time.process_time() - before))
        return built

    search = Search(table, budget, meter, build, builder.rehearse, folder, progress)
    best = search.run()
    bolder = search.bolder(best, _LEARNED) if learns and budget.metric == "score" else None
    for line in conclusion(search, best):
        progress.note(f"select: {line}")
    progress.note(effort.taken(time.process_time() - begin_cpu, time.monotonic() - begin))

    def selection(trial: Trial, bolder: Selection | None = None) -> Selection:
        loss = trial.loss(budget)
        rows, told = measured_rows(search, trial), selection_report(search, trial, times, shapes)
        return Selection(trial, budget.holds(loss), loss, rows, told, final, search.trials[0], bolder)

    return selection(best, selection(bolder) if bolder else None)


def _announce(
    progress: Progress, budget: Budget, times: Mapping[str, tuple[int, ...]], samples: Samples, cost: CostModel
) -> None:
    """What is minimised, under what, on which samples."""
    shapes = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in times.items())
    progress.note(
        f"select: least time of one thread ({cost.isa}, {cost.source} cost model) at {shapes}; --time-shape changes "
        "that"
    )
    progress.note(f"select: under {budget}")
    if samples.shared:
        progress.note("select: too few samples to set any aside: what is measured on them flatters")
    else:
        fit, judge, verify = (sum(map(count_samples, part)) for part in (samples.fit, samples.judge, samples.verify))
        progress.note(f"select: {fit} samples fit, {judge} judge forms, {verify} verify")


def _training_samples(network: Network, batches: Sequence[Batch]) -> list[Batch]:
    """The samples that candidates are fitted to: enough for ROWS rows of the layer that has fewest."""
    rows = network.rows(batches[0])
    per_sample = max(min(rows, default=1) // count_samples(batches[0]), 1)
    return first_samples(batches, max(_FITTED, min(-(-ROWS // per_sample), ROWS)))


def _curves(
    builder: Builder,
    network: Network,
    priced: Mapping[str, tuple[LayerChoice, Sequence[Priced]]],
    train: Sequence[Batch],
    judge: Sequence[Batch],
    limit: float,
    effort: Effort,
    curves: Curves,
    threads: int,
) -> dict[str, list[Point]]:
    done, whole = 0.0, int(sum(effort.candidates.values())) + 1

    def step(layer: str, form: Form, tried: bool) -> None:
        nonlocal done
        builder.progress("candidates", int(done), whole, f"{layer} {form}")
        done += effort.candidates[layer, str(form)]

    points = measure_curves(
        network, priced, train, judge, curves=curves, limit=limit, seed=builder.seed,
        threads=threads, step=step,
    )  # fmt: skip
    builder.progress("candidates", whole, whole, "")
    return points


def _all_points(
    layers: Mapping[str, LayerChoice],
    found: Mapping[str, list[Point]],
    shapes: Mapping[str, LayerShape],
    cost: CostModel,
    total: float,
) -> dict[str, list[Point]]:
    """Points of every layer; one that was not opened stays fp32."""
    return {
        name: found.get(name)
        or [Point(FP32, seconds_of(FP32, shapes.get(name), cost, total), constant_bytes(FP32, c), 0.0, 0.0)]
        for name, c in layers.items()
    }


def _kept_share(builder: Builder, proto: onnx.ModelProto, choices: Sequence[LayerChoice], samples: Samples) -> float:
    """Share of the layers with lookups that an earlier run has fitted."""
    if builder.checkpoints is None:
        return 0.0
    nodes = [str(node.output[0]) for node in proto.graph.node if node.output]
    forms = {str(choice.node.outputs[0].name): choice.form for choice in choices if not choice.form.dense}
    layers = [f"{name} {forms[name]} {builder.size}" for name in nodes if name in forms]
    key = checkpoint_key(proto.SerializeToString(deterministic=True), samples.final, builder.seed)
    checkpoints = Checkpoints(builder.checkpoints, key, layers)
    return sum(map(checkpoints.has, range(len(layers)))) / max(len(layers), 1)


def _original_outputs(proto: onnx.ModelProto, batches: Sequence[Batch], threads: int) -> Reference:
    original = Network(proto, [], threads)
    return Reference(batches, original.outputs(batches))
