"""The runtime's own kernels, where they are built: the same codes, gains and sums as numpy, ten times faster."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import numpy.typing as npt

from lutc.fit.parallel import threads_in_use
from lutc.ir.parameters import ConvParameters, LookupParameters, ProjectParameters

Floats = npt.NDArray[np.float32]


def _kernels() -> Any:
    try:
        return importlib.import_module("lutc._runtime").kernels
    except (ImportError, AttributeError):
        return None


def native_lookup(x: Floats, p: LookupParameters) -> Floats | None:
    """LutLinear of rows float32 [rows, D], or LutConv of images float32 [B, Cin, H, W]; None where unavailable.

    Sums are the same integers as everywhere; the last multiply-add may be fused (docs/operators.md).
    """
    kernels = _kernels()
    if kernels is None or x.size == 0:
        return None
    return lookup_on(kernels.isas()[-1], x, p, threads=threads_in_use())


def lookup_on(
    isa: str, x: Floats, p: LookupParameters, projection: ProjectParameters | None = None, *, threads: int = 1
) -> Floats:
    """The same on the kernels of one ISA, with a Project in front where there is one; x is not empty."""
    kernels = _kernels()
    encode: dict[str, Any] = {"gain_limit": p.gain_limit, "axis": -1}
    lookup: dict[str, Any] = {
        "gain_limit": p.gain_limit,
        "codebooks": p.codebooks,
        "entries": p.entries,
        "outputs": len(p.scale),
        "layout": "ckn",
        "activation": "none",
    }
    op = "lut_linear"
    if isinstance(p, ConvParameters):
        op, encode["axis"] = "lut_conv", 1
        lookup |= {name: list(getattr(p, name)) for name in ("kernel_shape", "strides", "pads", "dilations")}
        lookup["group"] = p.group
    constants = [p.offset, p.inv_scale, p.groups, p.directions, p.code_bias, p.gain_mul]
    if projection is not None:
        constants += [projection.offset, projection.inv_scale, projection.matrix, projection.mul]
        encode["blocks"] = list(projection.blocks) or list(projection.matrix.shape)
    codes = kernels.Step(isa, "lut_encode", [np.ascontiguousarray(x), *constants], encode, threads=threads).run()
    return kernels.Step(isa, op, [codes, p.table, p.scale, p.bias], lookup, threads=threads).run()
