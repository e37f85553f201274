"""The driver: runs the stages in order, from an ONNX model to a `.lut` artifact.

load -> canonicalise -> choose or select -> (observe -> fit -> quantise -> fuse -> pack -> write) (-> score)

The stages in brackets are `lutc.build`: a selection runs them for every model it weighs.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from lutc import __version__
from lutc._ort import ort_session
from lutc.build import Builder
from lutc.canonicalise import canonicalise
from lutc.drop import Score, Scored
from lutc.errors import UsageError
from lutc.evaluate import load_callable
from lutc.fit.factored import check_size
from lutc.fit.lutnn import check_lutnn
from lutc.forms import LayerChoice, choose_layers, uniform_form
from lutc.inputs import needed_samples, requested_shapes
from lutc.ir.opset import supported_ops
from lutc.learn import check_learning
from lutc.learn.refine import Refiner
from lutc.learn.selected import SelectedLearning
from lutc.load import check_supported, load_model
from lutc.observe import CalibrationSource, open_source
from lutc.pack import resolve_target
from lutc.progress import Progress
from lutc.report import dense_bytes, layer_rows
from lutc.score import check_budget, missed
from lutc.select import Budget, Selection, needs_selection, select
from lutc.select.candidates import allowed_forms

METHODS = ("lutc", "lutnn")

ModelSource = str | os.PathLike[str] | onnx.ModelProto


@dataclasses.dataclass
class CompileResult:
    """What a compilation made.

    Attributes:
        path: the artifact; None after a dry run.
        report: what was done, JSON-serialisable; "layers" lists every linear, convolution and attention,
            "selection" (see `lutc.select.explain`) what was weighed against what.
    """

    path: Path | None
    report: dict[str, Any]


def compile(
    model: ModelSource,
    *,
    calib: Any = None,
    output: str | os.PathLike[str] | None = None,
    preset: str = "accurate",
    keep: Sequence[str] = (),
    form: Sequence[str] = (),
    shape: Mapping[str, Sequence[int | None]] | None = None,
    target: str = "native",
    threads: int | None = None,
    seed: int = 0,
    resume: str | os.PathLike[str] | None = None,
    size: str = "auto",
    score: Score | str | None = None,
    max_drop: float | None = None,
    time_shape: Mapping[str, Sequence[int | None]] | None = None,
    learn: float | None = None,
    method: str = "lutc",
    dry_run: bool = False,
    save_onnx: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> CompileResult:
    """Compiles an ONNX model to a `.lut` artifact.

    Args:
        model: path of an ONNX file, or a ModelProto.
        calib: unlabelled samples: an .npz, a directory of .npy/.npz, "pkg.mod:callable", a callable that yields dicts
            of arrays by input name, or "random". Needed only if a layer is to be replaced by lookups.
        output: the artifact; MODEL.lut beside the model by default.
        preset: "accurate", "balanced" or "fast": the fastest model whose outputs diverge no more than this (see
            `lutc.select.budget`); or a form for all layers alike, such as "gain-v3", or "int8", which needs no samples.
        keep: "REGEX=fp32" or "REGEX=int8" for layers without lookups, attention among them; the
            expression is searched for in layer names.
        form: "REGEX=gain-v3" and the like: the form of some layers.
        shape: sizes by input name where the model leaves them open; None keeps a dim open.
        target: one of `lutc.pack.TARGETS`.
        threads: of the compiler; all granted CPUs by default. Does not change the result.
        seed: same model, samples, seed and version give the same bytes.
        resume: folder of checkpoints: finished layers are stored there and not fitted again.
        size: "small" stores the factors of every table, which the runtime makes when it loads the artifact; "fast"
            stores tables; "auto" is small where that loses nothing on held-out samples.
        score: function of a session that returns a number (higher is better) or a vector of one number a sample, whose
            mean is the score; or its name "pkg.mod:fn".
        max_drop: largest allowed drop of the score; takes the place of the preset's budget. Where the score tells
            samples, the drop has to be this small with 95 % confidence.
        time_shape: input sizes by name for which time is minimised; by default batch 1, and open dims at the median of
            the samples.
        learn: minutes to learn for, end to end, after the forms are chosen and fitted; needs the extra `learn`.
        method: "lutc", or "lutnn": the method of LUT-NN, a baseline; its presets are plain forms such as "plain-v8".
        dry_run: stop after choosing; nothing is fitted or written.
        save_onnx: also write the compressed model as ONNX (function bodies included).
        progress: receives progress.

    Returns:
        The artifact's path and the report.

    Raises:
        UsageError: an argument or the samples; the message says what to do.
        UnsupportedModelError: the model, every failing node listed.
        BudgetMissedError: nothing keeps the budget; the most accurate artifact is kept.
    """
    progress = progress or Progress()
    isa = resolve_target(target)
    if max_drop is not None and score is None:
        raise UsageError("--max-drop needs a score to measure: add --score pkg.mod:function")
    check_size(size)
    if method not in METHODS:
        raise UsageError(f"--method '{method}' is none of: {', '.join(METHODS)}")
    if learn is not None:
        check_learning(learn)
        calib = list(calib) if isinstance(calib, Iterator) else calib  # read once by the fit, once by learning
    scorer = load_callable(score, "--score") if isinstance(score, str) else score
    rules = [_rules(flags, name) for flags, name in ((keep, "--keep"), (form, "--form"))]
    destination = _destination(model, output, dry_run)

    graph = load_model(model)
    graph = canonicalise(graph, shapes=requested_shapes(graph, shape or {}))
    check_supported(graph, supported_ops())
    request = _Request(graph, preset, rules)
    if method == "lutnn":
        if request.selects:
            raise UsageError(f"--method lutnn selects no forms: choose --preset plain-v8 or the like, not {preset}")
        check_lutnn(request.uniform)
    if learn is not None:
        check_learning(learn, graph)
        if request.selects and int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise UsageError("several processes cannot select together: choose a form, such as --preset gain-v4")
    report: dict[str, Any] = {"preset": preset, "seed": seed, "dense_bytes": dense_bytes(graph)}
    if dry_run:
        return CompileResult(None, {**report, "target": isa, "layers": request.dry_rows()})
    builder = Builder(graph, isa, seed, threads, size, resume, progress, method)
    if request.selects:
        if calib is None:
            raise UsageError(needed_samples(graph, request.open_layers, selects=True))
        budget = Budget.of_preset(preset)
        if max_drop is not None:
            budget = Budget("score", max_drop, score if isinstance(score, str) else "the score")
        selected = _select(
            builder,
            request,
            open_source(calib),
            budget,
            model,
            destination,
            report,
            scorer,
            time_shape or {},
            save_onnx,
            learn,
        )
        return CompileResult(destination, {**selected, "target": isa, "lutc": __version__})

    choices = request.uniform
    replaced = sum(not choice.form.dense for choice in choices)
    if replaced and calib is None:
        raise UsageError(needed_samples(graph, replaced))
    source = open_source(calib) if replaced else None
    fitted = builder.fit(choices, source) if source is not None else None
    if learn is not None and fitted is not None and source is not None:
        refiner = Refiner(builder, choices, source, learn)
        fitted = refiner(fitted)
        report["learn"] = refiner.report
    built = builder.finish(fitted, choices, destination, report=report, save_onnx=save_onnx)
    report = {**report, "layers": built.layers, "bytes": built.bytes, "target": isa, "lutc": __version__}
    if scorer is not None:
        report["score"] = check_budget(scorer, model, destination, report, max_drop)
    return CompileResult(destination, report)


class _Request:
    """What the user wants of each layer.

    Args:
        graph: The canonical model.
        preset: A budget, or a form for all layers alike.
        rules: Those of --keep and --form.
    """

    def __init__(self, graph: ir.Model, preset: str, rules: Sequence[Sequence[tuple[str, str]]]) -> None:
        uniform = uniform_form(preset)
        self.uniform = choose_layers(graph, "int8" if uniform is None else preset, *rules)
        self.as_lookups = choose_layers(graph, "gain-v3", *rules)
        self.selects = uniform is None and needs_selection(self.uniform, self.as_lookups)

    @property
    def open_layers(self) -> int:
        """Layers whose form is to be selected."""
        return sum(self._open(a, b) for a, b in zip(self.uniform, self.as_lookups, strict=True))

    @staticmethod
    def _open(as_int8: LayerChoice, as_lookups: LayerChoice) -> bool:
        return as_int8.kind != "attention" and len(allowed_forms(as_int8, as_lookups)) > 1

    def dry_rows(self) -> list[dict[str, Any]]:
        """Rows of the layers before anything is known of samples."""
        rows = layer_rows(self.uniform)
        if self.selects:
            for row, a, b in zip(rows, self.uniform, self.as_lookups, strict=True):
                if self._open(a, b):
                    lookups = [form for form in allowed_forms(a, b) if not form.dense]
                    row["form"], row["bytes"], row["error"] = "selected", None, None
                    row["why"] = (
                        f"fp32, int8 or {len(lookups)} forms of lookups" if lookups else f"fp32 or int8; {b.why}"
                    )
        return rows


def _select(
    builder: Builder,
    request: _Request,
    source: CalibrationSource,
    budget: Budget,
    model: ModelSource,
    destination: Path,
    report: dict[str, Any],
    scorer: Any,
    time_shape: Mapping[str, Sequence[int | None]],
    save_onnx: str | os.PathLike[str] | None,
    learn: float | None,
) -> dict[str, Any]:
    """Selects, learns if asked for, and gives the artifact that was kept its name: the report."""
    scored, begin = None, time.process_time()
    if scorer is not None:
        scored = Scored.of(
            scorer, ort_session(model.SerializeToString() if isinstance(model, onnx.ModelProto) else model)
        )
    score_seconds = time.process_time() - begin
    with tempfile.TemporaryDirectory(dir=destination.parent, prefix=f".{destination.name}.") as folder:
        resume, builder.checkpoints = builder.checkpoints, builder.checkpoints or Path(folder) / "fits"
        selection = select(
            builder,
            request.uniform,
            request.as_lookups,
            source,
            budget,
            folder=Path(folder),
            report=report,
            time_shape=time_shape,
            scored=scored,
            score_seconds=score_seconds,
            resume=resume,
            save_onnx=save_onnx is not None,
            learns=learn is not None,
        )
        if learn is not None:
            learning = SelectedLearning(builder, source, learn, budget, report, scored, save_onnx is not None)
            selection, learned = learning.run(selection)
            report = {**report, **learned}
        built = selection.trial.built
        if save_onnx is not None:
            shutil.copyfile(built.path.with_suffix(".onnx"), save_onnx)
        os.replace(built.path, destination)
    report = _selected_report(report, selection)
    if scored is not None and selection.trial.drop is not None:
        report["score"] = scored.told(selection.trial.drop)
    if not selection.met:
        raise missed(budget, selection, destination, report)
    return report


def _selected_report(report: Mapping[str, Any], selection: Selection) -> dict[str, Any]:
    layers = [{**row, **selection.rows.get(row["name"], {})} for row in selection.trial.built.layers]
    return {**report, "layers": layers, "bytes": selection.trial.built.bytes, "selection": selection.report}


def _rules(flags: Sequence[str], name: str) -> list[tuple[str, str]]:
    """`REGEX=FORM` flags as pairs."""
    rules = []
    for flag in flags:
        regex, equals, form = flag.rpartition("=")
        if not equals or not regex or not form:
            raise UsageError(f"{name} '{flag}' is not REGEX=FORM, such as {name} 'encoder.*=fp32'")
        rules.append((regex, form))
    return rules


def _destination(model: ModelSource, output: str | os.PathLike[str] | None, dry_run: bool) -> Path:
    """Where the artifact goes; fails before any long work if that cannot be written."""
    if output is not None:
        path = Path(output)
    elif not isinstance(model, onnx.ModelProto):
        path = Path(model).with_suffix(".lut")
    elif dry_run:
        return Path("model.lut")
    else:
        raise UsageError("a ModelProto has no path: say where the artifact goes with output=...")
    if dry_run:
        return path
    if path.is_dir():
        raise UsageError(f"cannot write '{path}': it is a folder; name a file with -o OUT.lut")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK | os.X_OK):
        raise UsageError(
            f"cannot write '{path}': '{path.parent}' is no folder that you may write; choose another with -o"
        )
    return path
