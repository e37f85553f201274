"""The dense int8 convolution against a plain one in numpy, on every ISA: integers exactly, floats up to rounding."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lutc.plan import Plan, Port, Step
from tests import conv_sizes
from tests.one_step import ISAS, normal, run_step
from tests.plan_session import plan_session

isas = st.sampled_from(ISAS)
ACTIVATIONS = {
    "none": lambda v: v,
    "relu": lambda v: np.maximum(v, 0),
    "silu": lambda v: v / (1 + np.exp(-np.maximum(v, -700))),
}


def weights(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-127, 128, shape).astype(np.int8)


def quantise(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Integers of a batch of images and each image's largest magnitude, float32 [B, 1, 1, 1]."""
    largest = np.abs(x).max(axis=(1, 2, 3), keepdims=True)
    with np.errstate(over="ignore"):
        inv = np.divide(np.float32(127), largest, out=np.zeros_like(largest), where=largest > 0)
    inv = np.minimum(inv, np.finfo(np.float32).max)
    return np.rint(np.clip(x * inv, -127, 127)).astype(np.int64), largest


def sums(q: np.ndarray, w: np.ndarray, attrs: dict) -> np.ndarray:
    """The convolution of integers, int64: one product per tap."""
    strides, dilations = attrs.get("strides", [1, 1]), attrs.get("dilations", [1, 1])
    top, left, bottom, right = attrs.get("pads", [0] * 4)
    group, (outputs, _, kh, kw) = attrs.get("group", 1), w.shape
    q = np.pad(q, ((0, 0), (0, 0), (top, bottom), (left, right)))
    out = [(q.shape[2 + d] - (w.shape[2 + d] - 1) * dilations[d] - 1) // strides[d] + 1 for d in range(2)]
    acc = np.zeros((len(q), outputs, *out))
    for u in range(kh):
        for v in range(kw):
            rows = slice(u * dilations[0], u * dilations[0] + (out[0] - 1) * strides[0] + 1, strides[0])
            columns = slice(v * dilations[1], v * dilations[1] + (out[1] - 1) * strides[1] + 1, strides[1])
            x = q[:, :, rows, columns].reshape(len(q), group, -1, *out).astype(np.float64)
            tap = w[:, :, u, v].reshape(group, outputs // group, -1).astype(np.float64)
            acc += np.einsum("bgchw,gnc->bgnhw", x, tap).reshape(acc.shape)  # exact: far below 2^53
    return acc.astype(np.int64)


def expected(x, w, scale, bias, residual, attrs) -> np.ndarray:
    q, largest = quantise(x)
    y = sums(q, w, attrs) * (largest / 127.0 * scale[:, None, None].astype(np.float64)) + bias[:, None, None]
    act = ACTIVATIONS[attrs.get("activation", "none")]
    if residual is None:
        return act(y)
    return act(y + residual) if attrs.get("activation_after_residual") else act(y) + residual


def check(x, w, attrs, *, isa, threads=1, residual=False) -> None:
    outputs = len(w)
    ones, zeros = np.ones(outputs, np.float32), np.zeros(outputs, np.float32)
    plain = {k: v for k, v in attrs.items() if not k.startswith("activation")}
    (y,) = run_step("int8_conv", [x, w, ones, zeros], plain, constant=[1, 2, 3], isa=isa, threads=threads)
    q, largest = quantise(x)
    acc = sums(q, w, plain)
    assert y.shape == acc.shape
    np.testing.assert_array_equal(np.rint(y / np.where(largest > 0, largest / 127.0, 1)), acc)
    scale, bias = np.abs(normal(5, outputs)) + np.float32(0.1), normal(6, outputs) * 100
    r = normal(7, *y.shape) * 1000 if residual else None
    (ours,) = run_step("int8_conv", [x, w, scale, bias, r], attrs, constant=[1, 2, 3], isa=isa, threads=threads)
    np.testing.assert_allclose(ours, expected(x, w, scale, bias, r, attrs), rtol=1e-5, atol=2e-2)


@st.composite
def problems(draw):
    kernel = draw(st.lists(st.integers(1, 4), min_size=2, max_size=2))
    strides = draw(st.lists(st.integers(1, 3), min_size=2, max_size=2))
    dilations = draw(st.lists(st.integers(1, 3), min_size=2, max_size=2))
    pads = draw(st.lists(st.integers(0, 4), min_size=4, max_size=4))
    extent = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    image = [
        max(e - pads[i] - pads[i + 2], 1) + draw(st.sampled_from([0, 1, 2, 5, 8, 13, 21, 37]))
        for i, e in enumerate(extent)
    ]
    group = draw(st.sampled_from([1, 1, 1, 2, 3, 5, 8]))
    inputs, outputs = draw(st.sampled_from([(1, 1), (1, 2), (2, 1), (3, 7), (8, 16), (2, 15), (5, 6), (16, 3)]))
    attrs = {"kernel_shape": kernel, "strides": strides, "dilations": dilations, "pads": pads, "group": group}
    attrs["activation"] = draw(st.sampled_from(sorted(ACTIVATIONS)))
    attrs["activation_after_residual"] = draw(st.integers(0, 1))
    batch = draw(st.integers(1, 3))
    x = normal(draw(st.integers(0, 99)), batch, inputs * group, *image)
    x *= np.float32(10) ** np.arange(batch, dtype=np.float32)[:, None, None, None]  # every image has its range
    return x, weights(2, outputs * group, inputs, *kernel), attrs


@settings(max_examples=300)
@given(problem=problems(), isa=isas, threads=st.sampled_from([1, 2]), residual=st.booleans())
def test_against_numpy(problem, isa, threads, residual):
    x, w, attrs = problem
    check(x, w, attrs, isa=isa, threads=threads, residual=residual)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("threads", [1, 2])
@conv_sizes.parametrize
@pytest.mark.parametrize("stride", [1, 2])
def test_of_model_sizes(isa, threads, channels, outputs, size, kernel, group, stride):
    x, w = normal(1, 2, channels, size, size), weights(2, outputs, channels // group, kernel, kernel)
    attrs = conv_sizes.attributes(kernel, stride, group)
    check(x, w, attrs, isa=isa, threads=threads)
    check(x[:1], w, attrs, isa=isa, threads=threads)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("pads", [[0, 0, 0, 0], [1, 0, 2, 3], [2, 5, 2, 0]])
def test_images_of_several_bands_and_tiles(isa, threads, stride, pads):
    attrs = {"strides": [stride, stride], "dilations": [2, 1], "pads": pads, "activation": "relu"}
    check(normal(1, 1, 3, 97, 101), weights(2, 7, 3, 3, 4), attrs, isa=isa, threads=threads, residual=True)
    x = normal(1, 1, 66, 70, 61)
    check(x, weights(2, 13, 66, 1, 1), {"strides": [stride, 1], "activation": "silu"}, isa=isa, threads=threads)


@pytest.mark.parametrize("isa", ISAS)
def test_sums_reach_the_limit(isa):
    """The largest depth the limit allows, all products of one sign: about 2^31."""
    x, w = np.full((1, 133144, 1, 1), 3, np.float32), np.full((2, 133144, 1, 1), -127, np.int8)
    w[1] = 127
    unit, zeros = np.full(2, 127 / 3, np.float32), np.zeros(2, np.float32)
    (y,) = run_step("int8_conv", [x, w, unit, zeros], {}, constant=[1], isa=isa)
    np.testing.assert_allclose(y.ravel(), np.array([-1, 1]) * 133144 * 127 * 127, rtol=1e-6)
    with pytest.raises(Exception, match="2\\^31"):
        run_step("int8_conv", [x, np.pad(w, ((0, 0), (0, 1), (0, 0), (0, 0))), unit, zeros], {}, constant=[1])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("after", [0, 1])
@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_residual_and_activation(isa, after, activation):
    attrs = {"pads": [1, 1, 1, 1], "activation": activation, "activation_after_residual": after}
    check(normal(1, 2, 6, 9, 11), weights(2, 7, 6, 3, 3), attrs, isa=isa, residual=True)


@pytest.mark.parametrize("isa", ISAS)
def test_zero_and_empty_images(isa):
    w, scale, bias = weights(2, 5, 3, 3, 3), np.ones(5, np.float32), normal(3, 5)
    x = np.zeros((2, 3, 4, 4), np.float32)
    x[1] = normal(1, 3, 4, 4)
    (y,) = run_step("int8_conv", [x, w, scale, bias], {"pads": [1, 1, 1, 1]}, constant=[1], isa=isa)
    np.testing.assert_array_equal(y[0], np.broadcast_to(bias[:, None, None], (5, 4, 4)))
    assert np.ptp(y[1]) > 1
    (y,) = run_step("int8_conv", [x[:0], w, scale, bias], {"pads": [1, 1, 1, 1]}, constant=[1], isa=isa)
    assert y.shape == (0, 5, 4, 4)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("size", [1e-37, 1e-38, 1e-40])
def test_the_inverse_of_a_tiny_image_stays_finite(isa, size):
    x, w = normal(1, 1, 3, 8, 8) * np.float32(size), weights(2, 5, 3, 3, 3)
    x[0, 0, 0, 0] = 0
    scale = np.full(5, 1e38, np.float32)
    (y,) = run_step("int8_conv", [x, w, scale, scale * 0], {}, constant=[1], isa=isa)
    q, largest = quantise(x)
    unit = largest / np.float32(127) * scale[0]
    np.testing.assert_array_equal(np.rint(y / unit), sums(q, w, {}))


@pytest.mark.parametrize("isa", ISAS)
def test_ties_go_to_even_and_one_rounding_precedes_them(isa):
    """With a largest magnitude of 127 the integers are the rounded inputs."""
    x = np.array([127, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 126.5, -126.5, 3.4999998], np.float32).reshape(1, 1, 1, -1)
    one = np.ones(1, np.float32)
    (y,) = run_step("int8_conv", [x, np.ones((1, 1, 1, 1), np.int8), one, one * 0], {}, constant=[1], isa=isa)
    np.testing.assert_array_equal(y.ravel(), [127, 0, 2, 2, 0, -2, -2, 126, -126, 3])


@pytest.mark.parametrize("isa", ISAS)
def test_not_a_number_harms_its_own_image_only(isa):
    x, w, scale = normal(1, 2, 3, 6, 6), weights(2, 5, 3, 3, 3), np.ones(5, np.float32)
    (clean,) = run_step("int8_conv", [x, w, scale, scale], {}, constant=[1], isa=isa)
    x[0, 0, 2, 2], x[0, 1, 1, 1], x[0, 2, 0, 0] = np.nan, np.inf, -np.inf
    (y,) = run_step("int8_conv", [x, w, scale, scale], {}, constant=[1], isa=isa)
    np.testing.assert_array_equal(y[1], clean[1])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("batch", [0, 1, 3])
def test_convolutions_in_a_row_hand_on_the_largest_magnitude(isa, threads, batch):
    """Bit by bit what the steps give one at a time, where each finds the largest magnitude of its input itself."""
    layers = [
        {"pads": [1, 1, 1, 1], "activation": "relu"},
        {"pads": [0, 2, 1, 0], "activation": "silu"},
        {"strides": [2, 1], "activation": "none", "activation_after_residual": 1},
        {"pads": [1, 1, 1, 1], "activation": "relu"},
    ]
    x = normal(1, batch, 5, 19, 21) * np.arange(1, batch + 1, dtype=np.float32)[:, None, None, None]
    w = [weights(i, 5 + i, 4 + i if i else 5, 3, 3) for i in range(len(layers))]
    scale = [np.full(len(v), 1 / 300, np.float32) for v in w]
    bias = [normal(10 + i, len(v)) for i, v in enumerate(w)]
    plan, y = Plan(), x
    value = plan.add_value("f32")
    plan.inputs.append(Port("x", value, "f32", tuple(f"d{i}" for i in range(4))))
    for i, attrs in enumerate(layers):
        constants = [plan.add_constant(f"{name}{i}", v) for name, v in (("w", w[i]), ("s", scale[i]), ("b", bias[i]))]
        result = plan.add_value("f32")
        plan.steps.append(Step("int8_conv", f"conv{i}", [value, *constants], [result], attrs))
        plan.outputs.append(Port(f"y{i}", result, "f32", ("any",)))
        value = result
    outputs = plan_session(plan, isa=isa, threads=threads).run(None, {"x": x})
    for i, attrs in enumerate(layers):
        (y,) = run_step("int8_conv", [y, w[i], scale[i], bias[i]], attrs, constant=[1], isa=isa, threads=threads)
        np.testing.assert_array_equal(outputs[i], y)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("largest", [np.nan, np.inf, -1.0, 0.0, 1e-40, 3e38])
def test_a_wrong_largest_magnitude_does_no_harm(isa, largest):
    x, w, one = normal(1, 1, 3, 9, 9), weights(2, 5, 3, 3, 3), np.ones(5, np.float32)
    inputs = [x, w, one, one, None, np.array([largest], np.float32)]
    (y,) = run_step("int8_conv", inputs, {}, constant=[1], isa=isa)
    assert y.shape == (1, 5, 7, 7)
    with pytest.raises(Exception, match="one value per image"):
        run_step("int8_conv", [*inputs[:5], np.ones(2, np.float32)], {}, constant=[1], isa=isa)


def check_nonnegative(x, w, attrs, *, isa, threads=1) -> None:
    """Integers of a convolution behind a ReLU, which kernels may treat apart, exactly."""
    ones, zeros = np.ones(len(w), np.float32), np.zeros(len(w), np.float32)
    plan = Plan()
    value, image, y = (plan.add_value("f32") for _ in range(3))
    constants = [plan.add_constant(name, v) for name, v in (("w", w), ("scale", ones), ("bias", zeros))]
    plan.inputs.append(Port("x", value, "f32", tuple(f"d{i}" for i in range(4))))
    plan.steps.append(Step("relu", "relu", [value], [image], {}))
    plan.steps.append(Step("int8_conv", "conv", [image, *constants], [y], attrs))
    plan.outputs.append(Port("y", y, "f32", ("any",)))
    (found,) = plan_session(plan, isa=isa, threads=threads).run(None, {"x": x})
    q, largest = quantise(np.maximum(x, 0))
    acc = sums(q, w, attrs)
    np.testing.assert_array_equal(np.rint(found / np.where(largest > 0, largest / 127.0, 1)), acc)


@settings(max_examples=200)
@given(problem=problems(), isa=isas, threads=st.sampled_from([1, 2]), limit=st.sampled_from([0, 1, 9, 127]))
def test_images_without_negative_numbers(problem, isa, threads, limit):
    x, w, attrs = problem
    attrs = {k: v for k, v in attrs.items() if not k.startswith("activation")}
    check_nonnegative(x, np.clip(w, -limit, limit), attrs, isa=isa, threads=threads)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("channels", [1, 4, 7, 16, 70])
@pytest.mark.parametrize("weight", [-127, 127, "by channel", "by tap", "by output"])
def test_largest_sums_of_images_without_negative_numbers(isa, channels, weight):
    """All pixels the largest, all weights at the limit: where sums of 16 bits would be full first."""
    w = np.full((13, channels, 3, 3), 127, np.int8)
    if weight == "by channel":
        w[:, ::2] = -127
    elif weight == "by tap":
        w[:, :, ::2, 1] = -127
    elif weight == "by output":
        w[::2] = -127
    else:
        w[:] = weight
    x = np.ones((1, channels, 9, 10), np.float32)
    check_nonnegative(x, w, {"pads": [1, 1, 1, 1]}, isa=isa)
    for stride, size in ((1, 16), (2, 17)):
        x = normal(3, 1, channels, size, size)
        check_nonnegative(x, w, {"pads": [1, 1, 1, 1], "strides": [stride, stride]}, isa=isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    ("activation", "residual", "after"),
    [("relu", None, 0), ("relu", "x", 1), ("relu", "x", 0), ("relu", "relu", 0), ("none", None, 0), ("silu", None, 0)],
)
def test_images_whose_sign_is_known_and_not(isa, activation, residual, after):
    """A convolution behind another one: with a residual behind the ReLU the image has negative numbers."""
    x = normal(1, 1, 8, 12, 16)
    w = [weights(i, 8, 8, 3, 3) for i in range(2)]
    scale, bias = np.full(8, 1 / 300, np.float32), normal(9, 8)
    plan = Plan()
    value, positive = plan.add_value("f32"), plan.add_value("f32")
    plan.inputs.append(Port("x", value, "f32", tuple(f"d{i}" for i in range(4))))
    plan.steps.append(Step("relu", "relu", [value], [positive], {}))
    addend = {"x": [value], "relu": [positive], None: []}[residual]
    image = value
    for i in range(2):
        constants = [plan.add_constant(f"{name}{i}", v) for name, v in (("w", w[i]), ("s", scale), ("b", bias))]
        result = plan.add_value("f32")
        attrs = {"pads": [1, 1, 1, 1], "activation": activation, "activation_after_residual": after} if i == 0 else {}
        plan.steps.append(
            Step("int8_conv", f"conv{i}", [image, *constants, *(addend if i == 0 else [])], [result], attrs)
        )
        plan.outputs.append(Port(f"y{i}", result, "f32", ("any",)))
        image = result
    first, second = plan_session(plan, isa=isa).run(None, {"x": x})
    r = {"x": [x], "relu": [np.maximum(x, 0)], None: []}[residual]
    attrs = {"pads": [1, 1, 1, 1], "activation": activation, "activation_after_residual": after}
    (alone,) = run_step("int8_conv", [x, w[0], scale, bias, *r], attrs, constant=[1], isa=isa)
    np.testing.assert_array_equal(first, alone)
    (alone,) = run_step("int8_conv", [first, w[1], scale, bias], {}, constant=[1], isa=isa)
    np.testing.assert_allclose(second, alone, rtol=1e-6, atol=1e-6)


IMAGE, WEIGHT = (1, 2, 5, 5), (2, 2, 3, 3)
HOSTILE = [
    ({"strides": [0, 1]}, "strides"),
    ({"strides": [1]}, "strides"),
    ({"dilations": [-1, 1]}, "dilations"),
    ({"dilations": [2**40, 1]}, "dilations"),
    ({"dilations": [9, 9]}, "does not fit"),
    ({"pads": [-1, 0, 0, 0]}, "pads"),
    ({"pads": [2**62] * 4}, "pads"),
    ({"pads": [1, 1]}, "pads"),
    ({"group": 0}, "group"),
    ({"group": 2}, "channels"),
    ({"group": 3}, "group"),
    ({"group": 2**62}, "group"),
    ({"kernel_shape": [2, 3]}, "kernel_shape"),
    ({"kernel_shape": [3]}, "kernel_shape"),
    ({"ceil_mode": 1}, "ceil_mode"),
    ({"activation": "maybe"}, "maybe"),
]


@pytest.mark.parametrize(("attrs", "message"), HOSTILE)
def test_hostile_attributes_are_refused(attrs, message):
    one = np.ones(2, np.float32)
    with pytest.raises(Exception, match=message):
        run_step("int8_conv", [normal(1, *IMAGE), weights(2, *WEIGHT), one, one], attrs, constant=[1])


@pytest.mark.parametrize(
    ("image", "weight", "scale", "residual"),
    [
        ((1, 3, 5, 5), WEIGHT, 2, None),
        ((1, 2, 5), WEIGHT, 2, None),
        ((1, 2, 0, 5), WEIGHT, 2, None),
        (IMAGE, (2, 2, 6, 3), 2, None),
        (IMAGE, (2, 2, 3), 2, None),
        (IMAGE, (2, 0, 3, 3), 2, None),
        (IMAGE, (0, 2, 3, 3), 0, None),
        (IMAGE, WEIGHT, 3, None),
        (IMAGE, WEIGHT, 2, (1, 2, 3, 4)),
    ],
)
def test_shapes_that_do_not_fit_are_refused(image, weight, scale, residual):
    s = np.ones(scale, np.float32)
    r = None if residual is None else normal(3, *residual)
    with pytest.raises(Exception, match="step 'step'"):
        run_step("int8_conv", [normal(1, *image), weights(2, *weight), s, s, r], {}, constant=[1])


def test_weights_must_be_constant_bytes():
    one = np.ones(2, np.float32)
    with pytest.raises(Exception, match="constant"):
        run_step("int8_conv", [normal(1, *IMAGE), weights(2, *WEIGHT), one, one], {})
    with pytest.raises(Exception, match="i8"):
        run_step("int8_conv", [normal(1, *IMAGE), weights(2, *WEIGHT).view(np.uint8), one, one], {}, constant=[1])


@pytest.mark.parametrize("pad", [2**20, 2**28])
def test_huge_pads_meet_the_memory_limit(pad):
    one = np.ones(2, np.float32)
    with pytest.raises(Exception, match=r"(?i)memory|bytes|limit|large|too many"):
        run_step(
            "int8_conv",
            [normal(1, *IMAGE), weights(2, *WEIGHT), one, one],
            {"pads": [pad] * 4},
            constant=[1],
            memory_limit=2**30,
        )
