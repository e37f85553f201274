"""InferenceSession: ONNX Runtime's calls, zero-copy, shapes, threads, messages."""

import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import xxhash

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import lutc
from lutc import _runtime
from lutc.errors import CorruptFileError, UnsupportedModelError, UsageError
from lutc.session import InferenceSession, LutcMemoryError, load
from tests.tiny_artifact import Tiny, linear_model, lookup_model

W = np.arange(12, dtype=np.float32).reshape(3, 4) - 5


def session(tiny: Tiny | None = None, **options) -> InferenceSession:
    return InferenceSession((tiny or linear_model()).bytes(), **options)


def inputs(rows: int, columns: int = 3) -> np.ndarray:
    return np.random.default_rng(rows).standard_normal((rows, columns)).astype(np.float32)


@pytest.mark.parametrize("isa", _runtime.available_isas())
@pytest.mark.parametrize("rows", [0, 1, 2, 17])
def test_runs_like_numpy(isa, rows):
    x = inputs(rows)
    (y,) = session(isa=isa).run(None, {"x": x})
    assert y.shape == (rows, 4) and y.dtype == np.float32
    np.testing.assert_allclose(y, np.maximum(x @ W, 0), rtol=1e-5, atol=1e-5)


def test_lookup_layer_is_the_same_on_every_isa():
    x = inputs(33, 4)
    results = [session(lookup_model(), isa=isa).run(None, {"x": x})[0] for isa in _runtime.available_isas()]
    for result in results[1:]:
        np.testing.assert_allclose(result, results[0], rtol=1e-6, atol=1e-6)


def test_describes_itself_as_onnx_runtime_does():
    s = session()
    (x,), (y,) = s.get_inputs(), s.get_outputs()
    assert (x.name, x.shape, x.type) == ("x", ["batch", 3], "tensor(float)")
    assert (y.name, y.shape, y.type) == ("y", ["batch", 4], "tensor(float)")
    assert s.get_providers() == ["CPUExecutionProvider"]


def test_takes_onnx_runtimes_arguments():
    class Options:
        intra_op_num_threads = 1

    s = session(sess_options=Options(), providers=["CPUExecutionProvider"])
    assert s.threads == 1
    assert session(threads=10**9).threads == _runtime.available_cpus() == session().threads


def test_loads_a_file(tmp_path):
    path = tmp_path / "ä model.lut"
    path.write_bytes(linear_model().bytes())
    for made in (load(path), lutc.load(str(path)), InferenceSession(path, map_file=False)):
        assert made.run(["y"], {"x": inputs(2)})[0].shape == (2, 4)


def test_strided_inputs_are_copied_and_left_alone():
    x = inputs(8).T.copy().T  # column-major
    before = x.copy()
    (y,) = session().run(None, {"x": x[::2]})
    np.testing.assert_allclose(y, np.maximum(x[::2] @ W, 0), rtol=1e-5, atol=1e-5)
    assert (x == before).all()


def test_misaligned_input_is_copied():
    raw = np.zeros(4 * 6 + 1, np.uint8)
    x = raw[1:].view(np.float32).reshape(2, 3)
    x[:] = inputs(2)
    assert not x.flags.aligned
    np.testing.assert_allclose(session().run(None, {"x": x})[0], np.maximum(x @ W, 0), rtol=1e-5, atol=1e-5)


def test_results_are_the_callers_own():
    s = session()
    (first,) = s.run(None, {"x": inputs(3)})
    kept = first.copy()
    s.run(None, {"x": inputs(3) + 1})
    assert (first == kept).all()


def aliases() -> Tiny:
    """Outputs that no step can write: the input, a constant, a view of another output, one output twice."""
    tiny = linear_model()
    tiny.plan["values"] += [{"dtype": "f32"}, {"dtype": "i64"}]
    tiny.plan["steps"] += [
        {"op": "flatten", "name": "view", "inputs": [3], "outputs": [4], "attrs": {"axis": 0}},
        {"op": "shape", "name": "shape", "inputs": [3], "outputs": [5]},
    ]
    for name, value, dtype, shape in [
        ("x.again", 0, "f32", ["batch", 3]),
        ("w", 1, "f32", [3, 4]),
        ("flat", 4, "f32", [1, "n"]),
        ("y.again", 3, "f32", ["batch", 4]),
        ("shape", 5, "i64", [2]),
    ]:
        tiny.plan["outputs"].append({"name": name, "value": value, "dtype": dtype, "shape": shape})
    return tiny


