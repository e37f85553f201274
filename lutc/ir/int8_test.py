"""The function bodies of the int8 layers in stock ONNX Runtime against plain numpy; weights quantised."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lutc.ir.int8 import int8_functions, quantise_weight
from lutc.ir.reference import int8_linear
from lutc.ir.testing import parse, run

LINEAR = "g (float[{dims}] x) => (float[{out}] y) {{ y = ai.lutc.Int8Linear(x, w, s, b) }}"


def model(text, **constants):
    made = parse(text, constants)
    made.opset_imports["ai.lutc"] = 1
    for function in int8_functions():
        made.functions[function.identifier()] = function
    return made


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    lead=st.sampled_from([(), (0,), (1,), (7,), (2, 3), (2, 0, 3)]),
    features=st.integers(1, 40),
    outputs=st.integers(1, 40),
)
def test_linear_body_is_the_definition(seed, lead, features, outputs):
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=(*lead, features)) * 10.0 ** rng.integers(-4, 4)).astype(np.float32)
    if x.size:
        x.reshape(-1, features)[0] = 0  # a row of zeros gives the bias
        x.reshape(-1, features)[-1] *= np.float32(1e-38)
    w = rng.integers(-127, 128, (features, outputs)).astype(np.int8)
    s, b = rng.uniform(1e-3, 1, outputs).astype(np.float32), rng.normal(size=outputs).astype(np.float32)
    dims = [f"d{i}" for i in range(len(lead))]
    made = model(
        LINEAR.format(dims=",".join([*dims, str(features)]), out=",".join([*dims, str(outputs)])), w=w, s=s, b=b
    )
    (y,) = run(made, {"x": x})
    np.testing.assert_array_equal(y, int8_linear(x, w, s, b))


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    batch=st.integers(0, 3),
    group=st.sampled_from([1, 2, 4]),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.integers(1, 2),
)
def test_conv_body_is_the_definition(seed, batch, group, kernel, stride):
    rng = np.random.default_rng(seed)
    channels, outputs, pads = 3 * group, 2 * group, [1, 0, 2, 1]
    x = rng.normal(size=(batch, channels, 6, 7)).astype(np.float32)
    w = rng.integers(-127, 128, (outputs, 3, *kernel)).astype(np.int8)
    s, b = rng.uniform(1e-3, 1, outputs).astype(np.float32), rng.normal(size=outputs).astype(np.float32)
    attributes = f"kernel_shape = {list(kernel)}, strides = [{stride}, {stride}], pads = {pads}, group = {group}"
    call = f"ai.lutc.Int8Conv<{attributes}>(x, w, s, b)"
    text = f"g (float[n,{channels},6,7] x) => (float[n,{outputs},h,v] y) {{ y = {call} }}"
    (y,) = run(model(text, w=w, s=s, b=b), {"x": x})

    a = np.abs(x).max(axis=(1, 2, 3), keepdims=True, initial=0)
    q = np.rint(np.clip(x * (np.float32(127) / a), -127, 127)).astype(np.int32)
    padded = np.pad(q, ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])))
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel, axis=(2, 3))[:, :, ::stride, ::stride]
    per_group = windows.reshape(batch, group, 3, *windows.shape[2:])
    acc = np.einsum("bgcijuv,gncuv->bgnij", per_group, w.reshape(group, 2, 3, *kernel).astype(np.int32))
    acc = acc.reshape(batch, outputs, *windows.shape[2:4]).astype(np.float32)
    np.testing.assert_array_equal(y, acc * (a / np.float32(127) * s[:, None, None]) + b[:, None, None])


def test_weights_have_one_scale_per_output():
    weight = np.array([[1.0, -2.0, 0.0], [0.5, 1.0, 0.0]], np.float32)
    integers, scale = quantise_weight(weight, axis=1)
    np.testing.assert_array_equal(integers, [[127, -127, 0], [64, 64, 0]])
    np.testing.assert_allclose(scale, [1 / 127, 2 / 127, 0], rtol=1e-7)


@pytest.mark.parametrize("axis", [0, 1])
def test_quantised_weights_are_within_half_a_step(axis):
    weight = np.random.default_rng(0).normal(size=(50, 60)).astype(np.float32)
    integers, scale = quantise_weight(weight, axis)
    assert integers.dtype == np.int8 and integers.min() >= -127
    wide = scale if axis == 1 else scale[:, None]
    assert np.abs(integers * wide - weight).max() <= 0.5001 * scale.max()
    assert np.all(np.abs(integers).max(axis=1 - axis) == 127)


def test_tiny_and_broken_weights():
    integers, scale = quantise_weight(np.full((2, 2), 1e-44, np.float32), axis=1)
    assert np.abs(integers).max() <= 127 and np.isfinite(scale).all()
    with pytest.raises(ValueError, match="NaN"):
        quantise_weight(np.array([[np.nan]], np.float32), axis=1)
