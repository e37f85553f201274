"""Made-up feeds fit the model and the sizes asked for."""

from types import SimpleNamespace

import numpy as np
import pytest

from lutc.errors import UsageError
from lutc.synthetic import numpy_dtype, synthesise


def port(name: str, kind: str, *shape: int | str) -> SimpleNamespace:
    return SimpleNamespace(name=name, type=f"tensor({kind})", shape=list(shape))


ENCODER = [
    port("input_ids", "int64", "batch", "sequence"),
    port("attention_mask", "int64", "batch", "sequence"),
    port("token_type_ids", "int64", "batch", "sequence"),
]


def test_open_dims_are_one_text_of_128_tokens():
    feeds = synthesise(ENCODER)
    assert {array.shape for array in feeds.values()} == {(1, 128)}
    assert {array.dtype for array in feeds.values()} == {np.dtype(np.int64)}
    assert 1 <= feeds["input_ids"].min() < feeds["input_ids"].max() < 100
    assert feeds["attention_mask"].all() and not feeds["token_type_ids"].any()


def test_a_size_given_for_one_input_holds_for_the_same_symbol_elsewhere():
    feeds = synthesise(ENCODER, {"attention_mask": (3, None)})
    assert {array.shape for array in feeds.values()} == {(3, 128)}


def test_floats_are_standard_normal_and_follow_the_seed():
    image = [port("x", "float", "n", 3, 32, 32)]
    x = synthesise(image, {"x": (4, None, None, 32)}, seed=1)["x"]
    assert x.shape == (4, 3, 32, 32) and x.dtype == np.float32
    assert abs(x.mean()) < 0.05 and abs(x.std() - 1) < 0.05
    assert np.array_equal(x, synthesise(image, {"x": (4, 3, 32, 32)}, seed=1)["x"])
    assert not np.array_equal(x, synthesise(image, {"x": (4, 3, 32, 32)}, seed=2)["x"])


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"y": (1, 3)}, "names no input: y; the model's inputs: x"),
        ({"x": (1, 4)}, "dim 1 is 3 in the model, not 4"),
        ({"x": (1,)}, "1 dims, the model has 2"),
    ],
)
def test_shapes_that_do_not_fit(shapes, message):
    with pytest.raises(UsageError, match=message):
        synthesise([port("x", "float", "n", 3)], shapes)


def test_a_type_that_no_model_takes():
    assert numpy_dtype("tensor(bool)") is np.bool_
    with pytest.raises(UsageError, match=r"tensor\(string\)"):
        numpy_dtype("tensor(string)")
