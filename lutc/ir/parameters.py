"""The constants of one lookup layer, checked against the limits of docs/operators.md."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

INPUTS = (
    "offset",
    "inv_scale",
    "groups",
    "directions",
    "code_bias",
    "gain_mul",
    "table",
    "scale",
    "bias",
)
"""Inputs 1 .. 9 of LutLinear and LutConv, in order."""

_DTYPES = {
    "offset": np.float32,
    "inv_scale": np.float32,
    "groups": np.int32,
    "directions": np.int8,
    "code_bias": np.int32,
    "gain_mul": np.float32,
    "table": np.int8,
    "scale": np.float32,
    "bias": np.float32,
}


def _check_array(name: str, array: npt.NDArray, dtype: npt.DTypeLike) -> None:
    if array.dtype != dtype:
        raise ValueError(f"{name} must be {np.dtype(dtype).name}, not {array.dtype.name}")
    if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
        raise ValueError(f"{name} holds NaN or infinity")


@dataclasses.dataclass(frozen=True)
class LookupParameters:
    """Constants of a LutLinear; the fields are the operator's inputs (shapes in docs/operators.md).

    Attributes:
        offset: float32 [D].
        inv_scale: float32 [D].
        groups: int32 [C, V], -1 in empty slots.
        directions: int8 [C, K, V].
        code_bias: int32 [C, K].
        gain_mul: float32 [C].
        table: int8 [C, K, N].
        scale: float32 [N].
        bias: float32 [N].
        gain_limit: 0 for the plain form, else the largest |gain|.
    """

    offset: npt.NDArray[np.float32]
    inv_scale: npt.NDArray[np.float32]
    groups: npt.NDArray[np.int32]
    directions: npt.NDArray[np.int8]
    code_bias: npt.NDArray[np.int32]
    gain_mul: npt.NDArray[np.float32]
    table: npt.NDArray[np.int8]
    scale: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]
    gain_limit: int

    @property
    def codebooks(self) -> int:
        """C."""
        return int(self.groups.shape[0])

    @property
    def entries(self) -> int:
        """K, the entries per codebook."""
        return int(self.directions.shape[1])

    @property
    def group_sizes(self) -> list[int]:
        """Features read by each codebook."""
        return [int(n) for n in (self.groups >= 0).sum(axis=1)]

    @property
    def nbytes(self) -> int:
        """Bytes of all constants."""
        return sum(int(getattr(self, name).nbytes) for name in INPUTS)

    def arrays(self) -> dict[str, npt.NDArray]:
        """The constants by input name."""
        return {name: getattr(self, name) for name in INPUTS}

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        (features,), (codebooks, width), entries = self.offset.shape, self.groups.shape, self.entries
        outputs = self.table.shape[-1]
        return {
            "inv_scale": (features,),
            "directions": (codebooks, entries, width),
            "code_bias": (codebooks, entries),
            "gain_mul": (codebooks,),
            "table": (codebooks, entries, outputs),
            "scale": (outputs,),
            "bias": (outputs,),
        }

    def _sums(self) -> int:
        """Products that one output adds up."""
        return self.codebooks

    def check(self) -> None:
        """Raise ValueError where a limit of docs/operators.md is broken."""
        for name, dtype in _DTYPES.items():
            _check_array(name, getattr(self, name), dtype)
        for name, shape in self._shapes().items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}, not {shape}")
        if self.entries not in (4, 8, 16):
            raise ValueError(f"{self.entries} entries per codebook; 4, 8 or 16 are possible")
        if not 0 <= self.gain_limit <= 127:
            raise ValueError(f"gain_limit {self.gain_limit} is outside 0 .. 127")
        width = self.groups.shape[1]
        if not 1 <= width <= 32 or self.codebooks < 1:
            raise ValueError(f"groups has shape {self.groups.shape}: 1 .. 32 slots are possible")
        used = self.groups >= 0
        if (self.groups < -1).any() or (self.groups >= self.offset.shape[0]).any():
            raise ValueError("groups holds an index that is no feature")
        if (used[:, 1:] & ~used[:, :-1]).any():
            raise ValueError("groups has an empty slot before a used one")
        if (self.directions.astype(bool) & ~used[:, None, :]).any():
            raise ValueError("directions are not zero in an empty slot")
        if (self.inv_scale < 0).any():
            raise ValueError("inv_scale is negative")
        if (self.table == -128).any():
            raise ValueError("table holds -128")
        reach = np.abs(self.directions.astype(np.int64)).sum(axis=2) * 127
        if (reach + np.abs(self.code_bias.astype(np.int64)) >= 1 << 24).any():
            raise ValueError("a score can reach 2^24")
        if self._sums() * max(self.gain_limit, 1) * 127 >= 1 << 31:
            raise ValueError("a lookup sum can reach 2^31")


@dataclasses.dataclass(frozen=True)
class ConvParameters(LookupParameters):
    """Constants and attributes of a LutConv: `table` is int8 [N, C/group, K, kh, kw].

    Attributes:
        kernel_shape: [kh, kw].
        strides: [stride_h, stride_w].
        pads: [top, left, bottom, right].
        dilations: [dilation_h, dilation_w].
        group: convolution groups.
    """

    kernel_shape: tuple[int, int] = (1, 1)
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilations: tuple[int, int] = (1, 1)
    group: int = 1

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        outputs, entries = self.table.shape[0], self.entries
        shapes = super()._shapes()
        shapes["table"] = (outputs, self.codebooks // self.group, entries, *self.kernel_shape)
        shapes["scale"] = shapes["bias"] = (outputs,)
        return shapes

    def _sums(self) -> int:
        return self.codebooks // self.group * self.kernel_shape[0] * self.kernel_shape[1]

    def check(self) -> None:
        """Raise ValueError where a limit of docs/operators.md is broken."""
        super().check()
        if self.codebooks % self.group or self.offset.shape[0] % self.group:
            raise ValueError(f"{self.codebooks} codebooks do not split into {self.group} groups")
        owner = np.arange(self.codebooks) // (self.codebooks // self.group)
        channels = self.offset.shape[0] // self.group
        if ((self.groups // channels != owner[:, None]) & (self.groups >= 0)).any():
            raise ValueError("a codebook reads channels of another convolution group")
        if any(self.pads) and self.offset.any():
            raise ValueError("offset must be zero where the convolution pads")


@dataclasses.dataclass(frozen=True)
class ProjectParameters:
    """Constants of a Project.

    Attributes:
        offset: float32 [D].
        inv_scale: float32 [D].
        matrix: int8 [D, r].
        mul: float32 [r].
        blocks: [rows0, cols0, rows1, cols1, ...] of a block-diagonal matrix; empty for one block.
    """

    offset: npt.NDArray[np.float32]
    inv_scale: npt.NDArray[np.float32]
    matrix: npt.NDArray[np.int8]
    mul: npt.NDArray[np.float32]
    blocks: tuple[int, ...] = ()

    @property
    def rank(self) -> int:
        """Columns of the matrix, r."""
        return int(self.matrix.shape[1])

    @property
    def nbytes(self) -> int:
        """Bytes of all constants; of a block-diagonal matrix only the blocks."""
        inside = sum(r * c for r, c in zip(self.blocks[::2], self.blocks[1::2], strict=True))
        return self.offset.nbytes + self.inv_scale.nbytes + self.mul.nbytes + (inside or self.matrix.size)

    def arrays(self) -> dict[str, npt.NDArray]:
        """The constants by input name."""
        return {name: getattr(self, name) for name in ("offset", "inv_scale", "matrix", "mul")}

    def check(self) -> None:
        """Raise ValueError where a limit of docs/operators.md is broken."""
        features, rank = self.matrix.shape
        for name, dtype in (("offset", "f4"), ("inv_scale", "f4"), ("matrix", "i1"), ("mul", "f4")):
            _check_array(name, getattr(self, name), np.dtype(dtype))
        if self.offset.shape != (features,) or self.inv_scale.shape != (features,):
            raise ValueError("offset and inv_scale must have one entry per row of the matrix")
        if self.mul.shape != (rank,):
            raise ValueError("mul must have one entry per column of the matrix")
        if features * 127 * 127 >= 1 << 31:
            raise ValueError("a projection sum can reach 2^31")
        if self.blocks:
            inside = np.zeros(self.matrix.shape, bool)
            row = column = 0
            for rows, columns in zip(self.blocks[::2], self.blocks[1::2], strict=True):
                inside[row : row + rows, column : column + columns] = True
                row, column = row + rows, column + columns
            if (row, column) != (features, rank):
                raise ValueError("blocks do not cover the matrix")
            if self.matrix[~inside].any():
                raise ValueError("the matrix is not zero outside its blocks")
