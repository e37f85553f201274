"""The encode of docs/operators.md in PyTorch: the same codes and gains, batched over codebooks, with gradients.

Sub-vectors are float32 [B, C, V, P]: B images (1 for rows), P positions each. Nothing here loops over codebooks.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

THROUGH = 0.3
"""Share of the gradient that passes a gain-shape layer to its input as if nothing had been encoded. The exact gradient
knows the chosen direction only; it misses that other inputs would choose other directions."""


class _RoundStraight(torch.autograd.Function):
    """Rounds; gradients pass as if it had not."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0]


def round_straight(x: Tensor) -> Tensor:
    """Round to nearest, ties to even; the gradient is that of the identity."""
    return _RoundStraight.apply(x)  # type: ignore[no-untyped-call]


class _Quantise(torch.autograd.Function):
    """Step 1; gradients pass the rounding, not the clipping."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, offset: Tensor, inv_scale: Tensor) -> Tensor:
        q = (x - offset).mul_(inv_scale)
        ctx.save_for_backward(q.abs() <= 127, inv_scale)
        return q.clamp_(-127, 127).round_()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        inside, inv_scale = ctx.saved_tensors
        return (grads[0] * inv_scale).mul_(inside), None, None


def quantise(x: Tensor, offset: Tensor, inv_scale: Tensor) -> Tensor:
    """Step 1, the integers kept as float32; no gradient where it clips."""
    return _Quantise.apply(x, offset, inv_scale)  # type: ignore[no-untyped-call]


def best_entries(q: Tensor, directions: Tensor, code_bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """Steps 2 and 3: the winning entry and its score.

    One float32 holds score, entry and sign, so that the best entry is a plain maximum (as in lutc.fit.encode):
    64 |s| + 4 (15 - k) + sign stays below 2^24 in the gain form, 16 s + (15 - k) in the plain form.

    Args:
        q: Integers [B, C, V, P].
        directions: Integers [C, K, V].
        code_bias: Integers [C, K] of the plain form; None for the gain form.

    Returns:
        Codes int64 [B, C, P] and scores float32 [B, C, P].
    """
    entries = directions.shape[1]
    order = entries - 1 - torch.arange(entries, device=q.device, dtype=torch.float32)[:, None]
    if code_bias is None:
        key = torch.matmul(directions * 64, q)
        key += 1
        key.abs_()
        key += order * 4 + 1
        best = key.amax(dim=2).to(torch.int32)
        size = (best >> 6).float()
        score = torch.where(best & 3 == 0, -size, size)
        best = best >> 2
    else:
        key = torch.matmul(directions * 16, q)
        key += code_bias[..., None] * 16 + order
        best = key.amax(dim=2).to(torch.int32)
        score = (best >> 4).float()
    return (entries - 1 - (best & 15)).long(), score


def pick(entries: Tensor, codes: Tensor) -> Tensor:
    """Vectors [B, C, V, P] of the entries [C, K, V] that codes [B, C, P] name."""
    batch, codebooks, positions = codes.shape
    width = entries.shape[2]
    table = entries.transpose(1, 2).expand(batch, codebooks, width, entries.shape[1])
    return torch.gather(table, 3, codes[:, :, None].expand(batch, codebooks, width, positions))


def by_entry(values: Tensor, codes: Tensor, entries: int) -> Tensor:
    """Sums over positions, entry by entry: [C, K, V] of values [B, C, V, P] and codes [B, C, P]."""
    _, codebooks, width, _ = values.shape
    first = torch.arange(codebooks * width, device=codes.device).reshape(1, codebooks, width, 1) * entries
    index = (codes[:, :, None] + first).reshape(-1)
    total = torch.zeros(codebooks * width * entries, device=values.device, dtype=values.dtype)
    total.scatter_add_(0, index, values.reshape(-1))
    return total.reshape(codebooks, width, entries).transpose(1, 2)


class _GainShape(torch.autograd.Function):
    """Decoded sub-vectors of the gain form. Gradients of the gain are exact but for its rounding."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, directions: Tensor, gain_mul: Tensor, atoms: Tensor, limit: int, step: Tensor | None
    ) -> Tensor:
        integers = directions.round().clamp(-127, 127)
        codes, score = best_entries(q, integers, None)
        raw = score * gain_mul[:, None]
        gains = raw.clamp(-limit, limit).round_()
        ctx.save_for_backward(q, integers, gain_mul, atoms, codes, gains, score, raw.abs() <= limit, step)
        return pick(atoms, codes).mul_(gains[:, :, None])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (g,) = grads
        q, directions, gain_mul, atoms, codes, gains, score, free, step = ctx.saved_tensors
        entries = directions.shape[1]
        d_atoms = by_entry(g * gains[:, :, None], codes, entries) if ctx.needs_input_grad[3] else None
        d_gain = (g * pick(atoms, codes)).sum(dim=2).mul_(free)
        d_mul = (d_gain * score).sum(dim=(0, 2)) if ctx.needs_input_grad[2] else None
        d_score = d_gain.mul_(gain_mul[:, None])[:, :, None]
        d_directions = by_entry(q * d_score, codes, entries) if ctx.needs_input_grad[1] else None
        d_q = None
        if ctx.needs_input_grad[0]:
            d_q = pick(directions, codes).mul_(d_score)
            if step is not None:
                d_q.mul_(1 - THROUGH).add_(g * (step * THROUGH))
        return d_q, d_directions, d_mul, d_atoms, None, None


