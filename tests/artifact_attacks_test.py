"""Every way to break a .lut that we know of is a typed error that names the place, never a crash.

The hash is made right again, so that the checks behind it decide.
"""

import copy
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lutc.errors import CorruptFileError, LutcError, UnsupportedModelError
from lutc.session import InferenceSession
from tests.tiny_artifact import Tiny, assemble, linear_model, lookup_model


def refuse(image: bytes, match: str, error: type[LutcError] = CorruptFileError) -> None:
    with pytest.raises(error, match=match):
        InferenceSession(image)


def test_the_unbroken_models_run():
    InferenceSession(linear_model().bytes()).run(None, {"x": np.ones((2, 3), np.float32)})
    InferenceSession(lookup_model().bytes()).run(None, {"x": np.ones((2, 4), np.float32)})


# --- the file as a whole ---


def test_truncated_anywhere():
    image = lookup_model().bytes()
    places = {
        0,
        1,
        7,
        8,
        9,
        37,
        38,
        53,
        54,
        55,
        len(image) - 1,
        *np.random.default_rng(0).integers(0, len(image), 50).tolist(),
    }
    for length in sorted(places):
        refuse(image[:length], "truncated|not a .lut")


def test_every_flipped_byte_is_noticed():
    image = linear_model().bytes()
    for at in range(len(image)):
        broken = bytearray(image)
        broken[at] ^= 1 << (at % 8)
        with pytest.raises(CorruptFileError):
            InferenceSession(bytes(broken))


@pytest.mark.parametrize("content", [b"", b"\0" * 1000, b"PK\x03\x04" + b"x" * 500, b"\x08\x07\x12\x04onnx" * 50])
def test_other_files(content):
    refuse(content, "not a .lut")


def test_trailing_bytes():
    tiny = linear_model()
    tiny.data += bytes(64)
    refuse(tiny.bytes(), "64 bytes follow the last tensor")


@pytest.mark.parametrize("version", ["3", "999", "999999999"])
def test_newer_version_is_named(version):
    tiny = linear_model()
    tiny.version = version
    refuse(tiny.bytes(), rf"format version {version}; this runtime reads up to version 2")


@pytest.mark.parametrize("version", ["", "one", "-1", "0", "1.0", "99999999999999999999"])
def test_odd_versions(version):
    tiny = linear_model()
    tiny.version = version
    refuse(tiny.bytes(), "version")


@pytest.mark.parametrize("length", [0, 54, 2**28 + 1, 2**31, 2**63 - 1, 2**63, 2**64 - 8, 2**64 - 1])
def test_header_length(length):
    tiny = linear_model()
    refuse(assemble(tiny.header_text(), tiny.data, length=length), "header|version|multiple of 64|truncated")


@pytest.mark.parametrize(
    ("header", "match"),
    [
        ("", "not a .lut|not well-formed"),
        ("}", "must hold the lists"),
        (',"a":' + "[" * 100000, "nested|well-formed"),
        (',"a":' + '{"a":' * 100 + "1" + "}" * 100, "nested"),
        (',"__metadata__":{}}', "twice"),
        (',"w":{},"w":{}}', "twice"),
        (',"w":3}', "'w'"),
        (',"w":[]}', "'w'"),
        (',"w":{"dtype":"F32"}}', "exactly dtype, shape"),
        (',"w":{"dtype":"F32","shape":[],"data_offsets":[0,4],"x":1}}', "exactly dtype, shape"),
        (',"\\ud800":{}}', "well-formed"),
        (',"' + "n" * 5000 + '":{}}', "4096"),
    ],
)
def test_malformed_header(header, match):
    start = '{"__metadata__":{"lutc.hash":"0000000000000000","lutc.format":"1","lutc.plan":"{}"}'
    refuse(assemble(start + header, b""), match)


def test_header_with_invalid_utf8():
    text = linear_model().header_text().encode().replace(b'"w"', b'"\xff"')
    refuse(assemble(text, b""), "well-formed")


