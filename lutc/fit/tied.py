"""Tables tied to their atoms: the product of what an entry stands for and the layer's weight."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


def tied_table(atoms: Floats, weight: Floats, groups: npt.NDArray[np.int32], group: int = 1) -> Floats:
    """The table in real numbers, output per unit of gain.

    Args:
        atoms: float32 [C, K, V].
        weight: float32 [D, N], or of a convolution [N, Cin / group, kh, kw].
        groups: int32 [C, V], -1 in empty slots.
        group: Convolution groups.

    Returns:
        float32 [C, K, N], or of a convolution [C, K, N / group, kh, kw].
    """
    used = groups >= 0
    safe = np.where(used, groups, 0)
    atoms = atoms * used[:, None, :]
    if weight.ndim == 2:
        return np.matmul(atoms, weight[safe])
    outputs, channels = weight.shape[:2]
    split = weight.reshape(group, outputs // group, channels, *weight.shape[2:])
    owner = np.arange(len(groups)) // (len(groups) // group)
    chosen = split[owner[:, None], :, safe % channels]  # [C, V, N / group, kh, kw]
    product = np.matmul(atoms, chosen.reshape(*groups.shape, -1))
    return product.reshape(*atoms.shape[:2], *chosen.shape[2:])


def by_taps(table: npt.NDArray, group: int = 1) -> npt.NDArray:
    """[group, taps, C / group * K, N / group] of a `tied_table`."""
    codebooks, entries, outputs = table.shape[:3]
    split = table.reshape(group, codebooks // group * entries, outputs, -1)
    return np.ascontiguousarray(split.transpose(0, 3, 1, 2))


def as_constant(table: npt.NDArray, entries: int, kernel: tuple[int, ...] | None = None) -> npt.NDArray:
    """The table input of a LutLinear [C, K, N], or with a kernel shape of a LutConv [N, C / group, K, kh, kw].

    Args:
        table: [group, taps, C / group * K, N / group].
        entries: K.
        kernel: [kh, kw] of a convolution.
    """
    if kernel is None:
        return table.reshape(-1, entries, table.shape[3])
    group, _, rows, outputs = table.shape
    return np.ascontiguousarray(table.transpose(0, 3, 2, 1)).reshape(group * outputs, rows // entries, entries, *kernel)
