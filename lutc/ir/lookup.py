"""Lookup layers as onnx-ir nodes, and their function bodies in standard ONNX operators.

The bodies are the definition of docs/operators.md executed by stock ONNX Runtime: codes, gains and sums are
exact. Scores are summed in float32 (below 2^24), projections and linear lookups in float64. ONNX Runtime
convolves in float32 alone, so LutConv splits its table into two digits of base 16 and is exact while
(C / group) * kh * kw * gain_limit * 8 < 2^24. One zero row is encoded behind the others, since several of its
kernels (GatherElements, OneHot) fail on empty tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx.parser
import onnx_ir as ir

from lutc.ir.bodies import HEADER, LIKE_X, ROWS, exact_convolution
from lutc.ir.expand import expand_functions
from lutc.ir.graph import LUTC_DOMAIN as DOMAIN
from lutc.ir.graph import array, attribute
from lutc.ir.parameters import INPUTS, ConvParameters, LookupParameters, ProjectParameters

_QUANTISE = """
    limit8 = Constant <value_float: float = 127.0> ()
    lower8 = Neg (limit8)
    centred = Sub (rows, offset)
    scaled = Mul (centred, inv_scale)
    undefined = IsNaN (scaled)
    defined = Where (undefined, lower8, scaled)
    clipped = Clip (defined, lower8, limit8)
    q = Round (clipped)
"""

_ENCODE = (
    """
    zero_f = Constant <value_float: float = 0.0> ()
    one_f = Constant <value_float: float = 1.0> ()
    zero_i = Constant <value_int: int = 0> ()
"""
    + _QUANTISE
    + """
    row_and_slot = Constant <value_ints: ints = [0, 0, 1, 1]> ()
    q_and_zero = Pad (q, row_and_slot, zero_f)
    gathered = Gather <axis: int = 1> (q_and_zero, groups)
    parts = Transpose <perm: ints = [1, 0, 2]> (gathered)
    directions_f = Cast <to: int = 1> (directions)
    columns = Transpose <perm: ints = [0, 2, 1]> (directions_f)
    products = MatMul (parts, columns)
    code_bias_f = Cast <to: int = 1> (code_bias)
    axis1 = Constant <value_ints: ints = [1]> ()
    code_bias_rows = Unsqueeze (code_bias_f, axis1)
    scores = Add (products, code_bias_rows)
    gain_limit_i = Constant <value_int: int = @gain_limit> ()
    gain_limit_f = Cast <to: int = 1> (gain_limit_i)
    plain = Equal (gain_limit_i, zero_i)
    magnitudes = Abs (scores)
    keys = Where (plain, scores, magnitudes)
    codes = ArgMax <axis: int = 2, keepdims: int = 1> (keys)
    best = GatherElements <axis: int = 2> (scores, codes)
    axes12 = Constant <value_ints: ints = [1, 2]> ()
    gain_mul_rows = Unsqueeze (gain_mul, axes12)
    gain_raw = Mul (best, gain_mul_rows)
    gain_low = Neg (gain_limit_f)
    gain_clipped = Clip (gain_raw, gain_low, gain_limit_f)
    gain_rounded = Round (gain_clipped)
    gains = Where (plain, one_f, gain_rounded)
    directions_shape = Shape (directions)
    codebooks_v = Slice (directions_shape, zero_v, one_v)
    entries_v = Slice (directions_shape, one_v, two_v)
    entries = Squeeze (entries_v)
    one_i = Constant <value_int: int = 1> ()
    every_code = Range (zero_i, entries, one_i)
    chosen = Equal (codes, every_code)
    weighted = Where (chosen, gains, zero_f)
    by_row = Transpose <perm: ints = [1, 0, 2]> (weighted)
    width_v = Mul (codebooks_v, entries_v)
    flat_shape = Concat <axis: int = 0> (minus_v, width_v)
    lookups_and_zero = Reshape (by_row, flat_shape)
    lookups = Slice (lookups_and_zero, zero_v, minus_v, zero_v)
