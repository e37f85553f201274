"""Convolutions and poolings against ONNX Runtime, on every ISA; fused forms against their parts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lutc._ort import ort_session
from tests import conv_sizes
from tests.one_node import single_node
from tests.one_step import MAIN_ISAS, normal, run_step

isas = st.sampled_from(MAIN_ISAS)


def by_ort(op: str, inputs: list, **attrs) -> np.ndarray:
    model = single_node(op, inputs, **attrs)
    feeds = {f"x{i}": array for i, array in enumerate(inputs) if array is not None}
    return ort_session(model.SerializeToString()).run(None, feeds)[0]


@st.composite
def windows(draw, spatial: int, largest_kernel: int = 4):
    kernel = draw(st.lists(st.integers(1, largest_kernel), min_size=spatial, max_size=spatial))
    strides = draw(st.lists(st.integers(1, 3), min_size=spatial, max_size=spatial))
    dilations = draw(st.lists(st.integers(1, 2), min_size=spatial, max_size=spatial))
    pads = [draw(st.integers(0, kernel[i % spatial] - 1)) for i in range(2 * spatial)]
    extent = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    image = [
        max(e - pads[i] - pads[i + spatial], 1) + draw(st.sampled_from([0, 1, 2, 5, 8, 13, 21, 37]))
        for i, e in enumerate(extent)
    ]
    return {"kernel_shape": kernel, "strides": strides, "dilations": dilations, "pads": pads}, image


@settings(max_examples=150)
@given(data=st.data(), spatial=st.sampled_from([1, 2]), batch=st.integers(0, 2), bias=st.booleans(), isa=isas)
def test_conv(data, spatial, batch, bias, isa):
    attrs, image = data.draw(windows(spatial))
    group = data.draw(st.sampled_from([1, 1, 2, 3, 5]))
    inputs, outputs = data.draw(st.sampled_from([(1, 1), (1, 2), (3, 7), (8, 16), (2, 15), (1, 5)]))
    if data.draw(st.booleans()):
        attrs = {**attrs, "auto_pad": data.draw(st.sampled_from(["VALID", "SAME_UPPER", "SAME_LOWER"]))}
        del attrs["pads"]
        attrs["dilations"] = [1] * spatial  # ONNX Runtime refuses SAME with dilations
        image = [size + 4 for size in image]
    x, w = normal(1, batch, inputs * group, *image), normal(2, outputs * group, inputs, *attrs["kernel_shape"])
    b = normal(3, outputs * group) if bias else None
    attrs["group"] = group
    (ours,) = run_step("conv", [x, w, b], attrs, constant=[1], isa=isa, threads=data.draw(st.sampled_from([1, 2])))
    if batch == 0:
        assert ours.shape[:2] == (0, outputs * group)
        return
    theirs = by_ort("Conv", [x, w] if b is None else [x, w, b], **attrs)
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("isa", MAIN_ISAS)
@conv_sizes.parametrize
@pytest.mark.parametrize("stride", [1, 2])
def test_of_model_sizes(isa, channels, outputs, size, kernel, group, stride):
    x, w, b = (
        normal(1, 2, channels, size, size),
        normal(2, outputs, channels // group, kernel, kernel),
        normal(3, outputs),
    )
    attrs = conv_sizes.attributes(kernel, stride, group)
    (ours,) = run_step("conv", [x, w, b], attrs, constant=[1, 2], isa=isa, threads=2)
    np.testing.assert_allclose(ours, by_ort("Conv", [x, w, b], **attrs), rtol=1e-5, atol=2e-4)


def fused_conv(x, w, b, attrs, activation, residual, after, isa, threads):
    """Ours and ONNX Runtime's of a convolution with an epilogue."""
    exact = by_ort("Conv", [x, w, b], **attrs)
    r = normal(4, *exact.shape) if residual else None
    act = {"relu": lambda v: np.maximum(v, 0), "silu": lambda v: v / (1 + np.exp(-v)), "none": lambda v: v}[activation]
    added = np.float32(0) if r is None else r
    exact = act(exact + added) if after else act(exact) + added
    fused = {**attrs, "activation": activation, "activation_after_residual": after}
    (ours,) = run_step("conv", [x, w, b, r], fused, constant=[1, 2], isa=isa, threads=threads)
    return ours, exact