# --- tensors ---


def edit_w(**changes) -> Tiny:
    tiny = linear_model()
    tiny.header["w"].update(changes)
    return tiny


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"data_offsets": [0, 64]}, "outside the file"),
        ({"data_offsets": [2**40, 2**40 + 48]}, "outside the file"),
        ({"data_offsets": [0, 2**63 - 1]}, "outside the file"),
        ({"data_offsets": [2**63, 2**63 + 48]}, "in order"),
        ({"data_offsets": [-48, 0]}, "in order"),
        ({"data_offsets": [48, 0]}, "in order"),
        ({"data_offsets": [0]}, "in order"),
        ({"data_offsets": [0.0, 48.0]}, "in order"),
        ({"data_offsets": [0, 44]}, "does not fill"),
        ({"shape": [3, 5]}, "does not fill"),
        ({"shape": [3, -4]}, "non-negative"),
        ({"shape": [3, 4.0]}, "non-negative"),
        ({"shape": "3x4"}, "not a list"),
        ({"shape": [2**32, 2**32]}, "too many elements"),
        ({"shape": [2**62, 2**62, 0]}, "too many elements"),
        ({"shape": [2**64]}, "non-negative"),
        ({"shape": [1] * 9}, "rank 9"),
        ({"dtype": "F16"}, "unknown dtype 'F16'"),
        ({"dtype": "f32"}, "unknown dtype"),
        ({"dtype": 7}, "unknown dtype"),
    ],
)
def test_tensor_entries(changes, match):
    refuse(edit_w(**changes).bytes(), rf"'w'.*{match}")


def test_unaligned_tensor():
    tiny = linear_model()
    tiny.entry("b", "F32", [4], bytes(16))
    refuse(tiny.bytes(), "'b'.*multiple of 64")


def test_overlapping_tensors():
    tiny = linear_model()
    tiny.header["b"] = {"dtype": "F32", "shape": [12], "data_offsets": [0, 48]}
    refuse(tiny.bytes(), "overlap")


def test_hole_between_tensors():
    tiny = linear_model()
    tiny.data += bytes(16)
    tiny.entry("b", "F32", [4], bytes(16))
    refuse(tiny.bytes(), "'b'.*hole")


def test_bool_tensor_with_other_bytes():
    tiny = linear_model()
    tiny.entry("_pad.0", "U8", [16], bytes(16))
    tiny.entry("b", "BOOL", [3], b"\0\1\2")
    refuse(tiny.bytes(), "'b'.*byte 2 of a bool tensor is 2")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_are_finite(value):
    w = np.ones((3, 4), np.float32)
    w[1, 2] = value
    refuse(linear_model(w).bytes(), "'product'.*NaN or infinity")


# --- the plan ---


def plan_edit(path: str, value: object) -> bytes:
    """The linear model with one place of its plan replaced; the path is like steps.0.inputs."""
    tiny = linear_model()
    *parents, last = [int(key) if key.isdigit() else key for key in path.split(".")]
    place = tiny.plan
    for key in parents:
        place = place[key]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return tiny.bytes()


