"""Attention over the parts of one product (merged query, key and value) reads them in place, without the Split."""

from __future__ import annotations

from lutc.fuse.rewrites.common import remove
from lutc.plan import OMITTED, Plan, Step, Uses


def pack_attention(plan: Plan) -> None:
    """Hands `attention` the tensor whose `split` along the last axis gave its q, k and v, and their widths."""
    uses = Uses(plan)
    removed: set[int] = set()
    for step in plan.steps:
        if step.op != "attention" or OMITTED in step.inputs[:3]:
            continue
        producer = uses.producer.get(step.inputs[0])
        if producer is None or plan.steps[producer].op != "split":
            continue
        split = plan.steps[producer]
        widths = _widths(plan, split)
        if widths is None or split.outputs != step.inputs[:3]:
            continue
        if any(uses.only_reader(value) is None for value in split.outputs):
            continue
        step.inputs[:3] = [split.inputs[0], OMITTED, OMITTED]
        step.attrs["packed"] = widths
        removed.add(producer)
    remove(plan, removed)


def _widths(plan: Plan, split: Step) -> list[int] | None:
    """The sizes of a split along the last of three axes, None if it is another or they are not known."""
    widths: list[int] = []
    for value in split.outputs:
        shape = plan.values[value].shape
        if shape is None or len(shape) != 3 or split.attrs.get("axis", 0) not in (-1, 2):
            return None
        if not isinstance(shape[2], int):
            return None
        widths.append(shape[2])
    return widths
