"""Small random networks for the tests of this package."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir

from lutc.canonicalise import canonicalise
from lutc.load import load_model

_CONV = """
<ir_version: 10, opset_import: ["" : 20]>
net (float[batch, 3, 12, 12] x) => (float[batch, 10] y)
<float[16, 3, 3, 3] w0, float[16] b0, float[24, 16, 3, 3] w1, float[24] b1, float[24, 12, 3, 3] w2, float[24] b2,
 float[24, 16, 1, 1] w3, float[10, 24] w4, float[10] b4>
{
    s0 = Conv <pads = [1, 1, 1, 1]> (x, w0, b0)
    s = Relu (s0)
    a0 = Conv <pads = [0, 1, 1, 0], strides = [2, 2]> (s, w1, b1)
    a = Relu (a0)
    c = Conv <pads = [1, 1, 1, 1], group = 2> (a, w2, b2)
    d = Conv <strides = [2, 2]> (s, w3)
    e = Add (c, d)
    f = Relu (e)
    g = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (f)
    h = GlobalAveragePool (g)
    i = Flatten (h)
    y = Gemm <transB = 1> (i, w4, b4)
}
"""

_TOKENS = """
<ir_version: 10, opset_import: ["" : 20]>
net (int64[batch, length] ids, int64[batch, length] mask) => (float[batch, 32] y)
<float[50, 32] table, float[32] g0, float[32] h0, float[32, 96] w0, float[96] b0, float[32, 32] w1, float[32] b1,
 float[32, 64] w2, float[64] b2, float[64, 32] w3, float[32] b3, float[32] g1, float[32] h1, int64[1] two,
 int64[2] axes, float one, float low, int64[4] heads, int64[3] flat, int64[3] thirds, int64[1] middle, float root>
{
    e = Gather (table, ids)
    x = LayerNormalization <axis = -1> (e, g0, h0)
    qkv0 = MatMul (x, w0)
    qkv = Add (qkv0, b0)
    q0, k0, v0 = Split <axis = -1> (qkv, thirds)
    q1 = Reshape (q0, heads)
    k1 = Reshape (k0, heads)
    v1 = Reshape (v0, heads)
    q = Transpose <perm = [0, 2, 1, 3]> (q1)
    k = Transpose <perm = [0, 2, 3, 1]> (k1)
    v = Transpose <perm = [0, 2, 1, 3]> (v1)
    m0 = Cast <to = 1> (mask)
    m1 = Unsqueeze (m0, axes)
    m2 = Sub (one, m1)
    m = Mul (m2, low)
    s0 = MatMul (q, k)
    s1 = Mul (s0, root)
    s2 = Add (s1, m)
    p = Softmax <axis = -1> (s2)
    o0 = MatMul (p, v)
    o1 = Transpose <perm = [0, 2, 1, 3]> (o0)
    o2 = Reshape (o1, flat)
    o3 = MatMul (o2, w1)
    o4 = Add (o3, b1)
    r = Add (o4, x)
    f0 = MatMul (r, w2)
    f1 = Add (f0, b2)
    f2 = Gelu (f1)
    f3 = MatMul (f2, w3)
    f4 = Add (f3, b3)
    z0 = Add (f4, r)
    z = LayerNormalization <axis = -1> (z0, g1, h1)
    c0 = Unsqueeze (m0, two)
    c1 = Mul (z, c0)
    c2 = ReduceSum <keepdims = 0> (c1, middle)
    c3 = ReduceL2 <keepdims = 1> (c2, middle)
    y = Div (c2, c3)
}
"""


def _network(text: str, constants: dict[str, object], seed: int) -> ir.Model:
    proto = onnx.parser.parse_model(text)
    rng = np.random.default_rng(seed)
    for value in list(proto.graph.value_info):
        shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
        if value.name in constants:
            kind = np.int64 if value.type.tensor_type.elem_type == onnx.TensorProto.INT64 else np.float32
            data = np.asarray(constants[value.name], kind).reshape(shape)
        else:
            fan = int(np.prod(shape[1:])) if len(shape) == 4 else shape[0]
            data = (rng.normal(size=shape) * (fan**-0.5 if len(shape) > 1 else 0.3)).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(data, value.name))
    del proto.graph.value_info[:]
    return canonicalise(load_model(proto))


def conv_network(seed: int = 0) -> ir.Model:
    """A residual network on images [batch, 3, 12, 12]: uneven pads, strides, groups."""
    return _network(_CONV, {}, seed)


def token_network(seed: int = 0) -> ir.Model:
    """A transformer block on ids and a mask [batch, length], pooled to [batch, 32]."""
    constants = {
        "g0": np.ones(32), "g1": np.ones(32), "two": [2], "axes": [1, 2], "one": 1.0, "low": -1e4,
        "heads": [0, 0, 4, 8], "flat": [0, 0, 32], "thirds": [32, 32, 32], "middle": [1], "root": 8**-0.5,
    }  # fmt: skip
    return _network(_TOKENS, constants, seed)


def images(count: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """Batches of smooth random images."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 3, 12, 12)).astype(np.float32)
    x = x + np.roll(x, 1, axis=2) + np.roll(x, 1, axis=3)
    return [{"x": x[start : start + 32]} for start in range(0, count, 32)]


def sentences(count: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """Batches of random sentences of three lengths."""
    rng = np.random.default_rng(seed)
    batches = []
    for number, start in enumerate(range(0, count, 16)):
        size, length = min(16, count - start), (5, 8, 11)[number % 3]
        mask = np.ones((size, length), np.int64)
        mask[::2, -2:] = 0
        batches.append({"ids": rng.integers(0, 50, (size, length)), "mask": mask})
    return batches