def test_outputs_that_share_memory_are_separate_arrays():
    x = inputs(5)
    s = session(aliases())
    for _ in range(2):
        y, again, w, flat, twice, shape = s.run(None, {"x": x})
        np.testing.assert_allclose(y, np.maximum(x @ W, 0), rtol=1e-5, atol=1e-5)
        assert (again == x).all() and (w == W).all() and (flat.reshape(y.shape) == y).all() and (twice == y).all()
        assert shape.tolist() == [5, 4]
        y[:] = -1
        assert (twice >= 0).all() and (flat >= 0).all()
    assert [a.shape for a in s.run(["flat", "y"], {"x": x})] == [(1, 20), (5, 4)]


def test_many_shapes_in_turn():
    s = session()
    for rows in [*range(30), *range(30, 0, -3)]:
        x = inputs(rows)
        np.testing.assert_allclose(s.run(None, {"x": x})[0], np.maximum(x @ W, 0), rtol=1e-5, atol=1e-5)


def test_threads_share_a_session():
    s, wrong = session(), []

    def work(seed: int) -> None:
        for i in range(200):
            x = inputs(1 + (seed + i) % 11)
            if not np.allclose(s.run(None, {"x": x})[0], np.maximum(x @ W, 0), rtol=1e-5, atol=1e-5):
                wrong.append((seed, i))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize(
    ("feeds", "words"),
    [
        ({"X": inputs(1)}, ["no input 'X'", "'x': f32[batch, 3]", "run(None, {'x': ...})"]),
        ({}, ["no value", "'x'"]),
        ({"x": inputs(1).astype(np.float64)}, ["float64", "astype('float32')"]),
        ({"x": inputs(1)[0]}, ["f32[3]", "rank 2"]),
        ({"x": np.zeros((1,) * 12, np.float32)}, ["rank 12"]),
        ({"x": inputs(1, 4)}, ["f32[1, 4]", "dimension 1 must be 3"]),
        ({"x": np.array(["a"])}, ["dtype"]),
        ({"x": inputs(1).astype(">f4")}, ["dtype"]),
    ],
)
def test_bad_feeds_are_usage_errors(feeds, words):
    with pytest.raises(UsageError) as caught:
        session().run(None, feeds)
    for word in words:
        assert word in str(caught.value)


def test_unknown_output():
    with pytest.raises(UsageError, match=r"no output 'z'.*'y': f32"):
        session().run(["z"], {"x": inputs(1)})


def test_a_symbol_is_one_size_within_a_run():
    tiny = linear_model()
    tiny.plan["values"] += [{"dtype": "f32"}, {"dtype": "f32"}]
    tiny.plan["inputs"].append({"name": "b", "value": 4, "dtype": "f32", "shape": ["batch", 4]})
    tiny.plan["steps"].append({"op": "add", "name": "sum", "inputs": [3, 4], "outputs": [5]})
    tiny.plan["outputs"][0]["value"] = 5
    s = session(tiny)
    assert s.run(None, {"x": inputs(2), "b": inputs(2, 4)})[0].shape == (2, 4)
    with pytest.raises(UsageError, match=r"'batch' is 2 in input 'x'.* but 1 in input 'b'"):
        s.run(None, {"x": inputs(2), "b": inputs(1, 4)})


def test_memory_limit_is_an_error_before_the_allocation():
    s = session(memory_limit=1 << 16)
    s.run(None, {"x": inputs(10)})
    with pytest.raises(LutcMemoryError, match="65536"):
        s.run(None, {"x": np.zeros((100_000, 3), np.float32)})
    s.run(None, {"x": inputs(10)})


def test_bad_options(monkeypatch):
    with pytest.raises(UsageError, match=r"sse9.*scalar"):
        session(isa="sse9")
    monkeypatch.setenv("LUTC_ISA", "mmx")
    with pytest.raises(UsageError, match=r"LUTC_ISA.*scalar"):
        session()
    monkeypatch.setenv("LUTC_ISA", "scalar")
    assert session().isa == "scalar"
    with pytest.raises(UsageError):
        session(threads=-1)
    with pytest.raises(UsageError, match="cannot open"):
        load("no/such/file.lut")
    with pytest.raises(UsageError, match="regular file"):
        load("/dev/null")


