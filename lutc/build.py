"""From chosen forms to an artifact: fit -> quantise -> fuse -> pack -> write."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir

from lutc.cost.random_layers import randomise
from lutc.errors import UsageError
from lutc.fit import FitResult, fit_model
from lutc.fit.lutnn import fit_lutnn
from lutc.forms import INT8, LayerChoice
from lutc.fuse import fuse
from lutc.observe import CalibrationSource
from lutc.pack import expand_tables, pack, wants_narrow_tables
from lutc.passes.quantise_dense import QuantiseDense
from lutc.progress import Progress
from lutc.report import layer_rows
from lutc.session import InferenceSession
from lutc.write import write_artifact


@dataclasses.dataclass(frozen=True)
class Built:
    """An artifact.

    Attributes:
        path: The file.
        bytes: Its size.
        layers: Rows of the report.
    """

    path: Path
    bytes: int
    layers: list[dict[str, Any]]


@dataclasses.dataclass
class Builder:
    """Makes artifacts of one canonical model.

    Attributes:
        graph: The model; not changed.
        target: Resolved target of the tables.
        seed: Of all sampling.
        threads: CPU threads of fitting; None means all.
        size: How tables are stored, see `lutc.fit.factored`.
        checkpoints: Folder of finished layers, shared by all builds.
        progress: Receives progress.
        method: "lutc", or "lutnn" for the baseline of `lutc.fit.lutnn`.
    """

    graph: ir.Model
    target: str
    seed: int = 0
    threads: int | None = None
    size: str = "auto"
    checkpoints: str | os.PathLike[str] | None = None
    progress: Progress = dataclasses.field(default_factory=Progress)
    method: str = "lutc"

    def build(
        self,
        choices: Sequence[LayerChoice],
        source: CalibrationSource | None,
        path: Path,
        *,
        report: Mapping[str, Any],
        rows: Mapping[str, Mapping[str, Any]] | None = None,
        save_onnx: str | os.PathLike[str] | None = None,
    ) -> Built:
        """Fits the layers that take lookups and makes the artifact.

        Args:
            choices: Of the graph's layers.
            source: Samples; may be None where nothing is fitted.
            path: The artifact.
            report: What the artifact says of itself beside its layers.
            rows: More entries of the layers' rows, by layer name.
            save_onnx: Also write the compressed model as ONNX.
        """
        fitted = None
        if any(not choice.form.dense for choice in choices):
            assert source is not None
            fitted = self.fit(choices, source)
        return self.finish(fitted, choices, path, report=report, rows=rows, save_onnx=save_onnx)

    def finish(
        self,
        fitted: FitResult | None,
        choices: Sequence[LayerChoice],
        path: Path,
        *,
        report: Mapping[str, Any],
        rows: Mapping[str, Mapping[str, Any]] | None = None,
        save_onnx: str | os.PathLike[str] | None = None,
    ) -> Built:
        """Makes an artifact of a fit, or of the model itself where no layer takes lookups; arguments as of `build`."""
        graph = self.graph if fitted is None else fitted.model
        results = {layer.name: dataclasses.asdict(layer) for layer in fitted.layers} if fitted else {}
        layers = layer_rows(choices, results)
        for row in layers:
            row.update((rows or {}).get(row["name"], {}))
        integer = [str(choice.node.outputs[0].name) for choice in choices if choice.form == INT8]
        graph = QuantiseDense(integer)(graph.clone() if graph is self.graph else graph).model
        plan = fuse(graph)
        if self.size == "fast":
            expand_tables(plan)  # of a model that came with factors
        pack(plan, self.target)
        if save_onnx is not None:
            _save_onnx(graph, Path(save_onnx))
        written = write_artifact(
            plan, path, target=self.target, report={**report, "layers": layers}, check=InferenceSession
        )
        return Built(path, written, layers)

    def rehearse(self, choices: Sequence[LayerChoice], path: Path) -> Path:
        """Makes an artifact with random numbers in place of fitted ones: it takes as long, and is known in seconds.

        Args:
            choices: Of the graph's layers.
            path: The artifact.
        """
        graph = self.graph.clone()
        nodes = {str(node.outputs[0].name): node for node in graph.graph}
        copies = [dataclasses.replace(each, node=nodes[str(each.node.outputs[0].name)]) for each in choices]
        plan = fuse(randomise(graph, copies, seed=self.seed))
        pack(plan, self.target)
        write_artifact(plan, path, target=self.target, report={})
        return path

    def fit(self, choices: Sequence[LayerChoice], source: CalibrationSource, **fitting: Any) -> FitResult:
        """The layers that take lookups, fitted; `fitting` are more arguments of `fit_model`."""
        if self.method == "lutnn":
            return fit_lutnn(self.graph, choices, source, seed=self.seed, threads=self.threads, progress=self.progress)
        return fit_model(
            self.graph,
            choices,
            source,
            seed=self.seed,
            threads=self.threads,
            progress=self.progress,
            checkpoint_dir=self.checkpoints,
            size=self.size,
            narrow=wants_narrow_tables(self.target),
            **fitting,
        )


def _save_onnx(graph: ir.Model, path: Path) -> None:
    """Writes the compressed model, function bodies included, so that ONNX Runtime runs it."""
    try:
        ir.save(graph, path)
    except OSError as error:
        raise UsageError(f"cannot write '{path}': {error.strerror or error}") from error
