"""add, then layer_normalization: one step, which also hands the sum on if others read it."""

from __future__ import annotations

from lutc.fuse.rewrites.common import remove, same_shape
from lutc.plan import Plan, Step, Uses


def fuse_add_layer_normalization(plan: Plan) -> None:
    """Merges LayerNormalization(a + b) of values of one shape; the sum is a second output where others read it."""
    removed: set[int] = set()
    uses = Uses(plan)
    for index, step in enumerate(plan.steps):
        if step.op != "layer_normalization" or len(step.outputs) != 1 or plan.values[step.inputs[0]].dtype != "f32":
            continue
        producer = uses.producer.get(step.inputs[0])
        if producer is None or producer in removed or plan.steps[producer].op != "add":
            continue
        add = plan.steps[producer]
        if not same_shape(plan, *add.inputs) or any(r < index for r in uses.readers[add.outputs[0]]):
            continue
        outputs = [*step.outputs]
        if uses.only_reader(add.outputs[0]) is None:
            outputs.append(add.outputs[0])
        attrs = {"axis": step.attrs.get("axis", -1), "epsilon": step.attrs.get("epsilon", 1e-5)}
        plan.steps[index] = Step("add_layer_normalization", step.name, [*add.inputs, *step.inputs[1:]], outputs, attrs)
        removed.add(producer)
    remove(plan, removed)
