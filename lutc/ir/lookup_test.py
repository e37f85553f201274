"""The function bodies in stock ONNX Runtime against the numpy reference, bit for bit."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lutc.ir import ConvParameters, LookupParameters, ProjectParameters, add_functions, lookup, reference


def random_parameters(rng, features, outputs, codebooks, width, entries, gain_limit, *, offset=True):
    sizes = rng.integers(1, width + 1, codebooks)
    groups = rng.integers(0, features, (codebooks, width)).astype(np.int32)
    groups[np.arange(width) >= sizes[:, None]] = -1
    directions = rng.integers(-127, 128, (codebooks, entries, width)).astype(np.int8)
    directions = directions * (groups >= 0)[:, None, :]
    directions[:, 1] = directions[:, 0]  # ties: the lowest entry must win
    bias = rng.integers(-9999, 9999, (codebooks, entries)) * (gain_limit == 0)
    return LookupParameters(
        offset=(rng.normal(size=features) * offset).astype(np.float32),
        inv_scale=rng.uniform(0, 80, features).astype(np.float32),
        groups=groups,
        directions=directions.astype(np.int8),
        code_bias=bias.astype(np.int32),
        gain_mul=rng.uniform(1e-4, 5e-2, codebooks).astype(np.float32),
        table=rng.integers(-127, 128, (codebooks, entries, outputs)).astype(np.int8),
        scale=rng.uniform(1e-3, 1, outputs).astype(np.float32),
        bias=rng.normal(size=outputs).astype(np.float32),
        gain_limit=gain_limit,
    )


def run_node(build, x, parameters):
    value = ir.Value(name="x", shape=ir.Shape([None] * x.ndim), type=ir.TensorType(ir.DataType.FLOAT))
    node = build(value, parameters, name="layer")
    node.outputs[0].name = "y"
    node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    graph = ir.Graph(
        [value], node.outputs, nodes=[node], initializers=node.inputs[1:], opset_imports={"": 23}, name="g"
    )
    model = ir.Model(graph, ir_version=10)
    add_functions(model)
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString())
    return session.run(None, {"x": x})[0]


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    lead=st.sampled_from([(), (0,), (1,), (7,), (2, 3), (2, 0, 3)]),
    features=st.integers(1, 30),
    outputs=st.integers(1, 20),
    codebooks=st.integers(1, 9),
    width=st.integers(1, 32),
    entries=st.sampled_from([4, 8, 16]),
    gain_limit=st.sampled_from([0, 1, 15, 63, 127]),
)
def test_linear_body_is_bit_exact(seed, lead, features, outputs, codebooks, width, entries, gain_limit):
    rng = np.random.default_rng(seed)
    p = random_parameters(rng, features, outputs, codebooks, width, entries, gain_limit)
    unit = dataclasses.replace(p, scale=np.ones(outputs, np.float32), bias=np.zeros(outputs, np.float32))
    x = rng.normal(size=(*lead, features)).astype(np.float32)
    x[..., 0] = np.where(rng.random(lead) < 0.1, np.nan, x[..., 0])
    np.testing.assert_array_equal(run_node(lookup.lut_linear, x, unit), reference.lut_linear(x, unit))
    np.testing.assert_allclose(run_node(lookup.lut_linear, x, p), reference.lut_linear(x, p), rtol=1e-6, atol=1e-4)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    batch=st.integers(0, 2),
    group=st.sampled_from([1, 2]),
    size=st.tuples(st.integers(5, 8), st.integers(5, 8)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    strides=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    dilations=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    pads=st.tuples(*[st.integers(0, 2)] * 4),
    gain_limit=st.sampled_from([0, 15, 127]),
)
def test_conv_body_is_bit_exact(seed, batch, group, size, kernel, strides, dilations, pads, gain_limit):
    rng = np.random.default_rng(seed)
    base = random_parameters(rng, 4, 6, 3, 3, 16, gain_limit, offset=False)
    codebooks = 3 * group
    groups = np.concatenate([np.where(base.groups >= 0, base.groups + 4 * g, -1) for g in range(group)])
    repeated = ("directions", "code_bias", "gain_mul")
    fields = {name: np.concatenate([getattr(base, name)] * group) for name in repeated}
    p = ConvParameters(
        offset=np.zeros(4 * group, np.float32),
        inv_scale=np.concatenate([base.inv_scale] * group),
        groups=groups.astype(np.int32),
        **fields,
        table=rng.integers(-127, 128, (6, codebooks // group, 16, *kernel)).astype(np.int8),
        scale=np.ones(6, np.float32),
        bias=np.zeros(6, np.float32),
        gain_limit=gain_limit,
        kernel_shape=kernel,
        strides=strides,
        dilations=dilations,
        pads=pads,
        group=group,
    )
    x = rng.normal(size=(batch, 4 * group, *size)).astype(np.float32)
    np.testing.assert_array_equal(run_node(lookup.lut_conv, x, p), reference.lut_conv(x, p))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), lead=st.sampled_from([(5,), (0,), (2, 3)]), rank=st.integers(1, 9))
def test_project_body_is_bit_exact(seed, lead, rank):
    rng = np.random.default_rng(seed)
    p = ProjectParameters(
        offset=rng.normal(size=12).astype(np.float32),
        inv_scale=rng.uniform(0, 80, 12).astype(np.float32),
        matrix=rng.integers(-127, 128, (12, rank)).astype(np.int8),
        mul=rng.uniform(1e-4, 1e-2, rank).astype(np.float32),
    )
    x = rng.normal(size=(*lead, 12)).astype(np.float32)
    np.testing.assert_array_equal(run_node(lookup.project, x, p), reference.project(x, p))


def test_limits_are_checked():
    rng = np.random.default_rng(0)
    p = random_parameters(rng, 6, 5, 2, 3, 16, 15)
    for field, value, match in (
        ("groups", p.groups + 6, "no feature"),
        ("gain_limit", 200, "outside"),
        ("scale", np.full(5, np.nan, np.float32), "NaN"),
        ("table", p.table[:, :, :3], "shape"),
    ):
        with pytest.raises(ValueError, match=match):
            dataclasses.replace(p, **{field: value}).check()
