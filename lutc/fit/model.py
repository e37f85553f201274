"""Fitting a whole model: layer after layer along the network, each on what the compressed prefix feeds it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from lutc.errors import UsageError
from lutc.fit.checkpoint import Checkpoints, checkpoint_key
from lutc.fit.conv import fit_conv
from lutc.fit.convolve import Convolution
from lutc.fit.executor import CutModel, Tensors, shortcut
from lutc.fit.linear import Factors, FittedLayer, fit_linear, run_linear
from lutc.fit.parallel import available_threads, use_threads
from lutc.fit.sites import activation_bytes, dense_layer, site_geometry, token_mask
from lutc.fit.table_bits import as_fitted
from lutc.forms import LayerChoice
from lutc.ir.expand import expand_table
from lutc.ir.lookup import add_functions, lut_conv, lut_linear, project
from lutc.ir.parameters import ConvParameters
from lutc.observe import DEFAULT_BUDGET, CalibrationSource, input_specs, keep_samples

Floats = npt.NDArray[np.float32]

MAX_ROWS = 32768
"""Rows from which a linear layer is fitted."""


@dataclasses.dataclass(frozen=True)
class LayerReport:
    """What became of one replaced layer.

    Attributes:
        name: The layer's.
        op: "linear" or "conv".
        form: As `Form` prints it, with the bits of its table where these are fewer than 8.
        group_sizes: Features read by each codebook.
        codebooks: C.
        rank: Columns of the projection; 0 without one.
        bytes: Of the layer's constants as they are stored.
        bytes_expanded: The same with its table made; equal to `bytes` where the table itself is stored.
        error: Squared error over variance of its outputs on held-out rows.
    """

    name: str
    op: str
    form: str
    group_sizes: list[int]
    codebooks: int
    rank: int
    bytes: int
    bytes_expanded: int
    error: float


@dataclasses.dataclass(frozen=True)
class FitResult:
    """A compressed model.

    Attributes:
        model: With `ai.lutc` nodes and their function bodies.
        layers: One report per replaced layer, in graph order.
        samples: Calibration samples used.
        output_error: Squared error over variance of each floating-point model output, on the calibration samples.
        factors: What each layer's table was made from, by the name of the layer's output.
    """

    model: ir.Model
    layers: list[LayerReport]
    samples: int
    output_error: dict[str, float]
    factors: Mapping[str, Factors] = dataclasses.field(default_factory=dict)


def fit_model(
    model: ir.Model,
    choices: Sequence[LayerChoice],
    source: CalibrationSource,
    *,
    seed: int = 0,
    threads: int | None = None,
    progress: Callable[[str, int, int, str], Any] | None = None,
    checkpoint_dir: str | os.PathLike[str] | None = None,
    budget: int = DEFAULT_BUDGET,
    size: str = "fast",
    narrow: bool = False,
) -> FitResult:
    """Replace layers of a canonical model by lookups fitted to calibration samples.

    The same model, choices, samples, seed and thread count give the same bytes. (Another thread count may change
    the last bit of a sum inside BLAS, and with it a choice between two equally good tables.)

    Args:
        model: Canonical; not changed.
        choices: From `choose_layers(model)`; dense ones are left alone.
        source: The samples.
        seed: Of all sampling.
        threads: CPU threads; None means all.
        progress: Called as progress(stage, done, total, note); its method `note`, if any, gets a line about memory.
        checkpoint_dir: Folder that finished layers are kept in; layers of an earlier, interrupted run on the
            same input are read from there.
        budget: Bytes of activations kept alive.
        size: "small" makes every table from int8 factors, "auto" where that loses nothing, "fast" none.
        narrow: Whether tables of fewer than 8 bits are wanted where they are free.

    Returns:
        The compressed model and its report.

    Raises:
        UsageError: The samples do not fit the model, or a layer computes NaN or infinity on them.
    """
    threads = threads or available_threads()
    wanted = {str(choice.node.outputs[0].name): choice for choice in choices if not choice.form.dense}
    proto = ir.to_proto(model)
    cut = CutModel(proto, wanted, threads)
    note = getattr(progress, "note", None)
    if note:
        note(f"calibration keeps at most {budget / 1e9:.1f} GB of activations, however many samples there are")
    kept = keep_samples(
        source, input_specs(model), cost=lambda batch: 2 * activation_bytes(cut, batch), budget=budget, seed=seed
    )
    if note:
        note(f"calibration: {kept.samples} of {kept.seen} samples, {kept.cost / 1e9:.2f} GB of activations")
    checkpoints = Checkpoints(
        checkpoint_dir,
        checkpoint_key(proto.SerializeToString(deterministic=True), kept.batches, seed),
        [f"{site.output[0]} {wanted[site.output[0]].form} {size}{' narrow' * narrow}" for site in cut.sites],
    )
    with use_threads(threads):
        run = _Run(proto, cut, wanted, kept.batches, seed, threads, size, narrow)
        for index, site in enumerate(cut.sites):
            if progress:
                progress("fit", index, len(cut.sites), wanted[site.output[0]].name)
            run.step(index, checkpoints)
        errors = run.finish()
    if progress:
        progress("fit", len(cut.sites), len(cut.sites), "")
    reports = [layer_report(choice, run.layers[name]) for name, choice in wanted.items()]
    factors = {name: layer.factors for name, layer in run.layers.items()}
    return FitResult(rewritten(model, wanted, run.layers), reports, kept.samples, errors, factors)


class _Run:
    """The state of a fit: both streams of every batch, and the layers fitted so far."""

    def __init__(
        self,
        proto: onnx.ModelProto,
        cut: CutModel,
        wanted: dict[str, LayerChoice],
        batches: Sequence[Tensors],
        seed: int,
        threads: int,
        size: str,
        narrow: bool,
    ) -> None:
        self._nodes = list(proto.graph.node)
        self._cut, self._wanted, self._seed, self._threads = cut, wanted, seed, threads
        self._clean: list[Tensors] = [dict(batch) for batch in batches]
        self._compressed: list[Tensors] = [{} for _ in batches]
        self._storage: dict[str, Any] = {"size": size, "narrow": narrow}
        self._masks = [token_mask(batch) for batch in batches]
        self.layers: dict[str, FittedLayer] = {}

    def step(self, index: int, checkpoints: Checkpoints) -> None:
        """Run up to the next site, fit it, and carry both streams through it."""
        self._advance(index)
        site = self._cut.sites[index]
        choice = self._wanted[site.output[0]]
        weight = self._cut.constant(site.input[1])
        dense = dense_layer(site, self._cut, self._threads)
        source, output = site.input[0], site.output[0]
        with np.errstate(over="ignore", invalid="ignore"):
            for clean in self._clean:
                clean[output] = dense(clean[source])
                if not np.isfinite(clean[output]).all():
                    raise UsageError(f"{choice.name}: computes NaN or infinity on a calibration sample")
        inputs = [theirs.get(source, ours[source]) for ours, theirs in zip(self._clean, self._compressed, strict=True)]
        for batch in inputs:
            if not np.isfinite(batch).all():
                raise UsageError(f"{choice.name}: its input is NaN or infinity on a calibration sample")
        layer = checkpoints.load(index)
        if layer is None:
            targets = self._targets(output, drift=choice.kind == "conv")
            layer = self._fit(site, choice, inputs, targets, weight, self._seed + index)
            checkpoints.save(index, layer)
        self.layers[output] = layer
        if isinstance(layer.lookup, ConvParameters):
            convolution = Convolution(layer.lookup, self._threads)
            for theirs, x in zip(self._compressed, inputs, strict=True):
                theirs[output] = convolution(x)
        else:
            rows = run_linear(np.concatenate([x.reshape(-1, x.shape[-1]) for x in inputs]), layer)
            sizes = [x.size // x.shape[-1] for x in inputs]
            parts = np.split(rows, np.cumsum(sizes)[:-1])
            for theirs, x, part in zip(self._compressed, inputs, parts, strict=True):
                theirs[output] = part.reshape(*x.shape[:-1], -1)

    def _advance(self, index: int) -> None:
        self._cut.run_piece(index, self._clean, self._compressed)
        self._cut.release(index)

    def _targets(self, output: str, *, drift: bool) -> list[Floats]:
        """Clean outputs; with `drift`, plus what the compressed shortcut that is added to them lacks."""
        found = shortcut(self._nodes, output) if drift else None
        targets = []
        for ours, theirs in zip(self._clean, self._compressed, strict=True):
            target = ours[output]
            if found is not None and found[1] in theirs and found[1] in ours:
                gap = ours[found[1]] - theirs[found[1]]
                if gap.shape == target.shape:
                    target = target + gap
            targets.append(target)
        return targets

    def _fit(
        self,
        site: onnx.NodeProto,
        choice: LayerChoice,
        inputs: list[Floats],
        targets: list[Floats],
        weight: Floats,
        seed: int,
    ) -> FittedLayer:
        if choice.kind == "conv":
            geometry = site_geometry(site, weight)
            return fit_conv(inputs, targets, weight, geometry, choice.form, seed=seed, **self._storage)
        x_rows, y_rows = [], []
        total = sum(x.size // x.shape[-1] for x in inputs)
        for number, (x, y, mask) in enumerate(zip(inputs, targets, self._masks, strict=True)):
            flat_x, flat_y = x.reshape(-1, x.shape[-1]), y.reshape(-1, y.shape[-1])
            rows = np.arange(len(flat_x))
            if mask is not None and mask.shape == x.shape[:-1]:
                rows = np.flatnonzero(mask)
            if total > MAX_ROWS:
                share = max(1, round(len(rows) * MAX_ROWS / total))
                rng = np.random.default_rng((seed, number))
                rows = np.sort(rng.choice(rows, min(share, len(rows)), replace=False))
            x_rows.append(flat_x[rows])
            y_rows.append(flat_y[rows])
        x, y = np.concatenate(x_rows), np.concatenate(y_rows)
        return fit_linear(x, y, weight, choice.form, seed=seed, **self._storage)

    def finish(self) -> dict[str, float]:
        """Run the rest of the network; error of each floating-point output."""
        self._advance(len(self._cut) - 1)
        errors = {}
        for name in self._cut.outputs:
            pairs = [
                (ours[name], theirs.get(name, ours[name]))
                for ours, theirs in zip(self._clean, self._compressed, strict=True)
                if name in ours and ours[name].dtype.kind == "f"
            ]
            if pairs:
                a = np.concatenate([clean.ravel() for clean, _ in pairs]).astype(np.float64)
                b = np.concatenate([compressed.ravel() for _, compressed in pairs])
                errors[name] = float(((a - b) ** 2).sum() / max(((a - a.mean()) ** 2).sum(), 1e-30))
        return errors


def layer_report(choice: LayerChoice, layer: FittedLayer) -> LayerReport:
    """The row of a fitted layer."""
    projection = layer.projection
    expanded = layer.lookup.nbytes + (projection.nbytes if projection else 0)
    stored = expanded
    if layer.expand is not None:
        stored += layer.expand.nbytes - layer.lookup.table.nbytes
    return LayerReport(
        name=choice.name,
        op=choice.kind,
        form=str(as_fitted(choice.form, layer.factors.limit)),
        group_sizes=layer.lookup.group_sizes,
        codebooks=layer.lookup.codebooks,
        rank=projection.rank if projection else 0,
        bytes=stored,
        bytes_expanded=expanded,
        error=layer.error,
    )


def rewritten(model: ir.Model, wanted: Iterable[str], layers: dict[str, FittedLayer]) -> ir.Model:
    """A copy of the model with the fitted layers in place of the dense ones."""
    copy = ir.from_proto(ir.to_proto(model))
    assert isinstance(copy, ir.Model)
    graph = copy.graph
    by_output = {node.outputs[0].name: node for node in graph}
    for output in wanted:
        old, layer = by_output[output], layers[output]
        x = old.inputs[0]
        assert x is not None
        name = old.name or output
        nodes: list[ir.Node] = []
        if layer.projection is not None:
            nodes.append(project(x, layer.projection, name=f"{name}.project"))
            x = nodes[0].outputs[0]
            x.name = f"{output}.projected"
            x.type = ir.TensorType(ir.DataType.FLOAT)
        table = None
        if layer.expand is not None:
            nodes.append(expand_table(layer.expand, name=f"{name}.expand"))
            table = nodes[-1].outputs[0]
        if isinstance(layer.lookup, ConvParameters):
            nodes.append(lut_conv(x, layer.lookup, name=name, table=table))
        else:
            nodes.append(lut_linear(x, layer.lookup, name=name, table=table))
        for node in nodes:
            node.metadata_props.update(old.metadata_props)
            for value in node.inputs:
                assert value is not None
                if value in (x, old.inputs[0], table):
                    continue
                while value.name in graph.initializers:
                    value.name = f"{value.name}_"
                graph.register_initializer(value)
        constants = [value for value in old.inputs[1:] if value is not None]
        ir.convenience.replace_nodes_and_values(graph, old, [old], nodes, list(old.outputs), list(nodes[-1].outputs))
        for value in constants:
            if not value.uses() and value.name in graph.initializers and not value.is_graph_input():
                del graph.initializers[str(value.name)]
    add_functions(copy)
    return copy
