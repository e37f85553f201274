"""Fitting the encode of one layer: input scales, codebooks in the metric of its outputs, gains."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from lutc.fit.codebooks import learn_codebooks
from lutc.fit.encode import encode_rows, group_rows
from lutc.forms import Form

Floats = npt.NDArray[np.float32]

_CLIPS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4)
"""Clipping points tried, as fractions of the largest value seen."""

_SCALING_ROWS = 2048
"""Rows by which clipping points are compared; the largest value is that of all."""

_LEARNING_ROWS = 8192
"""Rows from which codebooks are learned: 512 for each of 16 entries."""


@dataclasses.dataclass(frozen=True)
class FittedEncoder:
    """What a layer's encode reads (docs/operators.md), and what its codes mean.

    Attributes:
        offset: float32 [D].
        inv_scale: float32 [D].
        groups: int32 [C, V].
        directions: int8 [C, K, V].
        code_bias: int32 [C, K].
        gain_mul: float32 [C].
        gain_limit: G.
        atoms: The input that one unit of gain stands for, float32 [C, K, V], after subtraction of the offset.
    """

    offset: Floats
    inv_scale: Floats
    groups: npt.NDArray[np.int32]
    directions: npt.NDArray[np.int8]
    code_bias: npt.NDArray[np.int32]
    gain_mul: Floats
    gain_limit: int
    atoms: Floats

    def constants(self) -> dict[str, npt.NDArray | int]:
        """The fields that LookupParameters shares."""
        names = [field.name for field in dataclasses.fields(self) if field.name != "atoms"]
        return {name: getattr(self, name) for name in names}


def even_groups(features: int, width: int, *, start: int = 0) -> list[npt.NDArray[np.int64]]:
    """Neighbouring features in groups of at most `width`, as equal in size as possible."""
    count = -(-features // width)
    return np.array_split(np.arange(start, start + features), count)


def pad_groups(groups: list[npt.NDArray[np.int64]]) -> npt.NDArray[np.int32]:
    """Groups of different sizes as int32 [C, V] with -1 in the empty slots."""
    padded = np.full((len(groups), max(map(len, groups))), -1, np.int32)
    for row, group in zip(padded, groups, strict=True):
        row[: len(group)] = group
    return padded


def choose_inv_scale(x: Floats, *, levels: int = 127) -> Floats:
    """Multiplier per column that quantises x [rows, D] to +-levels with the least squared error."""
    size = np.abs(x)
    largest = size.max(axis=0)
    size = size[:: max(len(size) // _SCALING_ROWS, 1)]
    best = np.full(x.shape[1], np.inf)
    chosen = largest.copy()
    for fraction in _CLIPS:
        limit = largest * fraction
        over = np.maximum(size - limit, 0)
        error = np.einsum("td,td->d", over, over) + len(size) * (limit / levels) ** 2 / 12
        better = error < best
        best[better], chosen[better] = error[better], limit[better]
    return np.where(chosen > 1e-30, levels / np.maximum(chosen, 1e-30), 0).astype(np.float32)


def metric_factors(metric: npt.NDArray, groups: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
    """Cholesky factor L of each group's block of a metric, float64 [C, V, V]; identity on empty slots.

    Args:
        metric: [D, D], positive semi-definite: an error e costs e^T metric e at the output.
        groups: int32 [C, V].
    """
    empty = groups < 0
    safe = np.where(empty, 0, groups)
    blocks = metric[safe[:, :, None], safe[:, None, :]].astype(np.float64)
    blocks[empty[:, :, None] | empty[:, None, :]] = 0
    diagonal = np.einsum("cvv->cv", blocks)
    # A dead feature (no weight) or a singular block must not stop the factorisation.
    floor = np.maximum(1e-6 * diagonal.max(axis=1, keepdims=True), 1e-30)
    diagonal += floor
    diagonal[empty] = 1
    return np.linalg.cholesky(blocks).astype(np.float64)


def fit_encoder(
    x: Floats,
    metric: npt.NDArray,
    groups: npt.NDArray[np.int32],
    form: Form,
    *,
    offset: Floats,
    seed: int,
    inv_scale: Floats | None = None,
    draft: bool = False,
) -> FittedEncoder:
    """Learn an encode from samples of a layer's input.

    Args:
        x: float32 [rows, D].
        metric: [D, D], what an input error costs at the output.
        groups: int32 [C, V].
        form: Plain or gain-shape, entries, gain limit.
        offset: float32 [D], subtracted before quantisation.
        seed: Of the sampling.
        inv_scale: Quantisation multipliers float32 [D], chosen from x when None.
        draft: Learn the codebooks from one start rather than the better of two.

    Returns:
        The encoder.
    """
    rng = np.random.default_rng(seed)
    if len(x) > _LEARNING_ROWS:
        x = x[np.sort(rng.choice(len(x), _LEARNING_ROWS, replace=False))]
    centred = x - offset
    if inv_scale is None:
        inv_scale = choose_inv_scale(centred)
    factors = metric_factors(metric, groups)
    z = np.matmul(factors.transpose(0, 2, 1).astype(np.float32), group_rows(centred, groups))
    norm = np.sqrt(np.maximum(np.einsum("cvt,cvt->c", z, z) / max(z.shape[2], 1), 1e-30)).astype(np.float32)
    lines, starts = form.gain_limit > 0, 1 if draft else 2
    book = learn_codebooks(z / norm[:, None, None], form.entries, lines=lines, seed=seed, restarts=starts)
    book64 = book.astype(np.float64)
    if form.gain_limit == 0:
        book64 *= norm[:, None, None]

    used = groups >= 0
    step = np.where(inv_scale > 0, 1 / np.maximum(inv_scale, 1e-30), 0).astype(np.float64)
    slot_step = np.where(used, step[groups], 0)
    # score = <L^T step q, entry> = q . (step L entry), then one factor per codebook makes the largest 127.
    encode = np.einsum("cvw,ckw->ckv", factors, book64) * slot_step[:, None, :]
    largest = np.abs(encode).max(axis=(1, 2))
    factor = np.where(largest > 0, 127 / np.maximum(largest, 1e-300), 0)
    directions = np.rint(encode * factor[:, None, None]).astype(np.int8)
    # An entry's atom: the input with L^T atom = entry.
    atoms = np.linalg.solve(factors.transpose(0, 2, 1)[:, None], book64[..., None])[..., 0]
    atoms[~np.broadcast_to(used[:, None], atoms.shape)] = 0

    code_bias = np.zeros(book.shape[:2], np.int32)
    gain_mul = np.ones(len(groups), np.float32)
    if form.gain_limit == 0:
        half = (book64**2).sum(axis=2) / 2 * factor[:, None]
        limit = 127 * 127 * groups.shape[1] // 2
        code_bias = -np.rint(np.clip(half, -limit, limit)).astype(np.int32)
    encoder = FittedEncoder(
        offset=offset.astype(np.float32),
        inv_scale=inv_scale,
        groups=groups,
        directions=directions,
        code_bias=code_bias,
        gain_mul=gain_mul,
        gain_limit=form.gain_limit,
        atoms=atoms.astype(np.float32),
    )
    return _with_gains(encoder, x, atoms.astype(np.float64), factor) if form.gain_limit else encoder


def _with_gains(
    encoder: FittedEncoder, x: Floats, atoms: npt.NDArray[np.float64], factor: npt.NDArray[np.float64]
) -> FittedEncoder:
    """Choose each codebook's gain step by the squared error of clipping and rounding."""
    # With a multiplier of 1 / 2^18 and a limit of 1 the raw scores would be rounded away: read them unrounded.
    raw = np.abs(_raw_scores(encoder, x))
    largest = raw.max(axis=1)
    best = np.full(len(raw), np.inf)
    chosen = np.maximum(largest, 1e-12)
    for fraction in _CLIPS:
        limit = largest * fraction
        over = np.maximum(raw - limit[:, None], 0)
        error = np.einsum("ct,ct->c", over, over) + raw.shape[1] * (limit / encoder.gain_limit) ** 2 / 12
        better = (error < best) & (limit > 0)
        best[better], chosen[better] = error[better], limit[better]
    gain_mul = np.where(largest > 0, encoder.gain_limit / chosen, 0).astype(np.float32)
    # One unit of gain is 1 / gain_mul of score, which is 1 / (gain_mul factor) along the direction.
    unit = np.where((gain_mul > 0) & (factor > 0), 1 / np.maximum(gain_mul * factor, 1e-300), 0)
    scaled = (atoms * unit[:, None, None]).astype(np.float32)
    return dataclasses.replace(encoder, gain_mul=gain_mul, atoms=scaled)


def _raw_scores(encoder: FittedEncoder, x: Floats) -> Floats:
    """The winning score of every codebook, float32 [C, rows]: what the gain is made from."""
    # Powers of two scale exactly: 16 bits of score fit a limit of 127 only after rounding, so widen the limit.
    wide = dataclasses.replace(encoder, gain_mul=np.ones(len(encoder.groups), np.float32), gain_limit=1 << 20)
    return encode_rows(x, wide)[1]
