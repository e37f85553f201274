"""Constants and values: equal ones become one, unused ones go."""

from __future__ import annotations

import hashlib

from lutc.plan import OMITTED, Plan


def dedupe_constants(plan: Plan) -> None:
    """Makes values that hold the same constant (dtype, shape and bytes) one value."""
    seen: dict[tuple, int] = {}
    replacement: dict[int, int] = {}
    for index, value in enumerate(plan.values):
        if value.tensor is None:
            continue
        array = plan.tensors[value.tensor]
        key = (
            value.dtype,
            array.shape,
            hashlib.blake2b(array.reshape(-1).view("u1").data, digest_size=16).digest(),
        )
        replacement[index] = seen.setdefault(key, index)
    for step in (*plan.init, *plan.steps):
        step.inputs = [replacement.get(value, value) for value in step.inputs]


def drop_unused(plan: Plan) -> None:
    """Removes steps nobody reads, then values and constants nobody names; numbers values in order of first use."""
    live = {port.value for port in plan.outputs}
    kept = []
    for step in reversed(plan.steps):
        if live.intersection(step.outputs):
            live.update(value for value in step.inputs if value != OMITTED)
            kept.append(step)
    plan.steps = kept[::-1]
    plan.init = [step for step in plan.init if live.intersection(step.outputs)]
    every = (*plan.init, *plan.steps)

    order: dict[int, int] = {OMITTED: OMITTED}
    for value in [port.value for port in plan.inputs] + [v for s in every for v in (*s.inputs, *s.outputs)]:
        if value not in order:
            order[value] = len(order) - 1
    values = sorted((new, old) for old, new in order.items() if old != OMITTED)
    plan.values = [plan.values[old] for _, old in values]
    for port in (*plan.inputs, *plan.outputs):
        port.value = order[port.value]
    for step in every:
        step.inputs = [order[value] for value in step.inputs]
        step.outputs = [order[value] for value in step.outputs]
    plan.tensors = {v.tensor: plan.tensors[v.tensor] for v in plan.values if v.tensor is not None}