@pytest.mark.parametrize(
    ("path", "value", "match"),
    [
        ("inputs", ..., "must hold the lists"),
        ("steps", {}, "must hold the lists"),
        ("outputs", [], "no output"),
        ("inputs.0.value", 4, "'x'.*not an index"),
        ("inputs.0.value", -1, "'x'.*not an index"),
        ("inputs.0.value", 1, "'x'.*is a constant"),
        ("inputs.0.dtype", "f16", "'x'.*unknown dtype"),
        ("inputs.0.dtype", "i64", "'x'.*declared i64"),
        ("inputs.0.shape", [-1, 3], "'x'.*non-negative"),
        ("inputs.0.shape", [""], "'x'.*symbolic"),
        ("inputs.0.shape", [1] * 9, "'x'.*at most 8"),
        ("inputs.0.name", "", "input 0"),
        ("inputs.0.name", "n" * 5000, "input 0"),
        ("outputs.0.value", 10**12, "'y'.*not an index"),
        ("outputs.0.value", 2.0, "'y'.*not an index"),
        ("values.1.tensor", "v", "value 1.*no tensor"),
        ("values.1.tensor", 5, "value 1.*not a name"),
        ("values.1.dtype", "i32", "value 1.*stored as f32"),
        ("values.1.shape", [4, 3], r"value 1.*\[4, 3\].*\[3, 4\]"),
        ("values.1.shape", ..., "value 1.*shape"),
        ("values.0", None, "value 0"),
        ("steps.0.inputs", [0, 3], "'product'.*reads value 3"),
        ("steps.0.inputs", [0, 99], "'product'.*not an index"),
        ("steps.0.inputs", [0] * 65, "'product'.*more than 64"),
        ("steps.0.outputs", [0], "'product'.*writes value 0"),
        ("steps.0.outputs", [1], "'product'.*writes value 1"),
        ("steps.0.outputs", [], "'product'.*no output"),
        ("steps.0.outputs", [-1], "'product'.*not an index"),
        ("steps.1.inputs", [3], "'positive'.*reads value 3"),
        ("steps.1.outputs", [2], "'positive'.*writes value 2"),
        ("steps.0.op", 3, "step 0"),
        ("steps.0.name", ..., "step 0"),
        ("steps.0.attrs", {"a": None}, "'product'.*attribute 'a'"),
        ("steps.0.attrs", {"a": [1, "b"]}, "'product'.*attribute 'a'"),
        ("steps.0.attrs", {"a": 2**63}, "'product'.*attribute 'a'"),
        ("steps.0.attrs", {f"a{i}": 1 for i in range(300)}, "'product'.*256"),
    ],
)
def test_broken_plans(path, value, match):
    refuse(plan_edit(path, value), match)


def test_a_cycle_cannot_be_written_down():
    tiny = linear_model()
    tiny.plan["steps"].reverse()
    refuse(tiny.bytes(), "nothing before this step computes")


def test_two_inputs_of_one_name():
    tiny = linear_model()
    tiny.plan["inputs"].append(copy.deepcopy(tiny.plan["inputs"][0]))
    refuse(tiny.bytes(), "'x': two have this name")


def test_too_many_values():
    tiny = linear_model()
    tiny.plan["values"] += [{"dtype": "f32"}] * 1_000_000
    refuse(tiny.bytes(), "limit is 1,000,000")


def test_plan_is_text_of_json():
    tiny = linear_model()
    for text in ("", "[]", "{", '{"inputs":1}', '{"inputs":[],"inputs":[]}', "null", "[" * 10000):
        metadata = {"lutc.hash": "0" * 16, "lutc.format": "1", "lutc.plan": text}
        refuse(
            assemble(json.dumps({"__metadata__": metadata, **tiny.header}, separators=(",", ":")), tiny.data), "plan:"
        )


# --- the lookup operators ---


def test_codes_go_to_lookups_only():
    tiny = lookup_model()
    tiny.plan["steps"].append({"op": "relu", "name": "peek", "inputs": [1], "outputs": [len(tiny.plan["values"])]})
    tiny.plan["values"].append({"dtype": "u8"})
    refuse(tiny.bytes(), "'peek'.*cannot be the result of a lut_encode")
    tiny = lookup_model()
    tiny.plan["outputs"][0].update(value=1, dtype="u8")
    refuse(tiny.bytes(), "opaque")
    tiny = lookup_model()
    tiny.plan["steps"][1]["inputs"][0] = 0
    refuse(tiny.bytes(), "'lookup'.*must be the result of a lut_encode")


def loads_or_runs(image: bytes) -> None:
    session = InferenceSession(image)
    session.run(None, {"x": np.ones((2, 4), np.float32)})


