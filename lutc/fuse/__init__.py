"""Stage `fuse`: an onnx-ir model becomes a flat plan of fused steps.

First every node is lowered by itself (`lower`), then each file of `rewrites/` merges steps of the plan.
"""

from __future__ import annotations

import onnx_ir as ir

from lutc.fuse.lower import lower
from lutc.fuse.rewrites import REWRITES
from lutc.plan import Plan

__all__ = ["fuse"]


def fuse(model: ir.Model) -> Plan:
    """Lowers a model to a plan.

    Args:
        model: at opset 23 (`lutc.load`), canonical or not; may hold the operators of `ai.lutc`.

    Returns:
        The plan; its tables are still in the canonical layout (`lutc.pack` lays them out for a target).

    Raises:
        UnsupportedModelError: nodes or dtypes without a counterpart in the runtime, all of them listed.
    """
    plan = lower(model)
    for rewrite in REWRITES:
        rewrite(plan)
    return plan
