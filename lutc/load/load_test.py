"""Bad models by the dozen: each must end in one clear sentence, never in a crash or a foreign file's content."""

import os
import signal
import subprocess

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from lutc.canonicalise import canonicalise
from lutc.errors import UnsupportedModelError, UsageError
from lutc.ir import isolated
from lutc.ir.opset import ONNX_STEPS, supported_ops
from lutc.ir.testing import run
from lutc.load import check_supported, load_model
from lutc.load.external import open_beneath

W = np.arange(12, dtype=np.float32).reshape(3, 4)


def info(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def model_of(nodes, initialisers=(), inputs=None, outputs=None):
    graph = helper.make_graph(
        list(nodes), "g", inputs or [info("x", ["n", 3])], outputs or [info("y", ["n", 4])], list(initialisers)
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def dense():
    return model_of([helper.make_node("MatMul", ["x", "w"], ["y"])], [onnx.numpy_helper.from_array(W, "w")])


def external(folder, location="w.bin", **entries):
    """A model whose weight lies in an external file, which exists as w.bin."""
    folder.mkdir(exist_ok=True)
    (folder / "w.bin").write_bytes(W.tobytes())
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[3, 4], data_location=TensorProto.EXTERNAL)
    for key, value in ({"location": location} | entries).items():
        tensor.external_data.add(key=key, value=str(value))
    path = folder / "m.onnx"
    path.write_bytes(model_of([helper.make_node("MatMul", ["x", "w"], ["y"])], [tensor]).SerializeToString())
    return path


def refused(source, *words, error=UnsupportedModelError):
    with pytest.raises(error) as caught:
        load_model(source)
    for word in words:
        assert word in str(caught.value)


def test_every_kind_of_source(tmp_path):
    path = tmp_path / "m.onnx"
    onnx.save(dense(), path)
    x = np.ones((2, 3), np.float32)
    for source in (path, str(path), path.read_bytes(), dense(), ir.from_proto(dense())):
        np.testing.assert_array_equal(run(load_model(source), {"x": x})[0], x @ W)


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 a zip file", os.urandom(0) + bytes(range(256)) * 9, b"\x08"])
def test_not_an_onnx_file(tmp_path, data):
    path = tmp_path / "m.onnx"
    path.write_bytes(data)
    refused(path)


def test_truncated_anywhere(tmp_path):
    data = dense().SerializeToString()
    for size in range(0, len(data) - 1, 3):
        try:
            load_model(data[:size])
        except UnsupportedModelError:
            continue


def test_missing_file_and_folder(tmp_path):
    refused(tmp_path / "none.onnx", "none.onnx", error=UsageError)
    refused(tmp_path, "folder", error=UsageError)


def test_graph_errors_name_the_node():
    relu = lambda a, b, name="": helper.make_node("Relu", [a], [b], name)  # noqa: E731
    out = [info("y", ["n", 3])]
    refused(model_of([relu("y", "z"), relu("z", "y", "loop")], outputs=out), "cycle")
    refused(model_of([relu("q", "y", "reads_q")], outputs=out), "reads_q", "'q'")
    refused(model_of([relu("x", "y"), relu("x", "y", "second")], outputs=out), "second", "twice")
    refused(model_of([relu("x", "z")], outputs=out), "'y'", "no node")
    twice = [onnx.numpy_helper.from_array(W, "w")] * 2
    refused(model_of([helper.make_node("MatMul", ["x", "w"], ["y"])], twice), "two initialisers", "'w'")


def test_unsorted_but_acyclic_is_sorted():
    nodes = [helper.make_node("Relu", ["z"], ["y"]), helper.make_node("Neg", ["x"], ["z"])]
    model = load_model(model_of(nodes, outputs=[info("y", ["n", 3])]))
    assert [node.op_type for node in model.graph] == ["Neg", "Relu"]


def test_wrong_types_shapes_and_sizes():
    bad = dense()
    bad.graph.initializer[0].data_type = 77
    refused(bad, "'w'", "77")
    bad = dense()
    bad.graph.initializer[0].dims[0] = -3
    refused(bad, "'w'")
    bad = dense()
    bad.graph.initializer[0].dims[0] = 1 << 50
    refused(bad, "'w'")
    bad = dense()
    bad.graph.initializer[0].raw_data = b"\0" * 7
    refused(bad)
    bad = dense()
    bad.graph.input[0].type.tensor_type.elem_type = 99
    refused(bad, "'x'", "99")


def test_no_graph_no_opset_no_outputs():
    refused(onnx.ModelProto(), "no ONNX graph")
    bad = dense()
    del bad.opset_import[:]
    refused(bad, "operator set")
    bad = dense()
    del bad.graph.output[:]
    refused(bad, "outputs")


def test_deep_nesting():
    graph = helper.make_graph([], "leaf", [], [info("x", ["n", 3])])
    for depth in range(25):
        node = helper.make_node("If", ["c"], [f"r{depth}"], then_branch=graph, else_branch=graph)
        graph = helper.make_graph([node], f"d{depth}", [], [info(f"r{depth}", ["n", 3])])
        if depth > 17:
            break
    model = model_of([*graph.node], inputs=[info("x", ["n", 3]), info("c", [], TensorProto.BOOL)], outputs=graph.output)
    refused(model, "nested")


def test_function_that_calls_itself():
    model = dense()
    model.opset_import.append(helper.make_opsetid("f", 1))
    body = [helper.make_node("loop", ["a"], ["b"], domain="f")]
    model.functions.append(helper.make_function("f", "loop", ["a"], ["b"], body, [helper.make_opsetid("f", 1)]))
    refused(model, "f::loop", "calls itself")


def test_sparse_tensors():
    model = dense()
    sparse = model.graph.sparse_initializer.add()
    sparse.values.name = "s"
    refused(model, "sparse", "'s'")


def test_onnx_rejects_wrong_attributes():
    node = helper.make_node("MatMul", ["x", "w"], ["y"], nonsense=3)
    refused(model_of([node], [onnx.numpy_helper.from_array(W, "w")]), "nonsense")


def test_a_crash_of_the_child_is_an_error(monkeypatch, tmp_path):
    worker = tmp_path / "onnx_worker.py"
    worker.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    monkeypatch.setattr(isolated, "__file__", str(tmp_path / "isolated.py"))
    with pytest.raises(UnsupportedModelError, match=f"signal {int(signal.SIGSEGV)}"):
        isolated.run_worker("check", b"")
    worker.write_text("import time\ntime.sleep(60)\n")
    assert isolated.run_worker("check", b"", timeout_s=0.5) is None


@pytest.fixture(params=["openat2", "walk"])
def opener(request, monkeypatch):
    if request.param == "walk":
        monkeypatch.setenv("LUTC_NO_OPENAT2", "1")


@pytest.mark.usefixtures("opener")
class TestExternalData:
    def test_good(self, tmp_path):
        model = load_model(external(tmp_path / "m", offset=0, length=48))
        x = np.ones((2, 3), np.float32)
        np.testing.assert_array_equal(run(model, {"x": x})[0], x @ W)

    def test_in_a_folder_below_with_an_offset(self, tmp_path):
        path = external(tmp_path / "m", location="data/w.bin", offset=8, length=48)
        (path.parent / "data").mkdir()
        (path.parent / "data" / "w.bin").write_bytes(b"12345678" + W.tobytes())
        np.testing.assert_array_equal(load_model(path).graph.initializers["w"].const_value.numpy(), W)

    @pytest.mark.parametrize("location", ["../w.bin", "a/../../w.bin", "/etc/passwd", "", ".", "a//w.bin", "..\\w.bin"])
    def test_unsafe_location(self, tmp_path, location):
        (tmp_path / "w.bin").write_bytes(W.tobytes())
        path = external(tmp_path / "m", location=location)
        (path.parent / "a").mkdir()
        refused(path, "'w'", "inside the model's folder")

    def test_final_symlink(self, tmp_path):
        path = external(tmp_path / "m", location="link.bin")
        os.symlink(path.parent / "w.bin", path.parent / "link.bin")
        refused(path, "'w'", "link.bin", "symbolic link")

    def test_parent_symlink(self, tmp_path):
        path = external(tmp_path / "m", location="data/w.bin")
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "w.bin").write_bytes(W.tobytes())
        os.symlink(tmp_path / "out", path.parent / "data")
        refused(path, "'w'", "symbolic link")

    def test_hard_link(self, tmp_path):
        path = external(tmp_path / "m", location="hard.bin")
        os.link(path.parent / "w.bin", path.parent / "hard.bin")
        refused(path, "'w'", "hard link")

    def test_fifo(self, tmp_path):
        path = external(tmp_path / "m", location="fifo")
        os.mkfifo(path.parent / "fifo")
        refused(path, "'w'", "no regular file")

    def test_missing(self, tmp_path):
        refused(external(tmp_path / "m", location="gone.bin"), "'w'", "gone.bin", "no such file")

    @pytest.mark.parametrize(
        "entries",
        [
            {"offset": -1}, {"length": -48}, {"offset": 8}, {"length": 1 << 40}, {"length": 47}, {"offset": "0x0"},
            {"offset": "9" * 30}, {"__class__": "x"}, {"basepath": "/etc"}, {"offset": 1 << 62},
        ],
    )  # fmt: skip
    def test_bad_fields(self, tmp_path, entries):
        refused(external(tmp_path / "m", **entries), "'w'", "w.bin")

    def test_bytes_have_no_folder(self, tmp_path):
        refused(external(tmp_path / "m").read_bytes(), "'w'", "not loaded from a file")

    def test_inside_an_attribute(self, tmp_path):
        path = external(tmp_path / "m", location="../w.bin")
        model = onnx.load(path, load_external_data=False)
        tensor = model.graph.initializer.pop()
        model.graph.node.insert(0, helper.make_node("Constant", [], ["w"], value=tensor))
        path.write_bytes(model.SerializeToString())
        refused(path, "'w'", "inside the model's folder")

    def test_no_descriptor_leaks(self, tmp_path):
        path = external(tmp_path / "m", location="hard.bin")
        os.link(path.parent / "w.bin", path.parent / "hard.bin")
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            refused(path, "hard link")
            with pytest.raises(UnsupportedModelError):
                open_beneath(path.parent, "nothing", "w")
        assert len(os.listdir("/proc/self/fd")) <= before