"""
)

_INDICES = """
    minus_v = Constant <value_ints: ints = [-1]> ()
    zero_v = Constant <value_ints: ints = [0]> ()
    one_v = Constant <value_ints: ints = [1]> ()
    two_v = Constant <value_ints: ints = [2]> ()
"""

_SIGNATURE = "(x, offset, inv_scale, groups, directions, code_bias, gain_mul, table, scale, bias) => (y)"

_LUT_LINEAR = (
    HEADER
    + f"LutLinear <gain_limit> {_SIGNATURE} {{"
    + _INDICES
    + ROWS
    + _ENCODE
    + """
    outputs_v = Shape (scale)
    table_shape = Concat <axis: int = 0> (width_v, outputs_v)
    table_rows = Reshape (table, table_shape)
    lookups_d = Cast <to: int = 11> (lookups)
    table_d = Cast <to: int = 11> (table_rows)
    acc_d = MatMul (lookups_d, table_d)
    acc = Cast <to: int = 1> (acc_d)
    scaled_acc = Mul (acc, scale)
    y_rows = Add (scaled_acc, bias)
"""
    + LIKE_X
    + "}"
)

_LUT_CONV = (
    HEADER
    + "LutConv <gain_limit, kernel_shape, strides: ints = [1, 1], dilations: ints = [1, 1], "
    + f"pads: ints = [0, 0, 0, 0], group: int = 1> {_SIGNATURE} {{"
    + _INDICES
    + """
    pixels = Transpose <perm: ints = [0, 2, 3, 1]> (x)
    image_shape = Shape <end: int = 3> (pixels)
    channels_v = Shape <start: int = 3> (pixels)
    count_v = ReduceProd <keepdims: int = 1> (image_shape)
    rows_shape = Concat <axis: int = 0> (count_v, channels_v)
    rows = Reshape <allowzero: int = 1> (pixels, rows_shape)
"""
    + _ENCODE
    + """
    lookups_shape = Concat <axis: int = 0> (image_shape, width_v)
    lookups_pixels = Reshape <allowzero: int = 1> (lookups, lookups_shape)
    planes = Transpose <perm: ints = [0, 3, 1, 2]> (lookups_pixels)
    outputs_v = Shape (scale)
    taps_v = Shape <start: int = 3> (table)
    kernel_dims = Concat <axis: int = 0> (outputs_v, minus_v, taps_v)
    kernel_rows = Reshape (table, kernel_dims)
    kernel = Cast <to: int = 1> (kernel_rows)
