"""linear, mat_mul and gemm against float64 numpy and ONNX Runtime, on every ISA."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lutc._ort import ort_session
from tests.one_step import MAIN_ISAS, normal, run_step

sizes = st.sampled_from([1, 2, 3, 5, 7, 13, 14, 15, 16, 17, 29, 31, 32, 33, 48, 65])
depths = st.sampled_from([1, 2, 3, 7, 16, 33, 64, 511, 512, 513, 1030])
isas = st.sampled_from(MAIN_ISAS)


def close(ours: np.ndarray, exact: np.ndarray, terms: int) -> None:
    """Within the rounding of `terms` additions."""
    assert ours.dtype == np.float32
    assert ours.shape == exact.shape
    np.testing.assert_allclose(ours, exact, rtol=1e-5, atol=3e-7 * (terms + 10))


ACTIVATIONS = {
    "none": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "gelu": lambda x: x / 2 * (1 + np.vectorize(math.erf, otypes=[float])(x / math.sqrt(2))),
    "gelu_tanh": lambda x: x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
}


@given(
    lead=st.lists(st.integers(0, 4), max_size=2),
    m=sizes,
    k=depths,
    n=sizes,
    bias=st.booleans(),
    residual=st.booleans(),
    constant=st.booleans(),
    activation=st.sampled_from(sorted(ACTIVATIONS)),
    isa=isas,
    threads=st.sampled_from([1, 2]),
)
def test_linear(lead, m, k, n, bias, residual, constant, activation, isa, threads):
    x, w = normal(1, *lead, m, k), normal(2, k, n) / np.float32(math.sqrt(k))
    b = normal(3, n) if bias else None
    r = normal(4, *lead, m, n) if residual else None
    exact = x.astype(float) @ w + (0 if b is None else b)
    exact = ACTIVATIONS[activation](exact) + (0 if r is None else r)
    (ours,) = run_step(
        "linear", [x, w, b, r], {"activation": activation}, constant=[1] if constant else [], isa=isa, threads=threads
    )
    close(ours, exact, 4)


@pytest.mark.parametrize("isa", MAIN_ISAS)
@pytest.mark.parametrize("shape", [(1, 768, 3072), (2, 384, 1536), (128, 1536, 384), (130, 1024, 70), (15, 4096, 33)])
def test_linear_of_model_sizes(isa, shape):
    m, k, n = shape
    x, w, b = normal(1, m, k), normal(2, k, n) / np.float32(math.sqrt(k)), normal(3, n)
    (ours,) = run_step("linear", [x, w, b], {"activation": "gelu"}, constant=[1, 2], isa=isa, threads=2)
    close(ours, ACTIVATIONS["gelu"](x.astype(float) @ w + b), 4)


@given(
    lead=st.sampled_from(
        [((), ()), ((3,), ()), ((), (3,)), ((2, 3), (3,)), ((2, 1), (1, 3)), ((2, 3), (2, 3)), ((0,), (0,))]
    ),
    m=sizes,
    k=st.sampled_from([0, 1, 2, 17, 64, 513]),
    n=sizes,
    vectors=st.sampled_from(["", "a", "b", "ab"]),
    constant=st.booleans(),
    isa=isas,
    threads=st.sampled_from([1, 2]),
)
def test_mat_mul(lead, m, k, n, vectors, constant, isa, threads):
    a = normal(1, k) if "a" in vectors else normal(1, *lead[0], m, k)
    b = normal(2, k) if "b" in vectors else normal(2, *lead[1], k, n)
    (ours,) = run_step("mat_mul", [a, b], constant=[1] if constant else [], isa=isa, threads=threads)
    close(ours, np.matmul(a.astype(float), b.astype(float)), k)


@given(
    m=sizes,
    k=depths,
    n=sizes,
    trans_a=st.booleans(),
    trans_b=st.booleans(),
    alpha=st.sampled_from([1.0, 0.5, 0.0]),
    beta=st.sampled_from([1.0, -2.0, 0.0]),
    c=st.sampled_from(["", "scalar", "n", "1n", "m1", "mn", "11"]),
    constant=st.booleans(),
    isa=isas,
)
def test_gemm(m, k, n, trans_a, trans_b, alpha, beta, c, constant, isa):
    a, b = normal(1, m, k), normal(2, k, n)
    shape = {"scalar": (), "n": (n,), "1n": (1, n), "m1": (m, 1), "mn": (m, n), "11": (1, 1)}.get(c)
    bias = None if shape is None else normal(3, *shape)
    exact = alpha * (a.astype(float) @ b) + (0 if bias is None else beta * bias.astype(float))
    attrs = {"transA": int(trans_a), "transB": int(trans_b), "alpha": alpha, "beta": beta}
    stored = [np.ascontiguousarray(a.T if trans_a else a), np.ascontiguousarray(b.T if trans_b else b), bias]
    (ours,) = run_step("gemm", stored, attrs, constant=[1] if constant else [], isa=isa)
    close(ours, exact, k)


@pytest.mark.parametrize("isa", MAIN_ISAS)
def test_nan_and_infinity_stay_in_their_rows(isa):
    x, w = normal(1, 20, 40), normal(2, 40, 50)
    x[3, 7], x[17, 0] = np.nan, np.inf
    (ours,) = run_step("linear", [x, w], {"activation": "relu"}, constant=[1], isa=isa)
    assert np.isnan(ours[3]).all()
    assert np.isfinite(np.delete(ours, [3, 17], axis=0)).all()
    assert (np.isinf(ours[17]) | (ours[17] == 0)).all()


@pytest.mark.parametrize(
    ("op", "shapes", "attrs", "message"),
    [
        ("linear", [(2, 3), (4, 5)], {}, "does not fit"),
        ("linear", [(2, 3), (3,)], {}, "does not fit|rank 2"),
        ("linear", [(2, 3), (3, 4), (5,)], {}, "bias"),
        ("linear", [(2, 3), (3, 4), None, (1, 4)], {}, "residual"),
        ("linear", [(2, 3), (3, 4)], {"activation": "swishy"}, "swishy"),
        ("mat_mul", [(2, 3), (4, 5)], {}, "do not fit"),
        ("mat_mul", [(2, 2, 3), (3, 3, 5)], {}, "do not broadcast"),
        ("mat_mul", [(), (3, 5)], {}, "scalar"),
        ("gemm", [(2, 3), (4, 5)], {}, "do not fit"),
        ("gemm", [(2, 3, 1), (3, 5)], {}, "do not fit"),
        ("gemm", [(2, 3), (3, 5), (2,)], {}, "broadcast"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(op, shapes, attrs, message):
    inputs = [None if shape is None else normal(1, *shape) for shape in shapes]
    with pytest.raises(Exception, match=message):
        run_step(op, inputs, attrs)


def test_onnx_runtime_agrees_on_gemm():
    from tests.one_node import single_node

    a, b, c = normal(1, 9, 70), normal(2, 33, 70), normal(3, 33)
    model = single_node("Gemm", [a, b, c], transB=1, alpha=0.5)
    (theirs,) = ort_session(model.SerializeToString()).run(None, {"x0": a, "x1": b, "x2": c})
    for isa in MAIN_ISAS:
        (ours,) = run_step("gemm", [a, b, c], {"transB": 1, "alpha": 0.5}, isa=isa)
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
