"""Lookup layers as modules: a dense operator that reads decoded inputs, and integer dense layers, simulated."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lutc.fit.linear import Factors
from lutc.ir.parameters import ConvParameters, LookupParameters, ProjectParameters
from lutc.learn import native
from lutc.learn.encode import (
    THROUGH,
    Grouping,
    best_entries,
    by_entry,
    gain_planes,
    gain_shape,
    quantise,
    round_straight,
    soft_plain,
    soft_planes,
)

_DIRECTIONS = 0.1
"""Rate of the gain form's directions beside all others': a step of theirs makes codes jump."""


class LookupLayer(nn.Module):
    """LutLinear or LutConv with trainable entries: y = original operator(decoded x, weight) + bias.

    Args:
        parameters: The fitted layer's.
        factors: Its atoms and tied weight.
        free: Whether the table's entries are learned one by one. They then stand in place of the weight, and the
            decoded input is the gain-weighted one-hot: K / V times the work.

    Attributes:
        directions: float32 [C, K, V], int8 when rounded.
        code_bias: float32 [C, K], integers when rounded; None in the gain form.
        atoms: float32 [C, K, V]; None where tables are free.
        weight: float32 [D, N] or [N, Cin / group, kh, kw]; a free table [C * K, N] or [N, C / group * K, kh, kw].
        bias: float32 [N]; holds the offset's contribution.
        products: Element type of the product with the weight.
        theta: Sharpness of the soft choice before its softplus; None in the gain form.
    """

    offset: Tensor
    inv_scale: Tensor
    gain_mul: Tensor
    step: Tensor
    unit: Tensor

    def __init__(self, parameters: LookupParameters, factors: Factors, *, free: bool = False) -> None:
        super().__init__()
        self.free = free
        self.gain_limit = parameters.gain_limit
        self.conv = parameters if isinstance(parameters, ConvParameters) else None
        features = len(parameters.offset)
        self.grouping = Grouping(torch.from_numpy(parameters.groups.astype("int64")), features)
        for name in ("offset", "inv_scale", "gain_mul"):
            self.register_buffer(name, torch.from_numpy(getattr(parameters, name).copy()), persistent=False)
        self._groups = np.ascontiguousarray(parameters.groups, np.int32)
        step = np.divide(1, parameters.inv_scale, where=parameters.inv_scale > 0, out=np.zeros(features, np.float32))
        self.register_buffer("step", torch.from_numpy(step[self._groups][..., None]), persistent=False)
        self.directions = nn.Parameter(torch.from_numpy(parameters.directions.astype("float32")))
        self.atoms = None if free else nn.Parameter(torch.from_numpy(factors.atoms.astype("float32")))
        weight = free_weight(parameters) if free else factors.weight.astype("float32")
        self.weight = nn.Parameter(torch.from_numpy(weight))
        self.bias = nn.Parameter(torch.from_numpy(parameters.bias.copy()))
        self.code_bias: nn.Parameter | None = None
        self.theta: nn.Parameter | None = None
        self.absolute_rates: dict[str, float] = {"theta": 0.02}
        self.relative_rates: dict[str, float] = {"directions": _DIRECTIONS} if self.gain_limit else {}
        self.count: Tensor | None = None
        self.products = torch.float32
        if self.gain_limit == 0:
            self.code_bias = nn.Parameter(torch.from_numpy(parameters.code_bias.astype("float32")))
            # Scores in units of their spread, which is that of half the squared length of the entries.
            spread = self.code_bias.detach().abs().mean(dim=1).clamp_min(1.0)
            self.register_buffer("unit", 1 / spread, persistent=False)
            self.theta = nn.Parameter(torch.tensor(_softplus_inverse(8.0)))

    def decode(self, x: Tensor) -> Tensor:
        """What the codes say of x [B, D, P], in the same shape, or [B, C * K, P] where tables are free."""
        if self.gain_limit and self.atoms is not None and self.count is None and native.supported(x, self.directions):
            how = (self.offset, self.inv_scale, self._groups, self.directions, self.gain_mul, self.atoms)
            return native.decoded(x, *how, self.gain_limit, THROUGH)
        q = quantise(x, self.offset[:, None], self.inv_scale[:, None])
        q = self.grouping.split(q)
        if self.count is not None:
            self._observe(q)
        if self.gain_limit:
            if self.atoms is None:
                return gain_planes(q, self.directions, self.gain_mul, self.gain_limit).flatten(1, 2)
            shape = (self.directions, self.gain_mul, self.atoms, self.gain_limit, self.step)
            return self.grouping.join(gain_shape(q, *shape))
        assert self.theta is not None and self.code_bias is not None
        choice = (q, self.directions, self.code_bias, F.softplus(self.theta), self.unit)
        if self.atoms is None:
            return soft_planes(*choice).flatten(1, 2)
        return self.grouping.join(soft_plain(*choice, self.atoms)[0])

    def _observe(self, q: Tensor) -> None:
        """Adds to `count` [3, C, K]: gains, squared gains and positions of every entry."""
        assert self.count is not None
        directions = self.directions.round().clamp(-127, 127)
        codes, score = best_entries(q, directions, None if self.code_bias is None else self.code_bias.round())
        gains = torch.ones_like(score)
        if self.gain_limit:
            gains = (score * self.gain_mul[:, None]).clamp(-self.gain_limit, self.gain_limit).round()
        columns = torch.stack([gains, gains.square(), torch.ones_like(gains)], dim=2)
        self.count += by_entry(columns, codes, directions.shape[1]).permute(2, 0, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Float32 [..., N] of [..., D], or [B, N, H', W'] of [B, Cin, H, W]."""
        if self.conv is None:
            decoded = self.decode(x.reshape(-1, x.shape[-1]).T[None])
            y = (decoded[0].T.to(self.products) @ self.weight.to(self.products)).float() + self.bias
            return y.reshape(*x.shape[:-1], -1)
        batch, channels, height, width = x.shape
        decoded = self.decode(x.reshape(batch, channels, height * width)).reshape(batch, -1, height, width)
        y = convolve(decoded.to(self.products), self.weight.to(self.products), self.conv)
        return y.float() + self.bias[:, None, None]