def test_every_unsupported_node_is_listed():
    nodes = [
        helper.make_node("Det", ["x"], ["a"], "first"),
        helper.make_node("Relu", ["x"], ["b"], "fine"),
        helper.make_node("Magic", ["b"], ["y"], "second", domain="com.example"),
    ]
    model = model_of(nodes, outputs=[info("y", [3, 3])], inputs=[info("x", [3, 3])])
    model.opset_import.append(helper.make_opsetid("com.example", 2))
    with pytest.raises(UnsupportedModelError) as caught:
        check_supported(load_model(model), supported_ops())
    text = str(caught.value)
    assert "2 nodes" in text and "fine" not in text
    assert "first: ai.onnx::Det (opset 17), inputs [3,3]" in text
    assert "second: com.example::Magic (opset 2)" in text


def test_table_names_real_operators():
    for name in ONNX_STEPS:
        assert onnx.defs.has(name), name


def test_symlinked_model_folder_is_the_users_business(tmp_path):
    """Only what the model names is confined; the path the user gives may hold links."""
    external(tmp_path / "m")
    os.symlink(tmp_path / "m", tmp_path / "alias")
    assert canonicalise(load_model(tmp_path / "alias" / "m.onnx")).graph.outputs[0].name == "y"


def test_no_lutc_import_in_the_worker():
    """The worker starts fast and stays independent."""
    worker = isolated.__file__.replace("isolated.py", "onnx_worker.py")
    code = f"import sys, runpy; runpy.run_path({worker!r}); print('lutc' in sys.modules)"
    done = subprocess.run(["python3", "-I", "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "False"
