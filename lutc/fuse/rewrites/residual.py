"""A linear layer or convolution of any form, then an add of the same shape: one step with a residual."""

from __future__ import annotations

from lutc.fuse.rewrites.common import CONVOLUTIONS, RESIDUAL_INPUT, remove, residual_of, same_shape
from lutc.plan import OMITTED, Plan, Uses


def fuse_residual(plan: Plan) -> None:
    """Merges `activation(x W + b) + residual` into the step that computes the product, at the add's place."""
    removed: set[int] = set()
    uses = Uses(plan)
    for index, step in enumerate(plan.steps):
        if step.op != "add" or step.inputs[0] == step.inputs[1] or not same_shape(plan, *step.inputs):
            continue
        candidates = []
        for value in step.inputs:
            producer = uses.producer.get(value)
            if producer is None or uses.only_reader(value) != index:
                continue
            before = plan.steps[producer]
            if before.op in RESIDUAL_INPUT and residual_of(before) == OMITTED and before.outputs == [value]:
                candidates.append(producer)
        if not candidates:
            continue
        fused = plan.steps[max(candidates)]
        residual = step.inputs[1] if fused.outputs[0] == step.inputs[0] else step.inputs[0]
        fused.inputs += [OMITTED] * (RESIDUAL_INPUT[fused.op] - len(fused.inputs)) + [residual]
        if fused.op in CONVOLUTIONS:
            fused.attrs["activation_after_residual"] = 0
        fused.outputs = step.outputs
        plan.steps[index] = fused
        removed.add(max(candidates))
        # The producer map still names the old place; a chain of adds finds the fused step by its new one.
        uses.producer[fused.outputs[0]] = index
    remove(plan, removed)