def gain_shape(
    q: Tensor, directions: Tensor, gain_mul: Tensor, atoms: Tensor, limit: int, step: Tensor | None = None
) -> Tensor:
    """What gain-shape codes say of the input.

    Args:
        q: Quantised sub-vectors [B, C, V, P].
        directions: [C, K, V]; rounded to int8 inside.
        gain_mul: [C].
        atoms: Input of one unit of gain, [C, K, V].
        limit: G.
        step: Input of one unit of q, [C, V, 1], where `THROUGH` of q's gradient is the output's; None: it is exact.

    Returns:
        [B, C, V, P].
    """
    return _GainShape.apply(q, directions, gain_mul, atoms, limit, step)  # type: ignore[no-untyped-call]


class _SoftPlain(torch.autograd.Function):
    """Hard choice of an entry; gradients as if it were a softmax over the scores (soft-PQ)."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, directions: Tensor, code_bias: Tensor, sharpness: Tensor, unit: Tensor, atoms: Tensor
    ) -> tuple[Tensor, Tensor]:
        integers, bias = directions.round().clamp(-127, 127), code_bias.round()
        codes, _ = best_entries(q, integers, bias)
        weights = _logits(q, integers, bias, unit)
        ctx.save_for_backward(q, integers, bias, sharpness, unit, atoms)
        soft = torch.matmul(atoms.transpose(1, 2), torch.softmax(weights * sharpness, dim=2))
        ctx.mark_non_differentiable(soft)
        return pick(atoms, codes), soft

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        g = grads[0]
        q, directions, bias, sharpness, unit, atoms = ctx.saved_tensors
        p = torch.softmax(_logits(q, directions, bias, unit) * sharpness, dim=2)
        d_atoms = torch.matmul(p, g.transpose(2, 3)).sum(dim=0)
        d_p = torch.matmul(atoms, g)
        return (*_soft_gradients(d_p, q, directions, bias, sharpness, unit), None, d_atoms)


def soft_plain(
    q: Tensor, directions: Tensor, code_bias: Tensor, sharpness: Tensor, unit: Tensor, atoms: Tensor
) -> tuple[Tensor, Tensor]:
    """What plain codes say of the input.

    Args:
        q: Quantised sub-vectors [B, C, V, P].
        directions: [C, K, V]; rounded to int8 inside.
        code_bias: [C, K]; rounded to integers inside.
        sharpness: Reciprocal temperature, one number.
        unit: What one unit of score is worth, [C].
        atoms: Input that each entry stands for, [C, K, V].

    Returns:
        The hard choice [B, C, V, P], whose gradients are the soft one's, and the soft one itself (no gradient).
    """
    return _SoftPlain.apply(q, directions, code_bias, sharpness, unit, atoms)  # type: ignore[no-untyped-call]


class _GainPlanes(torch.autograd.Function):
    """Gains in the planes of their entries, zero elsewhere: what free tables read in the gain form."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, directions: Tensor, gain_mul: Tensor, limit: int) -> Tensor:
        integers = directions.round().clamp(-127, 127)
        codes, score = best_entries(q, integers, None)
        raw = score * gain_mul[:, None]
        ctx.save_for_backward(q, integers, gain_mul, codes, raw.abs() <= limit)
        batch, codebooks, _, positions = q.shape
        planes = q.new_zeros(batch, codebooks, directions.shape[1], positions)
        return planes.scatter_(2, codes[:, :, None], raw.clamp(-limit, limit).round_()[:, :, None])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, directions, gain_mul, codes, free = ctx.saved_tensors
        d_gain = torch.gather(grads[0], 2, codes[:, :, None])
        d_score = d_gain.mul_((free * gain_mul[:, None])[:, :, None])
        d_directions = by_entry(q * d_score, codes, directions.shape[1])
        return pick(directions, codes).mul_(d_score), d_directions, None, None


