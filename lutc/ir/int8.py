"""Dense int8 layers: weights quantised per output, function bodies of Int8Linear and Int8Conv in ONNX operators.

The bodies are the definition of docs/operators.md executed by stock ONNX Runtime, with exact sums: products of rows in
float64 (its integer products saturate on CPUs without VNNI), convolutions in float32 with the weight split into two
digits of base 16, exact while Cin/group * kh * kw * 127 * 8 < 2^24.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx.parser
import onnx_ir as ir

from lutc.ir.bodies import HEADER, LIKE_X, ROWS, exact_convolution

_QUANTISE = """
    zero = Constant <value_float: float = 0.0> ()
    limit = Constant <value_float: float = 127.0> ()
    lower = Neg (limit)
    magnitude = Abs (rows)
    a = ReduceMax <keepdims: int = 1> (magnitude, axes)
    empty = Equal (a, zero)
    reciprocal = Div (limit, a)
    largest = Constant <value_float: float = 3.40282346638528859812e+38> ()
    finite = Min (reciprocal, largest)
    inv = Where (empty, zero, finite)
    scaled = Mul (rows, inv)
    clipped = Clip (scaled, lower, limit)
    q = Round (clipped)
    input_step = Div (a, limit)
"""

_INT8_LINEAR = (
    HEADER
    + "Int8Linear (x, weight, scale, bias) => (y) {"
    + ROWS
    + """
    axes = Constant <value_ints: ints = [1]> ()
"""
    + _QUANTISE
    + """
    q_d = Cast <to: int = 11> (q)
    weight_d = Cast <to: int = 11> (weight)
    acc_d = MatMul (q_d, weight_d)
    acc = Cast <to: int = 1> (acc_d)
    step = Mul (input_step, scale)
    product = Mul (acc, step)
    y_rows = Add (product, bias)
    outputs_v = Shape (scale)
"""
    + LIKE_X
    + "}"
)

_INT8_CONV = (
    HEADER
    + "Int8Conv <kernel_shape, strides: ints = [1, 1], dilations: ints = [1, 1], pads: ints = [0, 0, 0, 0], "
    + "group: int = 1> (x, weight, scale, bias) => (y) {"
    + """
    rows = Identity (x)
    axes = Constant <value_ints: ints = [1, 2, 3]> ()
"""
    + _QUANTISE
    + """
    kernel = Cast <to: int = 1> (weight)
"""
    + exact_convolution("q")
    + """
    planes = Constant <value_ints: ints = [1, 2]> ()
    scale_planes = Unsqueeze (scale, planes)
    bias_planes = Unsqueeze (bias, planes)
    step = Mul (input_step, scale_planes)
    product = Mul (acc, step)
    y = Add (product, bias_planes)
}
"""
)


def int8_functions() -> list[ir.Function]:
    """Fresh functions of Int8Linear and Int8Conv, generic in every shape."""
    return [ir.serde.deserialize_function(onnx.parser.parse_function(text)) for text in (_INT8_LINEAR, _INT8_CONV)]


def quantise_weight(weight: npt.NDArray[np.float32], axis: int) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Symmetric int8 weights with one scale per output.

    Args:
        weight: float32 of any shape.
        axis: Its axis of outputs (N of them): 1 in a Linear, 0 in a Conv.

    Returns:
        int8 of the same shape in -127 .. 127, and the scales float32 [N]: the largest magnitude of each output / 127,
        0 where all its weights are zero.

    Raises:
        ValueError: A weight is NaN or infinite.
    """
    if not np.isfinite(weight).all():
        raise ValueError("the weight holds NaN or infinity")
    others = tuple(i for i in range(weight.ndim) if i != axis % weight.ndim)
    scale = (np.abs(weight).max(axis=others, initial=0).astype(np.float64) / 127).astype(np.float32)
    wide = np.expand_dims(scale.astype(np.float64), others)
    steps = np.divide(weight, wide, out=np.zeros(weight.shape, np.float64), where=wide > 0)
    return np.rint(np.clip(steps, -127, 127)).astype(np.int8), scale
