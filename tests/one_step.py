"""Runs one step of a plan on every ISA, without a graph: fused steps have no ONNX node of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lutc import _runtime
from lutc.plan import OMITTED, Plan, Port, Step, dtype_name
from tests.plan_session import plan_session

ISAS: list[str] = _runtime.available_isas()

MAIN_ISAS: list[str] = [isa for isa in ISAS if isa != "avxvnni"]
"""Those that do not share all kernels but dense int8 with another one."""


def normal(seed: int, *shape: int) -> np.ndarray:
    """Random float32 numbers of zero mean and unit variance."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def step_session(
    op: str,
    inputs: Sequence[np.ndarray | None],
    attrs: dict[str, Any] | None = None,
    *,
    constant: Sequence[int] = (),
    outputs: int = 1,
    **options: Any,
) -> Any:
    """A session of one step; input i is named `x<i>`, output i `y<i>`, all float outputs.

    Args:
        op: the step.
        inputs: example values (for dtypes and ranks); None omits an optional input.
        attrs: the step's attributes.
        constant: indices of the inputs that are constants of the artifact.
        outputs: how many outputs the step has.
        options: isa, threads, memory_limit.
    """
    plan = Plan()
    indices = []
    for i, array in enumerate(inputs):
        if array is None:
            indices.append(OMITTED)
        elif i in constant:
            indices.append(plan.add_constant(f"c{i}", array))
        else:
            dtype = str(dtype_name(array.dtype))
            indices.append(plan.add_value(dtype))
            dims = tuple(f"d{i}_{axis}" for axis in range(array.ndim))
            plan.inputs.append(Port(f"x{i}", indices[-1], dtype, dims))
    results = [plan.add_value("f32") for _ in range(outputs)]
    plan.outputs = [Port(f"y{i}", value, "f32", ("any",)) for i, value in enumerate(results)]
    plan.steps.append(Step(op, "step", indices, results, dict(attrs or {})))
    return plan_session(plan, **options)


def run_step(
    op: str,
    inputs: Sequence[np.ndarray | None],
    attrs: dict[str, Any] | None = None,
    *,
    constant: Sequence[int] = (),
    **options: Any,
) -> list[np.ndarray]:
    """The outputs of one step on one ISA; arguments as for `step_session`."""
    session = step_session(op, inputs, attrs, constant=constant, **options)
    feeds = {f"x{i}": array for i, array in enumerate(inputs) if array is not None and i not in constant}
    return session.run(None, feeds)