def gain_planes(q: Tensor, directions: Tensor, gain_mul: Tensor, limit: int) -> Tensor:
    """Gains [B, C, K, P] of sub-vectors, each in the plane of its entry; arguments as `gain_shape`."""
    return _GainPlanes.apply(q, directions, gain_mul, limit)  # type: ignore[no-untyped-call]


class _SoftPlanes(torch.autograd.Function):
    """One-hot choices; gradients as if they were a softmax over the scores (soft-PQ)."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, directions: Tensor, code_bias: Tensor, sharpness: Tensor, unit: Tensor) -> Tensor:
        integers, bias = directions.round().clamp(-127, 127), code_bias.round()
        codes, _ = best_entries(q, integers, bias)
        ctx.save_for_backward(q, integers, bias, sharpness, unit)
        batch, codebooks, _, positions = q.shape
        planes = q.new_zeros(batch, codebooks, directions.shape[1], positions)
        return planes.scatter_(2, codes[:, :, None], 1.0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, directions, bias, sharpness, unit = ctx.saved_tensors
        return (*_soft_gradients(grads[0], q, directions, bias, sharpness, unit), None)


def soft_planes(q: Tensor, directions: Tensor, code_bias: Tensor, sharpness: Tensor, unit: Tensor) -> Tensor:
    """One-hot choices [B, C, K, P] of sub-vectors; arguments as `soft_plain`."""
    return _SoftPlanes.apply(q, directions, code_bias, sharpness, unit)  # type: ignore[no-untyped-call]


def _logits(q: Tensor, directions: Tensor, bias: Tensor, unit: Tensor) -> Tensor:
    """Scores in the unit of each codebook, [B, C, K, P]."""
    scores = torch.matmul(directions, q)
    scores += bias[..., None]
    scores *= unit[:, None, None]
    return scores


def _soft_gradients(
    d_p: Tensor, q: Tensor, directions: Tensor, bias: Tensor, sharpness: Tensor, unit: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, directions, bias and sharpness, from that of the softmax' weights [B, C, K, P]."""
    logits = _logits(q, directions, bias, unit)
    p = torch.softmax(logits * sharpness, dim=2)
    d_logits = (d_p - (d_p * p).sum(dim=2, keepdim=True)).mul_(p)  # of logits * sharpness
    d_sharpness = (d_logits * logits).sum()
    d_score = d_logits.mul_(unit[:, None, None] * sharpness)
    d_directions = torch.matmul(d_score, q.transpose(2, 3)).sum(dim=0)
    return torch.matmul(directions.transpose(1, 2), d_score), d_directions, d_score.sum(dim=(0, 3)), d_sharpness


class Grouping(torch.nn.Module):
    """Features into sub-vectors and back.

    Args:
        groups: int64 [C, V], -1 in empty slots.
        features: D.
    """

    groups: Tensor

    def __init__(self, groups: Tensor, features: int) -> None:
        super().__init__()
        self.features = features
        self.shape = tuple(groups.shape)
        flat = groups.reshape(-1)
        self.plain = flat.numel() == features and bool((flat == torch.arange(features)).all())
        self.register_buffer("groups", torch.where(flat < 0, features, flat), persistent=False)

    def split(self, x: Tensor) -> Tensor:
        """[B, C, V, P] of [B, D, P]; empty slots are 0."""
        batch, _, positions = x.shape
        if not self.plain:
            x = torch.cat([x, x.new_zeros(batch, 1, positions)], dim=1).index_select(1, self.groups)
        return x.reshape(batch, *self.shape, positions)

    def join(self, parts: Tensor) -> Tensor:
        """[B, D, P] of [B, C, V, P]: the sum where codebooks share a feature, 0 where none reads it."""
        batch, positions = parts.shape[0], parts.shape[3]
        flat = parts.reshape(batch, -1, positions)
        if self.plain:
            return flat
        whole = flat.new_zeros(batch, self.features + 1, positions).index_add(1, self.groups, flat)
        return whole[:, : self.features]
