"""The gain form's encode and decode by the runtime's own loops, on the CPU: twenty passes over memory in one."""

from __future__ import annotations

import importlib
from functools import lru_cache
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_WIDTH, _ENTRIES = 16, 16


@lru_cache(maxsize=1)
def _codec() -> Any:
    try:
        return getattr(importlib.import_module("lutc._runtime"), "GainCodes", None)
    except ImportError:
        return None


def supported(x: Tensor, directions: Tensor) -> bool:
    """Whether the runtime is there and takes inputs x of a layer with directions [C, K, V]."""
    _, entries, width = directions.shape
    here = x.device.type == "cpu" and x.dtype == torch.float32
    return here and entries <= _ENTRIES and width <= _WIDTH and _codec() is not None


class _Decoded(torch.autograd.Function):
    """`quantise`, `Grouping` and `gain_shape` in one; the codec holds the constants, directions rounded."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, directions: Tensor, gain_mul: Tensor, atoms: Tensor, codec: Any) -> Tensor:
        x, atoms = x.detach(), atoms.detach().contiguous()
        codes = torch.empty(x.shape[0], len(directions), x.shape[2], dtype=torch.uint8)
        scores = torch.empty(codes.shape)
        codec.encode(x.numpy(), codes.numpy(), scores.numpy())
        y = torch.zeros_like(x) if codec.shared else torch.empty_like(x)
        codec.decode(atoms.numpy(), codes.numpy(), scores.numpy(), y.numpy())
        ctx.save_for_backward(x, codes, scores, atoms)
        ctx.codec = codec
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        x, codes, scores, atoms = ctx.saved_tensors
        d_x = torch.zeros_like(x) if ctx.codec.shared else torch.empty_like(x)
        d_directions, d_atoms, d_mul = torch.empty_like(atoms), torch.empty_like(atoms), torch.empty(len(atoms))
        given = (x, atoms, codes, scores, grads[0])
        ctx.codec.backward(*(tensor.numpy() for tensor in (*given, d_x, d_directions, d_atoms, d_mul)))
        return d_x, d_directions, d_mul, d_atoms, None


def decoded(
    x: Tensor,
    offset: Tensor,
    inv_scale: Tensor,
    groups: npt.NDArray[Any],
    directions: Tensor,
    gain_mul: Tensor,
    atoms: Tensor,
    limit: int,
    through: float,
) -> Tensor:
    """What gain-shape codes say of x.

    Args:
        x: float32 [B, D, P], any strides.
        offset: [D].
        inv_scale: [D].
        groups: int32 [C, V], -1 in empty slots.
        directions: [C, K, V]; rounded to int8 inside.
        gain_mul: [C].
        atoms: Input of one unit of gain, [C, K, V].
        limit: G.
        through: Share of the input's gradient that passes as if nothing had been encoded.

    Returns:
        [B, D, P].
    """
    integers = directions.detach().round().clamp(-127, 127)
    constants = (t.detach().numpy() for t in (offset, inv_scale, integers, gain_mul))
    codec = _codec()(groups, *constants, float(limit), through)
    return _Decoded.apply(x, directions, gain_mul, atoms, codec)  # type: ignore[no-untyped-call]
