"""What several rewrites need: which steps take an epilogue, and shape comparison."""

from __future__ import annotations

from lutc.plan import OMITTED, Plan, Step

# Steps that end in activation and residual, and the position of their residual input (after weight or table, and bias).
RESIDUAL_INPUT = {"linear": 3, "conv": 3, "int8_linear": 4, "int8_conv": 4, "lut_linear": 4, "lut_conv": 4}
CONVOLUTIONS = {"conv", "int8_conv", "lut_conv"}


def remove(plan: Plan, steps: set[int]) -> None:
    """Drops the steps with these indices."""
    plan.steps = [step for index, step in enumerate(plan.steps) if index not in steps]


def same_shape(plan: Plan, a: int, b: int) -> bool:
    """Whether two values are known to have the same shape in every run (the same name means the same size)."""
    left, right = plan.values[a].shape, plan.values[b].shape
    return left is not None and left == right and None not in left


def activation_of(step: Step) -> str:
    """The activation a step ends in, "none" if it has none."""
    return str(step.attrs.get("activation", "none"))


def residual_of(step: Step) -> int:
    """The residual input of a step that may have one, else OMITTED."""
    position = RESIDUAL_INPUT[step.op]
    return step.inputs[position] if position < len(step.inputs) else OMITTED
