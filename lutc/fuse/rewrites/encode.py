"""Equal encodes of one tensor become one: layers that read the same values share codes."""

from __future__ import annotations

from lutc.fuse.rewrites.common import remove
from lutc.plan import Plan


def share_encodes(plan: Plan) -> None:
    """Keeps the first of the `lut_encode` steps with equal inputs and attributes; equal constants are one already."""
    first: dict[tuple, int] = {}
    replacement: dict[int, int] = {}
    removed: set[int] = set()
    for index, step in enumerate(plan.steps):
        step.inputs = [replacement.get(value, value) for value in step.inputs]
        if step.op != "lut_encode":
            continue
        key = (tuple(step.inputs), repr(sorted(step.attrs.items())))
        if key in first:
            replacement[step.outputs[0]] = first[key]
            removed.add(index)
        else:
            first[key] = step.outputs[0]
    remove(plan, removed)
