"""A linear layer or convolution of any form, then an elementwise activation: one step."""

from __future__ import annotations

from lutc.fuse.rewrites.common import (
    CONVOLUTIONS,
    RESIDUAL_INPUT,
    activation_of,
    remove,
    residual_of,
    same_shape,
)
from lutc.plan import OMITTED, Plan, Step, Uses

_ACTIVATIONS = {"relu", "silu", "tanh", "sigmoid", "gelu"}


def fuse_activation(plan: Plan) -> None:
    """Merges an activation into the step whose only reader it is.

    A convolution may take a residual in between (conv, add, relu: `activation_after_residual` = 1).
    """
    removed: set[int] = set()
    uses = Uses(plan)
    for index, step in enumerate(plan.steps):
        if step.op not in _ACTIVATIONS or len(step.inputs) != 1 or plan.values[step.inputs[0]].dtype != "f32":
            continue
        producer = uses.producer.get(step.inputs[0])
        if producer is None or uses.only_reader(step.inputs[0]) != index:
            continue
        before = plan.steps[producer]
        if before.op in RESIDUAL_INPUT:
            if activation_of(before) == "none" and residual_of(before) == OMITTED:
                _merge(plan, producer, index, removed)
        elif before.op == "add":
            convolution = _convolution_behind(plan, uses, producer, removed)
            if convolution is not None:
                value = plan.steps[convolution].outputs[0]
                residual = before.inputs[1] if before.inputs[0] == value else before.inputs[0]
                fused = plan.steps[convolution]
                fused.inputs += [OMITTED] * (RESIDUAL_INPUT[fused.op] - len(fused.inputs)) + [residual]
                fused.attrs["activation_after_residual"] = 1
                _merge(plan, convolution, index, removed)
                removed.add(producer)
    remove(plan, removed)


def _merge(plan: Plan, producer: int, activation: int, removed: set[int]) -> None:
    """Moves `producer` to where the activation stands (its residual may be computed in between)."""
    step = plan.steps[producer]
    step.attrs["activation"] = _name(plan.steps[activation])
    step.outputs = plan.steps[activation].outputs
    plan.steps[activation] = step
    removed.add(producer)


def _name(step: Step) -> str:
    return "gelu_tanh" if step.op == "gelu" and step.attrs.get("approximate") == "tanh" else step.op


def _convolution_behind(plan: Plan, uses: Uses, add: int, removed: set[int]) -> int | None:
    """The later of the convolutions an add reads that can take the other operand as its residual."""
    a, b = plan.steps[add].inputs
    if a == b or not same_shape(plan, a, b):
        return None
    found = None
    for value in (a, b):
        index = uses.producer.get(value)
        if index is None or index in removed or uses.only_reader(value) != add:
            continue
        step = plan.steps[index]
        if step.op in CONVOLUTIONS and activation_of(step) == "none" and residual_of(step) == OMITTED:
            found = index if found is None else max(found, index)
    return found
