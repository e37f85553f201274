"""Tables made at load: the same outputs as stored ones on every ISA, shared by sessions, and no way to break them."""

import copy
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from lutc import _runtime
from lutc.errors import CorruptFileError, LutcError, UnsupportedModelError
from lutc.inspect import read_artifact, verify
from lutc.pack import expand_tables, pack, resolve_target
from lutc.plan import Plan, Port, Step
from lutc.session import InferenceSession
from lutc.write import write_artifact
from tests.plan_session import plan_session
from tests.tiny_artifact import Tiny, assemble, lookup_model

ISAS = _runtime.available_isas()
SEED = 5


def encode(plan, rng, x, features, codebooks, entries, width, axis, group=1):
    """A lut_encode step of random constants: the codes, and the groups."""
    groups = np.arange(codebooks * width).reshape(codebooks, width) % (features // group)
    groups = (groups + (np.arange(codebooks) // (codebooks // group) * (features // group))[:, None]).astype(np.int32)
    constants = {
        "offset": np.zeros(features, np.float32),
        "inv_scale": np.full(features, 40, np.float32),
        "groups": groups,
        "directions": rng.integers(-90, 90, (codebooks, entries, width)).astype(np.int8),
        "code_bias": np.zeros((codebooks, entries), np.int32),
        "gain_mul": np.full(codebooks, 0.005, np.float32),
    }
    values = [plan.add_constant(name, array) for name, array in constants.items()]
    codes = plan.add_value("u8")
    plan.steps.append(Step("lut_encode", "encode", [x, *values], [codes], {"gain_limit": 63, "axis": axis}))
    return codes, values[2]


def expand(plan, rng, codebooks, entries, width, weight, groups, group=1):
    """An init step of random factors."""
    outputs = weight[0] if len(weight) == 4 else weight[1]
    inputs = [
        plan.add_constant("atoms", rng.integers(-127, 128, (codebooks, entries, width)).astype(np.int8)),
        plan.add_constant("weight", rng.integers(-127, 128, weight).astype(np.int8)),
        groups,
        plan.add_constant("codebook_mul", rng.uniform(1e-3, 1e-2, codebooks).astype(np.float32)),
        plan.add_constant("column_mul", rng.uniform(0.5, 2, outputs).astype(np.float32)),
    ]
    table = plan.add_value("i8")
    plan.init.append(Step("expand_table", "expand", inputs, [table], {"layout": "ckn", "group": group}))
    return table


def linear_plan(rows="n", features=30, codebooks=11, entries=16, width=3, outputs=100):
    rng = np.random.default_rng(SEED)
    plan = Plan()
    x, y = plan.add_value("f32", (rows, features)), None
    codes, groups = encode(plan, rng, x, features, codebooks, entries, width, -1)
    table = expand(plan, rng, codebooks, entries, width, (features, outputs), groups)
    scale = plan.add_constant("scale", rng.uniform(0.5, 1, outputs).astype(np.float32))
    y = plan.add_value("f32", (rows, outputs))
    attrs = {"gain_limit": 63, "codebooks": codebooks, "entries": entries, "outputs": outputs, "layout": "ckn"}
    plan.steps.append(Step("lut_linear", "lookup", [codes, table, scale, scale], [y], attrs))
    plan.inputs.append(Port("x", x, "f32", (rows, features)))
    plan.outputs.append(Port("y", y, "f32", (rows, outputs)))
    return plan, (rows, features)


def conv_plan(group=2, channels=8, outputs=14, entries=8, width=3, kernel=(3, 2)):
    rng = np.random.default_rng(SEED)
    plan = Plan()
    codebooks = group * 3
    x = plan.add_value("f32", ("n", channels * group, 7, 9))
    codes, groups = encode(plan, rng, x, channels * group, codebooks, entries, width, 1, group)
    table = expand(plan, rng, codebooks, entries, width, (outputs * group, channels, *kernel), groups, group)
    scale = plan.add_constant("scale", rng.uniform(0.5, 1, outputs * group).astype(np.float32))
    y = plan.add_value("f32", ("n", outputs * group, "h", "w"))
    attrs = {"gain_limit": 63, "codebooks": codebooks, "entries": entries, "outputs": outputs * group, "layout": "ckn"}
    attrs |= {"kernel_shape": list(kernel), "pads": [1, 0, 1, 1], "group": group}
    plan.steps.append(Step("lut_conv", "lookup", [codes, table, scale, scale], [y], attrs))
    plan.inputs.append(Port("x", x, "f32", ("n", channels * group, 7, 9)))
    plan.outputs.append(Port("y", y, "f32", ("n", outputs * group, "h", "w")))
    return plan, ("n", channels * group, 7, 9)


def inputs(shape, count):
    return np.random.default_rng(1).standard_normal([count if isinstance(d, str) else d for d in shape], np.float32)


PLANS = {
    "linear": linear_plan,
    "one row": lambda: linear_plan(rows=1),
    "wide": lambda: linear_plan(features=64, codebooks=3, entries=4, width=20, outputs=7),
    "convolution": conv_plan,
    "plain convolution": lambda: conv_plan(group=1, entries=16, kernel=(1, 1)),
}


@pytest.mark.parametrize("target", [None, "x86-64-v4", "x86-64-v3", "scalar"])
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", PLANS)
def test_tables_made_at_load_are_those_stored(name, isa, target):
    made, shape = PLANS[name]()
    stored = copy.deepcopy(made)
    expand_tables(stored)
    assert not stored.init and made.init
    if target is not None:  # whatever the artifact was written for
        pack(made, target)
        pack(stored, target)
    for count in (1, 40, 0):
        x = {"x": inputs(shape, count)}
        want = plan_session(stored, isa=isa).run(None, x)[0]
        for threads in (1, 2):
            np.testing.assert_array_equal(plan_session(made, isa=isa, threads=threads).run(None, x)[0], want)


def test_formats(tmp_path):
    for plan, version, tables in ((linear_plan()[0], 2, 1), (linear_plan()[0], 1, 0)):
        if not tables:
            expand_tables(plan)
        pack(plan, resolve_target("native"))
        path = tmp_path / f"{version}.lut"
        write_artifact(plan, path, target=resolve_target("native"), report={})
        artifact = read_artifact(path)
        assert artifact.format == version
        assert artifact.summary()["tables_made_at_load"] == tables
        assert artifact.expanded_bytes == tables * 11 * 16 * 100
        verify(path)


SHARED = """
import sys, lutc
import numpy as np

def private():
    for line in open("/proc/self/smaps_rollup"):
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) * 1024

x = np.ones((1, 1024), np.float32)
start = private()
sessions = [lutc.load(sys.argv[1])]
sessions[0].run(None, {"x": x})
print(private() - start)
sessions += [lutc.load(sys.argv[1]) for _ in range(2)]
for session in sessions:
    session.run(None, {"x": x})
print(private() - start)
del session, sessions[:]
print(private() - start)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_sessions_of_one_file_share_tables_and_the_last_frees_them(tmp_path):
    plan, _ = linear_plan(features=1024, codebooks=256, width=4, outputs=8192)
    pack(plan, resolve_target("native"))
    path = tmp_path / "large.lut"
    write_artifact(plan, path, target=resolve_target("native"), report={})
    done = subprocess.run([sys.executable, "-c", SHARED, str(path)], capture_output=True, text=True, check=True)
    one, three, none = map(int, done.stdout.split())
    table = 256 * 16 * 8192
    assert table < one < 1.2 * table + 4e6
    assert three < one + 0.2 * table
    assert none < 0.2 * table


def test_sessions_opened_at_once_agree(tmp_path):
    plan, shape = linear_plan(outputs=700)
    pack(plan, resolve_target("native"))
    path = tmp_path / "model.lut"
    write_artifact(plan, path, target=resolve_target("native"), report={})
    x = {"x": inputs(shape, 20)}
    want = InferenceSession(path.read_bytes()).run(None, x)[0]

    def load_and_run(_):
        return InferenceSession(path, threads=2).run(None, x)[0]

    with ThreadPoolExecutor(4) as pool:
        for got in pool.map(load_and_run, range(24)):
            np.testing.assert_array_equal(got, want)


# --- hostile plans ---


def factored(**replaced: np.ndarray) -> Tiny:
    """`lookup_model` with its table made from factors, arrays replaced."""
    tiny = lookup_model()
    arrays = {
        "atoms": np.arange(16).reshape(2, 4, 2).astype(np.int8),
        "weight": np.arange(32).reshape(4, 8).astype(np.int8),
        "slots": np.array([[0, 1], [2, 3]], np.int32),
        "codebook_mul": np.full(2, 0.1, np.float32),
        "column_mul": np.full(8, 1, np.float32),
    } | replaced
    names = {"int8": "i8", "int32": "i32", "float32": "f32", "uint8": "u8"}
    first = len(tiny.plan["values"])
    for name, array in arrays.items():
        if gap := -len(tiny.data) % 64:
            tiny.entry(f"_pad.{len(tiny.data)}", "U8", [gap], bytes(gap))
        tiny.entry(name, names[array.dtype.name].upper(), list(array.shape), array.tobytes())
        tiny.plan["values"].append({"dtype": names[array.dtype.name], "tensor": name, "shape": list(array.shape)})
    tiny.plan["values"].append({"dtype": "i8"})
    table = len(tiny.plan["values"]) - 1
    inputs = list(range(first, first + 5))
    tiny.plan["init"] = [
        {"op": "expand_table", "name": "made", "inputs": inputs, "outputs": [table], "attrs": {"layout": "ckn"}}
    ]
    tiny.plan["steps"][1]["inputs"][1] = table
    tiny.version = "2"
    return tiny


def refuse(tiny: Tiny, match: str, error: type[LutcError] = CorruptFileError, **options) -> None:
    with pytest.raises(error, match=match):
        InferenceSession(tiny.bytes(), **options)


@pytest.mark.parametrize("isa", ISAS)
def test_the_unbroken_model_runs(isa):
    session = InferenceSession(factored().bytes(), isa=isa)
    y = session.run(None, {"x": np.ones((70, 4), np.float32)})[0]
    assert np.isfinite(y).all() and y.std() > 0


@pytest.mark.parametrize(
    ("replaced", "match"),
    [
        ({"atoms": np.zeros((2, 4), np.int8)}, "atoms"),
        ({"atoms": np.zeros((2, 5, 2), np.int8)}, "entries"),
        ({"atoms": np.zeros((0, 4, 2), np.int8)}, "codebooks"),
        ({"atoms": np.zeros((2, 4, 33), np.int8)}, "features"),
        ({"atoms": np.zeros((2, 4, 0), np.int8)}, "features"),
        ({"atoms": np.zeros((2, 4, 2), np.uint8)}, "atoms"),
        ({"atoms": np.zeros((3, 4, 2), np.int8)}, "groups"),
        ({"weight": np.zeros((4, 7), np.int8)}, "column_mul"),
        ({"weight": np.zeros((3, 8), np.int8)}, "groups"),
        ({"weight": np.zeros((4, 8, 1), np.int8)}, "weight"),
        ({"weight": np.zeros((0, 8), np.int8)}, "empty"),
        ({"weight": np.zeros((4, 0), np.int8)}, "empty"),
        ({"weight": np.zeros((8, 4, 0, 3), np.int8)}, "empty"),
        ({"weight": np.zeros((8, 4, 300, 300), np.int8)}, "taps"),
        ({"weight": np.zeros((8, 4, 2, 1), np.int8)}, "table's size"),
        ({"slots": np.array([[0, 1], [2, 4]], np.int32)}, "feature 4"),
        ({"slots": np.array([[0, 1], [2, -2]], np.int32)}, "feature -2"),
        ({"slots": np.array([[0, 1], [2, 2**31 - 1]], np.int32)}, "feature 2147483647"),
        ({"slots": np.zeros((2, 3), np.int32)}, "groups"),
        ({"slots": np.zeros((2, 2), np.float32)}, "groups"),
        ({"codebook_mul": np.zeros(3, np.float32)}, "codebook_mul"),
        ({"codebook_mul": np.full(2, np.nan, np.float32)}, "NaN"),
        ({"column_mul": np.full(8, np.inf, np.float32)}, "NaN"),
        ({"column_mul": np.full(8, 1e16, np.float32)}, "column_mul"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_factors(replaced, match):
    refuse(factored(**replaced), match)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda p: p["init"][0].update(op="relu"), "must be expand_table"),
        (lambda p: p["steps"].insert(0, p["init"].pop()), "only an init step"),
        (lambda p: p["init"][0]["inputs"].pop(), "5 inputs"),
        (lambda p: p["init"][0]["inputs"].append(3), "5 inputs"),
        (lambda p: p["init"][0]["outputs"].append(1), "1 output"),
        (lambda p: p["init"][0]["inputs"].__setitem__(1, 0), "constants"),
        (lambda p: p["init"][0]["inputs"].__setitem__(1, -1), "constants"),
        (lambda p: p["init"][0]["inputs"].__setitem__(1, 999), "index"),
        (lambda p: p["init"].append(p["init"][0]), "written before"),
        (lambda p: p.update(init={}), "not a list"),
        (lambda p: p["init"][0]["attrs"].update(layout="quad6"), "different layouts"),
        (lambda p: p["init"][0]["attrs"].pop("layout"), "different layouts"),
        (lambda p: p["init"][0]["attrs"].update(group=2), "group"),
        (lambda p: p["init"][0]["attrs"].update(group=-1), "group"),
        (lambda p: p["values"][-1].update(dtype="u8"), "table must be i8"),
        (lambda p: p["outputs"][0].update(value=len(p["values"]) - 1, dtype="i8"), "table of an init step"),
        (lambda p: p["steps"][1]["inputs"].__setitem__(2, len(p["values"]) - 1), "table of an init step"),
        (lambda p: p["steps"][1]["attrs"].update(outputs=9), "scale|size"),
        (lambda p: p["steps"][1]["attrs"].update(codebooks=1), "size"),
    ],
)
def test_plans(change, match):
    tiny = factored()
    change(tiny.plan)
    refuse(tiny, match)


def test_layouts_that_do_not_exist():
    tiny = factored()
    for attrs in (tiny.plan["init"][0]["attrs"], tiny.plan["steps"][1]["attrs"]):
        attrs["layout"] = "spiral"
    refuse(tiny, "spiral", UnsupportedModelError)


@pytest.mark.parametrize(
    "change",
    [{"inputs": [0]}, {"inputs": [10**9, 0]}, {"attrs": {"group": 0}}, {"inputs": "all"}, {"attrs": 3}],
    ids=str,
)
def test_inspect_refuses_what_it_cannot_read(change, tmp_path):
    tiny = factored()
    tiny.plan["init"][0].update(change)
    text = tiny.header_text().replace('"lutc.plan"', '"lutc.producer": "lutc", "lutc.target": "scalar", "lutc.plan"')
    path = tmp_path / "odd.lut"
    path.write_bytes(assemble(text, tiny.data))
    with pytest.raises(CorruptFileError, match="damaged"):
        read_artifact(path)


def test_init_steps_need_version_2():
    tiny = factored()
    tiny.version = "1"
    refuse(tiny, "format version 2")


def test_tables_past_the_memory_limit_are_not_made():
    # 5 MB of factors claim a table of 69 GB.
    atoms, weight = np.zeros((2**12, 16, 1), np.int8), np.zeros((1, 2**20), np.int8)
    tiny = factored(
        atoms=atoms,
        weight=weight,
        slots=np.zeros((2**12, 1), np.int32),
        codebook_mul=np.zeros(2**12, np.float32),
        column_mul=np.zeros(2**20, np.float32),
    )
    with pytest.raises(LutcError, match="memory limit"):
        InferenceSession(tiny.bytes(), memory_limit=1 << 30)