@settings(max_examples=100)
@given(
    batch=st.integers(1, 2),
    group=st.sampled_from([1, 2]),
    inputs=st.sampled_from([8, 9, 16]),
    outputs=st.sampled_from([8, 13, 20]),
    height=st.integers(4, 19),
    width=st.sampled_from([4, 5, 7, 8, 14, 15, 16, 17, 31, 32, 33, 34, 35, 66]),
    pads=st.lists(st.integers(0, 2), min_size=4, max_size=4),
    activation=st.sampled_from(["none", "relu", "silu"]),
    residual=st.booleans(),
    after=st.integers(0, 1),
    isa=isas,
    threads=st.sampled_from([1, 2]),
)
def test_3x3_conv(batch, group, inputs, outputs, height, width, pads, activation, residual, after, isa, threads):
    x, w = normal(1, batch, inputs * group, height, width), normal(2, outputs * group, inputs, 3, 3)
    b = normal(3, outputs * group)
    attrs = {"kernel_shape": [3, 3], "pads": pads, "group": group}
    ours, exact = fused_conv(x, w, b, attrs, activation, residual, after, isa, threads)
    np.testing.assert_allclose(ours, exact, rtol=1e-5, atol=4e-5)


@settings(max_examples=150)
@given(
    batch=st.integers(1, 2),
    group=st.sampled_from([1, 1, 2]),
    inputs=st.integers(1, 4),
    outputs=st.sampled_from([4, 8, 16, 24]),
    stride=st.sampled_from([1, 2]),
    height=st.integers(4, 13),
    width=st.sampled_from([5, 8, 15, 16, 17, 31, 32, 33, 35, 47, 64, 65, 67, 131, 300, 530]),
    pads=st.lists(st.integers(0, 3), min_size=4, max_size=4),
    activation=st.sampled_from(["none", "relu", "silu"]),
    residual=st.booleans(),
    after=st.integers(0, 1),
    isa=isas,
    threads=st.sampled_from([1, 2]),
)
def test_3x3_conv_of_few_channels(
    batch, group, inputs, outputs, stride, height, width, pads, activation, residual, after, isa, threads
):
    x, w = normal(1, batch, inputs * group, height, width), normal(2, outputs * group, inputs, 3, 3)
    b = normal(3, outputs * group)
    attrs = {"kernel_shape": [3, 3], "strides": [stride] * 2, "pads": pads, "group": group}
    ours, exact = fused_conv(x, w, b, attrs, activation, residual, after, isa, threads)
    np.testing.assert_allclose(ours, exact, rtol=1e-5, atol=2e-5)


@settings(max_examples=150)
@given(
    channels=st.sampled_from([1, 3, 5]),
    multiplier=st.sampled_from([1, 1, 2, 3]),
    size=st.sampled_from([3, 5]),
    stride=st.sampled_from([1, 2]),
    height=st.integers(5, 14),
    width=st.sampled_from([5, 6, 7, 8, 10, 15, 16, 17, 20, 31, 32, 33, 34, 35, 37, 66, 67, 131, 300]),
    pads=st.lists(st.integers(0, 4), min_size=4, max_size=4),
    activation=st.sampled_from(["none", "relu", "sigmoid"]),
    residual=st.booleans(),
    after=st.integers(0, 1),
    isa=isas,
)
def test_depthwise_conv(channels, multiplier, size, stride, height, width, pads, activation, residual, after, isa):
    outputs = channels * multiplier
    x, w, b = normal(1, 2, channels, height, width), normal(2, outputs, 1, size, size), normal(3, outputs)
    attrs = {"kernel_shape": [size] * 2, "strides": [stride] * 2, "pads": pads, "group": channels}
    exact = by_ort("Conv", [x, w, b], **attrs)
    r = normal(4, *exact.shape) if residual else None
    act = {"relu": lambda v: np.maximum(v, 0), "sigmoid": lambda v: 1 / (1 + np.exp(-v)), "none": lambda v: v}[
        activation
    ]
    added = np.float32(0) if r is None else r
    exact = act(exact + added) if after else act(exact) + added
    fused = {**attrs, "activation": activation, "activation_after_residual": after}
    (ours,) = run_step("conv", [x, w, b, r], fused, constant=[1, 2], isa=isa)
    np.testing.assert_allclose(ours, exact, rtol=1e-5, atol=1e-5)


