"""Tables lie as the target's kernels read them; those for few rows stay whole rows."""

import numpy as np
import pytest

from lutc import _runtime
from lutc.pack import pack
from lutc.plan import Plan, Port, Step
from tests.plan_session import plan_session

D, N, C, K, V = 12, 40, 3, 16, 4


def lookup_plan(*rows: int | str) -> Plan:
    """One lookup layer a number of rows, all reading one table."""
    rng = np.random.default_rng(0)
    plan = Plan()
    constants = [
        plan.add_constant("offset", np.zeros(D, np.float32)),
        plan.add_constant("inv_scale", np.full(D, 40, np.float32)),
        plan.add_constant("groups", np.arange(C * V, dtype=np.int32).reshape(C, V)),
        plan.add_constant("directions", rng.integers(-90, 90, (C, K, V)).astype(np.int8)),
        plan.add_constant("code_bias", np.zeros((C, K), np.int32)),
        plan.add_constant("gain_mul", np.full(C, 0.005, np.float32)),
    ]
    table = plan.add_constant("table", rng.integers(-127, 128, (C, K, N)).astype(np.int8))
    scale = plan.add_constant("scale", rng.random(N).astype(np.float32))
    for number, count in enumerate(rows):
        x = plan.add_value("f32", (count, D))
        codes = plan.add_value("u8")
        y = plan.add_value("f32", (count, N))
        plan.steps.append(Step("lut_encode", "e", [x, *constants], [codes], {"gain_limit": 63, "axis": -1}))
        attrs = {"gain_limit": 63, "codebooks": C, "entries": K, "outputs": N, "layout": "ckn", "activation": "none"}
        plan.steps.append(Step("lut_linear", "l", [codes, table, scale, scale], [y], attrs))
        plan.inputs.append(Port(f"x{number}", x, "f32", (count, D)))
        plan.outputs.append(Port(f"y{number}", y, "f32", (count, N)))
    return plan


@pytest.mark.parametrize("target", ["x86-64-v3", "x86-64-v3-vnni", "x86-64-v4"])
@pytest.mark.parametrize(("rows", "canonical"), [
    ((1,), True), ((3, 1), True), ((300,), False), ((1, 300), False), (("n",), False), ((1, "n"), False),
])  # fmt: skip
def test_tables_of_few_rows_stay_canonical(target, rows, canonical):
    plan = lookup_plan(*rows)
    pack(plan, target)
    layouts = {step.attrs["layout"] for step in plan.steps if step.op == "lut_linear"}
    assert layouts == {"ckn" if canonical else _runtime.kernels.layouts_for(target)[0]}
    assert sum(array.nbytes >= C * K * N for array in plan.tensors.values()) == 1  # one table


@pytest.mark.parametrize("isa", _runtime.available_isas())
def test_a_canonical_table_serves_any_number_of_rows(isa):
    x = np.random.default_rng(1).standard_normal((70, D)).astype(np.float32)
    session = plan_session(lookup_plan("n"), isa=isa)
    whole = session.run(None, {"x0": x})[0]
    single = [session.run(None, {"x0": row[None]})[0] for row in x]  # after the table was laid out for many
    fresh = plan_session(lookup_plan("n"), isa=isa)
    assert np.array_equal(fresh.run(None, {"x0": x[:1]})[0], whole[:1])  # and before
    assert np.array_equal(fresh.run(None, {"x0": x})[0], whole)
    assert np.array_equal(np.concatenate(single), whole)
