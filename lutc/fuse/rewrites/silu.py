"""x * sigmoid(x): a `silu` step (ONNX has none at opset 23)."""

from __future__ import annotations

from lutc.fuse.rewrites.common import remove
from lutc.plan import Plan, Step, Uses


def recognise_silu(plan: Plan) -> None:
    """Merges a sigmoid with the product by its own input."""
    uses = Uses(plan)
    removed: set[int] = set()
    for index, step in enumerate(plan.steps):
        if step.op != "sigmoid":
            continue
        reader = uses.only_reader(step.outputs[0])
        if reader is None or plan.steps[reader].op != "mul":
            continue
        product = plan.steps[reader]
        if sorted(product.inputs) == sorted([step.inputs[0], step.outputs[0]]):
            plan.steps[reader] = Step("silu", product.name, [step.inputs[0]], product.outputs)
            removed.add(index)
    remove(plan, removed)
