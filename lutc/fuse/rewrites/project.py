"""Project, then encode: the projection becomes part of `lut_encode`."""

from __future__ import annotations

import numpy as np

from lutc.errors import UnsupportedModelError
from lutc.fuse.lower import PROJECT_STEP
from lutc.fuse.rewrites.common import remove
from lutc.plan import Plan, Uses


def fold_projections(plan: Plan) -> None:
    """Gives every `lut_encode` that reads a projection the projection's inputs.

    Raises:
        UnsupportedModelError: a projection feeds something else, or an encode that scales it again.
    """
    uses = Uses(plan)
    removed: set[int] = set()
    for index, step in enumerate(plan.steps):
        if step.op != PROJECT_STEP:
            continue
        z = step.outputs[0]
        for reader in uses.readers.get(z, []):
            encode = plan.steps[reader]
            offset, inv_scale = (plan.constant(v) for v in encode.inputs[1:3])
            if (
                encode.op != "lut_encode"
                or offset is None
                or inv_scale is None
                or np.any(offset != 0)
                or np.any(inv_scale != 1)
            ):
                raise UnsupportedModelError(
                    f"node '{step.name}' (ai.lutc::Project): only a LutLinear with offset 0 and inv_scale 1 may read it"
                )
            encode.inputs = [step.inputs[0], *encode.inputs[1:], *step.inputs[1:]]
            encode.attrs.update(step.attrs)
        if z in uses.outputs:
            raise UnsupportedModelError(f"node '{step.name}' (ai.lutc::Project): its output may not leave the model")
        removed.add(index)
    remove(plan, removed)
