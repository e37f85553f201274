"""Stage `pack`: lays the lookup tables of a plan out for one target's kernels (docs/format.md, "Table layouts")."""

from __future__ import annotations

import math

from lutc import _runtime
from lutc.errors import UsageError
from lutc.fuse.rewrites.constants import drop_unused
from lutc.ir.expand import INPUTS, TableFactors, expanded
from lutc.plan import Plan

TARGETS = ("native", "x86-64-v3", "x86-64-v3-vnni", "x86-64-v4", "aarch64", "aarch64-android", "scalar")

CANONICAL = "ckn"


def resolve_target(target: str) -> str:
    """The target itself, or for "native" the best one of this CPU.

    Raises:
        UsageError: no such target.
    """
    if target not in TARGETS:
        raise UsageError(f"--target '{target}' is none of: {', '.join(TARGETS)}")
    return _native() if target == "native" else target


def wants_narrow_tables(target: str) -> bool:
    """Whether the kernels of a target (resolved) sum 16-bit products: faster where entries have fewer than 8 bits."""
    return target in ("x86-64-v3", "x86-64-v3-vnni")


def pack(plan: Plan, target: str) -> None:
    """Lays every table out in place for `target` (resolved, not "native"); steps that share a table go on doing so.

    Init steps make theirs in the same layout. A table whose every reader has, in every run, so few rows that the
    kernels read whole rows of it stays canonical. Where the number of rows is not known here, speed at many decides:
    a second copy for few would double the tables.
    """
    layout = _runtime.kernels.layouts_for(target)[0]  # a runtime whose kernels want another converts at load
    few = _few_rows(plan, target)
    makers = {step.outputs[0]: step for step in plan.init}
    packed: dict[tuple[int, int], int] = {}
    for step in plan.steps:
        if step.op not in ("lut_linear", "lut_conv") or step.attrs["layout"] != CANONICAL:
            continue
        group = int(str(step.attrs.get("group", 1)))
        source = step.inputs[1]
        if source in few:
            continue
        if source in makers:
            makers[source].attrs["layout"] = layout
            plan.values[source].dtype = "u8"
        elif (source, group) not in packed:
            table = _runtime.kernels.pack_table(plan.constant(source), layout, group)
            packed[source, group] = plan.add_constant(f"{plan.values[source].tensor}.{layout}", table)
        step.inputs[1] = packed.get((source, group), source)
        step.attrs["layout"] = layout
    drop_unused(plan)  # the canonical copies


def expand_tables(plan: Plan) -> None:
    """Makes what the init steps would make: the tables become constants, still in the canonical layout."""
    for step in plan.init:
        arrays = dict(zip(INPUTS, (plan.constant(value) for value in step.inputs), strict=True))
        factors = TableFactors(**arrays, group=int(str(step.attrs.get("group", 1))))  # type: ignore[arg-type]
        table = plan.add_constant(f"{step.name}.table", expanded(factors))
        for reader in plan.steps:
            reader.inputs = [table if value == step.outputs[0] else value for value in reader.inputs]
    plan.init = []
    drop_unused(plan)


def _few_rows(plan: Plan, target: str) -> set[int]:
    """The tables that only `lut_linear` steps read whose rows are known now and few enough for `target`."""
    most: dict[int, float] = {}
    for step in plan.steps:
        if step.op not in ("lut_linear", "lut_conv"):
            continue
        source = step.inputs[1]
        rows = (plan.values[step.outputs[0]].shape or (None,))[:-1] if step.op == "lut_linear" else (None,)
        known = [dim for dim in rows if isinstance(dim, int)]
        count = math.prod(known) if len(known) == len(rows) else math.inf
        most[source] = max(most.get(source, 0), count)
    return {source for source, rows in most.items() if rows < math.inf and rows <= _runtime.kernels.gather_rows(target)}


def _native() -> str:
    """The target of this CPU."""
    targets = {"avx512": "x86-64-v4", "avxvnni": "x86-64-v3-vnni", "avx2": "x86-64-v3"}
    return targets.get(_runtime.available_isas()[-1], "scalar")