@settings(max_examples=60)
@given(
    channels=st.sampled_from([1, 3, 16, 33]),
    size=st.sampled_from([(1, 1), (1, 15), (3, 5), (4, 4), (5, 13), (17, 16)]),
    outputs=st.sampled_from([1, 4, 6, 7, 16, 25]),
    constant=st.booleans(),
    isa=isas,
    threads=st.sampled_from([1, 2]),
)
def test_1x1_conv(channels, size, outputs, constant, isa, threads):
    x, w = normal(1, 2, channels, *size), normal(2, outputs, channels, 1, 1)
    (ours,) = run_step("conv", [x, w], constant=[1] if constant else [], isa=isa, threads=threads)
    np.testing.assert_allclose(ours, by_ort("Conv", [x, w]), rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("isa", MAIN_ISAS)
def test_conv_of_zeros_is_its_bias(isa):
    x, w, b = np.zeros((1, 16, 9, 9), np.float32), normal(2, 16, 16, 3, 3), normal(3, 16)
    (ours,) = run_step("conv", [x, w, b], {"pads": [1, 1, 1, 1]}, constant=[1, 2], isa=isa)
    np.testing.assert_array_equal(ours, np.broadcast_to(b[:, None, None], ours.shape))


@pytest.mark.parametrize("isa", MAIN_ISAS)
@pytest.mark.parametrize("group", [1, 6])
@pytest.mark.parametrize("after", [0, 1])
@pytest.mark.parametrize("activation", ["relu", "silu", "none"])
def test_conv_with_residual_and_activation(isa, group, after, activation):
    x, w, b = normal(1, 1, 6, 9, 11), normal(2, 6, 6 // group, 3, 3), normal(3, 6)
    attrs = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "group": group}
    ours, expected = fused_conv(x, w, b, attrs, activation, True, after, isa, threads=1)
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)


@settings(max_examples=100)
@given(data=st.data(), spatial=st.sampled_from([1, 2]), bias=st.booleans(), isa=isas)
def test_conv_transpose(data, spatial, bias, isa):
    attrs, image = data.draw(windows(spatial))
    group = data.draw(st.sampled_from([1, 2, 3]))
    inputs, outputs = data.draw(st.sampled_from([(1, 1), (3, 2), (8, 5)]))
    image = [size + 3 for size in image]
    attrs["output_padding"] = [data.draw(st.integers(0, stride - 1)) for stride in attrs["strides"]]
    attrs["group"] = group
    x, w = normal(1, 2, inputs * group, *image), normal(2, inputs * group, outputs, *attrs["kernel_shape"])
    b = normal(3, outputs * group) if bias else None
    theirs = by_ort("ConvTranspose", [x, w] if b is None else [x, w, b], **attrs)
    (ours,) = run_step("conv_transpose", [x, w, b], attrs, constant=[1], isa=isa)
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("size", [5, 6])
def test_conv_transpose_auto_pad(auto_pad, size):
    x, w = normal(1, 1, 2, size, size), normal(2, 2, 3, 4, 3)
    attrs = {"kernel_shape": [4, 3], "strides": [2, 2], "auto_pad": auto_pad}
    (ours,) = run_step("conv_transpose", [x, w], attrs)
    np.testing.assert_allclose(ours, by_ort("ConvTranspose", [x, w], **attrs), rtol=1e-5, atol=1e-5)