def free_weight(parameters: LookupParameters) -> npt.NDArray[np.float32]:
    """A table as a weight that one-hot inputs read: float32 [C * K, N] or [N, C / group * K, kh, kw]."""
    table = parameters.table.astype(np.float32)
    if isinstance(parameters, ConvParameters):
        scaled = table * parameters.scale[:, None, None, None, None]
        return scaled.reshape(len(scaled), -1, *parameters.kernel_shape)
    return (table * parameters.scale).reshape(-1, table.shape[-1])


def fast_products(device: torch.device) -> torch.dtype:
    """The element type in which products are fastest on a device; sums are float32 in any case."""
    if device.type == "cuda":
        return torch.bfloat16
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return torch.bfloat16 if supported is not None and supported() else torch.float32


def convolve(x: Tensor, weight: Tensor, geometry: Any) -> Tensor:
    """A 2-D convolution with ONNX's pads [top, left, bottom, right]."""
    top, left, bottom, right = geometry.pads
    if top == bottom and left == right:
        padding = (top, left)
    else:
        x, padding = F.pad(x, (left, right, top, bottom)), (0, 0)
    return F.conv2d(x, weight, None, tuple(geometry.strides), padding, tuple(geometry.dilations), geometry.group)


def _softplus_inverse(value: float) -> float:
    return math.log(math.expm1(value))


class ProjectLayer(nn.Module):
    """Project, fixed: gradients pass its rounding."""

    offset: Tensor
    inv_scale: Tensor
    matrix: Tensor

    def __init__(self, parameters: ProjectParameters) -> None:
        super().__init__()
        for name in ("offset", "inv_scale"):
            self.register_buffer(name, torch.from_numpy(getattr(parameters, name).copy()), persistent=False)
        matrix = torch.from_numpy(parameters.matrix.astype("float32") * parameters.mul)
        self.register_buffer("matrix", matrix, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Float32 [..., r] of [..., D]."""
        return quantise(x, self.offset, self.inv_scale) @ self.matrix


def fake_quantise(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    """X rounded to int8 by its largest magnitude over `dims` (docs/operators.md, Int8Linear)."""
    largest = x.detach().abs().amax(dim=dims, keepdim=True)
    inverse = torch.where(largest == 0, torch.zeros_like(largest), 127 / largest)
    return round_straight((x * inverse).clamp(-127, 127)) * (largest / 127)