"""
    + exact_convolution("planes")
    + """
    spatial = Constant <value_ints: ints = [1, 2]> ()
    scale_planes = Unsqueeze (scale, spatial)
    bias_planes = Unsqueeze (bias, spatial)
    scaled_acc = Mul (acc, scale_planes)
    y = Add (scaled_acc, bias_planes)
}
"""
)

_PROJECT = (
    HEADER
    + """Project <blocks: ints = [0]> (x, offset, inv_scale, matrix, mul) => (z) {
    rows = Identity (x)
"""
    + _QUANTISE
    + """
    q_d = Cast <to: int = 11> (q)
    matrix_d = Cast <to: int = 11> (matrix)
    p_d = MatMul (q_d, matrix_d)
    p = Cast <to: int = 1> (p_d)
    z = Mul (p, mul)
}
"""
)


def lookup_functions() -> list[ir.Function]:
    """Fresh functions of the lookup operators and of those that make their tables, generic in every shape."""
    texts = (_LUT_LINEAR, _LUT_CONV, _PROJECT)
    return [
        *(ir.serde.deserialize_function(onnx.parser.parse_function(text)) for text in texts),
        *expand_functions(),
    ]


def add_functions(model: ir.Model) -> None:
    """Give `model` the function bodies of the lookup operators its graph uses, and the domain's import.

    Args:
        model: Changed in place. Functions that are there already are replaced.
    """
    used = {node.op_type for node in model.graph.all_nodes() if node.domain == DOMAIN}
    for function in lookup_functions():
        if function.name in used:
            model.functions[function.identifier()] = function
    if used:
        model.graph.opset_imports[DOMAIN] = 1


def _constant(array: object, name: str) -> ir.Value:
    tensor = ir.tensor(array, name=name)  # type: ignore[arg-type]
    return ir.Value(
        name=name, shape=ir.Shape(list(tensor.shape.numpy())), type=ir.TensorType(tensor.dtype), const_value=tensor
    )


def _node(
    op: str,
    x: ir.Value,
    parameters: LookupParameters | ProjectParameters,
    attributes: Sequence[ir.Attr],
    name: str,
    table: ir.Value | None = None,
) -> ir.Node:
    parameters.check()
    constants = [
        _constant(array, f"{name}.{key}") if table is None or key != "table" else table
        for key, array in parameters.arrays().items()
    ]
    return ir.Node(DOMAIN, op, [x, *constants], attributes, name=name, num_outputs=1)


def lut_linear(x: ir.Value, parameters: LookupParameters, *, name: str, table: ir.Value | None = None) -> ir.Node:
    """A LutLinear of x; the caller inserts it and registers its constants (inputs 1 ..) as initializers.

    Args:
        x: float32 [..., D].
        parameters: The layer's constants.
        name: Of the node; its constants are called `name.table` and so on.
        table: What an ExpandTable makes, instead of the constant: the same entries.

    Raises:
        ValueError: A limit of docs/operators.md is broken.
    """
    return _node("LutLinear", x, parameters, [ir.AttrInt64("gain_limit", parameters.gain_limit)], name, table)


def lut_conv(x: ir.Value, parameters: ConvParameters, *, name: str, table: ir.Value | None = None) -> ir.Node:
    """A LutConv of x, float32 [B, Cin, H, W]; see `lut_linear`."""
    attributes = [
        ir.AttrInt64("gain_limit", parameters.gain_limit),
        ir.AttrInt64s("kernel_shape", parameters.kernel_shape),
        ir.AttrInt64s("strides", parameters.strides),
        ir.AttrInt64s("dilations", parameters.dilations),
        ir.AttrInt64s("pads", parameters.pads),
        ir.AttrInt64("group", parameters.group),
    ]
    return _node("LutConv", x, parameters, attributes, name, table)


def project(x: ir.Value, parameters: ProjectParameters, *, name: str) -> ir.Node:
    """A Project of x, float32 [..., D]; see `lut_linear`."""
    attributes = [ir.AttrInt64s("blocks", parameters.blocks)] if parameters.blocks else []
    return _node("Project", x, parameters, attributes, name)


def lookup_parameters(node: ir.Node) -> LookupParameters:
    """The constants of a LutLinear or LutConv; the table is empty where another node makes it."""
    found = [array(value) for value in node.inputs[1:]]
    constants: dict[str, Any] = {
        name: np.zeros(0, np.int8) if data is None else data for name, data in zip(INPUTS, found, strict=True)
    }
    values = {name: attribute(node, name) for name in node.attributes}
    numbers: dict[str, Any] = {name: v if isinstance(v, int) else tuple(v) for name, v in values.items()}
    return (LookupParameters if node.op_type == "LutLinear" else ConvParameters)(**constants, **numbers)


def project_parameters(node: ir.Node) -> ProjectParameters:
    """The constants of a Project."""
    offset, inv_scale, matrix, mul = map(array, node.inputs[1:])
    assert offset is not None and inv_scale is not None and matrix is not None and mul is not None
    return ProjectParameters(offset, inv_scale, matrix, mul, tuple(attribute(node, "blocks", ())))
