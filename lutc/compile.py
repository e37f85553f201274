"""The driver: runs the stages in order, from an ONNX model to a `.lut` artifact.

load -> canonicalise -> choose -> observe -> fit -> quantise -> fuse -> pack -> write (-> score)
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from lutc import __version__
from lutc.canonicalise import canonicalise
from lutc.errors import UsageError
from lutc.evaluate import load_callable
from lutc.fit import fit_model
from lutc.fit.factored import check_size
from lutc.forms import INT8, INT16, LayerChoice, choose_layers
from lutc.fuse import fuse
from lutc.inputs import needed_samples, requested_shapes
from lutc.ir.opset import supported_ops
from lutc.load import check_supported, load_model
from lutc.observe import open_source
from lutc.pack import expand_tables, pack, resolve_target
from lutc.passes.quantise_dense import QuantiseDense
from lutc.progress import Progress
from lutc.report import dense_bytes, layer_rows
from lutc.score import check_budget
from lutc.session import InferenceSession
from lutc.write import write_artifact

ModelSource = str | os.PathLike[str] | onnx.ModelProto


@dataclasses.dataclass
class CompileResult:
    """What a compilation made.

    Attributes:
        path: the artifact; None after a dry run.
        report: what was done, JSON-serialisable; "layers" lists every linear, convolution and attention.
    """

    path: Path | None
    report: dict[str, Any]


def compile(
    model: ModelSource,
    *,
    calib: Any = None,
    output: str | os.PathLike[str] | None = None,
    preset: str = "balanced",
    keep: Sequence[str] = (),
    form: Sequence[str] = (),
    shape: Mapping[str, Sequence[int | None]] | None = None,
    target: str = "native",
    threads: int | None = None,
    seed: int = 0,
    resume: str | os.PathLike[str] | None = None,
    size: str = "auto",
    score: Any = None,
    max_drop: float | None = None,
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
        preset: "fast", "balanced" or "accurate" replace layers by lookups; "int8" quantises them and needs no samples.
        keep: "REGEX=fp32" or "REGEX=int8" for layers without lookups, "REGEX=int16" for attention in integers; the
            expression is searched for in layer names.
        form: "REGEX=gain-v3" and the like: the form of some layers.
        shape: sizes by input name where the model leaves them open; None keeps a dim open.
        target: one of `lutc.pack.TARGETS`.
        threads: of the compiler; all granted CPUs by default. Does not change the result.
        seed: same model, samples, seed and version give the same bytes.
        resume: folder of checkpoints: finished layers are stored there and not fitted again.
        size: "small" stores the factors of every table, which the runtime makes when it loads the artifact; "fast" stores
            tables; "auto" is small where that loses nothing on held-out samples.
        score: function of a session that returns a number (higher is better), or its name "pkg.mod:fn".
        max_drop: largest allowed drop of the score.
        dry_run: stop after choosing; nothing is fitted or written.
        save_onnx: also write the compressed model as ONNX (function bodies included).
        progress: receives progress.

    Returns:
        The artifact's path and the report.

    Raises:
        UsageError: an argument or the samples; the message says what to do.
        UnsupportedModelError: the model, every failing node listed.
        BudgetMissedError: the score dropped by more than `max_drop`; the artifact is kept.
    """
    progress = progress or Progress()
    isa = resolve_target(target)
    if max_drop is not None and score is None:
        raise UsageError("--max-drop needs a score to measure: add --score pkg.mod:function")
    check_size(size)
    scorer = load_callable(score, "--score") if isinstance(score, str) else score
    rules = [_rules(flags, name) for flags, name in ((keep, "--keep"), (form, "--form"))]
    destination = _destination(model, output, dry_run)

    graph = load_model(model)
    graph = canonicalise(graph, shapes=requested_shapes(graph, shape or {}))
    check_supported(graph, supported_ops())
    choices = choose_layers(graph, preset, *rules)
    replaced = [choice for choice in choices if not choice.form.dense]
    integer = [str(choice.node.outputs[0].name) for choice in choices if choice.form in (INT8, INT16)]
    report: dict[str, Any] = {"preset": preset, "seed": seed, "dense_bytes": dense_bytes(graph)}
    if dry_run:
        return CompileResult(None, {**report, "target": isa, "layers": layer_rows(choices)})

    results: Mapping[str, Any] = {}
    if replaced:
        if calib is None:
            raise UsageError(needed_samples(graph, len(replaced)))
        graph, results = _fit(graph, choices, calib, seed, threads, resume, progress, size)
    report["layers"] = layer_rows(choices, results)
    graph = QuantiseDense(integer)(graph).model
    plan = fuse(graph)
    if size == "fast":
        expand_tables(plan)  # of a model that came with factors
    pack(plan, isa)
    if save_onnx is not None:
        _save_onnx(graph, Path(save_onnx))
    written = write_artifact(plan, destination, target=isa, report=report, check=InferenceSession)
    report = {**report, "bytes": written, "target": isa, "lutc": __version__}
    if scorer is not None:
        report["score"] = check_budget(scorer, model, destination, report, max_drop)
    return CompileResult(destination, report)


def _fit(
    graph: ir.Model,
    choices: Sequence[LayerChoice],
    calib: Any,
    seed: int,
    threads: int | None,
    resume: str | os.PathLike[str] | None,
    progress: Progress,
    size: str,
) -> tuple[ir.Model, Mapping[str, Mapping[str, Any]]]:
    """Observes the samples and fits every chosen layer: the compressed model, and what to report by layer name."""
    source = open_source(calib)
    result = fit_model(
        graph, choices, source, seed=seed, threads=threads, progress=progress, checkpoint_dir=resume, size=size
    )
    return result.model, {layer.name: dataclasses.asdict(layer) for layer in result.layers}


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


def _save_onnx(graph: ir.Model, path: Path) -> None:
    """Writes the compressed model, function bodies included, so that ONNX Runtime runs it."""
    try:
        ir.save(graph, path)
    except OSError as error:
        raise UsageError(f"cannot write '{path}': {error.strerror or error}") from error
