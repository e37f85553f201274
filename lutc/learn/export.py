"""What was learned, back in the graph: integers, tables, biases, scales of normalisations."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from lutc.fit.factored import round_factors
from lutc.fit.linear import Factors
from lutc.fit.tables import round_table
from lutc.fit.tied import as_constant, by_taps, tied_table
from lutc.ir.expand import TableFactors, expand_table
from lutc.ir.lookup import add_functions
from lutc.ir.parameters import INPUTS, ConvParameters, LookupParameters
from lutc.learn.graph import GraphModule, lookup_parameters
from lutc.learn.layers import LookupLayer
from lutc.learn.lutnn import LutnnLayer

Floats = npt.NDArray[np.float32]
Usage = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]
"""Mean gain and mean squared gain of each entry, [C, K] each."""


@dataclasses.dataclass(frozen=True)
class LearnedLayer:
    """A lookup layer's constants after learning.

    Attributes:
        lookup: Of the LutLinear or LutConv.
        factors: What its table was made from.
        expand: The same rounded to int8, where a node makes the table from them.
    """

    lookup: LookupParameters
    factors: Factors
    expand: TableFactors | None


def export_layer(
    layer: LookupLayer, before: LookupParameters, fitted: Factors, usage: Usage, *, expand: bool
) -> LearnedLayer:
    """The layer's constants, rounded; the bias takes up the mean error of the table's rounding.

    Args:
        layer: As learned.
        before: As fitted; what learning does not touch is taken from it.
        fitted: Its factors, which a free table keeps.
        usage: Of the layer's entries.
        expand: Whether a node makes the table from factors.
    """
    directions = np.clip(np.rint(_numpy(layer.directions)), -127, 127).astype(np.int8)
    directions[np.broadcast_to((before.groups < 0)[:, None, :], directions.shape)] = 0
    fields: dict[str, npt.NDArray] = {"directions": directions}
    if layer.code_bias is not None:
        # Scores, |q . direction| + |code_bias|, stay below 2^24.
        fields["code_bias"] = np.clip(np.rint(_numpy(layer.code_bias)), -(1 << 23), 1 << 23).astype(np.int32)
    group = before.group if isinstance(before, ConvParameters) else 1
    kernel = before.kernel_shape if isinstance(before, ConvParameters) else None
    mean, square = (part.reshape(group, -1) for part in usage)
    weight = _numpy(layer.weight)
    if layer.atoms is None:
        learned = fitted
        table = _from_free(weight, group)
    else:
        atoms = _numpy(layer.atoms) * (before.groups >= 0)[:, None, :]
        learned = Factors(atoms, weight, exact=True, limit=fitted.limit)
        table = by_taps(tied_table(learned.atoms, weight, before.groups, group), group)
    taps, columns = table.shape[1], table.shape[3]
    made = None
    if expand:
        usages = np.tile(square, (1, taps))
        made = round_factors(learned.atoms, weight, before.groups, usages, group=group, limit=fitted.limit)
        rounded, scale = _from_table(made.table, group), made.scale
    else:
        parts = zip(table, square, strict=True)
        pairs = [round_table(t.reshape(-1, columns), np.tile(s, taps), fitted.limit) for t, s in parts]
        rounded = np.stack([integers.reshape(table.shape[1:]) for integers, _ in pairs])
        scale = np.concatenate([scales for _, scales in pairs])
    gap = table - rounded * scale.reshape(group, 1, 1, columns).astype(np.float64)
    bias = _numpy(layer.bias) + np.einsum("gtkn,gk->gn", gap, mean).reshape(-1)
    fields |= {"scale": scale, "bias": bias.astype(np.float32), "table": as_constant(rounded, before.entries, kernel)}
    after = dataclasses.replace(before, **fields)  # type: ignore[arg-type]
    after.check()
    return LearnedLayer(after, learned, None if made is None else made.factors)


def _from_free(weight: Floats, group: int) -> Floats:
    """[group, taps, C / group * K, N / group] of a free table's weight."""
    if weight.ndim == 2:
        return weight[None, None]
    outputs, rows = weight.shape[:2]
    return weight.reshape(group, outputs // group, rows, -1).transpose(0, 3, 2, 1)


def _from_table(table: npt.NDArray[np.int8], group: int) -> npt.NDArray[np.int8]:
    """[group, taps, C / group * K, N / group] of a layer's table, [C, K, N] or [N, C / group, K, kh, kw]."""
    if table.ndim == 3:
        return table.reshape(1, 1, -1, table.shape[2])
    outputs, books, entries = table.shape[:3]
    return table.reshape(group, outputs // group, books * entries, -1).transpose(0, 3, 2, 1)


def _numpy(parameter: object) -> Floats:
    return parameter.detach().cpu().numpy().astype(np.float32)  # type: ignore[attr-defined]


@dataclasses.dataclass(frozen=True)
class Exported:
    """A learned graph.

    Attributes:
        model: With the learned constants.
        factors: Of its layers' tables, by the name of the layer's output.
        nbytes: Of each layer's lookup constants as they are stored, and with its table made, likewise.
    """

    model: ir.Model
    factors: dict[str, Factors]
    nbytes: dict[str, tuple[int, int]]


def export(module: GraphModule, usage: Mapping[str, Usage], size: str = "fast") -> Exported:
    """A copy of the module's graph with what was learned.

    Args:
        module: Trained.
        usage: Of every lookup layer's entries, by output name.
        size: "fast" stores tables; otherwise the factors of tied ones, where these are smaller. Tables that the fit
            stored as factors stay so.

    Raises:
        ValueError: A learned constant breaks a limit of docs/operators.md.
    """
    copy = ir.from_proto(ir.to_proto(module.model))
    assert isinstance(copy, ir.Model)
    factors: dict[str, Factors] = {}
    nbytes: dict[str, tuple[int, int]] = {}
    for node in list(copy.graph):
        output = str(node.outputs[0].name)
        if output not in module.lookups:
            continue
        table = node.inputs[1 + INPUTS.index("table")]
        maker = None if table is None else table.producer()
        before = lookup_parameters(node)
        fitted = module.factors[output]
        layer = module.lookups[output]
        if isinstance(layer, LutnnLayer):
            learned = LearnedLayer(*layer.exported(), None)
        else:
            expand = maker is not None or (size != "fast" and _smaller(layer, before))
            learned = export_layer(layer, before, fitted, usage[output], expand=expand)
        factors[output] = learned.factors
        _assign(node.inputs[1:], learned.lookup.arrays())
        stored = whole = learned.lookup.nbytes
        if learned.expand is not None:
            stored += learned.expand.nbytes - learned.lookup.table.nbytes
            if maker is None:
                _make_table(copy.graph, node, learned.expand)
            else:
                _assign(maker.inputs, learned.expand.arrays())
        nbytes[output] = stored, whole
    for name, parameter in module.normalisations.items():
        _assign([copy.graph.initializers[name]], {name: _numpy(parameter)})
    add_functions(copy)
    return Exported(copy, factors, nbytes)


def _smaller(layer: LookupLayer, before: LookupParameters) -> bool:
    """Whether a layer's factors take less than its table."""
    return layer.atoms is not None and layer.atoms.numel() + layer.weight.numel() < before.table.size


def _make_table(graph: ir.Graph, node: ir.Node, factors: TableFactors) -> None:
    """Puts a node that makes the table in front of a lookup layer, in place of the constant."""
    place = 1 + INPUTS.index("table")
    old = node.inputs[place]
    maker = expand_table(factors, name=f"{node.name or node.outputs[0].name}.expand")
    for value in maker.inputs:
        assert value is not None
        while value.name in graph.initializers:
            value.name = f"{value.name}_"
        graph.register_initializer(value)
    graph.insert_before(node, maker)
    node.replace_input_with(place, maker.outputs[0])
    if old is not None and not old.uses() and old.name in graph.initializers:
        del graph.initializers[str(old.name)]


def _assign(values: Sequence[ir.Value | None], arrays: Mapping[str, npt.NDArray]) -> None:
    """New contents of initialisers; values that a node makes are left alone."""
    for value, array in zip(values, arrays.values(), strict=True):
        if value is not None and value.producer() is None:
            value.const_value = ir.tensor(array, name=value.name)
