"""Stage `pack`: lays the lookup tables of a plan out for one target's kernels (docs/format.md, "Table layouts")."""

from __future__ import annotations

from lutc import _runtime
from lutc.errors import UsageError
from lutc.fuse.rewrites.constants import drop_unused
from lutc.plan import Plan

TARGETS = ("native", "x86-64-v3", "x86-64-v4", "aarch64", "aarch64-android", "scalar")

CANONICAL = "ckn"


def resolve_target(target: str) -> str:
    """The target itself, or for "native" the best one of this CPU.

    Raises:
        UsageError: no such target.
    """
    if target not in TARGETS:
        raise UsageError(f"--target '{target}' is none of: {', '.join(TARGETS)}")
    return _native() if target == "native" else target


def pack(plan: Plan, target: str) -> None:
    """Lays every table out in place for `target` (resolved, not "native"); steps that share a table go on doing so."""
    layout = _runtime.kernels.layouts_for(target)[0]  # a runtime whose kernels want another converts at load
    packed: dict[tuple[str, int], int] = {}
    for step in plan.steps:
        if step.op not in ("lut_linear", "lut_conv") or step.attrs["layout"] != CANONICAL:
            continue
        group = int(str(step.attrs.get("group", 1)))
        source = plan.values[step.inputs[1]].tensor
        assert source is not None, step.name
        if (source, group) not in packed:
            table = _runtime.kernels.pack_table(plan.tensors[source], layout, group)
            packed[source, group] = plan.add_constant(f"{source}.{layout}", table)
        step.inputs[1] = packed[source, group]
        step.attrs["layout"] = layout
    drop_unused(plan)  # the canonical copies


def _native() -> str:
    """The target of this CPU."""
    return {"avx512": "x86-64-v4", "avx2": "x86-64-v3"}.get(_runtime.available_isas()[-1], "scalar")
