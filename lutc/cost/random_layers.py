"""Random lookups in place of a model's layers: what a form costs in time, in seconds instead of a fit.

Shapes, dtypes and scales are those of a fitted layer, its codebooks and tables are random: good for time, worth
nothing for accuracy.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from lutc.fit.encoder import even_groups, pad_groups
from lutc.fit.projection import allocate
from lutc.forms import INT8, Form, LayerChoice
from lutc.ir.graph import attribute, replace, sweep
from lutc.ir.lookup import add_functions, lut_conv, lut_linear, project
from lutc.ir.parameters import ConvParameters, LookupParameters, ProjectParameters
from lutc.passes.quantise_dense import QuantiseDense

INPUT_LEVELS = 32.0
"""Quantisation steps in one unit of input: activations of unit variance use the range of int8 without clipping."""


def randomise(model: ir.Model, choices: Sequence[LayerChoice], *, seed: int = 0) -> ir.Model:
    """Puts random lookups in the place of every layer with a lookup form, integers in that of int8 ones.

    Args:
        model: Canonical; changed in place.
        choices: Of this very model.
        seed: Of the random numbers.

    Returns:
        The model.
    """
    rng = np.random.default_rng(seed)
    graph = model.graph
    integer = [str(choice.node.outputs[0].name) for choice in choices if choice.form == INT8]
    model = QuantiseDense(integer)(model).model
    for choice in choices:
        if choice.form.dense:
            continue
        old = choice.node
        x = old.inputs[0]
        assert x is not None
        name = old.name or str(old.outputs[0].name)  # as a fit names them
        nodes: list[ir.Node] = []
        groups = pad_groups(even_groups(choice.D, choice.form.width))
        features = choice.D
        if choice.form.projection != "none":
            groups = projected_groups(choice.D, choice.form.width)
            features = int(groups.max()) + 1
            nodes.append(project(x, random_projection(rng, choice.D, features, choice.form), name=f"{name}.project"))
            x = nodes[0].outputs[0]
            x.type = ir.TensorType(ir.DataType.FLOAT)
        if choice.kind == "conv":
            nodes.append(lut_conv(x, _conv(rng, choice), name=name))
        else:
            inv_scale = 1.0 if nodes else INPUT_LEVELS
            parameters = random_lookup(rng, features, choice.N, groups, choice.form, inv_scale)
            nodes.append(lut_linear(x, parameters, name=name))
        for node in nodes:
            for value in node.inputs[1:]:
                assert value is not None
                while value.name in graph.initializers:
                    value.name = f"{value.name}_"
                graph.register_initializer(value)
        replace(graph, old, nodes)
    sweep(graph)
    add_functions(model)
    return model


def random_lookup(
    rng: np.random.Generator, features: int, outputs: int, groups: npt.NDArray[np.int32], form: Form, inv_scale: float
) -> LookupParameters:
    """Constants of a LutLinear: unit-length directions (or Gaussian centroids), uniform table entries.

    Args:
        rng: Source of random numbers.
        features: D.
        outputs: N.
        groups: int32 [C, V], see docs/operators.md.
        form: Plain or gain-shape, entries, gain limit.
        inv_scale: Quantisation multiplier of every feature.
    """
    return LookupParameters(
        **_encode(rng, features, groups, form, inv_scale),
        table=_table(rng, (len(groups), form.entries, outputs), form),
        **_scaling(rng, len(groups), outputs, form),
    )


def projected_groups(features: int, width: int) -> npt.NDArray[np.int32]:
    """Groups behind a projection of `features` inputs, as the compiler lays them out for a falling spectrum.

    The variances fall as those of MiniLM's layers do: about three quarters of the coordinates survive.
    """
    sizes = np.array(_allocated(features, width))
    starts = np.cumsum(sizes) - sizes
    return pad_groups([np.arange(start, start + size) for start, size in zip(starts, sizes, strict=True)])


@functools.lru_cache
def _allocated(features: int, width: int) -> tuple[int, ...]:
    # The allocation is linear in the number of coordinates: a slice of the spectrum is laid out, then repeated.
    part = max(1, min(features, 384))
    spectrum = np.exp(-6.0 * np.arange(part) / part)
    form = Form("gain", width, gain_limit=63)
    sizes = allocate(spectrum, max(1, part // width), form)
    return tuple(sorted(sizes * (features // part))) or tuple(sizes)


def random_projection(rng: np.random.Generator, features: int, rank: int, form: Form) -> ProjectParameters:
    """Constants of a Project from `features` to `rank` coordinates of about 32 quantisation steps each."""
    matrix = rng.integers(-127, 128, (features, rank), dtype=np.int8)
    blocks: list[int] = []
    if form.projection == "block":
        count = -(-features // form.block)
        rows = [min(form.block, features - i * form.block) for i in range(count)]
        columns = [rank * (i + 1) // count - rank * i // count for i in range(count)]
        mask = np.repeat(np.arange(count), rows)[:, None] == np.repeat(np.arange(count), columns)[None]
        matrix = matrix * mask
        blocks = [n for pair in zip(rows, columns, strict=True) for n in pair]
    spread = np.sqrt(form.block if blocks else features) * INPUT_LEVELS * 73
    return ProjectParameters(
        offset=np.zeros(features, np.float32),
        inv_scale=np.full(features, INPUT_LEVELS, np.float32),
        matrix=matrix.astype(np.int8),
        mul=np.full(rank, INPUT_LEVELS / spread, np.float32),
        blocks=tuple(blocks),
    )


def _conv(rng: np.random.Generator, choice: LayerChoice) -> ConvParameters:
    node = choice.node
    assert node.inputs[1] is not None and node.inputs[1].shape is not None
    kernel = tuple(int(n) for n in node.inputs[1].shape.numpy()[2:])
    group = int(attribute(node, "group", 1))
    channels = choice.D // group
    parts = [even_groups(channels, choice.form.width, start=channels * g) for g in range(group)]
    groups = pad_groups([each for part in parts for each in part])
    per_group = len(groups) // group
    return ConvParameters(
        **_encode(rng, choice.D, groups, choice.form, INPUT_LEVELS),
        table=_table(rng, (choice.N, per_group, choice.form.entries, *kernel), choice.form),
        **_scaling(rng, per_group * kernel[0] * kernel[1], choice.N, choice.form),
        kernel_shape=(kernel[0], kernel[1]),
        strides=tuple(attribute(node, "strides", (1, 1))),
        pads=tuple(attribute(node, "pads", (0, 0, 0, 0))),
        dilations=tuple(attribute(node, "dilations", (1, 1))),
        group=group,
    )


def _encode(
    rng: np.random.Generator, features: int, groups: npt.NDArray[np.int32], form: Form, inv_scale: float
) -> dict[str, Any]:
    """The fields of a lookup layer that encode."""
    used = groups >= 0
    drawn = rng.standard_normal((len(groups), form.entries, groups.shape[1])) * used[:, None, :]
    if form.gain_limit:
        drawn /= np.maximum(np.linalg.norm(drawn, axis=2, keepdims=True), 1e-9)
        directions = np.rint(drawn * 127).astype(np.int8)
        bias = np.zeros(directions.shape[:2], np.int32)
    else:
        directions = np.rint(np.clip(drawn * INPUT_LEVELS, -127, 127)).astype(np.int8)
        bias = -np.rint((directions.astype(np.float64) ** 2).sum(axis=2) / 2).astype(np.int32)
    # A score is about 32 steps of input times a direction of length 127; two standard deviations reach the limit.
    reach = 2 * INPUT_LEVELS * 127 * np.sqrt(used.sum(axis=1))
    return {
        "offset": np.zeros(features, np.float32),
        "inv_scale": np.full(features, inv_scale, np.float32),
        "groups": groups,
        "directions": directions,
        "code_bias": bias,
        "gain_mul": (max(form.gain_limit, 1) / reach).astype(np.float32),
    }


def _missing_bits(form: Form) -> int:
    return 8 - (form.table_bits or 8)


def _table(rng: np.random.Generator, shape: tuple[int, ...], form: Form) -> npt.NDArray[np.int8]:
    table = np.frombuffer(rng.bytes(int(np.prod(shape))), np.int8).reshape(shape) >> _missing_bits(form)
    table[table == -128 >> _missing_bits(form)] = 0
    return table


def _scaling(rng: np.random.Generator, terms: int, outputs: int, form: Form) -> dict[str, Any]:
    """Scale, bias and gain limit for outputs of about unit variance."""
    spread = np.sqrt(terms) * 73 / 2 ** _missing_bits(form) * max(form.gain_limit / 2, 1)
    return {
        "scale": np.full(outputs, 1 / spread, np.float32),
        "bias": rng.standard_normal(outputs).astype(np.float32),
        "gain_limit": form.gain_limit,
    }
