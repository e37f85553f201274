"""How fast a step could be: its work over what this core can do.

A step's floor is the longer of two times: its arithmetic at the core's peak rate (float32 multiply-adds, int8 products,
table lookups; whatever a step has of each comes one after the other), and its bytes at the rate at which they can be
read. Constants (weights, tables) come from where all constants of the model fit, activations from the level 2 cache.
Peaks are measured by loops of a few milliseconds on the ISA in use, at this moment: another process on the machine
makes them smaller, too. What a step does beyond that (index arithmetic, conversions, exponentials) is not counted, so
steps of elementwise maths stay below 100 %, and a step whose constants happen to be in a nearer cache may pass it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from lutc import _runtime
from lutc.plan import DTYPES

_CACHE_BYTES = 256 << 10  # of the buffer whose reading speed stands for activations: within every level 2 cache
_MEMORY_BYTES = (1 << 20, 256 << 20)  # bounds of the buffer that stands for the constants

# Steps that read of their first input no more than they write.
_PARTIAL = {"gather", "gather_elements", "gather_nd", "slice", "split"}

Operand = tuple[str, tuple[int, ...], bool]  # dtype, shape, whether it is a constant


@dataclasses.dataclass(frozen=True)
class Work:
    """What one execution of a step takes at least.

    Attributes:
        multiply_adds: float32 products that are added up.
        int8_products: likewise of 8-bit integers; one of 16-bit integers counts as two.
        lookups: table entries looked up and added.
        constant_bytes: of weights and tables read.
        activation_bytes: of all other operands, read and written.
    """

    multiply_adds: int = 0
    int8_products: int = 0
    lookups: int = 0
    constant_bytes: int = 0
    activation_bytes: int = 0

    def times(self, peaks: Mapping[str, float]) -> dict[str, float]:
        """Seconds by resource ("multiply_adds", "int8_products", "lookups", "memory") on one core.

        Args:
            peaks: rates per second as `measure_peaks` returns them.
        """
        arithmetic = {name: getattr(self, name) / peaks[name] for name in ("multiply_adds", "int8_products", "lookups")}
        memory = self.constant_bytes / peaks["memory_bytes"] + self.activation_bytes / peaks["cache_bytes"]
        return {**arithmetic, "memory": memory}

    def floor(self, peaks: Mapping[str, float]) -> tuple[float, str]:
        """The least seconds on one core, and the resource that takes the most of them."""
        times = self.times(peaks)
        bound = max(times, key=lambda name: times[name])
        return max(sum(times.values()) - times["memory"], times["memory"]), bound


def measure_peaks(isa: str, constant_bytes: int) -> dict[str, float]:
    """Peak rates of this core, per second; takes about a quarter of a second.

    Args:
        isa: whose instructions: "scalar", "avx2", "avxvnni" or "avx512".
        constant_bytes: of the model's weights and tables in all.
    """
    low, high = _MEMORY_BYTES
    rates: dict[str, float] = _runtime.peaks(isa, _CACHE_BYTES, min(max(constant_bytes, low), high))
    return rates


def work_of(
    op: str, attrs: Mapping[str, Any], inputs: Sequence[Operand | None], outputs: Sequence[Operand | None]
) -> Work:
    """The work of one execution of a step.

    Args:
        op: the step's operator (docs/format.md).
        attrs: its attributes.
        inputs: its operands in order, None where omitted.
        outputs: its results in order.
    """
    arithmetic = _arithmetic(op, attrs, [o[1] if o else None for o in inputs], outputs[0][1] if outputs[0] else ())
    written = sum(_bytes(o) for o in outputs if o)
    constant = activation = 0
    for position, operand in enumerate(inputs):
        if operand is None:
            continue
        size = min(_bytes(operand), written) if position == 0 and op in _PARTIAL else _bytes(operand)
        if operand[2]:
            constant += size
        else:
            activation += size
    return Work(**arithmetic, constant_bytes=constant, activation_bytes=activation + written)


def constant_bytes(steps: Sequence[Mapping[str, Any]]) -> int:
    """Bytes of the constants that the profiled steps read (rows of `InferenceSession.profile`)."""
    return sum(work_of(s["op"], {}, s["inputs"], s["outputs"]).constant_bytes for s in steps)


def _bytes(operand: Operand) -> int:
    return math.prod(operand[1]) * DTYPES[operand[0]].itemsize


def _arithmetic(
    op: str, attrs: Mapping[str, Any], inputs: Sequence[tuple[int, ...] | None], output: tuple[int, ...]
) -> dict[str, int]:
    """Arithmetic of the steps that have more than a little for each byte."""
    shapes = [shape or () for shape in inputs]
    size = math.prod(output)
    if op in ("linear", "gemm", "mat_mul"):
        first = shapes[0][::-1] if attrs.get("transA") else shapes[0]
        return {"multiply_adds": size * (first[-1] if first else 1)}
    if op in ("conv", "int8_conv"):
        products = size * math.prod(shapes[1][1:])
        return {"multiply_adds" if op == "conv" else "int8_products": products}
    if op == "conv_transpose":
        return {"multiply_adds": math.prod(shapes[0]) * math.prod(shapes[1][1:])}
    if op == "int8_linear":
        return {"int8_products": size * int(attrs.get("features", 0))}
    if op == "lut_linear":
        return {"lookups": size * int(attrs.get("codebooks", 0))}
    if op == "lut_conv":
        taps = math.prod(attrs.get("kernel_shape", [1]))
        return {"lookups": size * taps * int(attrs.get("codebooks", 0)) // int(attrs.get("group", 1))}
    if op == "lut_encode":
        x = shapes[0]
        rows = math.prod(x) // max(x[1] if attrs.get("axis", -1) == 1 else x[-1], 1)
        projection = math.prod(shapes[9]) if len(shapes) > 9 else 0
        return {"int8_products": rows * (math.prod(shapes[4]) + projection)}
    if op == "attention":
        queries = math.prod(output[:2])
        keys = shapes[1][1] if inputs[1:2] and inputs[1] else shapes[0][1]
        packed = attrs.get("packed")
        width = int(packed[0]) if packed else shapes[0][-1]
        products = queries * keys * (width + output[-1])
        return {"int8_products": 2 * products} if attrs.get("quantised") else {"multiply_adds": products}
    return {}
