"""Pieces that function bodies of `ai.lutc` share, as text for onnx.parser."""

from __future__ import annotations

from lutc.ir.graph import LUTC_DOMAIN, OPSET

HEADER = f'<domain: "{LUTC_DOMAIN}", opset_import: ["" : {OPSET}]>\n'

ROWS = """
    leading = Shape <end: int = -1> (x)
    features_v = Shape <start: int = -1> (x)
    count_v = ReduceProd <keepdims: int = 1> (leading)
    rows_shape = Concat <axis: int = 0> (count_v, features_v)
    rows = Reshape <allowzero: int = 1> (x, rows_shape)
"""
"""Nodes that make `rows` [rows, features] of `x` [..., features]."""

LIKE_X = """
    y_shape = Concat <axis: int = 0> (leading, outputs_v)
    y = Reshape <allowzero: int = 1> (y_rows, y_shape)
"""
"""Nodes that make `y` [..., outputs] of `y_rows` [rows, outputs], `outputs_v` and what `ROWS` made."""


def exact_convolution(image: str) -> str:
    """Nodes that make `acc`, the float32 convolution of integers `image` with the integers `kernel` (float32 both).

    ONNX Runtime convolves in float32 alone, so the kernel is split into two digits of base 16: sums are exact while
    (inputs a group) * kh * kw * (largest magnitude in the image) * 8 < 2^24.
    """
    return f"""
    base = Constant <value_float: float = 16.0> ()
    quotient = Div (kernel, base)
    high = Round (quotient)
    high_part = Mul (high, base)
    low = Sub (kernel, high_part)
    acc_high = Conv <kernel_shape: ints = @kernel_shape, strides: ints = @strides,
                     dilations: ints = @dilations, pads: ints = @pads, group: int = @group> ({image}, high)
    acc_low = Conv <kernel_shape: ints = @kernel_shape, strides: ints = @strides,
                    dilations: ints = @dilations, pads: ints = @pads, group: int = @group> ({image}, low)
    acc_high_d = Cast <to: int = 11> (acc_high)
    acc_low_d = Cast <to: int = 11> (acc_low)
    base_d = Cast <to: int = 11> (base)
    acc_high_part = Mul (acc_high_d, base_d)
    acc_d = Add (acc_high_part, acc_low_d)
    acc = Cast <to: int = 1> (acc_d)
"""
