"""LUT-NN's layer: centroids that encode and decode, soft-PQ, tables rounded with one scale in every forward pass."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lutc.fit.linear import Factors
from lutc.fit.lutnn import lutnn_layer
from lutc.ir.parameters import ConvParameters, LookupParameters
from lutc.learn.encode import Grouping
from lutc.learn.layers import convolve

CONV_RATE, LINEAR_RATE, TEMPERATURE_RATE = 1e-3, 1e-4, 0.1
"""Adam's rates: of convolutional networks, of transformers, of temperatures."""

_CONV_THETA, _LINEAR_THETA = 14.3846, 10.0  # 1/t = softplus(theta) + 1: t = .065 and .091


class _SoftLookup(torch.autograd.Function):
    """Forward: one-hot choices and the rounded table. Backward: softmax weights and the float table."""

    @staticmethod
    def forward(ctx: Any, hard: Tensor, soft: Tensor, rounded: Tensor, table: Tensor, geometry: Any) -> Tensor:
        ctx.save_for_backward(soft, table)
        ctx.geometry = geometry
        return hard @ rounded if geometry is None else convolve(hard, rounded, geometry)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        soft, table = ctx.saved_tensors
        if ctx.geometry is None:
            return None, grads[0] @ table.T, None, soft.T @ grads[0], None
        with torch.enable_grad():
            soft, table = soft.detach().requires_grad_(), table.detach().requires_grad_()
            d_soft, d_table = torch.autograd.grad(convolve(soft, table, ctx.geometry), (soft, table), grads[0])
        return None, d_soft, None, d_table, None


class LutnnLayer(nn.Module):
    """One layer; attributes as of `lutc.learn.layers.LookupLayer`, but atoms are the centroids of the encode, too.

    Args:
        parameters: As `lutc.fit.lutnn` initialised the layer.
        factors: Centroids and weight.
    """

    def __init__(self, parameters: LookupParameters, factors: Factors) -> None:
        super().__init__()
        self.conv = parameters if isinstance(parameters, ConvParameters) else None
        self.parameters_before = parameters
        self.grouping = Grouping(torch.from_numpy(parameters.groups.astype("int64")), len(parameters.offset))
        self.atoms = nn.Parameter(torch.from_numpy(factors.atoms.astype("float32")))
        self.weight = nn.Parameter(torch.from_numpy(factors.weight.astype("float32")))
        self.bias = nn.Parameter(torch.from_numpy(parameters.bias.copy()))
        self.theta = nn.Parameter(torch.tensor(_LINEAR_THETA if self.conv is None else _CONV_THETA))
        rate = LINEAR_RATE if self.conv is None else CONV_RATE
        self.absolute_rates = {"atoms": rate, "weight": rate, "bias": rate, "theta": TEMPERATURE_RATE}
        self.relative_rates: dict[str, float] = {}
        self.products = torch.float32

    def table(self) -> Tensor:
        """Centroids times weight: [C * K, N], or [N, C / group * K, kh, kw] of a convolution."""
        codebooks, entries, width = self.atoms.shape
        groups = self.grouping.groups.reshape(codebooks, width)
        if self.conv is None:
            rows = torch.cat([self.weight, self.weight.new_zeros(1, self.weight.shape[1])])
            return torch.matmul(self.atoms, rows[groups]).flatten(0, 1)
        group, (outputs, channels) = self.conv.group, self.weight.shape[:2]
        split = self.weight.reshape(group, outputs // group, channels, -1).transpose(1, 2).reshape(group * channels, -1)
        rows = torch.cat([split, split.new_zeros(1, split.shape[1])])
        product = torch.matmul(self.atoms, rows[groups])  # [C, K, N / group * taps]
        by_group = product.reshape(group, codebooks // group * entries, outputs // group, -1).transpose(1, 2)
        return by_group.reshape(outputs, codebooks // group * entries, *self.conv.kernel_shape)

    def forward(self, x: Tensor) -> Tensor:
        """Float32 [..., N] of [..., D], or [B, N, H', W'] of [B, Cin, H, W]."""
        rows = x.reshape(-1, x.shape[-1]).T[None] if self.conv is None else x.flatten(2)
        parts = self.grouping.split(rows)
        codebooks, entries, _ = self.atoms.shape
        square = (self.atoms * self.atoms).sum(dim=2)[..., None] - 2 * torch.matmul(self.atoms, parts)
        distance = (square + (parts * parts).sum(dim=2, keepdim=True)).clamp_min(1e-12).sqrt()
        soft = torch.softmax(distance * -(F.softplus(self.theta) + 1), dim=2)
        with torch.no_grad():
            nearest = distance.amin(dim=2, keepdim=True)
            hard = torch.zeros_like(distance)
            # The first of equals: its rank in a running count is one.
            equal = (distance <= nearest).to(torch.int8)
            hard.copy_(equal * (equal.cumsum(dim=2) == 1))
        table = self.table()
        scale = table.detach().abs().amax().clamp_min(1e-30) / 127
        rounded = (table.detach() / scale).round() * scale
        linear = self.conv is None
        shape = (codebooks * entries, -1) if linear else (len(x), codebooks * entries, *x.shape[2:])
        planes = [p.reshape(shape).T if linear else p.reshape(shape) for p in (hard, soft)]
        operands = [p.to(self.products) for p in (*planes, rounded, table)]
        y = _SoftLookup.apply(*operands, self.conv).float()  # type: ignore[no-untyped-call]
        if linear:
            return (y + self.bias).reshape(*x.shape[:-1], -1)
        return y + self.bias[:, None, None]

    def exported(self) -> tuple[LookupParameters, Factors]:
        """The layer's constants and factors, rounded."""
        before = self.parameters_before
        atoms, weight, bias = (
            p.detach().cpu().numpy().astype(np.float32) for p in (self.atoms, self.weight, self.bias)
        )
        atoms = atoms * (before.groups >= 0)[:, None, :]
        names = ("kernel_shape", "strides", "pads", "dilations", "group")
        geometry = None if self.conv is None else {name: getattr(self.conv, name) for name in names}
        after = lutnn_layer(atoms, weight, bias, before.groups, before.offset, before.inv_scale, geometry)
        after.check()
        return after, Factors(atoms, weight, exact=True)