@pytest.mark.parametrize(
    "replaced",
    [
        {"table": np.zeros((2, 4, 7), np.int8)},
        {"table": np.zeros((1, 4, 8), np.int8)},
        {"table": np.zeros((2, 3, 8), np.int8)},
        {"table": np.zeros((2, 4, 8), np.uint8)},
        {"scale": np.zeros(7, np.float32)},
        {"scale": np.full(8, np.nan, np.float32)},
        {"bias": np.full(8, np.inf, np.float32)},
        {"bias": np.zeros(9, np.float32)},
        {"offset": np.zeros(3, np.float32)},
        {"inv_scale": np.zeros(5, np.float32)},
        {"inv_scale": np.full(4, -1, np.float32)},
        {"inv_scale": np.full(4, np.nan, np.float32)},
        {"groups": np.array([[0, 1], [2, 4]], np.int32)},
        {"groups": np.array([[0, 1], [2, -2]], np.int32)},
        {"groups": np.array([[0, 1], [-1, 2]], np.int32)},
        {"groups": np.array([[0, 1], [2, 2**31 - 1]], np.int32)},
        {"groups": np.zeros((2, 13), np.int32)},
        {"groups": np.zeros((0, 2), np.int32)},
        {"directions": np.zeros((2, 5, 2), np.int8)},
        {"directions": np.zeros((2, 4, 3), np.int8)},
        {"code_bias": np.full((2, 4), 2**30, np.int32)},
        {"code_bias": np.zeros((2, 5), np.int32)},
        {"gain_mul": np.full(2, np.inf, np.float32)},
        {"gain_mul": np.zeros(3, np.float32)},
    ],
    ids=lambda replaced: f"{next(iter(replaced))}-{next(iter(replaced.values())).shape}",
)
def test_lookup_constants(replaced):
    with pytest.raises((CorruptFileError, UnsupportedModelError), match=r"encode|lookup"):
        loads_or_runs(lookup_model(**replaced).bytes())


@pytest.mark.parametrize(
    ("step", "attrs"),
    [
        (0, {"gain_limit": -1}),
        (0, {"gain_limit": 128}),
        (0, {"gain_limit": 2**40}),
        (0, {"axis": 7}),
        (1, {"codebooks": 3}),
        (1, {"codebooks": 0}),
        (1, {"codebooks": 2**62}),
        (1, {"entries": 5}),
        (1, {"entries": 0}),
        (1, {"outputs": 2**33}),
        (1, {"outputs": -8}),
        (1, {"gain_limit": 1000}),
        (1, {"layout": "no such layout"}),
        (1, {"activation": "no such activation"}),
    ],
    ids=str,
)
def test_lookup_attributes(step, attrs):
    tiny = lookup_model()
    tiny.plan["steps"][step]["attrs"].update(attrs)
    with pytest.raises((CorruptFileError, UnsupportedModelError), match=r"encode|lookup"):
        loads_or_runs(tiny.bytes())


def test_truncation_while_mapped_ends_in_an_error(tmp_path):
    # In a process of its own: were it a SIGBUS, only that one would die.
    path = tmp_path / "m.lut"
    path.write_bytes(linear_model(np.ones((3, 4), np.float32)).bytes())
    program = (
        "import os, sys, numpy as np\n"
        "from lutc.session import load\n"
        "from lutc.errors import CorruptFileError\n"
        "session = load(sys.argv[1])\n"
        "os.truncate(sys.argv[1], 0)\n"
        "try:\n    session.run(None, {'x': np.ones((1, 3), np.float32)})\n"
        "except CorruptFileError:\n    sys.exit(77)\n"
    )
    folder = str(Path(__file__).parents[1])
    assert (
        subprocess.run([sys.executable, "-c", program, str(path)], cwd=folder, timeout=60, check=False).returncode == 77
    )