@settings(max_examples=200)
@given(
    data=st.data(),
    op=st.sampled_from(["max_pool", "average_pool"]),
    spatial=st.sampled_from([1, 2]),
    ceil_mode=st.integers(0, 1),
    include=st.integers(0, 1),
    isa=isas,
)
def test_pool(data, op, spatial, ceil_mode, include, isa):
    attrs, image = data.draw(windows(spatial))
    attrs["ceil_mode"] = ceil_mode
    if op == "average_pool":
        attrs["count_include_pad"] = include
    x = normal(1, 2, 3, *image)
    theirs = by_ort("MaxPool" if op == "max_pool" else "AveragePool", [x], **attrs)
    (ours,) = run_step(op, [x], attrs, isa=isa)
    assert ours.shape == theirs.shape
    lowest = np.finfo(
        np.float32
    ).min  # what ONNX Runtime gives where a window lies wholly in the padding; here it is -inf
    np.testing.assert_allclose(np.maximum(ours, lowest), theirs, rtol=1e-5, atol=1e-6)


KNOWN_POOLS = [(2, 2, 2, 2), (3, 3, 1, 1), (3, 3, 2, 2), (5, 5, 1, 1)]
"""Kernel and strides that the kernels have code of their own for."""
OTHER_POOLS = [
    (4, 3, 4, 3), (3, 3, 3, 3), (2, 2, 3, 3), (3, 5, 2, 3), (2, 4, 2, 4), (1, 3, 1, 4), (2, 6, 1, 4), (3, 1, 2, 5),
    (2, 5, 3, 6), (5, 3, 2, 3), (1, 2, 2, 2), (4, 4, 4, 4), (2, 3, 1, 3), (3, 2, 3, 4),
]  # fmt: skip


