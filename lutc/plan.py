"""The flat execution plan that `fuse` makes, `pack` lays out for a target and `write` stores (docs/format.md).

A plan is a list of steps over numbered values. These classes hold what the stored form holds, plus what only the
compiler needs: shapes of computed values, the bytes of constants.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

Dim = int | str  # a size, or the name of a symbolic one
Attribute = int | float | str | list[int] | list[float]

OMITTED = -1  # the value index of an omitted optional input

DTYPES: dict[str, np.dtype] = {
    "f32": np.dtype(np.float32),
    "f64": np.dtype(np.float64),
    "i64": np.dtype(np.int64),
    "i32": np.dtype(np.int32),
    "i8": np.dtype(np.int8),
    "u8": np.dtype(np.uint8),
    "bool": np.dtype(np.bool_),
}


def dtype_name(dtype: np.dtype) -> str | None:
    """Name of a numpy dtype in the plan ("f32" ...), or None where the format has none."""
    return next((name for name, known in DTYPES.items() if known == dtype), None)


@dataclasses.dataclass
class Value:
    """Something a step reads or writes.

    Attributes:
        dtype: one of `DTYPES`.
        tensor: name of the constant that holds it, or None when it is computed.
        shape: dims of a constant (all ints), or what is known of a computed value's (None: nothing). Only the shapes of
            constants are stored.
    """

    dtype: str
    tensor: str | None = None
    shape: tuple[Dim | None, ...] | None = None


@dataclasses.dataclass
class Step:
    """One operation; `inputs` and `outputs` index `Plan.values`, `OMITTED` stands for an omitted optional input."""

    op: str
    name: str
    inputs: list[int]
    outputs: list[int]
    attrs: dict[str, Attribute] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Port:
    """A named input or output of the model."""

    name: str
    value: int
    dtype: str
    shape: tuple[Dim, ...]


@dataclasses.dataclass
class Plan:
    """An executable program: ports, values, steps in execution order, and the constants by name.

    `init` holds the steps that a runtime executes once, when it loads the plan: tables made from their factors.
    """

    inputs: list[Port] = dataclasses.field(default_factory=list)
    outputs: list[Port] = dataclasses.field(default_factory=list)
    values: list[Value] = dataclasses.field(default_factory=list)
    init: list[Step] = dataclasses.field(default_factory=list)
    steps: list[Step] = dataclasses.field(default_factory=list)
    tensors: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def add_value(self, dtype: str, shape: Sequence[Dim | None] | None = None) -> int:
        """Appends a computed value and returns its index."""
        self.values.append(Value(dtype, shape=None if shape is None else tuple(shape)))
        return len(self.values) - 1

    def add_constant(self, name: str, array: np.ndarray) -> int:
        """Appends a constant under `name` (made unique if taken) and returns its value index.

        Raises:
            ValueError: the format has no such dtype.
        """
        dtype = dtype_name(array.dtype)
        if dtype is None:
            raise ValueError(f"constant '{name}' is {array.dtype}; a plan holds {', '.join(DTYPES)}")
        key = unique_name(name, self.tensors)
        self.tensors[key] = np.ascontiguousarray(array).reshape(array.shape)
        self.values.append(Value(dtype, key, tuple(array.shape)))
        return len(self.values) - 1

    def constant(self, value: int) -> np.ndarray | None:
        """The array of a constant value, None for a computed or omitted one."""
        if value == OMITTED:
            return None
        name = self.values[value].tensor
        return None if name is None else self.tensors[name]


class Uses:
    """Who writes and who reads each value of a plan; a snapshot, to be rebuilt after the steps changed."""

    def __init__(self, plan: Plan) -> None:
        self.producer: dict[int, int] = {}
        self.readers: dict[int, list[int]] = {}
        for index, step in enumerate(plan.steps):
            for value in step.outputs:
                self.producer[value] = index
            for value in step.inputs:
                if value != OMITTED:
                    self.readers.setdefault(value, []).append(index)
        self.outputs = {port.value for port in plan.outputs}

    def only_reader(self, value: int) -> int | None:
        """Index of the one step that reads `value`, None if there are more, none, or the value leaves the model."""
        readers = self.readers.get(value, [])
        return readers[0] if len(readers) == 1 and value not in self.outputs else None


def unique_name(name: str, taken: dict[str, np.ndarray]) -> str:
    """`name`, or `name.1`, `name.2` ... if it is taken; names that the file format reserves get a prefix."""
    base = name if name and name != "__metadata__" and not name.startswith("_pad.") else f"tensor.{name}"
    base = base[:4000]
    key, n = base, 0
    while key in taken:
        n += 1
        key = f"{base}.{n}"
    return key
