import numpy as np

from lutc.ir.testing import apply, operators, parse
from lutc.passes.fuse_linear import FuseLinear
from lutc.passes.merge_linears import MergeLinears

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 5, 4)).astype(np.float32)
WEIGHTS = {f"w{i}": RNG.standard_normal((4, n)).astype(np.float32) for i, n in enumerate((3, 3, 2))}


def test_three_linears_of_one_input_become_one_and_a_split():
    model = parse(
        "g (float[n,5,4] x) => (float[n,5,3] a, float[n,5,3] b, float[n,5,2] c) "
        "{ a = MatMul(x, w0) b = MatMul(x, w1) c = MatMul(x, w2) }", WEIGHTS,
    )  # fmt: skip
    for node, name in zip(model.graph, ("/self/query/MatMul", "/self/key/MatMul", "/self/value/MatMul"), strict=True):
        node.name = name
    after = apply(MergeLinears(), FuseLinear()(model).model, {"x": X})
    assert operators(after) == {"Linear": 1, "Split": 1}
    merged = next(iter(after.graph))
    assert merged.name == "/self/{query,key,value}/MatMul"
    assert list(merged.inputs[1].shape) == [4, 8]
    assert [v.name for v in after.graph.outputs] == ["a", "b", "c"]


def test_linears_of_different_inputs_stay_apart():
    model = parse(
        "g (float[n,5,4] x, float[n,5,4] z) => (float[n,5,3] a, float[n,5,3] b) "
        "{ a = MatMul(x, w0) b = MatMul(z, w1) }", WEIGHTS,
    )  # fmt: skip
    after = apply(MergeLinears(), FuseLinear()(model).model, {"x": X, "z": X + 1})
    assert operators(after) == {"Linear": 2}
