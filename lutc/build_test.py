"""A rehearsed artifact is the built one as far as its steps go."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import lutc
from lutc.build import Builder
from lutc.canonicalise import canonicalise
from lutc.forms import Form, choose_layers
from lutc.load import load_model
from lutc.observe import open_source
from lutc.pack import resolve_target

RNG = np.random.default_rng(0)


def network() -> onnx.ModelProto:
    """A convolution, a linear layer and another without a name."""

    def constant(name, *shape):
        return numpy_helper.from_array(RNG.standard_normal(shape).astype(np.float32) / 8, name)

    nodes = [
        helper.make_node("Conv", ["x", "k"], ["c"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "w"], ["h"], "linear"),
        helper.make_node("Relu", ["h"], ["a"]),
        helper.make_node("MatMul", ["a", "v"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", 16, 6, 6))
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ("n", 24))
    constants = [constant("k", 32, 16, 3, 3), constant("w", 32, 48), constant("v", 48, 24)]
    return helper.make_model(
        helper.make_graph(nodes, "g", [x], [y], constants), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )


@pytest.mark.parametrize("form", ["gain-v4", "plain-v8", "gain-v4-proj"])
def test_steps_of_a_rehearsal_are_those_of_the_model(tmp_path, form):
    graph = canonicalise(load_model(network()))
    forms = {"conv": form.removesuffix("-proj"), "linear": form}
    rules = [(f"^{name}$", Form.parse(text)) for name, text in forms.items()]
    choices = choose_layers(graph, "int8", form=rules)
    builder = Builder(graph, resolve_target("native"))
    source = open_source([{"x": RNG.standard_normal((1, 16, 6, 6), dtype=np.float32)} for _ in range(300)])

    rehearsed = lutc.load(builder.rehearse(choices, tmp_path / "rehearsal.lut"))
    built = lutc.load(builder.build(choices, source, tmp_path / "built.lut", report={}).path)

    def steps(session):
        with session.profiling():
            session.run(None, {"x": np.ones((2, 16, 6, 6), np.float32)})
        return [(step["op"], step["name"]) for step in session.profile()]

    assert steps(rehearsed) == steps(built)
    assert {"lut_linear", "lut_conv"} <= {op for op, _ in steps(built)}
