"""Where the writer lets tensors begin."""

import json

import numpy as np

import lutc
from lutc.plan import Plan, Port, Step
from lutc.write import LARGE, write_artifact


def test_large_tensors_begin_at_a_page_and_others_at_a_cache_line(tmp_path):
    plan = Plan()
    x = plan.add_value("f32", ("n", 3))
    sizes = {"odd": 3, "large": LARGE // 4, "small": 5, "larger": LARGE // 4 + 3, "empty": 0}
    constants = {name: plan.add_constant(name, np.full(size, 2, np.float32)) for name, size in sizes.items()}
    y = plan.add_value("f32", ("n", 3))
    plan.steps.append(Step("mul", "scale", [x, constants["odd"]], [y], {}))
    plan.inputs.append(Port("x", x, "f32", ("n", 3)))
    plan.outputs.append(Port("y", y, "f32", ("n", 3)))
    path = tmp_path / "m.lut"

    size = write_artifact(plan, path, target="scalar", report={})

    content = path.read_bytes()
    data_at = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:data_at])
    begins = {name: data_at + header[name]["data_offsets"][0] for name in sizes}
    assert data_at % 4096 == 0
    assert [begins[name] % 4096 for name in ("large", "larger")] == [0, 0]
    assert begins["small"] % 64 == 0
    assert begins["small"] - begins["large"] == LARGE
    assert size == len(content)
    np.testing.assert_array_equal(lutc.load(path).run(None, {"x": np.ones((1, 3), np.float32)})[0], [[2, 2, 2]])
