"""Each form of each layer on its own: fitted to clean activations, judged by how far the model's outputs move."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from lutc.divergence import Reference
from lutc.errors import UsageError
from lutc.fit.checkpoint import checkpoint_key
from lutc.fit.conv import fit_conv
from lutc.fit.convolve import Convolution, dense_convolution
from lutc.fit.executor import Tensors
from lutc.fit.linear import FittedLayer, fit_linear, run_linear
from lutc.fit.parallel import side_by_side, use_threads
from lutc.fit.sites import site_geometry, token_mask
from lutc.forms import FP32, INT8, Form, LayerChoice
from lutc.ir.int8 import quantise_weight
from lutc.ir.parameters import ConvParameters
from lutc.observe.inputs import Batch
from lutc.select.candidates import EXPECTED, Priced
from lutc.select.network import Network

Floats = npt.NDArray[np.float32]

ROWS = 4096
"""Rows that a candidate of a linear layer is fitted to."""

COARSER = 1.3
"""A form is skipped where one of this much less expected distortion has already left the budget."""


@dataclasses.dataclass(frozen=True)
class Point:
    """A candidate that was tried.

    Attributes:
        form: The form.
        seconds: Predicted time of the layer.
        bytes: Of its constants.
        error: Squared error over variance of the layer's outputs, on samples that judge.
        divergence: Of the model's outputs, on the same samples, with this layer alone changed.
    """

    form: Form
    seconds: float
    bytes: int
    error: float
    divergence: float


class Curves:
    """Measured candidates by layer name and form, kept in a folder if there is one.

    Args:
        folder: Of checkpoints, made if missing; None keeps nothing.
        key: Hash of everything that the measurements depend on but layer and form.
    """

    def __init__(self, folder: str | os.PathLike[str] | None, key: str) -> None:
        self._path = None if folder is None else Path(folder) / f"curves-{key}.json"
        self.found: dict[str, dict[str, dict[str, float]]] = {}
        if self._path is not None and self._path.is_file():
            try:
                self.found = json.loads(self._path.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                self.found = {}

    def get(self, layer: str, form: Form) -> dict[str, float] | None:
        """{error, divergence, bytes} of a candidate, or None."""
        found = self.found.get(layer, {}).get(str(form))
        return found if isinstance(found, dict) and {"error", "divergence", "bytes"} <= set(found) else None

    def put(self, layer: str, form: Form, values: Mapping[str, float]) -> None:
        """Keeps a candidate; the file appears whole or not at all."""
        self.found.setdefault(layer, {})[str(form)] = dict(values)
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps(self.found), encoding="utf-8")
        os.replace(temporary, self._path)


def curves_key(model: bytes, batches: Iterable[Batch], seed: int) -> str:
    """A name for what the measurements depend on."""
    return f"{checkpoint_key(model, batches, seed)}-{ROWS}"


def measure_curves(
    network: Network,
    layers: Mapping[str, tuple[LayerChoice, Sequence[Priced]]],
    fit: Sequence[Batch],
    judge: Sequence[Batch],
    *,
    curves: Curves,
    limit: float,
    seed: int,
    threads: int,
    step: Callable[[str, Form, bool], Any] = lambda layer, form, tried: None,
) -> dict[str, list[Point]]:
    """Tries the candidates.

    Args:
        network: Opened at the layers.
        layers: Choice and candidates of each layer, by the name of its first output.
        fit: Samples that candidates are fitted to.
        judge: Others, that judge them.
        curves: Where results are kept, and found from an earlier run.
        limit: Divergence of the whole model beyond which no form is of use.
        seed: Of all sampling.
        threads: CPU threads.
        step: Called before each candidate with the layer, the form and whether it will be tried.

    Returns:
        Points by layer name, in the order of the candidates.

    Raises:
        UsageError: A layer computes NaN or infinity on a sample.
    """
    points: dict[str, list[Point]] = {}
    with use_threads(threads), np.errstate(over="ignore", invalid="ignore"):
        reference = Reference(judge, network.outputs(judge))
        train: list[Tensors] = [dict(batch) for batch in fit]
        live: list[Tensors] = [dict(batch) for batch in judge]
        masks = [token_mask(batch) for batch in fit]
        for index, site in enumerate(network.sites):
            name = site.output[0]
            choice, candidates = layers[name]
            network.reach(index, train)
            network.reach(index, live)
            trained, clean = network.answers(index, train), network.answers(index, live)
            for y in (*trained, *clean):
                if not np.isfinite(y).all():
                    raise UsageError(f"{choice.name}: computes NaN or infinity on a calibration sample")
            trial = _Trial(network, index, site, train, trained, live, clean, masks, reference, seed, threads)
            points[choice.name] = _try_layer(trial, choice.name, candidates, curves, limit, step)
            for tensors, y in zip((*train, *live), (*trained, *clean), strict=True):
                tensors[name] = y
    return points


def _try_layer(
    trial: _Trial,
    name: str,
    candidates: Sequence[Priced],
    curves: Curves,
    limit: float,
    step: Callable[[str, Form, bool], Any],
) -> list[Point]:
    found: list[Point] = []

    def worth_trying(form: Form) -> bool:
        return curves.get(name, form) is None and not _hopeless(form, found, limit)

    for place, candidate in enumerate(candidates):
        known = curves.get(name, candidate.form)
        tried = worth_trying(candidate.form)
        step(name, candidate.form, tried)
        if tried:
            # Beside it those that will be tried next, as far as one can tell now.
            likely = (each.form for each in candidates[place:] if worth_trying(each.form))
            trial.fit(list(itertools.islice(likely, trial.threads)))
            known = trial.values(candidate)
            curves.put(name, candidate.form, known)
        if known is not None:
            found.append(point_of(candidate, known))
    return found


def kept_points(
    layers: Mapping[str, tuple[LayerChoice, Sequence[Priced]]], curves: Curves, limit: float
) -> dict[str, list[Point]] | None:
    """What `measure_curves` gives where an earlier run has tried all that it would try, None otherwise."""
    points: dict[str, list[Point]] = {}
    for choice, candidates in layers.values():
        found: list[Point] = []
        for candidate in candidates:
            known = curves.get(choice.name, candidate.form)
            if known is not None:
                found.append(point_of(candidate, known))
            elif not _hopeless(candidate.form, found, limit):
                return None
        points[choice.name] = found
    return points


def point_of(candidate: Priced, known: Mapping[str, float]) -> Point:
    """A candidate with what `Curves` knows of it."""
    error, divergence = float(known["error"]), float(known["divergence"])
    return Point(candidate.form, candidate.seconds, int(known["bytes"]), error, divergence)


def _hopeless(form: Form, found: Sequence[Point], limit: float) -> bool:
    if form.dense:
        return False
    worst = [EXPECTED[str(p.form)] for p in found if not p.form.dense and p.divergence > limit]
    return bool(worst) and EXPECTED[str(form)] > COARSER * min(worst)


@dataclasses.dataclass
class _Trial:
    """One layer, ready to try forms on."""

    network: Network
    index: int
    site: onnx.NodeProto
    train: list[Tensors]
    trained: list[Floats]
    live: list[Tensors]
    clean: list[Floats]
    masks: list[npt.NDArray | None]
    reference: Reference
    seed: int
    threads: int
    fitted: dict[Form, FittedLayer] = dataclasses.field(default_factory=dict)

    def fit(self, likely: Sequence[Form]) -> None:
        """Fits the first form, if it has lookups and that has not been done, and the others side by side with it."""
        if likely[0].dense or likely[0] in self.fitted:
            return
        forms = [form for form in likely if not form.dense and form not in self.fitted]
        if self.site.op_type != "Conv":
            _ = self._rows  # gathered once, before there are several threads

        def fitted(form: Form) -> FittedLayer:
            with np.errstate(over="ignore", invalid="ignore"):  # each thread has its own
                return self._fitted(form)

        self.fitted |= zip(forms, side_by_side(fitted, forms), strict=True)

    def values(self, candidate: Priced) -> dict[str, float]:
        """{error, divergence, bytes} of a form."""
        form = candidate.form
        if form == FP32:
            return {"error": 0.0, "divergence": 0.0, "bytes": candidate.bytes}
        inputs = [tensors[self.site.input[0]] for tensors in self.live]
        size = candidate.bytes
        if form == INT8:
            answers = self._int8(inputs)
        else:
            layer = self.fitted.pop(form)
            answers = self._run(layer, inputs)
            size = layer.lookup.nbytes + (layer.projection.nbytes if layer.projection else 0)
        outputs = self.network.outputs_with(self.index, self.live, answers)
        return {
            "error": _relative_error(self.clean, answers),
            "divergence": self.reference.divergence(outputs),
            "bytes": size,
        }

    def _weight(self) -> tuple[Floats, Floats | None]:
        names = self.site.input
        bias = self.network.cut.constant(names[2]) if len(names) > 2 and names[2] else None
        return self.network.cut.constant(names[1]), bias

    def _fitted(self, form: Form) -> FittedLayer:
        weight, _ = self._weight()
        # Entries that are refitted one by one take much longer and, behind gains, answer little better.
        size = "small" if form.kind == "gain" else "fast"
        if self.site.op_type == "Conv":
            inputs = [tensors[self.site.input[0]] for tensors in self.train]
            return fit_conv(
                inputs, self.trained, weight, site_geometry(self.site, weight), form, seed=self.seed, size=size,
                draft=True,
            )  # fmt: skip
        x, y = self._rows
        return fit_linear(x, y, weight, form, seed=self.seed, size=size, draft=True)

    @functools.cached_property
    def _rows(self) -> tuple[Floats, Floats]:
        """At most ROWS rows of the input that are no padding, and what the layer answers to them."""
        inputs = [tensors[self.site.input[0]] for tensors in self.train]
        xs, ys = [], []
        for x, y, mask in zip(inputs, self.trained, self.masks, strict=True):
            flat_x, flat_y = x.reshape(-1, x.shape[-1]), y.reshape(-1, y.shape[-1])
            if mask is not None and mask.shape == x.shape[:-1]:
                rows = np.flatnonzero(mask)
                flat_x, flat_y = flat_x[rows], flat_y[rows]
            xs.append(flat_x)
            ys.append(flat_y)
        x, y = np.concatenate(xs), np.concatenate(ys)
        if len(x) > ROWS:
            chosen = np.sort(np.random.default_rng(self.seed).choice(len(x), ROWS, replace=False))
            x, y = x[chosen], y[chosen]
        return x, y

    def _run(self, layer: FittedLayer, inputs: Sequence[Floats]) -> list[Floats]:
        if isinstance(layer.lookup, ConvParameters):
            convolution = Convolution(layer.lookup, self.threads)
            return [convolution(x) for x in inputs]
        return [run_linear(x, layer) for x in inputs]

    def _int8(self, inputs: Sequence[Floats]) -> list[Floats]:
        """Int8Linear or Int8Conv as docs/operators.md defines them, sums in float32."""
        weight, bias = self._weight()
        if self.site.op_type == "Conv":
            integers, scale = quantise_weight(weight, 0)
            planes = (np.float32(0) if bias is None else bias[:, None, None], scale[:, None, None])
            convolve = dense_convolution(
                integers.astype(np.float32), None, site_geometry(self.site, weight), self.threads
            )
            return [_scaled(x, convolve, planes[1], planes[0], axes=(1, 2, 3)) for x in inputs]
        integers, scale = quantise_weight(weight, 1)
        matrix = integers.astype(np.float32)
        return [_scaled(x, lambda q: q @ matrix, scale, 0 if bias is None else bias, axes=(-1,)) for x in inputs]


def _scaled(
    x: Floats, product: Callable[[Floats], Floats], scale: Floats, bias: Any, *, axes: tuple[int, ...]
) -> Floats:
    """Quantises an input by its largest magnitude over some axes, multiplies, scales and adds the bias."""
    largest = np.abs(x).max(axis=axes, keepdims=True)
    inverse = np.where(largest > 0, 127 / np.maximum(largest, np.float32(1e-30)), 0).astype(np.float32)
    return product(np.rint(np.clip(x * inverse, -127, 127))) * (largest / 127 * scale) + bias


def _relative_error(clean: Sequence[Floats], answers: Sequence[Floats]) -> float:
    """Squared error over the variance of each output column (of a convolution: channel)."""
    squares = count = 0.0
    total: npt.NDArray[np.float64] | float = 0.0
    power = 0.0
    for a, b in zip(clean, answers, strict=True):
        rows = np.moveaxis(a, 1, -1).reshape(-1, a.shape[1]) if a.ndim == 4 else a.reshape(-1, a.shape[-1])
        squares += float(np.sum((a - b) ** 2, dtype=np.float64))
        total = total + rows.sum(axis=0, dtype=np.float64)
        power += float(np.sum(rows * rows, dtype=np.float64))
        count += len(rows)
    variance = power - float(np.sum(np.square(total))) / max(count, 1)
    return squares / max(variance, 1e-30)
