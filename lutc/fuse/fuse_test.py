import numpy as np
import onnx_ir as ir
import pytest

from lutc.errors import UnsupportedModelError
from lutc.fuse import fuse
from lutc.plan import Plan


def model(text: str, **constants: np.ndarray) -> ir.Model:
    made = ir.from_onnx_text(text)
    for name, array in constants.items():
        value = next(v for v in made.graph.inputs if v.name == name)
        made.graph.inputs.remove(value)
        value.const_value = ir.tensor(array, name=name)
        made.graph.register_initializer(value)
    return made


def ops(plan: Plan) -> list[str]:
    return [step.op for step in plan.steps]


def f32(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


HEAD = '<ir_version: 10, opset_import: ["" : 23, "ai.lutc" : 1]>'


def test_linear_activation_and_residual_become_one_step():
    plan = fuse(
        model(
            HEAD
            + """ g (float[B, 4] x, float[4, 4] w, float[4] b) => (float[B, 4] y) <float[B, 4] h, float[B, 4] a> {
                h = ai.lutc.Linear(x, w, b)  a = Gelu<approximate = "tanh">(h)  y = Add(x, a) }""",
            w=f32(4, 4),
            b=f32(4),
        )
    )
    (step,) = plan.steps
    assert step.op == "linear" and step.attrs == {"activation": "gelu_tanh"}
    assert step.inputs[0] == step.inputs[3] == plan.inputs[0].value
    assert step.outputs == [plan.outputs[0].value]


def test_broadcast_add_is_no_residual():
    plan = fuse(
        model(
            HEAD
            + """ g (float[B, 4] x, float[4, 4] w, float[4] b, float[1, 4] r) => (float[B, 4] y) <float[B, 4] h> {
                h = ai.lutc.Linear(x, w, b)  y = Add(h, r) }""",
            w=f32(4, 4),
            b=f32(4),
        )
    )
    assert ops(plan) == ["linear", "add"]


def test_value_that_leaves_the_model_is_not_fused_away():
    plan = fuse(
        model(
            HEAD
            + """ g (float[B, 4] x, float[4, 4] w, float[4] b) => (float[B, 4] h, float[B, 4] y) {
                h = ai.lutc.Linear(x, w, b)  y = Relu(h) }""",
            w=f32(4, 4),
            b=f32(4),
        )
    )
    assert ops(plan) == ["linear", "relu"]


def test_convolution_takes_residual_before_activation():
    plan = fuse(
        model(
            HEAD
            + """ g (float[B, 3, 8, 8] x, float[3, 3, 1, 1] w) => (float[B, 3, 8, 8] y)
                <float[B, 3, 8, 8] a, float[B, 3, 8, 8] c, float[B, 3, 8, 8] s> {
                a = Conv(x, w)  c = Tanh(x)  s = Add(c, a)  y = Relu(s) }""",
            w=f32(3, 3, 1, 1),
        )
    )
    assert ops(plan) == ["tanh", "conv"]
    conv = plan.steps[1]
    assert conv.attrs["activation"] == "relu" and conv.attrs["activation_after_residual"] == 1
    assert conv.inputs[2] == -1 and conv.inputs[3] == plan.steps[0].outputs[0]


def test_convolution_with_activation_then_residual():
    plan = fuse(
        model(
            HEAD
            + """ g (float[B, 3, 8, 8] x, float[3, 3, 1, 1] w) => (float[B, 3, 8, 8] y)
                <float[B, 3, 8, 8] a, float[B, 3, 8, 8] c> {
                a = Conv(x, w)  c = Relu(a)  y = Add(c, x) }""",
            w=f32(3, 3, 1, 1),
        )
    )
    (conv,) = plan.steps
    assert conv.attrs["activation"] == "relu" and conv.attrs["activation_after_residual"] == 0


def test_add_layer_normalization_keeps_the_sum_for_others():
    text = (
        HEAD
        + """ g (float[B, 4] x, float[B, 4] r, float[4] s) => (float[B, 4] y, float[B, 4] z) <float[B, 4] a> {
            a = Add(x, r)  y = LayerNormalization<axis = -1, epsilon = 0.5>(a, s)  z = %s(a) }"""
    )
    plan = fuse(model(text % "Tanh", s=f32(4)))
    assert ops(plan) == ["add_layer_normalization", "tanh"]
    assert len(plan.steps[0].outputs) == 2 and plan.steps[1].inputs == [plan.steps[0].outputs[1]]
    assert plan.steps[0].attrs == {"axis": -1, "epsilon": 0.5}


@pytest.mark.parametrize(("axis", "order", "packs"), [(-1, "q, k, v", True), (2, "k, q, v", False)])
def test_attention_reads_the_parts_of_one_product_in_place(axis, order, packs):
    plan = fuse(
        model(
            HEAD
            + f""" g (float[B, L, 4] x, float[4, 12] w, float[12] b) => (float[B, L, 4] y)
                <float[B, L, 12] h, float[B, L, 4] q, float[B, L, 4] k, float[B, L, 4] v> {{
                h = ai.lutc.Linear(x, w, b)
                q, k, v = Split<axis = {axis}, num_outputs = 3>(h)
                y = ai.lutc.Attention<num_heads = 2, kv_num_heads = 2, scale = 0.5>({order}) }}""",
            w=f32(4, 12),
            b=f32(12),
        )
    )
    assert ops(plan) == (["linear", "attention"] if packs else ["linear", "split", "attention"])
    if packs:
        assert plan.steps[1].attrs["packed"] == [4, 4, 4]
        assert plan.steps[1].inputs == [plan.steps[0].outputs[0], -1, -1]


def test_int8_layers_take_activation_and_residual():
    weight = np.random.default_rng(0).integers(-127, 128, (6, 18)).astype(np.int8)
    plan = fuse(
        model(
            HEAD
            + """ g (float[B, 6] x, float[B, 18] r, int8[6, 18] w, float[18] s, float[18] b) => (float[B, 18] y)
                <float[B, 18] h, float[B, 18] a> {
                h = ai.lutc.Int8Linear(x, w, s, b)  a = Gelu(h)  y = Add(r, a) }""",
            w=weight,
            s=f32(18),
            b=f32(18) + 1,
        )
    )
    (step,) = plan.steps
    assert step.op == "int8_linear" and step.attrs == {"features": 6, "outputs": 18, "activation": "gelu"}
    assert step.inputs[4] == plan.inputs[1].value and len(plan.tensors) == 3
    packed = plan.constant(step.inputs[1])
    assert packed is not None and packed.shape == (2, 2, 16, 4) and packed.dtype == np.uint8
    assert packed[1, 0, 1, 3] == int(weight[3, 17]) + 128 and packed[1, 1, 2, 3] == 128

    plan = fuse(
        model(
            HEAD
            + """ g (float[B, 3, 8, 8] x, int8[3, 3, 1, 1] w, float[3] s, float[3] b) => (float[B, 3, 8, 8] y)
                <float[B, 3, 8, 8] a, float[B, 3, 8, 8] c> {
                a = ai.lutc.Int8Conv<kernel_shape = [1, 1]>(x, w, s, b)  c = Add(a, x)  y = Relu(c) }""",
            w=np.ones((3, 3, 1, 1), np.int8),
            s=f32(3),
            b=f32(3) + 1,
        )
    )
    (step,) = plan.steps
    assert step.op == "int8_conv" and step.attrs["activation_after_residual"] == 1
    assert step.attrs["kernel_shape"] == [1, 1] and step.inputs[4] == plan.inputs[0].value


@pytest.mark.parametrize(("fill", "merges"), [(0.0, True), (1.0, False)])
def test_attention_takes_the_guard_against_nan(fill, merges):
    plan = fuse(
        model(
            HEAD
            + """ g (float[B, L, 4] x, float zero) => (float[B, L, 4] y) <float[B, L, 4] a, bool[B, L, 4] n> {
                a = ai.lutc.Attention<num_heads = 2, kv_num_heads = 2, scale = 0.5>(x, x, x)
                n = IsNaN(a)  y = Where(n, zero, a) }""",
            zero=np.float32(fill).reshape(()),
        )
    )
    assert ops(plan) == (["attention"] if merges else ["attention", "is_nan", "where"])
    assert plan.steps[0].attrs.get("guarded", 0) == int(merges)
    assert plan.steps[-1].outputs == [plan.outputs[0].value]


def lookup(name: str, x: str, y: str) -> str:
    return f"{y} = ai.lutc.LutLinear<gain_limit = 15>({x}, o, i, g, d, c, m, t{name}, s, b)  "


LOOKUP = {
    "o": np.zeros(4, np.float32),
    "i": np.ones(4, np.float32),
    "g": np.arange(4, dtype=np.int32).reshape(2, 2),
    "d": np.ones((2, 8, 2), np.int8),
    "c": np.zeros((2, 8), np.int32),
    "m": np.ones(2, np.float32),
    "s": np.ones(5, np.float32),
    "b": np.ones(5, np.float32),
    "t1": np.ones((2, 8, 5), np.int8),
    "t2": np.full((2, 8, 5), 2, np.int8),
}
LOOKUP_INPUTS = (
    "float[4] o, float[4] i, int32[2,2] g, int8[2,8,2] d, int32[2,8] c, float[2] m, float[5] s, float[5] b, "
    "int8[2,8,5] t1, int8[2,8,5] t2"
)


def test_lookups_of_one_tensor_share_an_encode():
    plan = fuse(
        model(
            HEAD
            + f""" g (float[B, 4] x, {LOOKUP_INPUTS}) => (float[B, 5] y, float[B, 5] z) <float[B, 5] u> {{
                {lookup("1", "x", "u")} {lookup("2", "x", "z")} y = Relu(u) }}""",
            **LOOKUP,
        )
    )
    assert ops(plan) == ["lut_encode", "lut_linear", "lut_linear"]
    assert plan.steps[0].attrs == {"gain_limit": 15, "axis": -1}
    relu = next(s for s in plan.steps if s.outputs == [plan.outputs[0].value])
    assert relu.attrs == {
        "gain_limit": 15,
        "codebooks": 2,
        "entries": 8,
        "outputs": 5,
        "layout": "ckn",
        "activation": "relu",
    }
    # scale and bias hold the same bytes here: one constant
    assert relu.inputs[2] == relu.inputs[3]


def test_projection_folds_into_the_encode():
    plan = fuse(
        model(
            HEAD
            + f""" g (float[B, 6] x, float[6] po, float[6] pi, int8[6,4] pm, float[4] pu, {LOOKUP_INPUTS})
                => (float[B, 5] y) <float[B, 4] z> {{
                z = ai.lutc.Project<blocks = [3, 2, 3, 2]>(x, po, pi, pm, pu)  {lookup("1", "z", "y")} }}""",
            po=f32(6),
            pi=f32(6),
            pm=np.ones((6, 4), np.int8),
            pu=f32(4),
            **LOOKUP,
        )
    )
    assert ops(plan) == ["lut_encode", "lut_linear"]
    assert len(plan.steps[0].inputs) == 11 and plan.steps[0].inputs[0] == plan.inputs[0].value
    assert plan.steps[0].attrs["blocks"] == [3, 2, 3, 2]


def test_unused_steps_and_constants_are_dropped():
    plan = fuse(
        model(
            HEAD + " g (float[B, 4] x, float[4] w) => (float[B, 4] y) { u = Mul(x, w)  y = Relu(x) }",
            w=f32(4),
        )
    )
    assert ops(plan) == ["relu"] and not plan.tensors


def test_silu_is_recognised():
    plan = fuse(model(HEAD + " g (float[B, 4] x) => (float[B, 4] y) { s = Sigmoid(x)  y = Mul(s, x) }"))
    assert ops(plan) == ["silu"]


def test_input_as_output_gets_a_copy():
    plan = fuse(model(HEAD + " g (float[B, 4] x) => (float[B, 4] x) { }"))
    assert ops(plan) == ["identity"]


def test_every_unsupported_node_is_listed():
    made = model(
        HEAD
        + " g (float[B, 4] x) => (float[B, 4] y) { [one] s = Det(x)  [two] t = other.Magic(s)  [three] y = Relu(t) }"
    )
    with pytest.raises(UnsupportedModelError) as caught:
        fuse(made)
    message = str(caught.value)
    assert "'one' (Det, opset 23" in message and "'two' (other::Magic" in message and "three" not in message


def test_control_flow_is_refused():
    made = model(
        HEAD
        + """ g (bool c, float[B, 4] x) => (float[B, 4] y) {
            y = If(c) <then_branch = a () => (float[B, 4] u) { u = Relu(x) },
                else_branch = b () => (float[B, 4] v) { v = Neg(x) }> }"""
    )
    with pytest.raises(UnsupportedModelError, match="If"):
        fuse(made)
