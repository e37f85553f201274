"""The method of LUT-NN, as the baseline: k-means on the original's inputs, tables of centroids, one scale a layer.

Every layer is initialised at once from the first 1,024 samples of the original model; nothing looks at outputs, nothing
is refitted. Learning (lutc.learn.lutnn) then does what the paper leaves to training. Two things follow from our
operators: a convolution's sub-vectors are channels of one pixel, not patches of one channel, and what is encoded is
quantised to int8 first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from lutc.errors import UsageError
from lutc.fit.codebooks import learn_codebooks
from lutc.fit.encode import group_rows
from lutc.fit.encoder import choose_inv_scale, even_groups, pad_groups
from lutc.fit.executor import CutModel
from lutc.fit.linear import Factors, FittedLayer
from lutc.fit.model import FitResult, layer_report, rewritten
from lutc.fit.parallel import available_threads, use_threads
from lutc.fit.sites import dense_layer, site_geometry, token_mask
from lutc.fit.tied import as_constant, by_taps, tied_table
from lutc.forms import LayerChoice
from lutc.ir.parameters import ConvParameters, LookupParameters
from lutc.observe import CalibrationSource, input_specs
from lutc.observe.inputs import Batch, count_samples, split_batch, validate

Floats = npt.NDArray[np.float32]

SAMPLES = 1024
POINTS = 256
"""Sub-vectors per centroid, at most: what faiss.Kmeans takes by default."""

ITERATIONS = 25
"""Likewise."""

_BATCH = 32


def encode_constants(
    centroids: Floats, groups: npt.NDArray[np.int32], inv_scale: Floats
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int32]]:
    """Directions and code_bias of a nearest-centroid search.

    Args:
        centroids: float32 [C, K, V].
        groups: int32 [C, V], -1 in empty slots.
        inv_scale: Of the inputs' quantisation, float32 [D].

    Returns:
        int8 [C, K, V] and int32 [C, K].
    """
    used = groups >= 0
    step = np.where(inv_scale > 0, 1 / np.maximum(inv_scale, 1e-30), 0).astype(np.float64)
    wide = centroids.astype(np.float64) * used[:, None, :]
    encode = wide * np.where(used, step[groups], 0)[:, None, :]
    largest = np.abs(encode).max(axis=(1, 2))
    factor = np.where(largest > 0, 127 / np.maximum(largest, 1e-300), 0)
    limit = 127 * 127 * groups.shape[1] // 2
    half = np.clip((wide**2).sum(axis=2) / 2 * factor[:, None], -limit, limit)
    return np.rint(encode * factor[:, None, None]).astype(np.int8), -np.rint(half).astype(np.int32)


def one_scale(table: Floats) -> tuple[npt.NDArray[np.int8], Floats]:
    """A table in int8 with the same scale for all columns (the last axis), its largest entry at 127."""
    scale = np.float32(max(float(np.abs(table).max()), 1e-30) / 127)
    return np.clip(np.rint(table / scale), -127, 127).astype(np.int8), np.full(table.shape[-1], scale, np.float32)


def lutnn_layer(
    centroids: Floats,
    weight: Floats,
    bias: Floats,
    groups: npt.NDArray[np.int32],
    offset: Floats,
    inv_scale: Floats,
    geometry: dict[str, Any] | None,
) -> LookupParameters:
    """The constants of a layer from its centroids and weight.

    Args:
        centroids: float32 [C, K, V].
        weight: float32 [D, N] or [N, Cin / group, kh, kw].
        bias: float32 [N].
        groups: int32 [C, V].
        offset: float32 [D].
        inv_scale: float32 [D].
        geometry: Attributes of a convolution; None of a linear layer.
    """
    group = int(geometry["group"]) if geometry else 1
    table = by_taps(tied_table(centroids, weight, groups, group), group)
    integers, scale = one_scale(table)
    directions, code_bias = encode_constants(centroids, groups, inv_scale)
    kernel = geometry["kernel_shape"] if geometry else None
    fields: dict[str, Any] = {
        "offset": offset,
        "inv_scale": inv_scale,
        "groups": groups,
        "directions": directions,
        "code_bias": code_bias,
        "gain_mul": np.ones(len(groups), np.float32),
        "table": as_constant(integers, centroids.shape[1], kernel),
        "scale": np.tile(scale, group),
        "bias": bias.astype(np.float32),
        "gain_limit": 0,
    }
    return ConvParameters(**fields, **geometry) if geometry else LookupParameters(**fields)


def check_lutnn(choices: Sequence[LayerChoice]) -> None:
    """Raise UsageError where a form is none that the method has."""
    wrong = [
        f"{c.name} ({c.form})"
        for c in choices
        if not c.form.dense and (c.form.gain_limit or c.form.projection != "none")
    ]
    if wrong:
        raise UsageError(
            f"--method lutnn has plain codebooks of a fixed width and no projection, not {', '.join(wrong[:3])}: "
            "choose --preset plain-v4, plain-v8 or plain-v16, or such a --form"
        )


def fit_lutnn(
    model: ir.Model,
    choices: Sequence[LayerChoice],
    source: CalibrationSource,
    *,
    seed: int = 0,
    threads: int | None = None,
    progress: Callable[[str, int, int, str], Any] | None = None,
) -> FitResult:
    """Replace layers as LUT-NN initialises them; arguments and result as of `lutc.fit.fit_model`.

    Raises:
        UsageError: A form with gains or a projection, or the samples do not fit the model.
    """
    check_lutnn(choices)
    threads = threads or available_threads()
    wanted = {str(choice.node.outputs[0].name): choice for choice in choices if not choice.form.dense}
    cut = CutModel(ir.to_proto(model), wanted, threads)
    batches = _first_samples(model, source)
    entries = max(choice.form.entries for choice in wanted.values())
    rows = _inputs(cut, batches, entries * POINTS, seed, threads)
    layers: dict[str, FittedLayer] = {}
    with use_threads(threads):
        for index, site in enumerate(cut.sites):
            choice = wanted[site.output[0]]
            if progress:
                progress("fit", index, len(cut.sites), choice.name)
            layers[site.output[0]] = _initialised(cut, site, choice, rows[site.output[0]], seed + index)
    if progress:
        progress("fit", len(cut.sites), len(cut.sites), "")
    reports = [layer_report(choice, layers[name]) for name, choice in wanted.items()]
    factors = {name: layer.factors for name, layer in layers.items()}
    samples = sum(count_samples(batch) for batch in batches)
    return FitResult(rewritten(model, wanted, layers), reports, samples, {}, factors)


def _first_samples(model: ir.Model, source: CalibrationSource) -> list[Batch]:
    """The first 1,024 samples in batches."""
    specs = input_specs(model)
    kept: list[Batch] = []
    seen = 0
    for raw in source.batches(specs):
        for batch in split_batch(validate(raw, specs, seen), specs, _BATCH):
            kept.append(batch)
            seen += count_samples(batch)
            if seen >= SAMPLES:
                return kept
    if not kept:
        raise UsageError(f"{source.name}: no calibration samples; one is enough to start, a thousand are good")
    return kept


def _inputs(cut: CutModel, batches: Sequence[Batch], limit: int, seed: int, threads: int) -> dict[str, Floats]:
    """At most `limit` rows of what each layer reads in the original model, float32 [rows, D]."""
    rng = np.random.default_rng((seed, 0x1007))
    parts: dict[str, list[Floats]] = {site.output[0]: [] for site in cut.sites}
    share = -(-limit // len(batches))
    for batch in batches:
        tensors, mask = dict(batch), token_mask(batch)
        for index, site in enumerate(cut.sites):
            cut.run_clean(index, tensors)
            x = tensors[site.input[0]]
            tensors[site.output[0]] = dense_layer(site, cut, threads)(x)
            rows = x.transpose(0, 2, 3, 1) if site.op_type == "Conv" else x
            rows = (
                rows[mask] if mask is not None and mask.shape == rows.shape[:-1] else rows.reshape(-1, rows.shape[-1])
            )
            chosen = rng.choice(len(rows), min(share, len(rows)), replace=False)
            parts[site.output[0]].append(np.ascontiguousarray(rows[np.sort(chosen)]))
    return {name: np.concatenate(found)[:limit] for name, found in parts.items()}


def _initialised(cut: CutModel, site: onnx.NodeProto, choice: LayerChoice, x: Floats, seed: int) -> FittedLayer:
    weight = cut.constant(site.input[1])
    convolution = site.op_type == "Conv"
    bias = cut.constant(site.input[2]) if len(site.input) > 2 and site.input[2] else None
    if bias is None:
        bias = np.zeros(len(weight) if convolution else weight.shape[1], np.float32)
    geometry = vars(site_geometry(site, weight)) if convolution else None
    group = int(geometry["group"]) if geometry else 1
    per_group = x.shape[1] // group
    groups = pad_groups(
        [g for first in range(group) for g in even_groups(per_group, choice.form.width, start=first * per_group)]
    )
    offset = np.zeros(x.shape[1], np.float32)
    z = group_rows(x, groups)
    centroids = learn_codebooks(
        z, choice.form.entries, lines=False, seed=seed, iterations=ITERATIONS, restarts=1, first=0
    )
    lookup = lutnn_layer(centroids, weight, bias, groups, offset, choose_inv_scale(x), geometry)
    lookup.check()
    distance = ((z[:, None] - centroids[..., None]) ** 2).sum(axis=2).min(axis=1)
    error = float(distance.sum() / max(((x - x.mean(axis=0)) ** 2).sum(), 1e-30))
    return FittedLayer(lookup, None, error, Factors(centroids, weight, exact=True))
