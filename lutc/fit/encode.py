"""Steps 1 to 4 of docs/operators.md at BLAS speed: the same codes, gains and sums as the reference, batched."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt

from lutc.fit.native import native_lookup
from lutc.fit.parallel import parallel_map
from lutc.ir.parameters import LookupParameters

Floats = npt.NDArray[np.float32]

_CHUNK = 2048
"""Rows encoded at once: the scores of 128 codebooks of 16 entries then fit the last-level cache."""


class Encoder(Protocol):
    """The constants that steps 1 to 3 read: a LookupParameters, or a layer whose table is not fitted yet."""

    @property
    def offset(self) -> Floats: ...  # noqa: D102
    @property
    def inv_scale(self) -> Floats: ...  # noqa: D102
    @property
    def groups(self) -> npt.NDArray[np.int32]: ...  # noqa: D102
    @property
    def directions(self) -> npt.NDArray[np.int8]: ...  # noqa: D102
    @property
    def code_bias(self) -> npt.NDArray[np.int32]: ...  # noqa: D102
    @property
    def gain_mul(self) -> Floats: ...  # noqa: D102
    @property
    def gain_limit(self) -> int: ...  # noqa: D102


def group_rows(x: Floats, groups: npt.NDArray[np.int32]) -> Floats:
    """Sub-vectors [C, V, rows] of rows [rows, D]; empty slots are 0."""
    columns = np.zeros((x.shape[1] + 1, x.shape[0]), np.float32)
    columns[:-1] = x.T
    return columns[groups]


def quantise_rows(x: Floats, offset: Floats, inv_scale: Floats) -> Floats:
    """Step 1, the integers kept as float32; x is finite."""
    q = x - offset
    q *= inv_scale
    np.clip(q, -127, 127, out=q)
    return np.rint(q, out=q)


def _encode_chunk(q: Floats, p: Encoder) -> tuple[npt.NDArray[np.uint8], Floats]:
    # One float32 holds score, entry and sign, so that the best entry is a plain maximum: 64 |s| + 4 (15 - k) + sign
    # stays below 2^24 because |s| <= 16 * 127 * 127 (gain forms end at V = 16). Plain scores need no sign, and their
    # bias no more room.
    entries = p.directions.shape[1]
    unit = 64 if p.gain_limit else 16
    key = np.matmul(p.directions.astype(np.float32) * unit, group_rows(q, p.groups))
    order = unit // 16 * (entries - 1 - np.arange(entries, dtype=np.float32))
    if p.gain_limit:
        key += 1
        np.abs(key, out=key)
        key += (order + 1)[:, None]
        best = key.max(axis=1).astype(np.int32)
        size = (best >> 6).astype(np.float32)
        gains = np.where(best & 3 == 0, -size, size) * p.gain_mul[:, None]
        np.rint(np.clip(gains, -p.gain_limit, p.gain_limit, out=gains), out=gains)
        best >>= 2
    else:
        key += (p.code_bias * 16 + order)[..., None].astype(np.float32)
        best = key.max(axis=1).astype(np.int32)
        gains = np.ones(best.shape, np.float32)
    return (entries - 1 - (best & 15)).astype(np.uint8), gains


def encode_rows(x: Floats, p: Encoder) -> tuple[npt.NDArray[np.uint8], Floats]:
    """Steps 1 to 3.

    Args:
        x: float32 [rows, D], finite.
        p: The layer's constants.

    Returns:
        Codes uint8 [C, rows] and gains float32 [C, rows] (integers).
    """
    codes = np.empty((len(p.groups), len(x)), np.uint8)
    gains = np.empty((len(p.groups), len(x)), np.float32)

    def encode(start: int) -> None:
        part = slice(start, start + _CHUNK)
        codes[:, part], gains[:, part] = _encode_chunk(quantise_rows(x[part], p.offset, p.inv_scale), p)

    parallel_map(encode, range(0, len(x), _CHUNK))
    return codes, gains


def lookup_matrix(codes: npt.NDArray[np.uint8], gains: Floats, entries: int) -> Floats:
    """Gain-weighted one-hot rows float32 [rows, C * K] of codes and gains [C, rows]."""
    codebooks, rows = codes.shape
    matrix = np.zeros((rows, codebooks * entries), np.float32)
    index = codes.T.astype(np.int64)
    index += np.arange(codebooks) * entries
    index += np.arange(rows)[:, None] * (codebooks * entries)
    matrix.reshape(-1)[index.reshape(-1)] = gains.T.reshape(-1)
    return matrix


def lookup_chunks(
    codes: npt.NDArray[np.uint8], gains: Floats, entries: int, *, chunk: int = 4096
) -> Iterator[tuple[slice, Floats]]:
    """`lookup_matrix` by chunks of rows, to bound memory."""
    for start in range(0, codes.shape[1], chunk):
        part = slice(start, start + chunk)
        yield part, lookup_matrix(codes[:, part], gains[:, part], entries)


def decode_rows(
    codes: npt.NDArray[np.uint8], gains: Floats, atoms: Floats, groups: npt.NDArray[np.int32], features: int
) -> Floats:
    """What the codes say of the input: float32 [rows, D], zero where no codebook reads a feature.

    Args:
        codes: uint8 [C, rows].
        gains: float32 [C, rows].
        atoms: Vector of one unit of gain, float32 [C, K, V].
        groups: int32 [C, V]; no feature twice.
        features: D.
    """
    columns = np.zeros((features + 1, codes.shape[1]), np.float32)

    def decode(c: int) -> None:
        used = groups[c] >= 0
        columns[groups[c, used]] = atoms[c][codes[c]].T[used] * gains[c]

    parallel_map(decode, range(len(groups)))
    return np.ascontiguousarray(columns[:-1].T)


def lookup_linear(x: Floats, p: LookupParameters) -> Floats:
    """LutLinear: float32 [..., N] of finite float32 [..., D]."""
    rows = x.reshape(-1, x.shape[-1])
    native = native_lookup(rows, p)
    if native is not None:
        return native.reshape(*x.shape[:-1], -1)
    return lookup_linear_numpy(rows, p).reshape(*x.shape[:-1], p.table.shape[2])


def lookup_linear_numpy(rows: Floats, p: LookupParameters) -> Floats:
    """`lookup_linear` of rows [rows, D] without the runtime."""
    codes, gains = encode_rows(rows, p)
    y = np.empty((len(rows), p.table.shape[2]), np.float32)
    table = p.table.reshape(-1, p.table.shape[2]).astype(np.float32)
    # float32 is exact below 2^24; wider layers sum exact pieces.
    piece = max(1, ((1 << 24) - 1) // (max(p.gain_limit, 1) * 127)) * p.entries
    for part, matrix in lookup_chunks(codes, gains, p.entries):
        if piece >= len(table):
            acc = matrix @ table
        else:
            starts = range(0, len(table), piece)
            acc64 = sum((matrix[:, s : s + piece] @ table[s : s + piece]).astype(np.float64) for s in starts)
            acc = np.asarray(acc64).astype(np.float32)
        acc *= p.scale
        acc += p.bias
        y[part] = acc
    return y
