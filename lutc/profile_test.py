"""Both runtimes say where the time goes, in their own operators' names."""

import math

import onnx_ir as ir
import pytest

import lutc
from lutc.ir.testing import parse
from lutc.profile import profile
from lutc.roofline import work_of


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
    found = profile(folder / name, 1, {"x": (192, 192), "of another model": (7,)}, seed=0)
    rows = found.operators
    assert sum(step["share"] for step in found.steps) == pytest.approx(1) and len(found.steps) == 4
    assert (found.peaks is None) == name.endswith(".onnx")
    assert {row["op"]: row["calls"] for row in rows} == expected
    assert [row["ms"] for row in rows] == sorted((row["ms"] for row in rows), reverse=True)
    assert min(row["ms"] for row in rows) > 0 and sum(row["share"] for row in rows) == pytest.approx(1)


def test_shares_of_the_roofline_are_those_of_the_counted_work(folder):
    found = profile(folder / "model.lut", 1, {"x": (192, 192)}, seed=0)
    (product,) = [step for step in found.steps if step["op"] == "mat_mul"]
    assert product["multiply_adds"] == 192**3 and product["bytes"] == 3 * 192 * 192 * 4
    assert product["bound"] == "multiply_adds"
    assert product["roofline"] == pytest.approx(192**3 / found.peaks["multiply_adds"] / (product["ms"] / 1e3))
    assert all(step["bound"] == "memory" and step["multiply_adds"] == 0 for step in found.steps if step is not product)
    assert all(rate > 0 for rate in found.peaks.values())


@pytest.mark.parametrize(("op", "attrs", "inputs", "output", "counts"), [
    ("lut_linear", {"codebooks": 10}, [(7, 99), (100,), (32,), (32,)], (7, 32), {"lookups": 7 * 32 * 10}),
    ("lut_conv", {"codebooks": 8, "kernel_shape": [3, 3], "group": 2}, [(1, 5, 5, 9), (9,)], (1, 6, 5, 5),
     {"lookups": 150 * 9 * 4}),
    ("lut_encode", {"axis": -1}, [(2, 3, 24), (24,), (24,), (6, 4), (6, 16, 4)], (2, 3, 40),
     {"int8_products": 6 * 6 * 16 * 4}),
    ("lut_encode", {"axis": 1}, [(2, 24, 5, 5), (24,), (24,), (6, 4), (6, 16, 4)], (2, 5, 5, 40),
     {"int8_products": 50 * 6 * 16 * 4}),
    ("conv", {}, [(1, 8, 9, 9), (16, 4, 3, 3)], (1, 16, 7, 7), {"multiply_adds": 16 * 49 * 36}),
    ("int8_linear", {"features": 20}, [(3, 20), (1, 5, 16, 4)], (3, 10), {"int8_products": 600}),
    ("attention", {"packed": [32, 32, 32]}, [(2, 10, 96)], (2, 10, 32), {"multiply_adds": 20 * 10 * 64}),
    ("attention", {"quantised": 1}, [(2, 10, 32), (2, 12, 32), (2, 12, 64)], (2, 10, 64),
     {"int8_products": 2 * 20 * 12 * 96}),
    ("gemm", {"transA": 1}, [(5, 3), (5, 4)], (3, 4), {"multiply_adds": 60}),
])  # fmt: skip
def test_work_is_counted_from_shapes(op, attrs, inputs, output, counts):
    work = work_of(op, attrs, [("i8", shape, position > 0) for position, shape in enumerate(inputs)],
                   [("f32", output, False)])  # fmt: skip
    found = {name: getattr(work, name) for name in ("multiply_adds", "int8_products", "lookups")}
    assert {name: count for name, count in found.items() if count} == counts
    assert work.constant_bytes == sum(math.prod(shape) for shape in inputs[1:])
    assert work.activation_bytes == math.prod(inputs[0]) + 4 * math.prod(output)


def test_a_gather_reads_the_rows_it_hands_on():
    work = work_of("gather", {}, [("f32", (30000, 8), True), ("i64", (5,), False)], [("f32", (5, 8), False)])
    assert work.constant_bytes == 5 * 8 * 4 and work.activation_bytes == 5 * 8 + 5 * 8 * 4
