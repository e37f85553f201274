"""Zeros where attention gives NaN (rows whose every key is masked), as SDPA exports ask for, by the step itself."""

from __future__ import annotations

import numpy as np

from lutc.fuse.rewrites.common import remove
from lutc.plan import Plan, Step, Uses


def guard_attention(plan: Plan) -> None:
    """Merges an `attention` with `where(is_nan(y), 0, y)` behind it."""
    uses = Uses(plan)
    removed: set[int] = set()
    for step in plan.steps:
        if step.op != "attention":
            continue
        (y,) = step.outputs
        readers = sorted(set(uses.readers.get(y, [])))
        if y in uses.outputs or [plan.steps[i].op for i in readers] != ["is_nan", "where"]:
            continue
        test, choice = readers
        if uses.only_reader(plan.steps[test].outputs[0]) == choice and _is_guard(plan, plan.steps[choice], test, y):
            step.outputs = plan.steps[choice].outputs
            step.attrs["guarded"] = 1
            removed.update(readers)
    remove(plan, removed)


def _is_guard(plan: Plan, choice: Step, test: int, y: int) -> bool:
    condition, zero, otherwise = choice.inputs
    tensor = plan.values[zero].tensor
    if condition != plan.steps[test].outputs[0] or otherwise != y or tensor is None:
        return False
    data = plan.tensors[tensor]
    return data.size == 1 and data.ndim <= 3 and not np.any(data)
