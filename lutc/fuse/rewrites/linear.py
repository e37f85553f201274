"""mat_mul with a constant matrix, and the add of a bias behind it: `linear`, whose weight the runtime packs once."""

from __future__ import annotations

from lutc.fuse.rewrites.common import remove
from lutc.plan import Plan, Uses


def linear_from_mat_mul(plan: Plan) -> None:
    """Turns float32 products by constant [D, N] matrices into `linear` steps."""
    uses = Uses(plan)
    removed: set[int] = set()
    for step in plan.steps:
        if step.op != "mat_mul" or plan.values[step.outputs[0]].dtype != "f32":
            continue
        x, w = step.inputs
        weight = plan.constant(w)
        if weight is None or weight.ndim != 2 or plan.values[x].shape is None or not plan.values[x].shape:
            continue
        step.op, step.attrs = "linear", {"activation": "none"}
        reader = uses.only_reader(step.outputs[0])
        if reader is None or plan.steps[reader].op != "add":
            continue
        add = plan.steps[reader]
        other = add.inputs[1] if add.inputs[0] == step.outputs[0] else add.inputs[0]
        bias = plan.constant(other)
        if bias is not None and bias.shape == weight.shape[1:]:
            step.inputs.append(other)
            step.outputs = add.outputs
            removed.add(reader)
    remove(plan, removed)
