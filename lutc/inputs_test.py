"""Sizes given by --shape, and what the user is told about the model's inputs."""

import pytest

from lutc.errors import UsageError
from lutc.inputs import describe_inputs, needed_samples, requested_shapes
from lutc.ir.testing import parse

MODEL = "g (float[n,3] x, int64[n,length] ids) => (float[n,3] y) { y = Relu(x) }"


def test_every_input_gets_a_line():
    assert describe_inputs(parse(MODEL)) == ["x: float ['n', 3]", "ids: int64 ['n', 'length']"]
    message = needed_samples(parse(MODEL), 2)
    assert message.startswith("2 layer(s)") and "\n  ids: int64 ['n', 'length']" in message


def test_none_keeps_what_the_model_says():
    wanted = requested_shapes(parse(MODEL), {"x": (None, None), "ids": (4, None)})
    assert wanted == {"x": ["n", 3], "ids": [4, "length"]}


def test_a_dim_without_a_name_gets_one():
    model = parse("g (float[] x) => (float[] y) { y = Relu(x) }")
    model.graph.inputs[0].shape = None
    assert requested_shapes(model, {"x": (None, 5)}) == {"x": ["x.0", 5]}


@pytest.mark.parametrize(
    ("shapes", "message"),
    [({"z": (1,)}, r"'z' names no input[^$]*ids: int64"), ({"x": (1,)}, "1 dims given, the model has 2")],
)
def test_shapes_that_do_not_fit(shapes, message):
    with pytest.raises(UsageError, match=message):
        requested_shapes(parse(MODEL), shapes)
