"""Samples are dealt out disjointly; input shapes for which time counts."""

import numpy as np
import onnx_ir as ir
import pytest

from lutc.errors import UsageError
from lutc.observe import open_source
from lutc.observe.inputs import count_samples
from lutc.select.samples import deal_samples, first_samples, time_shapes


def model(*inputs):
    values = [
        ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT)) for name, shape in inputs
    ]
    return ir.Model(ir.Graph(values, [], nodes=[], opset_imports={"": 23}, name="g"), ir_version=10)


def numbered(first, size):
    return {"x": np.arange(first, first + size, dtype=np.float32)[:, None].repeat(4, 1)}


@pytest.mark.parametrize("sizes", [[400], [7] * 60, [1] * 10])
def test_every_sample_has_one_duty(sizes):
    starts = np.cumsum([0, *sizes[:-1]])
    source = open_source([numbered(start, size) for start, size in zip(starts, sizes, strict=True)])
    samples = deal_samples(source, model(("x", ["n", 4])), cost=lambda batch: 1, seed=3)
    duties = [
        {float(value) for batch in part for value in batch["x"][:, 0]}
        for part in (samples.fit, samples.judge, samples.verify)
    ]
    assert not samples.shared and sum(map(len, duties)) == sum(sizes) == len(set().union(*duties))
    assert len(duties[0]) > max(len(duties[1]), len(duties[2])) and min(map(len, duties)) >= 1
    assert len(samples.final) == len(samples.fit) + len(samples.judge)


def test_one_sample_has_every_duty():
    samples = deal_samples(open_source([numbered(0, 1)]), model(("x", ["n", 4])), cost=lambda batch: 1)
    assert samples.shared and samples.fit == samples.verify == samples.final


def test_first_samples_takes_whole_batches():
    batches = [numbered(0, 5), numbered(5, 5), numbered(10, 5)]
    assert sum(map(count_samples, first_samples(batches, 6))) == 10


def test_open_dims_are_the_median_and_the_batch_is_one():
    network = model(("ids", ["batch", "length"]), ("mask", ["batch", "length"]), ("image", ["batch", 3, 8, 8]))
    samples = [{"ids": np.zeros((2, n)), "mask": np.zeros((2, n)), "image": np.zeros((2, 3, 8, 8))} for n in (5, 9, 40)]
    assert time_shapes(network, samples, {}) == {"ids": (1, 9), "mask": (1, 9), "image": (1, 3, 8, 8)}
    given = time_shapes(network, samples, {"ids": (4, None)})
    assert given == {"ids": (4, 9), "mask": (4, 9), "image": (4, 3, 8, 8)}
    with pytest.raises(UsageError, match="not 4"):
        time_shapes(network, samples, {"image": (1, 4, 8, 8)})
