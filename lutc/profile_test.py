"""Both runtimes say where the time goes, in their own operators' names."""

import onnx_ir as ir
import pytest

import lutc
from lutc.ir.testing import parse
from lutc.profile import per_op_times


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("profile")
    body = "a = Sin(x) b = MatMul(a, x) c = Sin(b) y = Add(c, x)"
    ir.save(parse(f"g (float[n,n] x) => (float[n,n] y) {{ {body} }}"), made / "model.onnx")
    lutc.compile(made / "model.onnx", output=made / "model.lut")
    return made


@pytest.mark.parametrize(("name", "expected"), [
    ("model.onnx", {"MatMul": 1, "Sin": 2, "Add": 1}),
    ("model.lut", {"mat_mul": 1, "sin": 2, "add": 1}),
])  # fmt: skip
def test_operators_are_counted_and_sorted_by_time(folder, name, expected):
    rows = per_op_times(folder / name, 1, {"x": (192, 192), "of another model": (7,)}, seed=0)
    assert {row["op"]: row["calls"] for row in rows} == expected
    assert [row["ms"] for row in rows] == sorted((row["ms"] for row in rows), reverse=True)
    assert min(row["ms"] for row in rows) > 0 and sum(row["share"] for row in rows) == pytest.approx(1)
