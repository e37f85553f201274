"""Tables as products of two int8 factors (ExpandTable, ExpandConvTable): constants, nodes, function bodies."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx.parser
import onnx_ir as ir

from lutc.ir.bodies import HEADER
from lutc.ir.graph import LUTC_DOMAIN as DOMAIN
from lutc.ir.graph import add_constant, array, attribute, is_op

LARGEST_MUL = 1e15
"""Largest multiplier: two of them times the largest sum stay finite."""

INPUTS = ("atoms", "weight", "groups", "codebook_mul", "column_mul")
"""Inputs of ExpandTable and ExpandConvTable, in order."""

EXPAND_OPS = ("ExpandTable", "ExpandConvTable")
"""Nodes that make tables from factors."""

_DTYPES = dict(zip(INPUTS, ("int8", "int8", "int32", "float32", "float32"), strict=True))


@dataclasses.dataclass(frozen=True)
class TableFactors:
    """Constants of an ExpandTable or, with a weight of rank 4, of an ExpandConvTable (shapes in docs/operators.md).

    Attributes:
        atoms: int8 [C, K, V].
        weight: int8 [D, N], or of a convolution [N, Cin/group, kh, kw].
        groups: int32 [C, V]: the encode's, -1 in empty slots.
        codebook_mul: float32 [C].
        column_mul: float32 [N].
        group: Convolution groups.
    """

    atoms: npt.NDArray[np.int8]
    weight: npt.NDArray[np.int8]
    groups: npt.NDArray[np.int32]
    codebook_mul: npt.NDArray[np.float32]
    column_mul: npt.NDArray[np.float32]
    group: int = 1

    @property
    def convolution(self) -> bool:
        """Whether the table is a convolution's."""
        return self.weight.ndim == 4

    @property
    def nbytes(self) -> int:
        """Bytes of all constants but `groups`, which the encode has too."""
        return sum(int(getattr(self, name).nbytes) for name in INPUTS if name != "groups")

    @property
    def table_shape(self) -> tuple[int, ...]:
        """[C, K, N], or [N, C/group, K, kh, kw]."""
        codebooks, entries, _ = self.atoms.shape
        if not self.convolution:
            return codebooks, entries, self.weight.shape[1]
        return self.weight.shape[0], codebooks // self.group, entries, *self.weight.shape[2:]

    def arrays(self) -> dict[str, npt.NDArray]:
        """The constants by input name."""
        return {name: getattr(self, name) for name in INPUTS}

    def check(self) -> None:
        """Raise ValueError where a limit of docs/operators.md is broken."""
        for name, dtype in _DTYPES.items():
            if getattr(self, name).dtype != dtype:
                raise ValueError(f"{name} must be {dtype}, not {getattr(self, name).dtype.name}")
        if self.atoms.ndim != 3 or self.weight.ndim not in (2, 4):
            raise ValueError("atoms must be [C, K, V] and weight [D, N] or [N, Cin/group, kh, kw]")
        codebooks, entries, width = self.atoms.shape
        outputs = self.weight.shape[0] if self.convolution else self.weight.shape[1]
        features = self.weight.shape[1] if self.convolution else self.weight.shape[0]
        if entries not in (4, 8, 16) or not 1 <= width <= 32 or codebooks < 1 or not self.weight.size:
            raise ValueError(f"atoms have shape {self.atoms.shape}: [C, 4, 8 or 16, 1 .. 32] is possible")
        groups = self.group if self.convolution else 1
        if groups < 1 or groups != self.group or codebooks % groups or outputs % groups:
            raise ValueError(f"{codebooks} codebooks or {outputs} outputs do not split into {self.group} groups")
        shapes = {"groups": (codebooks, width), "codebook_mul": (codebooks,), "column_mul": (outputs,)}
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}, not {shape}")
        first = (np.arange(codebooks) // (codebooks // self.group) * features)[:, None]
        if ((self.groups != -1) & ((self.groups < first) | (self.groups >= first + features))).any():
            raise ValueError("groups holds an index that is no feature of the codebook's convolution group")
        for name in ("codebook_mul", "column_mul"):
            if not (np.abs(getattr(self, name)) <= LARGEST_MUL).all():
                raise ValueError(f"{name} must be finite and at most {LARGEST_MUL:g}")


_ROUND = """
    by_codebook = Mul (acc, codebook_rows)
    by_column = Mul (by_codebook, column_rows)
    limit = Constant <value_float: float = 127.0> ()
    lower = Neg (limit)
    clipped = Clip (by_column, lower, limit)
    rounded = Round (clipped)
    entries_8 = Cast <to: int = 3> (rounded)
"""

_EXPAND_LINEAR = (
    HEADER
    + """ExpandTable (atoms, weight, groups, codebook_mul, column_mul) => (table) {
    atoms_f = Cast <to: int = 1> (atoms)
    weight_f = Cast <to: int = 1> (weight)
    one_row = Constant <value_ints: ints = [0, 0, 1, 0]> ()
    weight_and_zero = Pad (weight_f, one_row)
    gathered = Gather <axis: int = 0> (weight_and_zero, groups)
    acc = MatMul (atoms_f, gathered)
    axes = Constant <value_ints: ints = [1, 2]> ()
    codebook_rows = Unsqueeze (codebook_mul, axes)
    column_rows = Identity (column_mul)
"""
    + _ROUND
    + """
    table = Identity (entries_8)
}
"""
)

_EXPAND_CONV = (
    HEADER
    + """ExpandConvTable <group: int = 1> (atoms, weight, groups, codebook_mul, column_mul) => (table) {
    atoms_f = Cast <to: int = 1> (atoms)
    weight_f = Cast <to: int = 1> (weight)
    minus_v = Constant <value_ints: ints = [-1]> ()
    group_i = Constant <value_int: int = @group> ()
    group_v = Reshape (group_i, minus_v)
    codebooks_v = Shape <start: int = 0, end: int = 1> (atoms)
    entries_v = Shape <start: int = 1, end: int = 2> (atoms)
    outputs_v = Shape <start: int = 0, end: int = 1> (weight)
    channels_v = Shape <start: int = 1, end: int = 2> (weight)
    kernel_v = Shape <start: int = 2> (weight)
    own_codebooks_v = Div (codebooks_v, group_v)
    own_outputs_v = Div (outputs_v, group_v)
    all_channels_v = Mul (channels_v, group_v)
    taps_v = ReduceProd <keepdims: int = 1> (kernel_v)

    by_group_shape = Concat <axis: int = 0> (group_v, own_outputs_v, channels_v, minus_v)
    by_group = Reshape (weight_f, by_group_shape)
    by_channel = Transpose <perm: ints = [0, 2, 1, 3]> (by_group)
    rows_shape = Concat <axis: int = 0> (all_channels_v, minus_v)
    rows = Reshape (by_channel, rows_shape)
    one_row = Constant <value_ints: ints = [0, 0, 1, 0]> ()
    rows_and_zero = Pad (rows, one_row)
    gathered = Gather <axis: int = 0> (rows_and_zero, groups)
    flat_acc = MatMul (atoms_f, gathered)
    acc_shape = Concat <axis: int = 0> (group_v, own_codebooks_v, entries_v, own_outputs_v, taps_v)
    acc = Reshape (flat_acc, acc_shape)
    one_v = Constant <value_ints: ints = [1]> ()
    codebook_shape = Concat <axis: int = 0> (group_v, own_codebooks_v, one_v, one_v, one_v)
    codebook_rows = Reshape (codebook_mul, codebook_shape)
    column_shape = Concat <axis: int = 0> (group_v, one_v, one_v, own_outputs_v, one_v)
    column_rows = Reshape (column_mul, column_shape)
"""
    + _ROUND
    + """
    by_output = Transpose <perm: ints = [0, 3, 1, 2, 4]> (entries_8)
    table_shape = Concat <axis: int = 0> (outputs_v, own_codebooks_v, entries_v, kernel_v)
    table = Reshape (by_output, table_shape)
}
"""
)


def expand_functions() -> list[ir.Function]:
    """Fresh functions of ExpandTable and ExpandConvTable, generic in every shape."""
    return [ir.serde.deserialize_function(onnx.parser.parse_function(text)) for text in (_EXPAND_LINEAR, _EXPAND_CONV)]


def expand_table(factors: TableFactors, *, name: str) -> ir.Node:
    """An ExpandTable or ExpandConvTable; the caller inserts it and registers its inputs as initializers.

    Args:
        factors: The constants.
        name: Of the node; its constants are called `name.weight` and so on, its output `name.table`.

    Raises:
        ValueError: A limit of docs/operators.md is broken.
    """
    factors.check()
    constants = []
    for key, data in factors.arrays().items():
        tensor = ir.tensor(data, name=f"{name}.{key}")
        constants.append(
            ir.Value(
                name=f"{name}.{key}", shape=ir.Shape(data.shape), type=ir.TensorType(tensor.dtype), const_value=tensor
            )
        )
    op, attributes = "ExpandTable", []
    if factors.convolution:
        op, attributes = "ExpandConvTable", [ir.AttrInt64("group", factors.group)]
    node = ir.Node(DOMAIN, op, constants, attributes, name=name, num_outputs=1)
    output = node.outputs[0]
    output.name = f"{name}.table"
    output.type, output.shape = ir.TensorType(ir.DataType.INT8), ir.Shape(factors.table_shape)
    return node


def expanded(factors: TableFactors) -> npt.NDArray[np.int8]:
    """The table by plain numpy: int8 [C, K, N] or [N, C/group, K, kh, kw]."""
    codebooks, entries, _ = factors.atoms.shape
    group = factors.group
    rows = factors.weight
    if factors.convolution:
        outputs, channels = rows.shape[:2]
        rows = rows.reshape(group, outputs // group, channels, -1).transpose(0, 2, 1, 3).reshape(group * channels, -1)
    padded = np.concatenate([rows, np.zeros((1, rows.shape[1]), np.int8)]).astype(np.float32)
    # Products and sums are integers below 2^24: exact in float32.
    acc = np.matmul(factors.atoms.astype(np.float32), padded[factors.groups])
    if not factors.convolution:
        return _rounded(acc, factors.codebook_mul[:, None, None], factors.column_mul)
    acc = acc.reshape(group, codebooks // group, entries, outputs // group, -1)
    table = _rounded(
        acc,
        factors.codebook_mul.reshape(group, -1, 1, 1, 1),
        factors.column_mul.reshape(group, 1, 1, -1, 1),
    )
    return np.ascontiguousarray(table.transpose(0, 3, 1, 2, 4)).reshape(factors.table_shape)


def with_tables(model: ir.Model) -> ir.Model:
    """The model with constants in place of the nodes that make tables from factors: a copy, where there are any."""
    if not any(is_op(node, *EXPAND_OPS, domain=DOMAIN) for node in model.graph):
        return model
    copy = model.clone()
    for node in copy.graph:
        if is_op(node, *EXPAND_OPS, domain=DOMAIN):
            factors: dict[str, Any] = dict(zip(INPUTS, map(array, node.inputs), strict=True))
            table = expanded(TableFactors(**factors, group=attribute(node, "group", 1)))
            made = node.outputs[0]
            ir.convenience.replace_all_uses_with(made, add_constant(copy.graph, str(made.name), table))
            copy.graph.remove(node, safe=True)
    return copy


def _rounded(
    acc: npt.NDArray[np.float32], codebook_mul: npt.NDArray[np.float32], column_mul: npt.NDArray[np.float32]
) -> npt.NDArray[np.int8]:
    scaled = acc * codebook_mul
    scaled *= column_mul
    np.clip(scaled, -127, 127, out=scaled)
    return np.rint(scaled, out=scaled).astype(np.int8)