def test_all_unknown_operators_are_listed():
    tiny = linear_model()
    tiny.plan["steps"][0]["op"] = "frobnicate"
    tiny.plan["steps"][1]["op"] = "defenestrate"
    with pytest.raises(UnsupportedModelError, match=r"(?s)'product'.*frobnicate.*'positive'.*defenestrate"):
        session(tiny)


def test_a_file_that_changes_is_noticed(tmp_path):
    path = tmp_path / "m.lut"
    path.write_bytes(linear_model().bytes())
    s = load(path)
    s.run(None, {"x": inputs(1)})
    with path.open("r+b") as file:
        file.truncate(100)
    with pytest.raises(CorruptFileError, match="truncated after"):
        s.run(None, {"x": inputs(1)})


def test_a_file_replaced_by_renaming_goes_unnoticed(tmp_path):
    path, other = tmp_path / "m.lut", tmp_path / "n.lut"
    path.write_bytes(linear_model().bytes())
    s = load(path)
    other.write_bytes(b"nothing")
    other.replace(path)
    assert s.run(None, {"x": inputs(1)})[0].shape == (1, 4)


def test_profile_names_every_step():
    s = session()
    s.run(None, {"x": inputs(4)})
    assert s.profile() == []
    with s.profiling():
        for _ in range(3):
            s.run(None, {"x": inputs(4)})
    s.run(None, {"x": inputs(4)})
    assert [(row["name"], row["op"], row["calls"]) for row in s.profile()] == [
        ("product", "mat_mul", 3),
        ("positive", "relu", 3),
    ]
    assert s.profile()[0]["bytes"] == 3 * 4 * (12 + 12 + 16) and all(row["microseconds"] >= 0 for row in s.profile())


def test_shape_arithmetic_is_folded():
    s = session(aliases())
    with s.profiling():
        s.run(None, {"x": inputs(4)})
    assert [row["op"] for row in s.profile()] == ["mat_mul", "relu"]


@pytest.mark.parametrize("size", [0, 1, 3, 4, 8, 31, 32, 33, 63, 64, 1000])
def test_xxh64_is_xxh64(size):
    data = np.random.default_rng(size).bytes(size)
    assert _runtime.xxh64(data) == xxhash.xxh64_intdigest(data)
    assert _runtime.xxh64(data, 12345) == xxhash.xxh64_intdigest(data, 12345)


def test_writes_into_the_callers_arrays():
    s, x = session(), inputs(5)
    expected = s.run(None, {"x": x})[0]
    y = np.full((5, 4), np.nan, np.float32)
    (result,) = s.run(["y"], {"x": x}, outputs={"y": y})
    assert result is y and np.array_equal(y, expected)
    y[:] = np.nan
    assert s.run([], {"x": x}, outputs={"y": y}) == [] and np.array_equal(y, expected)


@pytest.mark.parametrize(("outputs", "message"), [
    ({"z": np.empty((5, 4), np.float32)}, "no output"),
    ({"y": np.empty((5, 4), np.float64)}, r"must be f32\[5, 4\]"),
    ({"y": np.empty((4, 5), np.float32)}, r"must be f32\[5, 4\]"),
    ({"y": np.empty((5, 8), np.float32)[:, ::2]}, "C-contiguous and writeable"),
    ({"y": np.frombuffer(bytes(80), np.float32).reshape(5, 4)}, "C-contiguous and writeable"),
    ({"y": [0.0]}, "no numpy array"),
])  # fmt: skip
def test_refuses_arrays_that_cannot_take_an_output(outputs, message):
    with pytest.raises(UsageError, match=message):
        session().run(None, {"x": inputs(5)}, outputs=outputs)


def test_refuses_outputs_over_inputs():
    memory = np.zeros(40, np.float32)
    x, y = memory[:15].reshape(5, 3), memory[14:34].reshape(5, 4)
    with pytest.raises(UsageError, match="overlaps an input"):
        session().run(None, {"x": x}, outputs={"y": y})
    session().run(None, {"x": x}, outputs={"y": memory[15:35].reshape(5, 4)})
