"""A large artifact loads quickly, and its tables stay the file's own pages: shared by sessions and by processes."""

import subprocess
import sys

import numpy as np
import pytest

from lutc import _runtime
from lutc.pack import pack, resolve_target
from lutc.plan import Plan, Port, Step
from lutc.write import write_artifact

LAYERS, D, C, K, N = 6, 512, 128, 16, 8192  # 16.8 MB of tables a layer
TABLES = LAYERS * C * K * N

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")

# Prints, in kilobytes of the whole process: anonymous memory before and after loading and running two sessions, and
# what of the file is shared with another process; and the best of some loads in milliseconds of CPU time.
SCRIPT = """
import sys, time
import numpy as np
import lutc

def memory(key):
    for line in open("/proc/self/smaps_rollup"):
        if line.startswith(key + ":"):
            return int(line.split()[1])

path, x = sys.argv[1], {"x": np.ones((40, int(sys.argv[2])), np.float32)}
before = memory("Anonymous")
sessions = [lutc.load(path), lutc.load(path)]
y = np.empty((40, int(sys.argv[3])), np.float32)
for session in sessions:
    session.run(None, x, outputs={"y": y})
print(memory("Anonymous") - before)
times = []
for _ in range(5):
    start = time.process_time()
    lutc.load(path)
    times.append(time.process_time() - start)
print(1e3 * min(times), flush=True)
sys.stdin.readline()  # until the other process has run, too
print(memory("Shared_Clean") + memory("Shared_Dirty"), flush=True)
sys.stdin.readline()
"""


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    rng = np.random.default_rng(0)
    plan = Plan()
    x = plan.add_value("f32", ("n", D))
    encode = [
        x,
        plan.add_constant("offset", np.zeros(D, np.float32)),
        plan.add_constant("inv_scale", np.full(D, 40, np.float32)),
        plan.add_constant("groups", np.arange(D, dtype=np.int32).reshape(C, D // C)),
        plan.add_constant("directions", rng.integers(-90, 90, (C, K, D // C)).astype(np.int8)),
        plan.add_constant("code_bias", np.zeros((C, K), np.int32)),
        plan.add_constant("gain_mul", np.full(C, 0.005, np.float32)),
    ]
    codes = plan.add_value("u8")
    plan.steps.append(Step("lut_encode", "encode", encode, [codes], {"gain_limit": 63, "axis": -1}))
    scale = plan.add_constant("scale", np.ones(N, np.float32))
    attrs = {"gain_limit": 63, "codebooks": C, "entries": K, "outputs": N, "layout": "ckn", "activation": "none"}
    total = None
    for layer in range(LAYERS):
        table = plan.add_constant(f"table{layer}", rng.integers(-127, 128, (C, K, N), dtype=np.int8))
        y = plan.add_value("f32", ("n", N))
        inputs = [codes, table, scale, scale] + ([] if total is None else [total])
        plan.steps.append(Step("lut_linear", f"lookup{layer}", inputs, [y], dict(attrs)))
        total = y
    plan.inputs.append(Port("x", x, "f32", ("n", D)))
    plan.outputs.append(Port("y", y, "f32", ("n", N)))
    pack(plan, resolve_target("native"))
    path = tmp_path_factory.mktemp("large") / "large.lut"
    write_artifact(plan, path, target=resolve_target("native"), report={})
    return path


@pytest.mark.skipif(_runtime.available_isas()[-1] == "scalar", reason="times of a SIMD machine")
def test_tables_are_mapped_and_shared(artifact):
    assert artifact.stat().st_size > TABLES > 90e6
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, artifact, str(D), str(N)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    private, milliseconds = np.array([[float(p.stdout.readline()) for _ in range(2)] for p in processes]).T
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    shared = [float(p.stdout.readline()) for p in processes]
    for process in processes:
        process.communicate("\n")
        assert process.returncode == 0
    # Two arenas, codes and scratch come to a few megabytes; one copy of one table would be 16.
    assert private.max() * 1024 < TABLES / LAYERS, f"{private} kB of private memory"
    assert min(shared) * 1024 > TABLES, f"only {shared} kB are shared between the processes"
    assert milliseconds.min() < 50, f"loading took {milliseconds} ms of CPU time"