@settings(max_examples=200)
@given(
    op=st.sampled_from(["max_pool", "average_pool"]),
    window=st.sampled_from(KNOWN_POOLS + OTHER_POOLS),
    height=st.integers(5, 14),
    width=st.sampled_from([5, 7, 8, 15, 16, 17, 31, 32, 33, 34, 35, 66, 67]),
    pads=st.lists(st.integers(0, 1), min_size=4, max_size=4),
    nan=st.booleans(),
    isa=isas,
    threads=st.sampled_from([1, 2]),
)
def test_pools_of_models(op, window, height, width, pads, nan, isa, threads):
    x = normal(1, 1, 40, height, max(width, window[1]))
    if nan:
        x[0, 3, height // 2, width // 3], x[0, 5, 0, 0] = np.nan, np.inf
    pads = [min(pad, size - 1) for pad, size in zip(pads, window[:2] * 2, strict=True)]
    attrs = {"kernel_shape": list(window[:2]), "strides": list(window[2:]), "pads": pads}
    (ours,) = run_step(op, [x], attrs, isa=isa, threads=threads)
    padded = np.pad(x, ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])), constant_values=-np.inf)
    views = np.lib.stride_tricks.sliding_window_view(padded, attrs["kernel_shape"], axis=(2, 3))
    views = views[:, :, :: window[2], :: window[3]]
    if op == "max_pool":
        np.testing.assert_array_equal(ours, views.max(axis=(4, 5)))
        return
    inside = views != -np.inf
    exact = np.where(inside, views, 0).sum(axis=(4, 5), dtype=float) / inside.sum(axis=(4, 5))
    np.testing.assert_allclose(ours, exact, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("isa", MAIN_ISAS)
@pytest.mark.parametrize("shape", [(2, 3, 7), (1, 5, 4, 9), (2, 2, 3, 3, 3), (0, 3, 4, 4), (1, 1, 64, 65)])
def test_global_pools(isa, shape):
    x = normal(1, *shape)
    axes = tuple(range(2, x.ndim))
    (mean,) = run_step("global_average_pool", [x], isa=isa)
    (top,) = run_step("global_max_pool", [x], isa=isa)
    np.testing.assert_allclose(mean, x.mean(axis=axes, keepdims=True, dtype=np.float64), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(top, x.max(axis=axes, keepdims=True))


@pytest.mark.parametrize("isa", MAIN_ISAS)
def test_maxima_keep_nan_and_infinity(isa):
    x = np.full((1, 3, 6, 6), -np.inf, np.float32)
    x[0, 0, 2, 2], x[0, 1, 2, 2] = np.nan, np.inf
    (pooled,) = run_step("max_pool", [x], {"kernel_shape": [3, 3], "strides": [3, 3]}, isa=isa)
    (top,) = run_step("global_max_pool", [x], isa=isa)
    np.testing.assert_array_equal(pooled[0, 0], [[np.nan, -np.inf], [-np.inf, -np.inf]])
    np.testing.assert_array_equal(pooled[0, 1], [[np.inf, -np.inf], [-np.inf, -np.inf]])
    np.testing.assert_array_equal(top.ravel(), [np.nan, np.inf, -np.inf])


IMAGE, WEIGHT = (1, 2, 5, 5), (2, 2, 3, 3)
HOSTILE = [
    ({"strides": [0, 1]}, "strides"),
    ({"strides": [1]}, "strides"),
    ({"dilations": [-1, 1]}, "dilations"),
    ({"dilations": [2**40, 1]}, "dilations"),
    ({"dilations": [9, 9]}, "does not fit"),
    ({"pads": [-1, 0, 0, 0]}, "pads"),
    ({"pads": [2**62, 2**62, 2**62, 2**62]}, "pads"),
    ({"pads": [1, 1]}, "pads"),
    ({"auto_pad": "SOMETIMES"}, "auto_pad"),
]


@pytest.mark.parametrize(("attrs", "message"), HOSTILE)
@pytest.mark.parametrize("op", ["conv", "max_pool", "average_pool", "conv_transpose"])
def test_hostile_windows_are_refused(op, attrs, message):
    inputs = [normal(1, *IMAGE)] + ([normal(2, *WEIGHT)] if op.startswith("conv") else [])
    if op == "conv_transpose" and message == "does not fit":
        pytest.skip("a transposed convolution always fits")
    with pytest.raises(Exception, match=message):
        run_step(op, inputs, {"kernel_shape": [3, 3], **attrs})


@pytest.mark.parametrize(
    ("op", "image", "weight", "attrs"),
    [
        ("conv", IMAGE, WEIGHT, {"group": 0}),
        ("conv", IMAGE, WEIGHT, {"group": 2}),
        ("conv", IMAGE, WEIGHT, {"group": 3}),
        ("conv", IMAGE, WEIGHT, {"kernel_shape": [2, 3]}),
        ("conv", IMAGE, (2, 2, 6, 3), {}),
        ("conv", IMAGE, (2, 2, 3), {}),
        ("conv", (1, 2, 5, 5, 5), (2, 2, 3, 3, 3), {}),
        ("conv", (1, 2, 0, 5), WEIGHT, {}),
        ("conv_transpose", IMAGE, WEIGHT, {"group": 3}),
        ("conv_transpose", IMAGE, WEIGHT, {"pads": [9, 9, 9, 9]}),
        ("conv_transpose", IMAGE, WEIGHT, {"output_padding": [5, 5]}),
        ("max_pool", IMAGE, None, {}),
        ("max_pool", IMAGE, None, {"kernel_shape": [6, 3]}),
        ("max_pool", IMAGE, None, {"kernel_shape": [3, 3], "pads": [3, 0, 0, 0]}),
        ("max_pool", IMAGE, None, {"kernel_shape": [3, 3, 3]}),
        ("average_pool", IMAGE, None, {"kernel_shape": [0, 3]}),
        ("global_max_pool", (1, 2, 0), None, {}),
    ],
)
def test_shapes_that_do_not_fit_are_refused(op, image, weight, attrs):
    inputs = [normal(1, *image)] + ([] if weight is None else [normal(2, *weight)])
    with pytest.raises(Exception, match="step 'step'"):
        run_step(op, inputs, attrs)


def test_huge_pads_meet_the_memory_limit():
    attrs = {"kernel_shape": [3, 3], "pads": [2**20] * 4}
    with pytest.raises(Exception, match=r"(?i)memory|bytes|limit"):
        run_step("conv", [normal(1, *IMAGE), normal(2, *WEIGHT)], attrs, memory_limit=2**30)
