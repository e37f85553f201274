"""Random lookups are valid layers of the right shapes, and finish what they start."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.artifacts import TARGETS
from benchmarks.random_layers import choose, projected_groups, randomise
from benchmarks.single_layers import Conv, Linear, inputs
from lutc import InferenceSession, _runtime
from lutc.canonicalise import canonicalise
from lutc.fuse import fuse
from lutc.load import load_model
from lutc.pack import pack
from lutc.write import write_artifact


@pytest.mark.parametrize(
    ("layer", "form", "op"),
    [
        (Linear(3, 24, 40), "gain-v3", "lut_linear"),
        (Linear(3, 24, 40), "gain-v4t7", "lut_linear"),
        (Linear(3, 24, 40), "plain-v8", "lut_linear"),
        (Linear(1, 24, 40), "gain-v4-proj", "lut_linear"),
        (Linear(3, 24, 40), "gain-v4-block12", "lut_linear"),
        (Conv(8, 5, 9), "gain-v4", "lut_conv"),
        (Conv(8, 5, 9), "plain-v8", "lut_conv"),
        (Linear(3, 24, 40), "int8", "int8_linear"),
        (Conv(8, 5, 9), "int8", "int8_conv"),
    ],
)
def test_a_layer_in_this_form_runs(tmp_path, layer, form, op):
    layer.write(tmp_path / "layer.onnx")
    model = canonicalise(load_model(tmp_path / "layer.onnx"))
    plan = fuse(randomise(model, choose(model, form, every=True)))
    assert op in [step.op for step in plan.steps]
    assert not {"linear", "conv", "project"} & {step.op for step in plan.steps}
    target = TARGETS[_runtime.available_isas()[-1]]
    pack(plan, target)
    write_artifact(plan, tmp_path / "layer.lut", target=target, report={})
    session = InferenceSession(tmp_path / "layer.lut")
    first, second = (session.run(None, feed)[0] for feed in inputs(layer, 2))
    assert np.isfinite(first).all()
    assert first.std() > 0.1  # neither dead nor saturated
    assert not np.array_equal(first, second)


def test_layers_that_the_compiler_keeps_stay_dense(tmp_path):
    Conv(8, 5, 9).write(tmp_path / "layer.onnx")
    model = canonicalise(load_model(tmp_path / "layer.onnx"))
    assert [str(choice.form) for choice in choose(model, "gain-v3")] == ["fp32"]  # the first convolution


@pytest.mark.parametrize(("features", "width"), [(24, 4), (384, 4), (768, 3), (3072, 4)])
def test_a_projection_has_as_many_codebooks_as_the_form_says(features, width):
    groups = projected_groups(features, width)
    assert len(groups) <= features // width
    assert len(groups) > 0.9 * features // width - 1
    used = groups[groups >= 0]
    np.testing.assert_array_equal(np.sort(used), np.arange(used.size))
    assert used.size < features
